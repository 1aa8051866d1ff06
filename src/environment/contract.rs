//! What an environment is.

use std::collections::BTreeMap;

use crate::types::{FinishReason, Message, Problem};

/// Why an environment could not do its work. Every error type, `String` and `&str` convert into it.
///
/// It costs the one rollout, which is not learned from. What the policy did wrong is no such error: a malformed call or
/// an illegal move is an observation, and perhaps a reward.
pub type EnvironmentError = Box<dyn std::error::Error + Send + Sync>;

/// Opens episodes: a game, a set of tools, a simulated user.
///
/// # Contract
/// - **Seeded.** Everything random in an episode comes from `seed`. All samples of a problem in a step have the same seed and must
///   open with the same messages and tools, since they are compared with each other.
/// - **Shared.** Episodes are opened and stepped from several threads at once.
/// - **Bounded.** A call that passes the [time limit](super::AgentLoopConfig::time_limit) fails its rollout. Its thread cannot be
///   killed; bound what you wait for.
///
/// A question with a single answer is the simplest environment:
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
///     fn open(&self, problem: &Problem, _seed: u64) -> Result<Opening, EnvironmentError> {
///         let answer = problem.answer.clone();
///         Ok(Opening::new(FnEpisode(move |reply: &rlvr::environment::Reply| {
///             let right = reply.text.trim() == answer;
///             Ok(Step::done(if right { 1.0 } else { 0.0 }))
///         })))
///     }
/// }
/// ```
pub trait Environment: Send + Sync + 'static {
    /// The name in records, metrics and checkpoints.
    fn name(&self) -> &str;

    /// Begins an episode for `problem`.
    ///
    /// # Errors
    /// If the environment cannot do its work.
    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError>;
}

/// The beginning of an episode.
pub struct Opening {
    /// What answers the replies.
    pub episode: Box<dyn Episode>,
    /// What stands before the first reply; empty for the problem's prompt.
    pub messages: Vec<Message>,
    /// The functions that the policy may call, as the JSON list that chat templates read; `None` if there are none.
    pub tools: Option<String>,
}

impl Opening {
    /// An episode that begins with the problem's prompt and has no tools.
    pub fn new(episode: impl Episode + 'static) -> Self {
        Self {
            episode: Box::new(episode),
            messages: Vec::new(),
            tools: None,
        }
    }

    /// The same with other messages before the first reply.
    #[must_use]
    pub fn with_messages(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        self.messages = messages.into_iter().collect();
        self
    }

    /// The same with functions that the policy may call.
    #[must_use]
    pub fn with_tools(mut self, tools: impl Into<String>) -> Self {
        self.tools = Some(tools.into());
        self
    }
}

/// One conversation. It is dropped when it ends, on every path.
pub trait Episode: Send {
    /// Answers a reply of the policy. It is not called again after a step that ends the episode or fails.
    ///
    /// A reply that was [cut off](FinishReason::Length) ends the episode after this call; nothing that it asks for is to be done,
    /// even if it can be read.
    ///
    /// # Errors
    /// If the environment cannot do its work.
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError>;
}

/// An episode made of a closure.
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
    /// Why it ended.
    pub finish: FinishReason,
    /// The number of replies before it.
    pub turn: usize,
}

/// What an episode says to a reply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What the policy reads next; at least one message unless the episode ends.
    pub observation: Vec<Message>,
    /// The reward of the reply, if there is one.
    pub reward: Option<f64>,
    /// Whether the episode is over.
    pub end: Option<StepEnd>,
    /// The reply as a message with its parts told apart, for chat templates. Default: an assistant's with the text.
    pub message: Option<Message>,
    /// Tells states of the environment apart; see [`Turn::state`](super::Turn::state).
    pub state: Option<u64>,
    /// How many attempts to call a tool had which status.
    pub calls: BTreeMap<String, usize>,
}

/// How an episode ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepEnd {
    /// It is over.
    Done,
    /// It is cut off.
    Truncated,
}

impl Step {
    /// The policy reads `observation` and replies again.
    pub fn observe(observation: Message) -> Self {
        Self {
            observation: vec![observation],
            ..Self::default()
        }
    }

    /// The episode is over, and the last reply is worth `reward`.
    pub fn done(reward: f64) -> Self {
        Self {
            reward: Some(reward),
            end: Some(StepEnd::Done),
            ..Self::default()
        }
    }

    /// The same with this reward for the reply.
    #[must_use]
    pub fn with_reward(mut self, reward: f64) -> Self {
        self.reward = Some(reward);
        self
    }
}
