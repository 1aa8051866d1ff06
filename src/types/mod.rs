//! The vocabulary that the rooms share: problems, rollouts in groups, reward records, and numbers per token.
//!
//! These types hold data and know no policy, reward or loss. Every room re-exports those that it hands out.

mod buffer;
mod message;
mod per_token;
mod problem;
mod reward;
mod rollout;

pub use buffer::{RolloutBuffer, RolloutGroup};
pub use message::{Message, ToolCall};
pub use per_token::PerToken;
pub use problem::Problem;
pub use reward::{RewardOutcome, RewardRecord};
pub use rollout::{FinishReason, Rollout, VersionSpan};
