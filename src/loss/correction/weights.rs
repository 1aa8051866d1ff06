//! How much a sampled token, or its completion, counts.

use serde::{Deserialize, Serialize};

use super::RolloutLogProbs;
use crate::loss::ratio::LARGEST_EXPONENT;
use crate::types::PerToken;
use crate::{Error, Result};

/// What has a weight of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightLevel {
    /// Each token: `exp(d_t)`. Biased, of small variance.
    Token,
    /// Each completion: `exp(sum_t d_t)`, the same for all of its tokens. Unbiased; leaves any bounds quickly on long completions.
    Sequence,
}

/// What happens to a weight outside of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightAction {
    /// It is moved to the bound.
    Truncate,
    /// It becomes 0.
    Mask,
}

/// Importance weights `w = exp(d)` with `d = ln pi - ln mu`, bounded; constant in the loss.
///
/// Without a bound of its own a weight is at most `e^40`, so that it and the square of a gradient fit f32.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportanceWeights {
    /// What has a weight of its own.
    pub level: WeightLevel,
    /// What happens outside of the bounds.
    pub action: WeightAction,
    /// The smallest weight, at least 0. Default: none.
    #[serde(default)]
    pub min: Option<f64>,
    /// The largest weight, above 0. Default: none.
    #[serde(default)]
    pub max: Option<f64>,
    /// Divide by the mean weight of the step: over its tokens, or its completions. Default false.
    #[serde(default)]
    pub batch_normalize: bool,
    /// Clamps `d` to ± this before it is exponentiated. Default: none (verl: 20).
    #[serde(default)]
    pub log_ratio_clamp: Option<f64>,
}

/// The logarithm of the largest weight: its square is as large as a ratio may be.
const LARGEST_WEIGHT: f64 = 0.5 * LARGEST_EXPONENT;

/// The weights of all tokens, before and after the bounds.
pub(super) struct WeightStats {
    pub raw: PerToken,
    pub bounded: PerToken,
}

impl ImportanceWeights {
    /// Without bounds and normalisation.
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

    /// Rejects bounds that no weight, or no weight of 1, can be between.
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
                "min or max given: nothing would be outside of them",
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
        let hold = |d: f64| {
            let bound = self.log_ratio_clamp.unwrap_or(f64::INFINITY);
            d.clamp(-bound, bound).min(LARGEST_WEIGHT)
        };
        let whole: f64 = log_probs.log_ratios(b).sum();
        log_probs
            .log_ratios(b)
            .map(|d| match self.level {
                WeightLevel::Token => hold(d).exp(),
                WeightLevel::Sequence => hold(whole).exp(),
            })
            .collect()
    }
}
