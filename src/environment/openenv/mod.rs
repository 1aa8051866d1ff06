//! Environments of [OpenEnv](https://github.com/huggingface/OpenEnv) servers, over WebSocket
//! (feature `openenv`).
//!
//! An [`OpenEnvEnvironment`] opens one connection per episode, sends `reset`, one `step` per reply,
//! and `close`. Generation and the limits of the episode stay in this process. [`ActionMapping`]
//! maps replies to actions, and [`ObservationMapping`] extracts the text of an observation.
//! [`OpenEnvTools`] is for environments whose actions are tool calls.
//!
//! - **Arguments of `reset`**: the object `reset` of the problem's metadata, with `seed` (31 bits
//!   of the episode's seed) and `episode_id` added if absent.
//! - **The first message** is a user message with the problem's prompt and the text of the
//!   observation. Either may be empty.
//! - **Rewards** are numbers or booleans. Null means no reward, which differs from 0.
//! - **A reply that was cut off** is not sent.
//! - **Errors** of the server fail the rollout, with code and message. With
//!   [`ActionMapping::json`], the policy reads the errors of its action instead.
//! - **Pings** are answered while the policy generates.
//! - **Capacity**: by default a server accepts one session and closes other connections, which are
//!   retried for a while. All episodes of a step are open at the same time, so
//!   `max_concurrent_envs` must be at least the number of problems times samples.
//!
//! TLS is not supported.

mod environment;
mod mapping;
mod session;
mod socket;
mod tools;

pub use environment::OpenEnvEnvironment;
pub use mapping::{ActionMapping, ObservationMapping};
pub use tools::OpenEnvTools;
