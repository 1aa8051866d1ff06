//! The outcome of a comparison.

use serde::{Deserialize, Serialize};

/// Whether an answer is the gold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Equal: exactly, or with a probability of error below 2^-80 (rational functions) or by random evaluation in wide balls (others).
    Equal,
    /// Different: proven, or of kinds that are never equal.
    Different,
    /// Neither could be shown within the limits. No reward should be given for it, and no punishment is deserved.
    Undecided,
}

impl Verdict {
    /// The name in reports: `equal`, `different` or `undecided`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Undecided => "undecided",
        }
    }
}

/// A verdict and what led to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Whether the answer is the gold.
    pub verdict: Verdict,
    /// Why, in a few words for a person.
    pub reason: String,
}

impl Comparison {
    /// Equal, because of `reason`.
    pub(crate) fn equal(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Equal,
            reason: reason.into(),
        }
    }

    /// Different, because of `reason`.
    pub(crate) fn different(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Different,
            reason: reason.into(),
        }
    }

    /// Undecided, because of `reason`.
    pub(crate) fn undecided(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Undecided,
            reason: reason.into(),
        }
    }

    /// Whether the verdict is [`Verdict::Equal`].
    pub fn is_equal(&self) -> bool {
        self.verdict == Verdict::Equal
    }
}
