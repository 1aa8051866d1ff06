//! Environments of an OpenEnv server whose actions are tool calls.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::ToolEnvironment;
use super::super::contract::{
    Environment, EnvironmentError, Episode, Opening, Reply, Step, StepEnd,
};
use super::super::json_text::JsonText;
use super::super::mcp::content;
use super::super::tools::{Tool, ToolError};
use super::environment::first_message;
use super::mapping::ObservationMapping;
use super::session::{Observed, Server, Session};
use crate::Result;
use crate::types::Problem;

/// An environment of an OpenEnv server that provides tools.
///
/// A [`ToolEnvironment`] with the server's tools: each episode lists them (`list_tools`), and the
/// calls of a reply become steps (`call_tool`), in order. The rewards of a reply's steps are
/// summed. No call is made after the step that ends the episode. The policy reads the server's
/// error for a failed call. See the [module documentation](super) for sessions, errors and `reset`.
///
/// ```no_run
/// use rlvr::environment::ToolEnvironment;
/// use rlvr::environment::openenv::OpenEnvTools;
/// use rlvr::environment::tools::{ReplyParser, ToolSet};
///
/// let tools = ToolEnvironment::new(ToolSet::new(), ReplyParser::named("hermes")?);
/// let environment =
///     OpenEnvTools::new("ws://127.0.0.1:8000/ws", tools.with_name("finqa"))?;
/// # let _ = environment;
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct OpenEnvTools {
    environment: ToolEnvironment,
    server: Server,
    observation: Option<ObservationMapping>,
}

impl OpenEnvTools {
    /// Creates an environment from the URL of its server, with the name, the parser and the
    /// additional tools of `environment`.
    ///
    /// Episodes start with the problem's prompt.
    ///
    /// # Errors
    /// Returns [`Error::Config`](crate::Error::Config) if the URL does not have the form
    /// `ws://host:port/ws`.
    pub fn new(url: &str, environment: ToolEnvironment) -> Result<Self> {
        Ok(Self {
            environment,
            server: Server::new(url)?,
            observation: None,
        })
    }

    /// Adds the text of the observation of `reset` after the problem's prompt.
    #[must_use]
    pub fn with_observation(mut self, observation: ObservationMapping) -> Self {
        self.observation = Some(observation);
        self
    }

    /// Sets the time limit of a connection and of an answer. Default: 20 s.
    ///
    /// # Errors
    /// Returns an error if the limit is zero.
    pub fn with_time_limit(mut self, limit: Duration) -> Result<Self> {
        self.server.set_time_limit(limit)?;
        Ok(self)
    }

    /// Sets how long a full server is retried. Default: 10 s.
    #[must_use]
    pub fn with_capacity_wait(mut self, wait: Duration) -> Self {
        self.server.capacity_wait = wait;
        self
    }
}

impl Environment for OpenEnvTools {
    fn name(&self) -> &str {
        self.environment.name()
    }

    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError> {
        #[derive(Deserialize)]
        struct Listed {
            tools: Vec<Definition>,
        }

        let (session, observed) = self.server.open(problem, seed)?;
        let url = &self.server.address.url;
        let text = match &self.observation {
            Some(observation) => observation
                .text(&observed.observation)
                .map_err(|error| format!("{url}: reset: {error}"))?,
            None => String::new(),
        };
        let listed: Observed<Listed> = session
            .request("step", &json!({"type": "list_tools"}))
            .map_err(|fault| format!("{url}: list_tools: {fault}"))?;
        let shared = Arc::new(Shared {
            session,
            outcome: Mutex::default(),
        });
        let tool = |definition| {
            let shared = shared.clone();
            Arc::new(SessionTool { definition, shared }) as Arc<dyn Tool>
        };
        let tools = listed.observation.tools.into_iter().map(tool);
        let environment = self.environment.clone().with_tools(tools)?;
        let Opening {
            episode,
            mut messages,
            tools,
        } = environment.open(problem, seed)?;
        if !text.is_empty() {
            messages = vec![first_message(problem, &text)];
        }
        Ok(Opening {
            episode: Box::new(OpenEnvToolEpisode { episode, shared }),
            messages,
            tools,
        })
    }
}

#[derive(Deserialize)]
struct Definition {
    name: String,
    #[serde(default)]
    description: String,
    #[serde(rename = "input_schema")]
    parameters: JsonText,
}

/// A session and the outcome of the calls since the last step.
struct Shared {
    session: Session,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    reward: Option<f64>,
    over: bool,
}

impl Shared {
    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tool whose call is a step of the session.
struct SessionTool {
    definition: Definition,
    shared: Arc<Shared>,
}

impl Tool for SessionTool {
    fn name(&self) -> &str {
        &self.definition.name
    }

    fn description(&self) -> &str {
        &self.definition.description
    }

    fn parameters(&self) -> &str {
        &self.definition.parameters.0
    }

    fn call(&self, arguments: &Value) -> Result<String, ToolError> {
        if self.shared.outcome().over {
            return Err("not run; the episode is over".into());
        }
        let action = json!({"type": "call_tool", "tool_name": self.name(), "arguments": arguments});
        let observed: Observed = match self.shared.session.request("step", &action) {
            Ok(observed) => observed,
            Err(fault) if fault.has_code("VALIDATION_ERROR") => {
                return Err(ToolError::Refused(fault.to_string()));
            }
            Err(fault) => return Err(ToolError::Broken(fault.to_string())),
        };
        let mut outcome = self.shared.outcome();
        outcome.over = observed.done;
        if let Some(reward) = observed.reward {
            *outcome.reward.get_or_insert(0.0) += reward;
        }
        let (error, result) = (
            &observed.observation["error"],
            &observed.observation["result"],
        );
        if !error.is_null() {
            let message = error["message"].as_str().map(String::from);
            return Err(message.unwrap_or_else(|| error.to_string()).into());
        }
        let text = content::text(result);
        match result["is_error"] == true {
            true => Err(text.into()),
            false => Ok(text),
        }
    }
}

/// A tool episode with the rewards and the end of the server.
struct OpenEnvToolEpisode {
    episode: Box<dyn Episode>,
    shared: Arc<Shared>,
}

impl Episode for OpenEnvToolEpisode {
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError> {
        let mut step = self.episode.step(reply)?;
        let mut outcome = self.shared.outcome();
        step.reward = outcome.reward.take();
        if outcome.over {
            step.end = Some(StepEnd::Done);
        }
        Ok(step)
    }
}
