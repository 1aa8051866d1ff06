//! Conversations: what answers the policy, and how the two take turns. Takes problems from `prompt` and a generator from `rollout`;
//! gives rollouts of several turns to `reward`.
//!
//! An [`Environment`] opens an [`Episode`] for every sample of a problem. The policy replies, the episode answers with an observation,
//! and so on until the episode or a limit ends it; an [`AgentLoop`] plays all episodes of a step together. The tokens of a reply stay
//! as they were sampled. Observations are context: the policy reads them, and no loss, mean, ratio or length counts them.
//!
//! Rewards of the turns are recorded in the [rollout](crate::rollout::Rollout::episode). [`EpisodeReward`] puts their sum into
//! a reward set, as the outcome; [`TurnRewards`] pays each at the last token of its reply.

mod agent_loop;
mod contract;
mod json_text;
pub mod mcp;
#[cfg(feature = "openenv")]
pub mod openenv;
mod player;
pub mod process;
mod rewards;
mod tool_environment;
pub mod tools;

pub use agent_loop::{AgentLoop, AgentLoopConfig};
pub use contract::{
    Environment, EnvironmentError, Episode, FnEpisode, Opening, Reply, Step, StepEnd,
};
pub use rewards::{EpisodeReward, TurnRewards};
pub use tool_environment::ToolEnvironment;

pub use crate::types::{EpisodeEnd, EpisodeRecord, Message, Turn};
