//! An environment of tools, which the policy calls until it replies without a call.

use std::sync::Arc;

use super::contract::{Environment, EnvironmentError, Episode, Opening, Reply, Step, StepEnd};
use super::tools::{CallStatus, ReplyParser, Tool, ToolSet};
use crate::Result;
use crate::types::{FinishReason, Message, Problem};

/// An environment of tools that the policy may call before it answers.
///
/// The response to a reply with calls is their results, one message of the role `tool` per attempt;
/// the message of a call that cannot be run is the error. A reply without a call is the answer and
/// ends the episode. The rewards of the reward set score the last reply
/// ([`RewardInput::completion`](crate::reward::RewardInput::completion)).
///
/// ```
/// use rlvr::environment::ToolEnvironment;
/// use rlvr::environment::tools::{Calculator, ReplyParser, ToolSet};
///
/// let tools = ToolSet::new().with(Calculator)?;
/// let environment = ToolEnvironment::new(tools, ReplyParser::named("hermes")?);
/// # let _ = environment;
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ToolEnvironment {
    name: String,
    tools: ToolSet,
    parser: ReplyParser,
    max_failed_turns: usize,
    described: bool,
    result_tags: Option<(String, String)>,
}

impl ToolEnvironment {
    /// Creates an environment from tools and a parser of calls.
    pub fn new(tools: ToolSet, parser: ReplyParser) -> Self {
        Self {
            name: "tools".into(),
            tools,
            parser,
            max_failed_turns: 3,
            described: true,
            result_tags: None,
        }
    }

    /// Sets the name for records and metrics. Default: `tools`.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the number of consecutive replies without a runnable call after which an episode is cut
    /// off. Default: 3.
    #[must_use]
    pub fn with_max_failed_turns(mut self, turns: usize) -> Self {
        self.max_failed_turns = turns;
        self
    }

    /// Adds tools, such as those of one episode.
    pub(super) fn with_tools(
        mut self,
        tools: impl IntoIterator<Item = Arc<dyn Tool>>,
    ) -> Result<Self> {
        for tool in tools {
            self.tools.add(tool)?;
        }
        Ok(self)
    }

    /// Omits the description of the tools from the prompt, for policies that know them.
    #[must_use]
    pub fn without_description(mut self) -> Self {
        self.described = false;
        self
    }

    /// Puts tags around each result, for tokenizers without a chat template.
    #[must_use]
    pub fn with_result_tags(mut self, open: impl Into<String>, close: impl Into<String>) -> Self {
        self.result_tags = Some((open.into(), close.into()));
        self
    }
}

impl Environment for ToolEnvironment {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, _problem: &Problem, _seed: u64) -> Result<Opening, EnvironmentError> {
        let opening = Opening::new(Calling {
            environment: self.clone(),
            failed_turns: 0,
        });
        Ok(match self.described && !self.tools.is_empty() {
            true => opening.with_tools(self.tools.definitions()),
            false => opening,
        })
    }
}

struct Calling {
    environment: ToolEnvironment,
    failed_turns: usize,
}

impl Episode for Calling {
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError> {
        let environment = &self.environment;
        let parsed = environment.parser.parse(reply.text, &environment.tools);
        let mut step = Step {
            message: Some(parsed.message()),
            calls: parsed.statuses(),
            ..Step::default()
        };
        if parsed.calls.is_empty() && reply.finish != FinishReason::Length {
            step.end = Some(StepEnd::Done);
            return Ok(step);
        }
        step.observation = environment.tools.answer(&parsed, reply.finish)?;
        if let Some((open, close)) = &environment.result_tags {
            let tagged = |message: Message| Message {
                content: format!("{open}{}{close}", message.content),
                ..message
            };
            step.observation = step.observation.into_iter().map(tagged).collect();
        }
        let runnable = parsed
            .calls
            .iter()
            .any(|call| call.status == CallStatus::Ok);
        self.failed_turns = match runnable {
            true => 0,
            false => self.failed_turns + 1,
        };
        if self.failed_turns >= environment.max_failed_turns {
            step.end = Some(StepEnd::Truncated);
        }
        Ok(step)
    }
}
