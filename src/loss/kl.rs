//! How far the policy has moved from its reference.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::ratio::LARGEST_EXPONENT;
use crate::{Error, Result};

/// Estimators of `KL(pi || ref)` from sampled tokens (Schulman, "Approximating KL Divergence", 2020), with
/// `x = ln ref(y) - ln pi(y)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `-x`: unbiased, large variance, can be negative. Right inside a reward; inside a loss its expected
    /// gradient on-policy is zero.
    K1,
    /// `x^2 / 2`: biased value, the gradient of the KL on-policy.
    K2,
    /// `e^x - x - 1`: unbiased, never negative (GRPO, arXiv 2402.03300, eq. 4).
    K3,
}

impl KlEstimator {
    /// Per-token values, differentiable in `log_probs`.
    pub fn per_token<const D: usize>(
        &self,
        log_probs: Tensor<D>,
        ref_log_probs: Tensor<D>,
    ) -> Tensor<D> {
        let x = ref_log_probs - log_probs;
        match self {
            Self::K1 => x.neg(),
            Self::K2 => x.square().mul_scalar(0.5),
            Self::K3 => x.clone().clamp_max(LARGEST_EXPONENT).exp() - x - 1.0,
        }
    }

    /// The same on the host.
    pub fn value(&self, log_prob: f64, ref_log_prob: f64) -> f64 {
        let x = ref_log_prob - log_prob;
        match self {
            Self::K1 => -x,
            Self::K2 => 0.5 * x * x,
            Self::K3 => x.exp_m1() - x,
        }
    }
}

/// A KL term: `coef * aggregate(KL)` is added to a loss, or `coef * KL_t` taken off a reward.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlPenalty {
    /// The coefficient, usually called beta; above 0 (without a KL term, leave the penalty out: no reference
    /// policy is kept then).
    pub coef: f64,
    /// The estimator.
    pub estimator: KlEstimator,
}

impl KlPenalty {
    /// Refuses a coefficient that is not above 0.
    pub fn validate(&self) -> Result<()> {
        if !(self.coef.is_finite() && self.coef > 0.0) {
            return Err(Error::config(
                "kl.coef",
                self.coef,
                "a finite number above 0, or no KL term at all",
            ));
        }
        Ok(())
    }
}

/// The adaptive controller of a KL coefficient (Ziegler et al., arXiv 1909.08593, sec. 2.2).
///
/// After n samples with mean KL `k`: `coef *= 1 + clip(k/target - 1, -0.2, 0.2) * n / horizon`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveKl {
    /// The coefficient now.
    pub coef: f64,
    /// The KL aimed at, in nats.
    pub target: f64,
    /// Samples over which a full correction of 20 % is made.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Moves the coefficient after `samples` samples with mean KL `kl`.
    pub fn update(&mut self, kl: f64, samples: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.coef *= 1.0 + error * samples as f64 / self.horizon;
    }
}
