//! The off-policy sequence mask of DeepSeek-V3.2.

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use crate::loss::ratio::mean_over_tokens;
use crate::{Error, Result};

/// DeepSeek-V3.2's off-policy sequence mask (arXiv 2512.02556, eq. 9): a completion with a negative
/// advantage is excluded once the policy has moved away from it.
///
/// ```text
/// keep = A_t >= 0  or  mean_t(ln mu(y_t) - ln pi(y_t)) <= threshold
/// ```
///
/// `mu` is the sampler, or the old policy if the sampler's log-probs are not given. The mask is
/// detached and affects neither the KL term, nor the entropy bonus, nor a denominator.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OffPolicyMask {
    /// The largest mean log-ratio, in nats per token; above 0.
    pub threshold: f64,
}

impl OffPolicyMask {
    /// Rejects a threshold that is not above 0.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        if self.threshold.is_finite() && self.threshold > 0.0 {
            return Ok(());
        }
        Err(Error::config(
            "off_policy_mask.threshold",
            self.threshold,
            "a finite number above 0",
        ))
    }

    /// Returns the kept tokens, `[B, T]`; log-probs must be detached and zero at padding.
    pub fn keep(
        &self,
        log_probs: &Tensor<2>,
        sampler_log_probs: &Tensor<2>,
        advantages: &Tensor<2>,
        mask: &Tensor<2>,
    ) -> Tensor<2, Bool> {
        let moved = (sampler_log_probs.clone() - log_probs.clone()) * mask.clone();
        // A token that the sampler could not score has a log-ratio of 0.
        let moved = moved.clone().mask_fill(moved.is_nan(), 0.0);
        let near = mean_over_tokens(moved, mask)
            .lower_equal_scalar(self.threshold)
            .expand(mask.dims());
        advantages.clone().greater_equal_scalar(0.0).bool_or(near)
    }
}
