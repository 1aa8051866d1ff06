//! How much a sampled token, or its completion, counts.

use serde::{Deserialize, Serialize};

use super::SamplerRows;
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
    /// Holds `d` within ± this before it is exponentiated. Default: none (verl: 20).
    #[serde(default)]
    pub log_ratio_clamp: Option<f64>,
}

/// Weights before and after the bounds, 0 at padding.
pub(super) struct RawAndKept {
    pub raw: Vec<Vec<f64>>,
    pub kept: Vec<Vec<f64>>,
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

    /// Refuses bounds that no weight, or no weight of 1, can be between.
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

    pub(super) fn weights(&self, rows: &SamplerRows) -> RawAndKept {
        let raw: Vec<Vec<f64>> = rows.rows().map(|b| self.raw(rows, b)).collect();
        let (min, max) = (self.min.unwrap_or(0.0), self.max.unwrap_or(f64::INFINITY));
        let keep = |&w: &f64| match self.action {
            WeightAction::Truncate => w.clamp(min, max),
            WeightAction::Mask if (min..=max).contains(&w) => w,
            WeightAction::Mask => 0.0,
        };
        let kept = rows.rows().map(|b| {
            let row = raw[b].iter().zip(&rows.mask[b]);
            row.map(|(w, &is_token)| if is_token { keep(w) } else { 0.0 })
                .collect()
        });
        RawAndKept {
            kept: kept.collect(),
            raw,
        }
    }

    fn raw(&self, rows: &SamplerRows, b: usize) -> Vec<f64> {
        let hold = |d: f64| {
            self.log_ratio_clamp
                .map_or(d, |bound| d.clamp(-bound, bound))
        };
        let mut weights = vec![0.0; rows.mask[b].len()];
        let whole: f64 = rows.log_ratios(b).map(|(_, d)| d).sum();
        for (t, d) in rows.log_ratios(b) {
            weights[t] = match self.level {
                WeightLevel::Token => hold(d).exp(),
                WeightLevel::Sequence => hold(whole).exp(),
            };
        }
        weights
    }
}
