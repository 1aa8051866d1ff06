//! What answers the model before it is done: tools, or an environment in another program or on a
//! server.

use std::str::FromStr;

use clap::{Args, ValueEnum};
use rlvr::Result;
use rlvr::environment::process::{ProcessEnvironment, Program};
use rlvr::environment::tools::{Calculator, PythonConfig, PythonTool, ReplyParser, ToolSet};
use rlvr::environment::{AgentLoop, AgentLoopConfig, EpisodeReward, ToolEnvironment};
use rlvr::prompt::Tokenizer;
use rlvr::prompt::hf::{ChatTokenizer, Exchange, History};
use rlvr::reward::{FormatReward, MathReward, RewardSet};
use rlvr::types::Message;

/// Tools and environments.
#[derive(Args, Debug)]
pub struct EnvironmentArgs {
    /// Tools that the model may call before it answers, for example python,calculator
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        conflicts_with = "environment"
    )]
    tools: Vec<ToolName>,
    /// How the model writes calls: hermes (Qwen 2.5 and 3, SmolLM2), qwen3_coder, llama3_json,
    /// mistral, deepseek_v3, smollm3
    #[arg(long, default_value = "hermes", requires = "tools")]
    tool_format: String,
    /// What answers the model and rewards it: process="python3 script.py" (JSON lines, see the
    /// documentation of `environment::process`), or openenv=ws://127.0.0.1:8000/ws (feature
    /// openenv)
    #[arg(long, value_name = "KIND=ADDRESS")]
    environment: Option<Address>,
    /// The action of a reply, as JSON in which {reply} stands for its text
    #[cfg(feature = "openenv")]
    #[arg(
        long,
        value_name = "JSON",
        default_value = r#"{"message": "{reply}"}"#,
        requires = "environment"
    )]
    openenv_action: String,
    /// Where the text of an observation stands in its JSON, as /echoed_message; may be repeated
    #[cfg(feature = "openenv")]
    #[arg(long, value_name = "POINTER", requires = "environment")]
    openenv_observation: Vec<String>,
    /// Keep the conversation as it was sampled where the chat template would write its past in
    /// another way
    #[arg(long)]
    keep_history: bool,
    /// The most replies of a conversation
    #[arg(long, default_value_t = 4)]
    max_turns: usize,
    /// The most tokens of an observation; the rest is cut
    #[arg(long, default_value_t = 256)]
    max_observation_tokens: usize,
}

/// A tool of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ToolName {
    /// Evaluates arithmetic
    Calculator,
    /// Runs a Python program, confined
    Python,
}

/// What kind of environment, and where.
#[derive(Clone, Debug)]
enum Address {
    Process(Program),
    #[cfg(feature = "openenv")]
    OpenEnv(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some(("process", line)) => {
                let program = Program::parse(line).map_err(|error| error.to_string())?;
                Ok(Self::Process(program))
            }
            #[cfg(feature = "openenv")]
            Some(("openenv", url)) => Ok(Self::OpenEnv(url.into())),
            #[cfg(not(feature = "openenv"))]
            Some(("openenv", _)) => Err("needs a build with --features openenv".into()),
            _ => Err(r#"expected process="PROGRAM ARGUMENTS" or openenv=ws://HOST:PORT/ws"#.into()),
        }
    }
}

impl EnvironmentArgs {
    /// Whether the answer to a problem may be empty, since the environment knows what is right.
    pub fn knows_answers(&self) -> bool {
        self.environment.is_some()
    }

    /// The tokenizer for such conversations, after a look at whether its template can continue
    /// them, and what plays the problems, if they are not answered at once. Tools that the template
    /// does not show are described in the system prompt.
    pub fn prepare(
        &self,
        tokenizer: ChatTokenizer,
        system: &str,
    ) -> Result<(ChatTokenizer, Option<AgentLoop>)> {
        let mut tokenizer = match self.keep_history {
            true => tokenizer.with_history(History::Keep),
            false => tokenizer,
        };
        let agent_loop = match &self.environment {
            None if self.tools.is_empty() => return Ok((tokenizer, None)),
            None => {
                let tools = self.tool_set()?;
                let definitions = tools.definitions();
                let shown = shows(&tokenizer, &definitions)?;
                if !shown {
                    let described = format!(
                        "{system}\nBefore you answer you may call these functions, as {CALL}: {definitions}"
                    );
                    tokenizer = tokenizer.with_system(described);
                }
                let calls = |calls| Exchange {
                    calls,
                    ..Exchange::default()
                };
                let told = shown.then_some(definitions.as_str());
                tokenizer.check_conversation(&[], told, &[calls(1), calls(2)])?;
                let environment =
                    ToolEnvironment::new(tools, ReplyParser::named(&self.tool_format)?);
                AgentLoop::new(match shown {
                    true => environment,
                    false => environment.without_description(),
                })
            }
            Some(address) => {
                tokenizer.check_conversation(&[], None, &[Exchange::default()])?;
                self.elsewhere(address)?
            }
        };
        let config = AgentLoopConfig {
            max_turns: self.max_turns,
            max_observation_tokens: Some(self.max_observation_tokens),
            ..AgentLoopConfig::default()
        };
        Ok((tokenizer, Some(agent_loop.with_config(config)?)))
    }

    fn tool_set(&self) -> Result<ToolSet> {
        let mut set = ToolSet::new();
        for tool in &self.tools {
            set = match tool {
                ToolName::Calculator => set.with(Calculator)?,
                ToolName::Python => set.with(PythonTool::new(PythonConfig::default())?)?,
            };
        }
        Ok(set)
    }

    /// Episodes of an environment in another program or on a server.
    fn elsewhere(&self, address: &Address) -> Result<AgentLoop> {
        Ok(match address {
            Address::Process(program) => {
                AgentLoop::new(ProcessEnvironment::new(NAME, program.clone(), 1)?)
            }
            #[cfg(feature = "openenv")]
            Address::OpenEnv(url) => {
                use rlvr::environment::openenv::{
                    ActionMapping, ObservationMapping, OpenEnvEnvironment,
                };

                let action = serde_json::from_str(&self.openenv_action).map_err(|error| {
                    let value = format!("{} ({error})", self.openenv_action);
                    rlvr::Error::config("--openenv-action", value, "a JSON object")
                })?;
                let observation = ObservationMapping::pointers(self.openenv_observation.clone())?;
                let action = ActionMapping::template(action)?;
                AgentLoop::new(OpenEnvEnvironment::new(NAME, url, action, observation)?)
            }
        })
    }

    /// What is paid: what the environment says, or the answer and its form.
    pub fn rewards(&self) -> Result<RewardSet> {
        match self.environment {
            Some(_) => RewardSet::builder().add(1.0, EpisodeReward::new("accuracy")),
            None => RewardSet::builder()
                .add(1.0, MathReward::default().with_require_evaluated(true))
                .add(1.0, FormatReward::new()),
        }
        .build()
    }
}

const NAME: &str = "environment";

const CALL: &str =
    r#"<tool_call>{"name": "NAME", "arguments": {"PARAMETER": "VALUE"}}</tool_call>"#;

/// Whether the template tells the model of its tools.
fn shows(tokenizer: &ChatTokenizer, definitions: &str) -> Result<bool> {
    let question = [Message::user("A question.")];
    let without = tokenizer.encode_conversation(&question, None)?;
    Ok(tokenizer.encode_conversation(&question, Some(definitions))? != without)
}
