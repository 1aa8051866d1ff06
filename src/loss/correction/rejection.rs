//! Rejection of tokens and completions whose probability under the sampler differs too much.

use serde::{Deserialize, Serialize};

use super::RolloutLogProbs;
use crate::types::PerToken;
use crate::{Error, Result};

/// The scope of a rejection statistic, and so of what is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionScope {
    /// Each token; rejects the token.
    Token,
    /// The sum over the completion; rejects the completion.
    SequenceSum,
    /// The mean over the completion (a geometric mean of ratios); rejects the completion.
    SequenceMean,
    /// The maximum over the completion; rejects the completion.
    SequenceMax,
}

/// The statistic that is compared with the bounds, with `d = ln pi - ln mu` clamped to ±20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionStatistic {
    /// `-d`, compared with the logarithms of the bounds, which are bounds on `mu / pi`, the inverse
    /// of the importance weight.
    K1,
    /// `d^2 / 2`, compared with the upper bound.
    K2,
    /// `exp(d) - 1 - d`, compared with the upper bound.
    K3,
}

/// The bound on log-ratios in a statistic.
pub(super) const BOUND: f64 = 20.0;

impl RejectionStatistic {
    pub(super) fn of(&self, d: f64) -> f64 {
        let d = d.clamp(-BOUND, BOUND);
        match self {
            Self::K1 => -d,
            Self::K2 => 0.5 * d * d,
            Self::K3 => d.exp() - 1.0 - d,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::K1 => "k1",
            Self::K2 => "k2",
            Self::K3 => "k3",
        }
    }
}

/// A rule that removes tokens or completions from the mask.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rejection {
    /// The scope of the statistic.
    pub scope: RejectionScope,
    /// The statistic.
    pub statistic: RejectionStatistic,
    /// The lower bound on `mu / pi`, above 0 and at most 1; for k1 only. Default: none.
    #[serde(default)]
    pub lower: Option<f64>,
    /// The upper bound: on `mu / pi`, at least 1, for k1; on the statistic, above 0, for k2 and k3.
    pub upper: f64,
}

impl Rejection {
    /// Rejects bounds that do not apply to the statistic, and k1 with the scope `sequence_max`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        let field = "sampler_correction.rejection";
        let is_k1 = self.statistic == RejectionStatistic::K1;
        if is_k1 && self.scope == RejectionScope::SequenceMax {
            return Err(Error::config(
                format!("{field}.scope"),
                "sequence_max with the statistic k1",
                "k2 or k3 with sequence_max: k1 is signed, and its maximum ignores one side",
            ));
        }
        match self.lower {
            Some(lower) if !is_k1 => {
                return Err(Error::config(
                    format!("{field}.lower"),
                    lower,
                    format!(
                        "none with the statistic {}, which is never negative",
                        self.statistic.name()
                    ),
                ));
            }
            Some(lower) if !(lower > 0.0 && lower <= 1.0) => {
                return Err(Error::config(
                    format!("{field}.lower"),
                    lower,
                    "a ratio above 0 and at most 1, or none",
                ));
            }
            _ => {}
        }
        let least = if is_k1 { 1.0 } else { 0.0 };
        if !(self.upper.is_finite() && self.upper >= least && self.upper > 0.0) {
            let expected = match is_k1 {
                true => "a finite ratio of at least 1",
                false => "a finite number above 0",
            };
            return Err(Error::config(
                format!("{field}.upper"),
                self.upper,
                expected,
            ));
        }
        Ok(())
    }

    /// Returns the bounds on the statistic itself: the lower one, if any, and the upper one.
    pub(super) fn bounds(&self) -> (Option<f64>, f64) {
        match self.statistic {
            RejectionStatistic::K1 => (self.lower.map(f64::ln), self.upper.ln()),
            RejectionStatistic::K2 | RejectionStatistic::K3 => (None, self.upper),
        }
    }

    pub(super) fn passes(&self, statistic: f64) -> bool {
        let (lower, upper) = self.bounds();
        statistic <= upper && lower.is_none_or(|lower| statistic >= lower)
    }

    /// Returns the statistic of every token of rollout `b`; that of a completion is repeated at
    /// each of its tokens.
    pub(super) fn statistics(&self, log_probs: RolloutLogProbs, b: usize) -> Vec<f64> {
        let tokens: Vec<f64> = log_probs
            .log_ratios(b)
            .map(|d| self.statistic.of(d))
            .collect();
        let values = tokens.iter().copied();
        let whole = match self.scope {
            RejectionScope::Token => return tokens,
            RejectionScope::SequenceSum => values.sum(),
            RejectionScope::SequenceMean => values.sum::<f64>() / tokens.len().max(1) as f64,
            RejectionScope::SequenceMax => values.fold(f64::NEG_INFINITY, f64::max),
        };
        vec![whole; tokens.len()]
    }

    /// Sets `kept` to 0 at the rejected tokens.
    pub(super) fn reject(&self, log_probs: RolloutLogProbs, kept: &mut PerToken) {
        for (b, row) in kept.rows_mut().enumerate() {
            for (kept, statistic) in row.iter_mut().zip(self.statistics(log_probs, b)) {
                if !self.passes(statistic) {
                    *kept = 0.0;
                }
            }
        }
    }
}
