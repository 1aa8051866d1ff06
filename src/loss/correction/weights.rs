//! Importance weights of tokens and completions.

use serde::{Deserialize, Serialize};

use super::RolloutLogProbs;
use crate::loss::ratio::LARGEST_EXPONENT;
use crate::types::PerToken;
use crate::{Error, Result};

/// The level of an importance weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLevel {
    /// One weight per token: `exp(d_t)`. Biased, with small variance.
    Token,
    /// One weight per completion: `exp(sum_t d_t)`. Unbiased; soon out of bounds on long
    /// completions.
    Sequence,
}

/// The treatment of a weight outside the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightAction {
    /// Clamped to the bound.
    Truncate,
    /// Set to 0.
    Mask,
}

/// Bounded importance weights `w = exp(d)` with `d = ln pi - ln mu`; detached in the loss.
///
/// Even without `max` a weight is at most `e^40`, so that it and the square of a gradient fit f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportanceWeights {
    /// The level of the weights.
    pub level: WeightLevel,
    /// The treatment of weights outside the bounds.
    pub action: WeightAction,
    /// The smallest weight, at least 0. Default: none.
    #[serde(default)]
    pub min: Option<f64>,
    /// The largest weight, above 0. Default: none.
    #[serde(default)]
    pub max: Option<f64>,
    /// Divides by the mean weight over the step's tokens, or completions. Default false.
    #[serde(default)]
    pub batch_normalize: bool,
    /// Clamps `d` to ± this bound before it is exponentiated. Default: none (verl: 20).
    #[serde(default)]
    pub log_ratio_clamp: Option<f64>,
}

/// The logarithm of the largest weight, whose square is the largest ratio.
const LARGEST_WEIGHT: f64 = 0.5 * LARGEST_EXPONENT;

/// The weights of all tokens, before and after the bounds.
pub(super) struct WeightStats {
    pub raw: PerToken,
    pub bounded: PerToken,
}

impl ImportanceWeights {
    /// Creates weights without bounds and normalisation.
    pub fn new(level: WeightLevel, action: WeightAction) -> Self {
        Self {
            level,
            action,
            min: None,
            max: None,
            batch_normalize: false,
            log_ratio_clamp: None,
        }
    }

    /// Rejects bounds that exclude a weight of 1, and masking without bounds.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        let (min, max) = (self.min.unwrap_or(0.0), self.max.unwrap_or(f64::INFINITY));
        let field = "sampler_correction.weights";
        if !(0.0..=1.0).contains(&min) {
            return Err(Error::config(
                format!("{field}.min"),
                min,
                "between 0 and 1, or none",
            ));
        }
        if max.is_nan() || max < 1.0 {
            return Err(Error::config(
                format!("{field}.max"),
                max,
                "at least 1, or none",
            ));
        }
        if self.action == WeightAction::Mask && self.min.is_none() && self.max.is_none() {
            return Err(Error::config(
                format!("{field}.action"),
                "mask without bounds",
                "min or max given: otherwise nothing is masked",
            ));
        }
        match self.log_ratio_clamp {
            Some(bound) if !(bound.is_finite() && bound > 0.0) => Err(Error::config(
                format!("{field}.log_ratio_clamp"),
                bound,
                "a finite number above 0, or none",
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn weights(&self, log_probs: RolloutLogProbs) -> WeightStats {
        let raw: PerToken = (0..log_probs.len())
            .map(|b| self.raw(log_probs, b))
            .collect();
        let (min, max) = (self.min.unwrap_or(0.0), self.max.unwrap_or(f64::INFINITY));
        let bounded = raw.map(|w| match self.action {
            WeightAction::Truncate => w.clamp(min, max),
            WeightAction::Mask if (min..=max).contains(&w) => w,
            WeightAction::Mask => 0.0,
        });
        WeightStats { raw, bounded }
    }

    fn raw(&self, log_probs: RolloutLogProbs, b: usize) -> Vec<f64> {
        let clamp = |d: f64| {
            let bound = self.log_ratio_clamp.unwrap_or(f64::INFINITY);
            d.clamp(-bound, bound).min(LARGEST_WEIGHT)
        };
        let whole: f64 = log_probs.log_ratios(b).sum();
        log_probs
            .log_ratios(b)
            .map(|d| match self.level {
                WeightLevel::Token => clamp(d).exp(),
                WeightLevel::Sequence => clamp(whole).exp(),
            })
            .collect()
    }
}
