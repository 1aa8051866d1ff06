//! What was answered. Takes problems from [`prompt`](crate::prompt) and a model from
//! [`policy`](crate::policy); gives rollouts in groups to [`reward`](crate::reward),
//! [`advantage`](crate::advantage) and, as tensors, to [`loss`](crate::loss).

mod batch;
mod buffer;
mod generate;
#[allow(clippy::module_inception)]
mod rollout;
mod sampling;

pub use batch::RolloutBatch;
pub use buffer::{RolloutBuffer, RolloutGroup};
pub use generate::{Completion, GenerationConfig, GenerationRequest, generate, sample_group};
pub use rollout::{FinishReason, RewardOutcome, RewardRecord, Rollout};
pub use sampling::{Sampled, SamplingConfig, sample_token};
