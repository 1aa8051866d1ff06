//! A smooth weight of the completion's ratio: VESPO.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{RatioUse, SurrogateInput, SurrogateLoss, SurrogateTerm, only, positive};
use crate::loss::{RatioLevel, WeightLevel};
use crate::{Error, Result};

/// VESPO (arXiv 2602.10693): the policy gradient, weighted by a detached, smooth function of the
/// completion's ratio that decreases on both sides of 1.
///
/// ```text
/// S   = clamp(sum_t clamp(d_t, +-20) + sum_t clamp(ln w_t, ln 1e-8, 20), ln 1e-8, 20)
/// phi = exp(lambda + k S - lambda exp(S)),  (k, lambda) by the sign of A
/// L   = -sg(phi) A ln pi(y_t)
/// ```
///
/// `w` are the sampler's token weights, if there is a correction: they enter `phi` and do not
/// multiply the term again. A token with weight 0 counts as `ln 1e-8`, which makes the weight of
/// its completion negligible. `phi(1) = 1`. The metric `phi` is its mean. As in TRL, an
/// importance-corrected KL is multiplied by the ratio at the objective's level, which the surrogate
/// itself does not use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vespo {
    /// k where A >= 0; above 0. Default 2.
    pub k_pos: f64,
    /// lambda where A >= 0; above 0. Default 3.
    pub lambda_pos: f64,
    /// k where A < 0; above 0. Default 3.
    pub k_neg: f64,
    /// lambda where A < 0; above 0. Default 2.
    pub lambda_neg: f64,
}

impl Default for Vespo {
    fn default() -> Self {
        Self {
            k_pos: 2.0,
            lambda_pos: 3.0,
            k_neg: 3.0,
            lambda_neg: 2.0,
        }
    }
}

/// The bound on the log-ratio of a single token.
const TOKEN_BOUND: f64 = 20.0;
/// The smallest weight that is distinguished from 0.
const SMALLEST_WEIGHT: f64 = 1e-8;

impl SurrogateLoss for Vespo {
    fn name(&self) -> &str {
        "vespo"
    }

    fn validate(&self, level: RatioLevel) -> Result<()> {
        for (field, value) in [
            ("vespo.k_pos", self.k_pos),
            ("vespo.lambda_pos", self.lambda_pos),
            ("vespo.k_neg", self.k_neg),
            ("vespo.lambda_neg", self.lambda_neg),
        ] {
            positive(field, value)?;
        }
        let reason =
            "it sums log-ratios itself; the level applies only to an importance-corrected KL";
        only(
            "vespo",
            level,
            &[RatioLevel::Token, RatioLevel::Sequence],
            reason,
        )
    }

    fn ratio_use(&self) -> RatioUse {
        RatioUse::Own
    }

    fn takes_sampler_weights(&self) -> bool {
        true
    }

    fn vanishes_without_advantage(&self) -> bool {
        true
    }

    fn validate_sampler_weights(&self, level: WeightLevel) -> Result<()> {
        match level {
            WeightLevel::Token => Ok(()),
            WeightLevel::Sequence => Err(Error::config(
                "sampler_correction.weights.level",
                "sequence",
                "token with the vespo surrogate: it multiplies the token weights itself",
            )),
        }
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let shape = input.difference.dims();
        let sum = |values: Tensor<2>| (values * input.mask.clone()).sum_dim(1);
        let moved = input.difference.clone().inner();
        let mut total = sum(moved.clamp(-TOKEN_BOUND, TOKEN_BOUND));
        if let Some(weights) = &input.sampler_weights {
            let logarithms = weights.clone().clamp_min(SMALLEST_WEIGHT).log();
            total = total + sum(logarithms.clamp_max(TOKEN_BOUND));
        }
        let total = total.clamp(SMALLEST_WEIGHT.ln(), TOKEN_BOUND).expand(shape);

        let down = input.advantages.clone().lower_scalar(0.0);
        let by_sign = |up: f64, other: f64| {
            input
                .advantages
                .full_like(up)
                .mask_fill(down.clone(), other)
        };
        let k = by_sign(self.k_pos, self.k_neg);
        let lambda = by_sign(self.lambda_pos, self.lambda_neg);
        let exponent = lambda.clone() + k * total.clone() - lambda * total.exp();
        let phi = exponent.exp();
        let loss = (phi.clone() * input.advantages.clone() * input.log_probs.clone()).neg();
        Ok(SurrogateTerm {
            measured: vec![("phi", phi)],
            ..SurrogateTerm::new(loss)
        })
    }
}
