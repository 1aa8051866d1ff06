//! KL divergence from the reference policy: estimators, penalty, adaptive coefficient.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::Aggregation;
use super::ratio::LARGEST_EXPONENT;
use crate::{Error, Result};

/// Estimators of `KL(pi || ref)` from sampled tokens (Schulman, "Approximating KL Divergence",
/// 2020), with `x = ln ref(y) - ln pi(y)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `-x`: unbiased, large variance, can be negative. Correct inside a reward; inside a loss its
    /// expected on-policy gradient is zero, so a trainer returns an error unless it is
    /// straight-through or importance-corrected.
    K1,
    /// `x^2 / 2`: biased value; its on-policy gradient is that of the KL.
    K2,
    /// `e^x - x - 1`: unbiased, never negative (GRPO, arXiv 2402.03300, eq. 4).
    K3,
    /// `|x|`: the magnitude of the log-ratio. Not an estimator of the KL; offered by verl and
    /// SkyRL.
    Abs,
}

impl KlEstimator {
    /// Computes per-token values, in nats, differentiable in `log_probs`.
    pub fn per_token<const D: usize>(
        &self,
        log_probs: Tensor<D>,
        ref_log_probs: Tensor<D>,
    ) -> Tensor<D> {
        self.of_log_ratio(ref_log_probs - log_probs)
    }

    /// Computes per-token values at `x = ln ref - ln pi`.
    fn of_log_ratio<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::K1 => x.neg(),
            Self::K2 => x.square().mul_scalar(0.5),
            Self::K3 => x.clone().clamp_max(LARGEST_EXPONENT).exp() - x - 1.0,
            Self::Abs => x.abs(),
        }
    }

    /// Computes the value of one token on the host, in nats.
    pub(crate) fn value(&self, log_prob: f64, ref_log_prob: f64) -> f64 {
        let x = ref_log_prob - log_prob;
        match self {
            Self::K1 => -x,
            Self::K2 => 0.5 * x * x,
            Self::K3 => x.exp_m1() - x,
            Self::Abs => x.abs(),
        }
    }
}

/// A KL penalty: `coef * aggregate(KL)` added to a loss, or `coef * KL_t` subtracted from rewards.
///
/// ```
/// use rlvr::loss::{KlEstimator, KlPenalty};
///
/// let grpo = KlPenalty::new(0.04, KlEstimator::K3);
/// let verl = KlPenalty {
///     log_ratio_clamp: Some(20.0),
///     value_clamp: Some(10.0),
///     ..grpo
/// }; // its `low_var_kl`
/// let deepseek_v32 = KlPenalty {
///     importance_corrected: true,
///     ..grpo
/// };
/// assert!(verl.validate().is_ok() && deepseek_v32.validate().is_ok());
/// ```
#[doc(alias = "kl_loss_type")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlPenalty {
    /// The coefficient, usually called beta; above 0. (Without a KL term leave the penalty out;
    /// then no reference policy is kept.)
    #[doc(alias("beta", "kl_loss_coef"))]
    pub coef: f64,
    /// The estimator.
    pub estimator: KlEstimator,
    /// Uses the value of the estimator with the gradient of [`K2`](KlEstimator::K2), the on-policy
    /// gradient of the KL (verl's `+`). Default false.
    #[serde(default)]
    pub straight_through: bool,
    /// Clamps `x = ln ref - ln pi` to ± this bound first; no gradient outside it. Default: none
    /// (verl: 20 for k3).
    #[serde(default)]
    pub log_ratio_clamp: Option<f64>,
    /// Clamps the estimate to ± this bound; no gradient outside it. Default: none (verl: 10 for
    /// k3).
    #[serde(default)]
    pub value_clamp: Option<f64>,
    /// Multiplies the estimate by the objective's ratio `pi / pi_old`, which makes it unbiased for
    /// tokens of the old policy (DeepSeek-V3.2, arXiv 2512.02556). The gradient flows through both
    /// factors. Only in a loss. Default false.
    #[serde(default)]
    pub importance_corrected: bool,
    /// How the token values are reduced to a scalar. Default: as the surrogate's terms. Only in a
    /// loss.
    #[serde(default)]
    pub aggregation: Option<Aggregation>,
}

impl KlPenalty {
    /// Creates a plain penalty: no clamp, no correction, the gradient of the estimator itself.
    pub fn new(coef: f64, estimator: KlEstimator) -> Self {
        Self {
            coef,
            estimator,
            straight_through: false,
            log_ratio_clamp: None,
            value_clamp: None,
            importance_corrected: false,
            aggregation: None,
        }
    }

    /// Rejects a coefficient or a clamp that is not above 0, and a penalty both straight-through
    /// and importance-corrected.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        if !(self.coef.is_finite() && self.coef > 0.0) {
            return Err(Error::config(
                "kl.coef",
                self.coef,
                "a finite number above 0, or no KL term at all",
            ));
        }
        for (field, clamp) in [
            ("kl.log_ratio_clamp", self.log_ratio_clamp),
            ("kl.value_clamp", self.value_clamp),
        ] {
            if let Some(clamp) = clamp.filter(|clamp| !(clamp.is_finite() && *clamp > 0.0)) {
                return Err(Error::config(
                    field,
                    clamp,
                    "a finite number above 0, or none",
                ));
            }
        }
        if self.straight_through && self.importance_corrected {
            return Err(Error::config(
                "kl.straight_through",
                true,
                "false with kl.importance_corrected: one replaces the gradient of the estimate, the other adds that of the ratio",
            ));
        }
        self.aggregation.map_or(Ok(()), |one| one.validate())
    }

    /// Rejects settings that do not apply inside a reward, where there is no gradient and no
    /// aggregation.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate_in_reward(&self) -> Result<()> {
        self.validate()?;
        let loss_only = [
            ("kl.straight_through", self.straight_through),
            ("kl.importance_corrected", self.importance_corrected),
            ("kl.aggregation", self.aggregation.is_some()),
        ];
        match loss_only.into_iter().find(|(_, set)| *set) {
            Some((field, _)) => Err(Error::config(
                field,
                "set",
                "unset in a reward: it concerns the gradient or the aggregation of a loss",
            )),
            None => Ok(()),
        }
    }

    /// Computes per-token values, in nats, without coefficient and importance correction;
    /// differentiable in `log_probs`.
    pub fn per_token<const D: usize>(
        &self,
        log_probs: Tensor<D>,
        ref_log_probs: Tensor<D>,
    ) -> Tensor<D> {
        let x = ref_log_probs - log_probs;
        let clamped = match self.log_ratio_clamp {
            Some(bound) => x.clone().clamp(-bound, bound),
            None => x.clone(),
        };
        let value = self.estimator.of_log_ratio(clamped);
        let value = match self.value_clamp {
            Some(bound) => value.clamp(-bound, bound),
            None => value,
        };
        if !self.straight_through {
            return value;
        }
        let backward = KlEstimator::K2.of_log_ratio(x);
        let constant = backward.clone().inner();
        (backward - constant) + value.inner()
    }

    /// Computes the value of one token on the host, as [`per_token`](Self::per_token).
    pub fn value(&self, log_prob: f64, ref_log_prob: f64) -> f64 {
        let clamp = |x: f64, bound: Option<f64>| bound.map_or(x, |bound| x.clamp(-bound, bound));
        let x = clamp(ref_log_prob - log_prob, self.log_ratio_clamp);
        clamp(self.estimator.value(0.0, x), self.value_clamp)
    }
}

/// An adaptive controller of a KL coefficient (Ziegler et al., arXiv 1909.08593, sec. 2.2).
///
/// After n samples with mean KL `k`:
/// `coef *= 1 + clip(k/target - 1, -0.2, 0.2) * min(n / horizon, 4)`, so one update changes the
/// coefficient by at most four fifths and never its sign.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveKl {
    /// The current coefficient.
    pub coef: f64,
    /// The target KL, in nats.
    pub target: f64,
    /// The number of samples over which a full correction of 20 % is made; usually many times that
    /// of one update.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Adapts the coefficient after `samples` samples with mean KL `kl`, in nats.
    pub fn update(&mut self, kl: f64, samples: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.coef *= 1.0 + error * (samples as f64 / self.horizon).min(4.0);
    }
}
