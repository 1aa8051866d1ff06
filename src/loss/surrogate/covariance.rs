//! Covariance of log-prob and advantage over a whole step, for Clip-Cov and KL-Cov.

use super::StepToken;
use crate::loss::selection::{around, is_tie};
use crate::{Error, Result};

/// The means of log-prob and advantage over a step.
pub(super) struct Centre {
    pub advantage: f64,
    pub log_prob: f64,
}

impl Centre {
    pub(super) fn of(tokens: &[StepToken]) -> Self {
        let mean = |of: fn(&StepToken) -> f64| {
            tokens.iter().map(of).sum::<f64>() / tokens.len().max(1) as f64
        };
        Self {
            advantage: mean(|token| token.advantage),
            log_prob: mean(|token| token.log_prob),
        }
    }

    pub(super) fn covariance(&self, token: &StepToken) -> f64 {
        (token.advantage - self.advantage) * (token.log_prob - self.log_prob)
    }
}

/// Returns a threshold that the `rank` smallest values do not exceed, halfway to the next value so
/// that rounding does not change the selection. Values that differ only by rounding stay together.
/// Infinite if there are no more values.
pub(super) fn rank_threshold(values: &mut [f64], rank: usize) -> f64 {
    if values.len() <= rank {
        return f64::INFINITY;
    }
    let (_, &mut last, _) = values.select_nth_unstable_by(rank - 1, f64::total_cmp);
    let (with, after): (f64, f64) = around(values, |value| is_tie(last, value));
    if after.is_finite() {
        0.5 * (with + after)
    } else {
        after
    }
}

/// Rejects a share outside (0, 1].
pub(super) fn share(field: &str, value: f64) -> Result<()> {
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(Error::config(
        field,
        value,
        "a share of tokens, above 0 and at most 1",
    ))
}
