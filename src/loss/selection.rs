//! Selection of tokens by entropy.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Training on the tokens of highest entropy only ("beyond the 80/20 rule", arXiv 2506.01939).
///
/// ```text
/// keep = H_t >= the (1 - share) quantile of H over all tokens of the step
///               (linear interpolation)
/// ```
///
/// The selection applies to the surrogate and the entropy bonus, not to the KL term or the
/// denominator of the surrogate. The paper recommends a share of 0.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopEntropy {
    /// The share of tokens to keep; above 0 and below 1.
    #[doc(alias = "top_entropy_quantile")]
    pub share: f64,
}

impl TopEntropy {
    /// Rejects a share outside (0, 1).
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        if self.share > 0.0 && self.share < 1.0 {
            return Ok(());
        }
        Err(Error::config(
            "top_entropy.share",
            self.share,
            "above 0 and below 1, or no selection",
        ))
    }

    /// Returns the smallest entropy to keep, given the entropies of all tokens of a step. It lies
    /// halfway between the largest one dropped and the smallest one kept, so that rounding does not
    /// change the selection.
    pub(super) fn threshold(&self, entropies: &mut [f64]) -> f64 {
        let Some(last) = entropies.len().checked_sub(1) else {
            return f64::NEG_INFINITY;
        };
        let place = (1.0 - self.share) * last as f64;
        // A quantile that falls on an entropy keeps it; otherwise the next larger one is the first
        // kept.
        let rounded = place.round();
        let on = (place - rounded).abs() < 1e-9;
        let quantile = if on { rounded } else { place.ceil() } as usize;
        let (_, &mut first, _) = entropies.select_nth_unstable_by(quantile, f64::total_cmp);
        let (dropped, kept) = around(entropies, |value| value < first && !is_tie(value, first));
        if dropped.is_finite() {
            0.5 * (dropped + kept)
        } else {
            dropped
        }
    }
}

/// Returns whether `b` differs from the smaller `a` by no more than the rounding of another split
/// of the step.
pub(super) fn is_tie(a: f64, b: f64) -> bool {
    b - a <= 2e-6 * (1.0 + b.abs())
}

/// Returns the largest of the values that are `below` a threshold and the smallest of the others;
/// infinite if there are none.
pub(super) fn around(values: &[f64], below: impl Fn(f64) -> bool) -> (f64, f64) {
    let mut border = (f64::NEG_INFINITY, f64::INFINITY);
    for &value in values {
        if below(value) {
            border.0 = border.0.max(value);
        } else {
            border.1 = border.1.min(value);
        }
    }
    border
}
