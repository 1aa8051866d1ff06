//! The data types that all modules share: problems, rollouts in groups, reward records, and numbers
//! per token.
//!
//! They hold data and depend on no policy, reward or loss. Each module re-exports those that it
//! returns.
//!
//! ```
//! use rlvr::types::{Problem, Rollout, RolloutBuffer, RolloutGroup};
//!
//! let mut rollouts = RolloutBuffer::new();
//! let completion =
//!     |token, text| Rollout::new(vec![token, 1], vec![-0.5, -0.25], text);
//! rollouts.push(RolloutGroup::new(
//!     Problem::new("1+1=", "2"),
//!     vec![3, 13, 3, 14],
//!     vec![completion(4, "2"), completion(5, "3")],
//! ));
//! assert_eq!(rollouts.len(), 2);
//! assert_eq!(rollouts.log_probs(), [vec![-0.5, -0.25], vec![-0.5, -0.25]]);
//! ```

mod buffer;
mod episode;
mod message;
mod per_token;
mod problem;
mod reward;
mod rollout;

pub use buffer::{RolloutBuffer, RolloutGroup};
pub use episode::{EpisodeEnd, EpisodeRecord, Turn};
pub use message::{Message, ToolCall};
pub use per_token::PerToken;
pub use problem::Problem;
pub use reward::{RewardOutcome, RewardRecord};
pub use rollout::{FinishReason, Rollout, VersionSpan};
