//! Adaptive coefficient of the entropy bonus.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The adaptive coefficient of an entropy bonus (Skywork-OR1, arXiv 2505.22312, sec. 4). It rises
/// while the entropy is at or below a target and falls while it is above; above the target the
/// bonus is 0.
///
/// ```text
/// coef += step if H <= target, else coef -= step;   coef in [0, max]
/// bonus = coef if the last H <= target, else 0
/// ```
///
/// ```
/// use rlvr::loss::AdaptiveEntropy;
///
/// let mut bonus = AdaptiveEntropy {
///     target: 0.2,
///     step: 0.005,
///     max: 1.0,
///     coef: 0.0,
///     last: None,
/// };
/// bonus.update(0.1); // below the target
/// assert_eq!(bonus.bonus(), 0.005);
/// bonus.update(0.3);
/// assert_eq!(bonus.bonus(), 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveEntropy {
    /// The target entropy, in nats per token; above 0. Default 0.2.
    pub target: f64,
    /// The change of the coefficient per update; above 0. Default 0.005.
    pub step: f64,
    /// The largest coefficient; above 0. Default 1.
    pub max: f64,
    /// The current coefficient. Default 0.
    pub coef: f64,
    /// The mean entropy of the last update's tokens, in nats. Default: none.
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
    /// Rejects a target, step or maximum that is not finite and above 0, and a coefficient outside
    /// `[0, max]`.
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

    /// Adapts the coefficient after an update whose tokens had the mean entropy `entropy`, in nats.
    pub fn update(&mut self, entropy: f64) {
        let step = if entropy <= self.target {
            self.step
        } else {
            -self.step
        };
        self.coef = (self.coef + step).clamp(0.0, self.max);
        self.last = Some(entropy);
    }

    /// Returns the coefficient of the next update's bonus.
    pub fn bonus(&self) -> f64 {
        match self.last {
            Some(entropy) if entropy <= self.target => self.coef,
            _ => 0.0,
        }
    }
}
