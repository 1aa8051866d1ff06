//! Environments of [OpenEnv](https://github.com/huggingface/OpenEnv) servers, over WebSocket (feature `openenv`).
//!
//! An [`OpenEnvEnvironment`] opens one connection for each episode, sends `reset`, then one `step` for each reply, and `close`. The policy,
//! its tokens and the control of the episode stay here. Two mappings say what an environment leaves open: what the action of a reply is
//! ([`ActionMapping`]), and where the text of an observation stands ([`ObservationMapping`]). [`OpenEnvTools`] is for environments whose actions are calls
//! of tools.
//!
//! - **Arguments of `reset`**: the object in the problem's metadata under `reset`, with `seed` (31 bits of the episode's) and `episode_id` unless
//!   the object has its own.
//! - **The first message** is the problem's prompt and the text of the observation, as a user's. Either may be empty.
//! - **Rewards** are numbers or booleans. Null is no reward, which is not 0.
//! - **A reply that was cut off** is not sent.
//! - **Errors** of the server fail the rollout, with code and message. Only with [`ActionMapping::json`] does the policy read what is wrong with its action.
//! - **Pings** are answered while the policy generates.
//! - **Capacity**: by default a server has room for one session, and closes other connections. They are tried again for a while. All episodes of
//!   a step are open at the same time, so `max_concurrent_envs` must be at least their number: problems times samples.
//!
//! There is no TLS.

mod environment;
mod mapping;
mod session;
mod socket;
mod tools;

pub use environment::OpenEnvEnvironment;
pub use mapping::{ActionMapping, ObservationMapping};
pub use tools::OpenEnvTools;
