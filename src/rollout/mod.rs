//! Rollout generation: completions of prompts, and the tensors that a loss reads.
//!
//! [`generate`] samples completions with the crate's own generator. [`RolloutEngine`] abstracts
//! over generators: [`LocalEngine`] runs in this process, and the feature `remote` adds vLLM and
//! SGLang servers. An [`AsyncEngine`], such as [`LocalWorker`], generates in the background.
//! [`sample_rollouts`] turns the completions of [`RolloutRequest`]s into a [`RolloutBuffer`], and
//! [`RolloutBatch`] pads rollouts into tensors.

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
pub use engine::{LocalEngine, RolloutEngine, RolloutRequest, Session, sample_rollouts};
pub(crate) use engine::{check_answers, check_completion, check_prompts};
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
