//! Environments: episodes of several turns between the policy and a program.
//!
//! An [`Environment`] opens an [`Episode`] for every sample of a problem. The policy replies, the
//! episode responds with an observation, and so on until the episode or a limit ends it. An
//! [`AgentLoop`] plays all episodes of a step together. The tokens of a reply stay as they were
//! sampled. Observations are context: the policy reads them, and losses, means, ratios and lengths
//! exclude them.
//!
//! The rewards of the turns are recorded in [`Rollout::episode`](crate::types::Rollout::episode).
//! [`EpisodeReward`] adds their sum to a reward set; [`TurnRewards`] assigns each to the last token
//! of its reply.
//!
//! Implementations: [`ToolEnvironment`] for tools in this process, [`mcp`] for tools of MCP
//! servers, [`process`] for environments in other programs, and `openenv` for OpenEnv servers.

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

pub use crate::types::Message;
