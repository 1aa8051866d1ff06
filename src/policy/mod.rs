//! Who answers. Takes token ids from `prompt`'s tokenizers; gives hidden states, and from them log-probs and entropies, to
//! `rollout`, `loss` and `train`.
//!
//! A [`PolicyModel`] ends at hidden states `[B, T, D]` and an unembedding `[D, V]`; logits are never
//! its business. [`token_log_probs`] and [`ScoredTokens`] turn both into per-token log-probs and
//! entropies in chunks, so that `[B, T, V]` never exists in memory, forward or backward; [`DistilledTokens`] compares whole
//! distributions with a teacher's in the same way.

mod cache;
pub mod causal;
mod check;
mod description;
mod distill;
mod forward_pass;
mod gradients;
#[cfg(feature = "hf")]
pub mod hf;
mod log_probs;
mod model;
mod reference;
mod scored;
mod squared;
mod tokens;
mod value;

pub use crate::fused::{AttentionMask, attention};
pub use cache::{KvCache, PolicyCache};
pub use check::check_model;
pub use distill::{DistilledTokens, Divergence, TopAgreement, TopLogProbs, TopTokens};
pub use forward_pass::{ForwardPass, PrefixedBatch};
pub use gradients::GradientSum;
pub(crate) use gradients::{Trained, fork, on_tape_of, require_gradients};
pub use log_probs::{LogProbConfig, TokenScores, logits_log_probs, token_log_probs};
pub(crate) use log_probs::{as_dtype, in_f32, is_half, token_log_probs_only};
pub use model::PolicyModel;
pub(crate) use model::is_small;
pub use reference::{ReferencePolicy, ReferenceSync};
pub use scored::ScoredTokens;
pub use squared::squared_probabilities;
pub use tokens::TokenBatch;
pub(crate) use value::values_after_last;
pub use value::{ValueHead, ValueModel, ValuePass};
