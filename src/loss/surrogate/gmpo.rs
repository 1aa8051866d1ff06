//! The geometric mean of token ratios: GMPO.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{RatioUse, SurrogateInput, SurrogateLoss, SurrogateTerm, not_negative, only};
use crate::Result;
use crate::loss::RatioLevel;
use crate::loss::ratio::{LARGEST_EXPONENT, mean_over_tokens};

/// GMPO (arXiv 2507.20673, eq. 4): one ratio per completion, the geometric mean of its token
/// ratios, each clipped in log space on the pessimistic side.
///
/// ```text
/// z_t = min(d_t, high) if A_t > 0,  max(d_t, -low) if A_t < 0
/// L_b = -mean_t(A_t) exp(mean_t z_t)
/// ```
///
/// The term is repeated at every token of its completion;
/// [`SequenceMeanTokenMean`](crate::loss::Aggregation::SequenceMeanTokenMean) then gives the
/// paper's mean over completions. Sampler weights enter as their geometric mean,
/// `exp(mean_t ln w_t)`. The metrics count tokens whose log-ratio is outside the range, by the sign
/// of their advantage.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gmpo {
    /// How far a log-ratio may fall below 0; at least 0. Default 0.4.
    pub low: f64,
    /// How far a log-ratio may rise above 0; at least 0. Default 0.4.
    pub high: f64,
}

impl Default for Gmpo {
    fn default() -> Self {
        Self {
            low: 0.4,
            high: 0.4,
        }
    }
}

impl SurrogateLoss for Gmpo {
    fn name(&self) -> &str {
        "gmpo"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        not_negative("gmpo.low", self.low)?;
        not_negative("gmpo.high", self.high)?;
        let reason = "its ratio is the geometric mean of clipped token ratios";
        only("gmpo", level, &[RatioLevel::Sequence], reason)
    }

    fn ratio_use(&self) -> RatioUse {
        RatioUse::Own
    }

    fn is_per_token(&self) -> bool {
        false
    }

    fn takes_sampler_weights(&self) -> bool {
        true
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let mean = |values: Tensor<2>| mean_over_tokens(values, &input.mask);
        let difference = &input.difference;
        let up = input.advantages.clone().greater_scalar(0.0);
        let down = input.advantages.clone().lower_scalar(0.0);

        let z = difference
            .zeros_like()
            .mask_where(up.clone(), difference.clone().clamp_max(self.high))
            .mask_where(down.clone(), difference.clone().clamp_min(-self.low));
        let mut log_ratio = mean(z);
        if let Some(weights) = &input.sampler_weights {
            let logarithms = (weights.clone() + 1e-10).log() * input.mask.clone();
            log_ratio = log_ratio + mean(logarithms);
        }
        let ratio = log_ratio.clamp_max(LARGEST_EXPONENT).exp();
        let loss = (mean(input.advantages.clone()) * ratio).neg();

        let moved = difference.clone().inner();
        let outside = moved
            .clone()
            .greater_scalar(self.high)
            .bool_or(moved.lower_scalar(-self.low));
        Ok(SurrogateTerm {
            clipped_low: Some(outside.clone().bool_and(down)),
            clipped_high: Some(outside.bool_and(up)),
            ..SurrogateTerm::new(loss.expand(difference.dims()))
        })
    }
}
