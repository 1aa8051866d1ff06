//! A trust region on token probabilities: DPPO.

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

use super::{SurrogateInput, SurrogateLoss, SurrogateTerm, only, positive};
use crate::loss::RatioLevel;
use crate::{Error, Result};

/// The divergence of two Bernoulli distributions, the sampled token and all others: `p = pi(y_t)`,
/// `q = pi_old(y_t)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryDivergence {
    /// `|p - q|`, the total variation.
    Tv,
    /// `q ln(q/p) + (1-q) ln((1-q)/(1-p))`, the KL divergence from old to new.
    Kl,
}

/// DPPO (arXiv 2602.04879): tokens that have already moved too far in the direction of their
/// advantage get no gradient. The distance is measured in probability, not as a ratio, so that rare
/// tokens are not clipped needlessly.
///
/// ```text
/// keep = A > 0 ? (D <= high or p <= q) : (D <= low or p >= q)
/// L    = -sg(min(r, ratio_cap)) keep A ln pi(y_t)
/// ```
///
/// Source: the paper, and verl's `dppo_tv` and `dppo_kl`, whose `clip_ratio_c` is the cap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dppo {
    /// The measure of the distance.
    pub divergence: BinaryDivergence,
    /// The largest distance for tokens that become less likely, above 0. 0.15 to 0.2 is usual with
    /// total variation.
    pub low: f64,
    /// The largest distance for tokens that become more likely, above 0.
    pub high: f64,
    /// Cap on the detached ratio, above 1. 20 in the paper; 3 in verl's configuration.
    pub ratio_cap: f64,
}

/// Keeps the logarithm of `1 - p` finite.
const TINY: f64 = 1e-8;

impl SurrogateLoss for Dppo {
    fn name(&self) -> &str {
        "dppo"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        positive("dppo.low", self.low)?;
        positive("dppo.high", self.high)?;
        if !(self.ratio_cap.is_finite() && self.ratio_cap > 1.0) {
            let expected = "a finite number above 1";
            return Err(Error::config("dppo.ratio_cap", self.ratio_cap, expected));
        }
        let reason = "it bounds the probability of each token";
        only("dppo", level, &[RatioLevel::Token], reason)
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let ratio = input.ratio().inner();
        let log_probs = input.log_probs.clone().inner();
        let (p, q) = (log_probs.clone().exp(), input.old_log_probs.clone().exp());
        let near = |bound: f64| -> Tensor<2, Bool> {
            match self.divergence {
                BinaryDivergence::Tv => (p.clone() - q.clone()).abs().lower_equal_scalar(bound),
                BinaryDivergence::Kl => {
                    let complement = |x: &Tensor<2>| x.clone().neg() + 1.0 + TINY;
                    let sampled = q.clone() * (input.old_log_probs.clone() - log_probs.clone());
                    let others = (q.clone().neg() + 1.0) * (complement(&q) / complement(&p)).log();
                    (sampled + others).lower_equal_scalar(bound)
                }
            }
        };
        let up = input.advantages.clone().greater_scalar(0.0);
        let rising = near(self.high).bool_or(p.clone().lower_equal(q.clone()));
        let falling = near(self.low).bool_or(p.clone().greater_equal(q.clone()));
        let keep = falling.mask_where(up.clone(), rising);

        let weight = ratio.clone().clamp_max(self.ratio_cap) * keep.clone().float();
        let loss = (weight * input.advantages.clone() * input.log_probs.clone()).neg();
        let dropped = keep.clone().bool_not();
        Ok(SurrogateTerm {
            clipped_low: Some(dropped.clone().bool_and(up.clone().bool_not())),
            clipped_high: Some(dropped.clone().bool_and(up)),
            clipped: Some(dropped),
            bounded: Some(ratio.greater_scalar(self.ratio_cap).bool_and(keep)),
            ..SurrogateTerm::new(loss)
        })
    }
}
