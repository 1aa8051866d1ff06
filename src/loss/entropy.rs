//! Keeping the policy from becoming certain too early.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The adaptive coefficient of an entropy bonus (Skywork-OR1, arXiv 2505.22312, sec. 4): it rises while entropy is at or below a
/// target, falls while it is above, and the bonus is paid only in the former case.
///
/// ```text
/// coef += step if H <= target, else coef -= step;   coef in [0, max];   bonus = coef if the last H <= target, else 0
/// ```
///
/// ```
/// use rlvr::loss::AdaptiveEntropy;
///
/// let mut bonus = AdaptiveEntropy { target: 0.2, step: 0.005, max: 1.0, coef: 0.0, last: None };
/// bonus.update(0.1); // too certain
/// assert_eq!(bonus.bonus(), 0.005);
/// bonus.update(0.3);
/// assert_eq!(bonus.bonus(), 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveEntropy {
    /// The entropy below which the bonus is paid, in nats a token; above 0. Default 0.2.
    pub target: f64,
    /// How much the coefficient moves after each update; above 0. Default 0.005.
    pub step: f64,
    /// The largest coefficient; above 0. Default 1.
    pub max: f64,
    /// The coefficient now. Default 0.
    pub coef: f64,
    /// The mean entropy of the last update's tokens. Default: none yet.
    pub last: Option<f64>,
}

impl Default for AdaptiveEntropy {
    fn default() -> Self {
        Self {
            target: 0.2,
            step: 0.005,
            max: 1.0,
            coef: 0.0,
            last: None,
        }
    }
}

impl AdaptiveEntropy {
    /// Rejects what is not finite and above 0, and a coefficient outside of its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("adaptive_entropy.target", self.target),
            ("adaptive_entropy.step", self.step),
            ("adaptive_entropy.max", self.max),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(field, value, "a finite number above 0"));
            }
        }
        if (0.0..=self.max).contains(&self.coef) {
            return Ok(());
        }
        Err(Error::config(
            "adaptive_entropy.coef",
            self.coef,
            format!("between 0 and max = {}", self.max),
        ))
    }

    /// Moves the coefficient after an update whose tokens had the mean entropy `entropy`.
    pub fn update(&mut self, entropy: f64) {
        let step = if entropy <= self.target {
            self.step
        } else {
            -self.step
        };
        self.coef = (self.coef + step).clamp(0.0, self.max);
        self.last = Some(entropy);
    }

    /// The coefficient of the next update's bonus.
    pub fn bonus(&self) -> f64 {
        match self.last {
            Some(entropy) if entropy <= self.target => self.coef,
            _ => 0.0,
        }
    }
}
