//! The policy gradient weighted by a clipped, detached ratio: CISPO.

use serde::{Deserialize, Serialize};

use super::{SurrogateInput, SurrogateLoss, SurrogateTerm, not_negative, positive};
use crate::loss::RatioLevel;
use crate::{Error, Result};

/// CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4): the policy gradient, weighted by a clipped,
/// detached ratio.
///
/// ```text
/// L = -sg(clip(r)) A ln pi(y_t)
/// ```
///
/// Unlike in PPO, no token loses its gradient. [`CispoBand`] has the two published definitions of
/// the range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cispo {
    /// The range of the ratio.
    pub band: CispoBand,
}

/// The range of the ratio in CISPO. TRL and verl define it differently.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CispoBand {
    /// `r <= cap`, no lower bound: recommended in the paper; TRL's `epsilon_high` (usually 5).
    Cap(f64),
    /// `1 - low <= r <= 1 + high`: verl, NeMo-RL, slime.
    AroundOne {
        /// How far below 1, at least 0.
        low: f64,
        /// How far above 1, at least 0.
        high: f64,
    },
}

impl SurrogateLoss for Cispo {
    fn name(&self) -> &str {
        "cispo"
    }

    fn validate(&self, _level: RatioLevel) -> Result<()> {
        match self.band {
            CispoBand::Cap(cap) if cap.is_finite() && cap < 1.0 => Err(Error::config(
                "cispo.band.cap",
                cap,
                "at least 1: the cap is the largest ratio, not a distance from 1",
            )),
            CispoBand::Cap(cap) => positive("cispo.band.cap", cap),
            CispoBand::AroundOne { low, high } => {
                not_negative("cispo.band.around_one.low", low)?;
                not_negative("cispo.band.around_one.high", high)
            }
        }
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let ratio = input.ratio().inner();
        let (low, high) = match self.band {
            CispoBand::Cap(cap) => (None, cap),
            CispoBand::AroundOne { low, high } => (Some(1.0 - low), 1.0 + high),
        };
        let weight = ratio.clone().clamp_max(high);
        let weight = low.map_or(weight.clone(), |low| weight.clamp_min(low));
        let advantages = input.advantages.clone();
        let rose = ratio.clone().greater_scalar(high);
        let outside = match low {
            Some(low) => rose.clone().bool_or(ratio.lower_scalar(low)),
            None => rose.clone(),
        };
        let up = advantages.clone().greater_scalar(0.0);
        Ok(SurrogateTerm {
            clipped_high: Some(rose.bool_and(up)),
            clipped: Some(outside),
            ..SurrogateTerm::new((weight * advantages * input.log_probs.clone()).neg())
        })
    }
}
