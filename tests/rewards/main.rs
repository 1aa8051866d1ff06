//! Tests of rewards, environments and tools.

#[path = "../common/mod.rs"]
mod common;

#[cfg(all(target_os = "linux", feature = "code"))]
mod code_reward;
mod environments;
#[cfg(feature = "hf")]
mod hf_reward;
mod judge;
mod mcp_tools;
mod model_reward;
mod process_environment;
mod reward_model;
mod reward_oracles;
mod reward_sets;
mod scripts;
#[cfg(feature = "math")]
mod task_rewards;
#[cfg(all(target_os = "linux", feature = "code"))]
mod tools;
