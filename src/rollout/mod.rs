//! What was answered. Takes problems from `prompt` and a model from `policy`; gives rollouts in groups to `reward` and
//! `advantage`, and as tensors to `loss`.

mod async_engine;
mod batch;
mod decoder;
mod engine;
mod exp;
mod generate;
#[cfg(feature = "hf")]
mod hf;
#[cfg(feature = "remote")]
pub mod remote;
mod sampling;
mod view;
mod worker;

pub use async_engine::{Answer, AsyncEngine, InFlight, generate_with};
pub(crate) use async_engine::{CHECK_INTERVAL, Waiting};
pub use batch::RolloutBatch;
pub use decoder::Decoder;
pub use engine::{LocalEngine, Question, RolloutEngine, Session, answer, check_prompts};
pub(crate) use engine::{check_answers, check_completion};
pub use generate::{
    Completion, GenerationConfig, GenerationRequest, TokenEvent, generate, generate_streaming,
    sample_group,
};
#[cfg(feature = "hf")]
pub use hf::read_sampling;
pub use sampling::SamplingConfig;
pub use view::RolloutView;
pub(crate) use view::micro_batches;
pub use worker::LocalWorker;

pub use crate::types::{
    EpisodeEnd, EpisodeRecord, FinishReason, RewardOutcome, RewardRecord, Rollout, RolloutBuffer,
    RolloutGroup, Turn, VersionSpan,
};
