//! Policy and value losses: from log-probs, advantages and a mask, all `[B, T]`, to a scalar and
//! its metrics. The module is independent of models, tokenizers and optimizers.
//!
//! A [`PolicyObjective`] is composed of:
//!
//! | part | choices |
//! |---|---|
//! | [`Surrogate`] | PPO-clip, CISPO, SAPO, GMPO, VESPO, DPPO, DRO, Clip-Cov, KL-Cov, REINFORCE; or a custom [`SurrogateLoss`] |
//! | [`RatioLevel`] | token, mean of the completion, sum of the completion, mean with per-token gradient |
//! | [`Aggregation`] | equal weight per token, completion or prompt, or a constant denominator |
//! | [`KlPenalty`] | k1, k2, k3, absolute; straight-through, clamped, importance-corrected |
//! | [`SamplerCorrection`], [`OffPolicyMask`] | weights and rejection where the sampler and the trained policy differ |
//! | [`TopEntropy`], entropy bonus | selection of tokens, regularisation |
//!
//! [`presets`] has the objectives of papers and frameworks by name. Quantities of the whole
//! optimizer step are computed once and passed to each micro-batch ([`StepCounts`],
//! [`StepStatistics`]), so the result does not depend on how the step is split.
//!
//! ```
//! use burn::tensor::Tensor;
//! use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
//!
//! # #[cfg(feature = "flex")] {
//! let device = burn::tensor::Device::flex();
//! let row = |values: [f32; 3]| Tensor::<2>::from_data([values], &device);
//! let objective = PolicyObjective::dapo();
//! let input = LossInput {
//!     old_log_probs: Some(row([-1.0, -1.0, -1.0])),
//!     ..LossInput::new(
//!         row([-1.0, -2.0, -0.5]),
//!         row([1.0, 1.0, 1.0]),
//!         row([1.0, 1.0, 0.0]),
//!     )
//! };
//! let counts = StepCounts {
//!     tokens: 2,
//!     sequences: 1,
//! };
//! let loss = objective.loss(&input, counts)?.loss.into_scalar::<f32>();
//! assert!((loss + (1.0 + (-1f32).exp()) / 2.0).abs() < 1e-6); // ratios 1 and 1/e
//! # }
//! # Ok::<(), rlvr::Error>(())
//! ```

mod aggregation;
mod correction;
mod entropy;
mod evaluate;
mod gather;
mod input;
mod kl;
mod metrics;
mod objective;
pub mod presets;
mod ratio;
mod selection;
mod step;
mod surrogate;
mod value;

pub use aggregation::Aggregation;
pub use correction::{
    ImportanceWeights, Numerator, OffPolicyMask, Rejection, RejectionScope, RejectionStatistic,
    RolloutLogProbs, SamplerCorrection, TokenWeights, WeightAction, WeightLevel,
};
pub use entropy::AdaptiveEntropy;
pub use evaluate::{PolicyLoss, TokenStats};
pub use input::LossInput;
pub use kl::{AdaptiveKl, KlEstimator, KlPenalty};
pub use metrics::{LossMetrics, LossSums};
pub use objective::PolicyObjective;
pub use ratio::{LogRatioClamp, RatioLevel};
pub use selection::TopEntropy;
pub use step::{Denominators, StepCounts, StepStatistics};
pub use surrogate::{
    BinaryDivergence, Cispo, CispoBand, ClipCov, Dppo, Dro, Gmpo, KlCov, PpoClip, RatioUse,
    Reinforce, Sapo, StepToken, Surrogate, SurrogateInput, SurrogateLoss, SurrogateTerm, Vespo,
};
pub use value::{ValueLoss, ValueLossConfig, value_loss};
