//! What was answered. Takes problems from `prompt` and a model from `policy`; gives rollouts in groups to `reward` and
//! `advantage`, and as tensors to `loss`.

mod batch;
mod buffer;
mod generate;
#[cfg(feature = "hf")]
mod hf;
mod record;
mod sampling;

pub use batch::RolloutBatch;
pub use buffer::{RolloutBuffer, RolloutGroup};
pub use generate::{
    Completion, GenerationConfig, GenerationRequest, TokenEvent, generate, generate_streaming,
    sample_group,
};
#[cfg(feature = "hf")]
pub use hf::read_sampling;
pub use record::{FinishReason, RewardOutcome, RewardRecord, Rollout};
pub use sampling::{Sampled, SamplingConfig, sample_token};
