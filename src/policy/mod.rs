//! Policies: models that map token ids to hidden states, log-probs and entropies.
//!
//! A [`PolicyModel`] returns hidden states `[B, T, D]` and an unembedding `[D, V]`, not logits.
//! [`token_log_probs`] (without a gradient) and [`ScoredTokens`] (with one) compute per-token
//! log-probs and entropies from both in chunks, so that `[B, T, V]` is never in memory, in the
//! forward or the backward pass. [`DistilledTokens`] compares whole distributions with those of a
//! teacher in the same way.
//!
//! [`causal`] has a transformer of the Llama family, and `policy::hf` (feature `hf`) reads and
//! writes its weights. A custom model implements [`PolicyModel`] and is tested by [`check_model`].
//! [`ValueHead`] makes a critic of a policy, and [`ReferencePolicy`] a frozen copy.
//!
//! ```
//! use rlvr::policy::causal::CausalConfig;
//! use rlvr::policy::{
//!     LogProbConfig, PolicyModel, PrefixedBatch, TokenBatch, token_log_probs,
//! };
//!
//! # #[cfg(feature = "flex")]
//! # fn main() -> rlvr::Result<()> {
//! let device = burn::tensor::Device::flex();
//! let policy = CausalConfig {
//!     hidden_size: 16,
//!     ..CausalConfig::new(11)
//! }
//! .init(0, &device)?;
//! let tokens = TokenBatch::from_rows(&[[1, 2, 3], [4, 5, 6]], &device)?;
//! let targets = TokenBatch::from_rows(&[[2, 3, 0], [5, 6, 0]], &device)?.ids;
//! let hidden = policy.hidden_states(&PrefixedBatch::from(tokens))?; // [2, 3, 16]
//! let scores = token_log_probs(
//!     hidden,
//!     policy.unembedding(),
//!     targets,
//!     &LogProbConfig::default(),
//! )?;
//! assert_eq!(scores.log_probs.dims(), [2, 3]);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "flex"))]
//! # fn main() {}
//! ```

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

pub use crate::fused::{AttentionMask, WeightFormat};
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
