//! The traits and types of an environment.

use std::collections::BTreeMap;

use crate::types::{FinishReason, Message, Problem};

/// The error of an environment. Every error type, `String` and `&str` convert into it.
///
/// It fails one rollout, which is excluded from training. A mistake of the policy, such as a
/// malformed call or an illegal move, is not an error: return an observation, and optionally a
/// reward.
pub type EnvironmentError = Box<dyn std::error::Error + Send + Sync>;

/// An environment that opens episodes, such as a game, a set of tools or a simulated user.
///
/// # Contract
/// - **Seeded.** All randomness of an episode comes from `seed`. All samples of a problem in a step
///   have the same seed and must open with the same messages and tools, since they are compared
///   with each other.
/// - **Shared.** Episodes are opened and stepped from several threads at the same time.
/// - **Bounded.** A call that exceeds the [time limit](super::AgentLoopConfig::time_limit) fails
///   its rollout. Its thread cannot be killed, so bound every wait.
///
/// The simplest environment is a question with a single answer:
///
/// ```
/// use rlvr::environment::{Environment, EnvironmentError, FnEpisode, Opening, Step};
/// use rlvr::prompt::Problem;
///
/// struct Exact;
///
/// impl Environment for Exact {
///     fn name(&self) -> &str {
///         "exact"
///     }
///
///     fn open(
///         &self,
///         problem: &Problem,
///         _seed: u64,
///     ) -> Result<Opening, EnvironmentError> {
///         let answer = problem.answer.clone();
///         Ok(Opening::new(FnEpisode(
///             move |reply: &rlvr::environment::Reply| {
///                 let right = reply.text.trim() == answer;
///                 Ok(Step::done(if right { 1.0 } else { 0.0 }))
///             },
///         )))
///     }
/// }
/// ```
pub trait Environment: Send + Sync + 'static {
    /// Returns the name for records, metrics and checkpoints.
    fn name(&self) -> &str;

    /// Starts an episode for `problem`.
    ///
    /// # Errors
    /// Returns an error if the environment fails.
    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError>;
}

/// The start of an episode.
pub struct Opening {
    /// The episode.
    pub episode: Box<dyn Episode>,
    /// The messages before the first reply; if empty, the problem's prompt.
    pub messages: Vec<Message>,
    /// The functions that the policy may call, as the JSON list that chat templates read; `None`
    /// without functions.
    pub tools: Option<String>,
}

impl Opening {
    /// Creates a start with the problem's prompt and no tools.
    pub fn new(episode: impl Episode + 'static) -> Self {
        Self {
            episode: Box::new(episode),
            messages: Vec::new(),
            tools: None,
        }
    }

    /// Sets the messages before the first reply.
    #[must_use]
    pub fn with_messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages = messages.into_iter().collect();
        self
    }

    /// Sets the functions that the policy may call.
    #[must_use]
    pub fn with_tools(mut self, tools: impl Into<String>) -> Self {
        self.tools = Some(tools.into());
        self
    }
}

/// One conversation. It is dropped when it ends, also after an error.
pub trait Episode: Send {
    /// Responds to a reply of the policy. It is not called again after a step that ends the episode
    /// or fails.
    ///
    /// A reply that was [cut off](FinishReason::Length) ends the episode after this call. Do not
    /// execute what it asks for, even if it can be parsed.
    ///
    /// # Errors
    /// Returns an error if the environment fails.
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError>;
}

/// An episode from a closure.
pub struct FnEpisode<F>(pub F);

impl<F> Episode for FnEpisode<F>
where
    F: FnMut(&Reply<'_>) -> Result<Step, EnvironmentError> + Send,
{
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError> {
        (self.0)(reply)
    }
}

/// A reply of the policy.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// The text, without the stop token.
    pub text: &'a str,
    /// Why the reply ended.
    pub finish: FinishReason,
    /// The number of earlier replies.
    pub turn: usize,
}

/// The response of an episode to a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// The messages that the policy reads next; at least one unless the episode ends.
    pub observation: Vec<Message>,
    /// The reward of the reply, if any.
    pub reward: Option<f64>,
    /// How the episode ends, if it does.
    pub end: Option<StepEnd>,
    /// The reply as a message with separate reasoning, calls and content, for chat templates.
    /// Default: an assistant message with the text.
    pub message: Option<Message>,
    /// An identifier of the environment's state; see [`Turn::state`](crate::types::Turn::state).
    pub state: Option<u64>,
    /// The number of attempts to call a tool, by status.
    pub calls: BTreeMap<String, usize>,
}

/// How an environment ends an episode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// The episode is complete.
    Done,
    /// The episode is cut off.
    Truncated,
}

impl Step {
    /// Creates a step after which the policy reads `observation` and replies again.
    pub fn observe(observation: Message) -> Self {
        Self {
            observation: vec![observation],
            ..Self::default()
        }
    }

    /// Creates the last step, with `reward` for the reply.
    pub fn done(reward: f64) -> Self {
        Self {
            reward: Some(reward),
            end: Some(StepEnd::Done),
            ..Self::default()
        }
    }

    /// Sets the reward for the reply.
    #[must_use]
    pub fn with_reward(mut self, reward: f64) -> Self {
        self.reward = Some(reward);
        self
    }
}
