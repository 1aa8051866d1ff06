//! The result of a comparison.

use serde::{Deserialize, Serialize};

/// Whether an answer equals the gold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Equal: exactly, with a probability of error below 2^-80 for rational functions, or by
    /// evaluation at random points with high precision for other functions.
    Equal,
    /// Different: proven, or of kinds that are never equal.
    Different,
    /// Neither could be shown within the limits. A reward should neither accept nor penalize it.
    Undecided,
}

impl Verdict {
    /// Returns the name: `equal`, `different` or `undecided`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
            Self::Undecided => "undecided",
        }
    }
}

/// A verdict and its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// Whether the answer equals the gold.
    pub verdict: Verdict,
    /// A short reason for people. Its wording may change.
    pub reason: String,
}

impl Comparison {
    /// Returns [`Verdict::Equal`] with `reason`.
    pub(crate) fn equal(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Equal,
            reason: reason.into(),
        }
    }

    /// Returns [`Verdict::Different`] with `reason`.
    pub(crate) fn different(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Different,
            reason: reason.into(),
        }
    }

    /// Returns [`Verdict::Undecided`] with `reason`.
    pub(crate) fn undecided(reason: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Undecided,
            reason: reason.into(),
        }
    }

    /// Returns whether the verdict is [`Verdict::Equal`].
    pub fn is_equal(&self) -> bool {
        self.verdict == Verdict::Equal
    }
}
