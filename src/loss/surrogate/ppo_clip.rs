//! The clipped surrogate of PPO.

use serde::{Deserialize, Serialize};

use super::{SurrogateInput, SurrogateLoss, SurrogateTerm, not_negative};
use crate::loss::RatioLevel;
use crate::{Error, Result};

/// The clipped surrogate of PPO (Schulman et al., arXiv 1707.06347, eq. 7) with an asymmetric range
/// (clip-higher, DAPO, arXiv 2503.14476).
///
/// ```text
/// L = -min(r A, clip(r, 1 - low, 1 + high) A)
/// ```
///
/// with, optionally, the unclipped `r` capped at `delta` (two-sided clipping, INTELLECT-2, arXiv
/// 2505.07291), or the loss at negative advantages capped at `-c A` (dual clip, arXiv 1912.09729).
/// Both bound the loss of a token with a negative advantage whose probability has grown a lot.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoClip {
    /// How far the ratio may fall below 1; at least 0. From 1 on it has no effect, as in
    /// DeepSeek-R1 (10). Default 0.2.
    #[doc(alias("epsilon", "clip_ratio_low"))]
    pub low: f64,
    /// How far the ratio may rise above 1; at least 0. Default 0.2.
    #[doc(alias("epsilon_high", "clip_ratio_high"))]
    pub high: f64,
    /// Cap on the unclipped ratio, above `1 + high`. Default: none.
    pub delta: Option<f64>,
    /// The c of dual clip, above 1. Default: none.
    #[doc(alias = "clip_ratio_c")]
    pub dual_clip: Option<f64>,
}

impl Default for PpoClip {
    fn default() -> Self {
        Self::range(0.2, 0.2)
    }
}

impl PpoClip {
    /// Clips to `[1 - low, 1 + high]` only.
    pub fn range(low: f64, high: f64) -> Self {
        Self {
            low,
            high,
            delta: None,
            dual_clip: None,
        }
    }
}

impl SurrogateLoss for PpoClip {
    fn name(&self) -> &str {
        "ppo_clip"
    }

    fn validate(&self, _level: RatioLevel) -> Result<()> {
        not_negative("ppo_clip.low", self.low)?;
        not_negative("ppo_clip.high", self.high)?;
        if let Some(delta) = self.delta
            && !(delta.is_finite() && delta > 1.0 + self.high)
        {
            return Err(Error::config(
                "ppo_clip.delta",
                delta,
                format!("a finite ratio above 1 + high = {}", 1.0 + self.high),
            ));
        }
        if let Some(c) = self.dual_clip
            && !(c.is_finite() && c > 1.0)
        {
            return Err(Error::config(
                "ppo_clip.dual_clip",
                c,
                "a finite number above 1",
            ));
        }
        if let (Some(delta), Some(_)) = (self.delta, self.dual_clip) {
            return Err(Error::config(
                "ppo_clip.delta",
                delta,
                "none when dual_clip is set: both bound the loss at negative advantages",
            ));
        }
        Ok(())
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let ratio = input.ratio();
        let advantages = input.advantages.clone();
        let clipped = ratio.clone().clamp(1.0 - self.low, 1.0 + self.high);
        let unclipped = match self.delta {
            Some(delta) => ratio.clone().clamp_max(delta),
            None => ratio.clone(),
        };
        let gain = (unclipped * advantages.clone()).min_pair(clipped * advantages.clone());
        let negative = advantages.clone().lower_scalar(0.0);
        let mut bounded = None;
        let gain = match self.dual_clip {
            Some(c) => {
                let floor = advantages.clone().mul_scalar(c);
                let below = gain.clone().inner().lower(floor.clone());
                bounded = Some(below.bool_and(negative.clone()));
                gain.clone()
                    .mask_where(negative.clone(), gain.max_pair(floor))
            }
            None => gain,
        };
        let moved = ratio.inner();
        let fell = moved.clone().lower_scalar(1.0 - self.low);
        let rose = moved.greater_scalar(1.0 + self.high);
        Ok(SurrogateTerm {
            clipped_low: Some(fell.bool_and(negative)),
            clipped_high: Some(rose.bool_and(advantages.greater_scalar(0.0))),
            bounded,
            ..SurrogateTerm::new(gain.neg())
        })
    }
}
