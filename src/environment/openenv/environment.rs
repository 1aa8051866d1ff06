//! Environments that an OpenEnv server runs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::contract::{
    Environment, EnvironmentError, Episode, Opening, Reply, Step, StepEnd,
};
use super::mapping::{ActionMapping, ObservationMapping};
use super::session::{Server, Session};
use crate::Result;
use crate::types::{FinishReason, Message, Problem};

/// An environment of an OpenEnv server; see the [module documentation](super).
///
/// ```no_run
/// use rlvr::environment::openenv::{ActionMapping, ObservationMapping, OpenEnvEnvironment};
/// use serde_json::json;
///
/// let environment = OpenEnvEnvironment::new(
///     "reasoning_gym",
///     "ws://127.0.0.1:8000/ws",
///     ActionMapping::template(json!({"answer": "{reply}"}))?,
///     ObservationMapping::pointers(["/question"])?,
/// )?;
/// # Ok::<(), rlvr::Error>(())
/// ```
pub struct OpenEnvEnvironment {
    name: String,
    server: Server,
    action: ActionMapping,
    observation: ObservationMapping,
}

impl OpenEnvEnvironment {
    /// Creates an environment from the URL of its server, `ws://host:port/ws`. Connections are made
    /// when episodes open.
    ///
    /// # Errors
    /// Returns [`Error::Config`](crate::Error::Config) if the URL does not have that form.
    pub fn new(
        name: impl Into<String>,
        url: &str,
        action: ActionMapping,
        observation: ObservationMapping,
    ) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            server: Server::new(url)?,
            action,
            observation,
        })
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

impl Environment for OpenEnvEnvironment {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError> {
        let (session, observed) = self.server.open(problem, seed)?;
        let url: Arc<str> = self.server.address.url.as_str().into();
        let text = self.observation.text(&observed.observation);
        let text = text.map_err(|error| format!("{url}: reset: {error}"))?;
        let episode = OpenEnvEpisode {
            url,
            session,
            action: self.action.clone(),
            observation: self.observation.clone(),
            over: false,
        };
        Ok(Opening::new(episode).with_messages([first_message(problem, &text)]))
    }
}

/// Joins the problem's prompt and the text of an observation, unless empty.
pub(super) fn first_message(problem: &Problem, text: &str) -> Message {
    let parts = [problem.prompt.as_str(), text];
    let said: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Message::user(said.join("\n\n"))
}

/// One session.
struct OpenEnvEpisode {
    url: Arc<str>,
    session: Session,
    action: ActionMapping,
    observation: ObservationMapping,
    /// Whether the server ended the episode; it would still score another step.
    over: bool,
}

impl Episode for OpenEnvEpisode {
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError> {
        if self.over {
            return Err(format!("{}: a step after the end of the episode", self.url).into());
        }
        if reply.finish == FinishReason::Length {
            return Ok(Step::default());
        }
        let action = match self.action.action(reply) {
            Ok(action) => action,
            Err(wrong) => return Ok(Step::observe(Message::user(wrong))),
        };
        let observed = match self.session.request::<Value>("step", &action) {
            Ok(observed) => observed,
            Err(fault)
                if self.action.is_written_by_policy() && fault.has_code("VALIDATION_ERROR") =>
            {
                return Ok(Step::observe(Message::user(format!("error: {fault}"))));
            }
            Err(fault) => return Err(format!("{}: step: {fault}", self.url).into()),
        };
        self.over = observed.done;
        let text = self.observation.text(&observed.observation);
        let observation = match (text, observed.done) {
            (Ok(text), _) => vec![Message::user(text)],
            // The last step needs no observation.
            (Err(_), true) => Vec::new(),
            (Err(error), false) => return Err(format!("{}: step: {error}", self.url).into()),
        };
        Ok(Step {
            observation,
            reward: observed.reward,
            end: observed.done.then_some(StepEnd::Done),
            ..Step::default()
        })
    }
}
