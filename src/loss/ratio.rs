//! The importance ratio between the current and the old policy.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The level of the ratio `r = pi / pi_old`, with `d_t = ln pi(y_t) - ln pi_old(y_t)`.
#[doc(alias = "importance_sampling_level")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// `r_t = exp(d_t)`, one per token.
    #[default]
    Token,
    /// `r = exp(mean_t d_t)`, one per completion; the gradient flows through the mean (GSPO, arXiv
    /// 2507.18071, eq. 7).
    Sequence,
    /// `r = exp(sum_t d_t)`, the ratio of the whole completion (TRL's RLOO). On long completions it
    /// is soon outside any clip range.
    SequenceSum,
    /// `r_t = exp(sg(mean_t d_t) + ln pi(y_t) - sg(ln pi(y_t)))`: the value of
    /// [`Sequence`](Self::Sequence), the gradient of the token itself, so that advantages may
    /// differ within a completion (GSPO-token, arXiv 2507.18071, eq. 14; verl's `gspo`).
    SequenceToken,
}

/// Bounds on the log-ratio before it is exponentiated; outside them the gradient is zero.
///
/// verl and OpenRLHF clamp it to ±20, TRL does not. This only prevents overflow, far outside any
/// clip range; to clip, use a surrogate that clips.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogRatioClamp {
    /// The lower bound, below 0. Default: none.
    pub min: Option<f64>,
    /// The upper bound, above 0. Default: none.
    pub max: Option<f64>,
}

impl LogRatioClamp {
    /// Clamps to `[-bound, bound]`.
    pub fn symmetric(bound: f64) -> Self {
        Self {
            min: Some(-bound),
            max: Some(bound),
        }
    }

    /// Rejects bounds that would clamp the ratio of an unchanged policy.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        if let Some(min) = self.min.filter(|min| !(min.is_finite() && *min < 0.0)) {
            return Err(Error::config(
                "log_ratio_clamp.min",
                min,
                "a finite number below 0, or none",
            ));
        }
        if let Some(max) = self.max.filter(|max| !(max.is_finite() && *max > 0.0)) {
            return Err(Error::config(
                "log_ratio_clamp.max",
                max,
                "a finite number above 0, or none",
            ));
        }
        Ok(())
    }

    pub(super) fn apply(&self, log_ratio: Tensor<2>) -> Tensor<2> {
        let log_ratio = match self.min {
            Some(min) => log_ratio.clamp_min(min),
            None => log_ratio,
        };
        match self.max {
            Some(max) => log_ratio.clamp_max(max),
            None => log_ratio,
        }
    }
}

/// The largest log-ratio. Larger ratios would overflow f32, and a clipped infinity has a gradient
/// of `0 * inf`.
pub(super) const LARGEST_EXPONENT: f64 = 80.0;

impl RatioLevel {
    /// Returns the log-ratio `[B, T]` of every token; `difference` is zero at padding.
    pub(super) fn log_ratio(&self, difference: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
        let shape = difference.dims();
        let mean = |difference: Tensor<2>| mean_over_tokens(difference, mask).expand(shape);
        match self {
            Self::Token => difference,
            Self::Sequence => mean(difference),
            Self::SequenceSum => difference.sum_dim(1).expand(shape),
            Self::SequenceToken => {
                let value = difference.clone().inner();
                // d - sg(d) is zero with the gradient of the token's log-prob.
                (difference - value.clone()) + mean(value)
            }
        }
    }
}

/// Returns the mean `[B, 1]` over each row's tokens of values that are zero at padding; 0 for a row
/// without tokens.
pub(super) fn mean_over_tokens(values: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
    values.sum_dim(1) / mask.clone().sum_dim(1).clamp_min(1.0)
}
