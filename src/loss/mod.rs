//! What to change. Takes log-probs, advantages and a mask, all `[N, T]`, from whoever has them; gives a
//! scalar and its metrics to `train`. It knows no model, no tokenizer, no optimizer.
//!
//! An objective is a composition: [`Surrogate`] x [`RatioLevel`] x [`Aggregation`] x optional [`KlPenalty`] x optional
//! entropy bonus. Papers are presets of [`PolicyObjective`]. Denominators are counted over the whole
//! optimizer step and handed in as [`StepCounts`].
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
//!     ..LossInput::new(row([-1.0, -2.0, -0.5]), row([1.0, 1.0, 1.0]), row([1.0, 1.0, 0.0]))
//! };
//! let counts = StepCounts { tokens: 2, sequences: 1 };
//! let loss = objective.loss(&input, counts)?.loss.into_scalar::<f32>();
//! assert!((loss + (1.0 + (-1f32).exp()) / 2.0).abs() < 1e-6); // ratios 1 and 1/e
//! # }
//! # Ok::<(), rlvr::Error>(())
//! ```

mod aggregation;
mod kl;
mod metrics;
mod objective;
mod presets;
mod ratio;
mod surrogate;
mod value;

pub use aggregation::{Aggregation, StepCounts};
pub use kl::{AdaptiveKl, KlEstimator, KlPenalty};
pub use metrics::{LossMetrics, LossSums};
pub use objective::{LossInput, PolicyLoss, PolicyObjective};
pub use ratio::RatioLevel;
pub use surrogate::{PpoClip, Reinforce, Surrogate, SurrogateInput, SurrogateTerm};
pub use value::{ValueLossConfig, value_loss};
