//! The loss of a critic.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::input::{Cleaner, check_shape};
use super::{Aggregation, Denominators, LossSums};
use crate::{Error, Result};

/// Settings of [`value_loss`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValueLossConfig {
    /// How far a value may move from its old value before the gradient stops, in units of reward;
    /// above 0, or none. Default 0.2 (TRL; verl 0.5).
    #[doc(alias = "cliprange_value")]
    pub clip_range: Option<f64>,
    /// How token terms are reduced to a scalar. Default: the token mean.
    pub aggregation: Aggregation,
}

impl Default for ValueLossConfig {
    fn default() -> Self {
        Self {
            clip_range: Some(0.2),
            aggregation: Aggregation::TokenMean,
        }
    }
}

impl ValueLossConfig {
    /// Rejects a range that is not above 0, and the prompt mean.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        self.aggregation.validate()?;
        if self.aggregation == Aggregation::PromptMean {
            return Err(Error::config(
                "value_loss.aggregation",
                "prompt_mean",
                "another aggregation: the value loss has no prompts",
            ));
        }
        match self.clip_range {
            Some(range) if !(range.is_finite() && range > 0.0) => Err(Error::config(
                "value_loss.clip_range",
                range,
                "a finite number above 0, or none",
            )),
            _ => Ok(()),
        }
    }
}

/// The result of [`value_loss`].
#[derive(Clone, Debug)]
pub struct ValueLoss {
    /// This micro-batch's share of the step's loss, `[1]`; the shares sum to the whole.
    pub loss: Tensor<1>,
    /// Sums for metrics, detached.
    pub sums: LossSums,
}

/// PPO's clipped value loss.
///
/// ```text
/// 0.5 * aggregate(max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2))
/// ```
///
/// `values` carries the gradient; `old_values`, `returns` and `mask` are detached; all are
/// `[B, T]`, and padding is ignored. The range `c` is in units of reward. Source: the PPO reference
/// implementation (openai/baselines, ppo2). The metrics are `value_loss` and the count `value_clip`
/// of tokens whose clipped term is strictly the larger one.
///
/// # Errors
/// Returns an error if the configuration is invalid or shapes differ.
///
/// ```
/// use burn::tensor::Tensor;
/// use rlvr::loss::{StepCounts, ValueLossConfig, value_loss};
///
/// # #[cfg(feature = "flex")] {
/// let device = burn::tensor::Device::flex();
/// let row = |values: [f32; 3]| Tensor::<2>::from_data([values], &device);
/// let (values, old_values) = (row([1.0, 0.5, 0.0]), row([1.0, 0.5, 0.0]));
/// let (returns, mask) = (row([0.0, 0.5, 9.0]), row([1.0, 1.0, 0.0]));
/// let counts = StepCounts {
///     tokens: 2,
///     sequences: 1,
/// };
/// let config = ValueLossConfig::default();
/// let loss = value_loss(&values, &old_values, &returns, &mask, &config, counts)?.loss;
/// assert_eq!(loss.into_scalar::<f32>(), 0.5 * (1.0 + 0.0) / 2.0);
/// # }
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn value_loss(
    values: &Tensor<2>,
    old_values: &Tensor<2>,
    returns: &Tensor<2>,
    mask: &Tensor<2>,
    config: &ValueLossConfig,
    denominators: impl Into<Denominators>,
) -> Result<ValueLoss> {
    config.validate()?;
    for (name, tensor) in [
        ("old_values", old_values),
        ("returns", returns),
        ("mask", mask),
    ] {
        check_shape(name, Some(tensor), values.dims(), "as values")?;
    }
    let mask = mask.clone().inner();
    let cleaner = Cleaner::new(&mask);
    let values = cleaner.clean(values);
    let returns = cleaner.constant(returns);
    let mut sums = LossSums::new(&mask);
    let error = (values.clone() - returns.clone()).square();
    let error = match config.clip_range {
        Some(range) => {
            let old = cleaner.constant(old_values);
            // Within the bounds this is exactly the value, without the rounding of old + (V - old).
            let (low, high) = (old.clone().sub_scalar(range), old.add_scalar(range));
            let near = values.max_pair(low).min_pair(high);
            let clipped = (near - returns).square();
            let larger = clipped.clone().greater(error.clone());
            sums.count("value_clip", larger);
            error.max_pair(clipped)
        }
        None => error,
    };
    let weights = config
        .aggregation
        .weights(&mask, None, denominators.into())?;
    let loss = (error * weights).sum().mul_scalar(0.5);
    sums.scalar("value_loss", loss.clone());
    Ok(ValueLoss { loss, sums })
}
