//! How far the policy has moved from its reference.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::Aggregation;
use super::ratio::LARGEST_EXPONENT;
use crate::{Error, Result};

/// Estimators of `KL(pi || ref)` from sampled tokens (Schulman, "Approximating KL Divergence", 2020), with
/// `x = ln ref(y) - ln pi(y)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// `-x`: unbiased, large variance, can be negative. Right inside a reward; inside a loss its expected
    /// gradient on-policy is zero, so that a trainer refuses it there unless it is straight-through or importance-corrected.
    K1,
    /// `x^2 / 2`: biased value, the gradient of the KL on-policy.
    K2,
    /// `e^x - x - 1`: unbiased, never negative (GRPO, arXiv 2402.03300, eq. 4).
    K3,
    /// `|x|`: the size of the log-ratio; no estimator of the KL, but verl and SkyRL offer it.
    Abs,
}

impl KlEstimator {
    /// Per-token values, differentiable in `log_probs`.
    pub fn per_token<const D: usize>(
        &self,
        log_probs: Tensor<D>,
        ref_log_probs: Tensor<D>,
    ) -> Tensor<D> {
        self.of_log_ratio(ref_log_probs - log_probs)
    }

    /// Per-token values at `x = ln ref - ln pi`.
    fn of_log_ratio<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::K1 => x.neg(),
            Self::K2 => x.square().mul_scalar(0.5),
            Self::K3 => x.clone().clamp_max(LARGEST_EXPONENT).exp() - x - 1.0,
            Self::Abs => x.abs(),
        }
    }

    /// The same on the host.
    pub fn value(&self, log_prob: f64, ref_log_prob: f64) -> f64 {
        let x = ref_log_prob - log_prob;
        match self {
            Self::K1 => -x,
            Self::K2 => 0.5 * x * x,
            Self::K3 => x.exp_m1() - x,
            Self::Abs => x.abs(),
        }
    }
}

/// A KL term: `coef * aggregate(KL)` is added to a loss, or `coef * KL_t` taken off a reward.
///
/// ```
/// use rlvr::loss::{KlEstimator, KlPenalty};
///
/// let grpo = KlPenalty::new(0.04, KlEstimator::K3);
/// let verl = KlPenalty { log_ratio_clamp: Some(20.0), value_clamp: Some(10.0), ..grpo }; // its `low_var_kl`
/// let deepseek_v32 = KlPenalty { importance_corrected: true, ..grpo };
/// assert!(verl.validate().is_ok() && deepseek_v32.validate().is_ok());
/// ```
#[doc(alias = "kl_loss_type")]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlPenalty {
    /// The coefficient, usually called beta; above 0 (without a KL term, leave the penalty out: no reference
    /// policy is kept then).
    #[doc(alias("beta", "kl_loss_coef"))]
    pub coef: f64,
    /// The estimator.
    pub estimator: KlEstimator,
    /// The value of the estimator with the gradient of [`K2`](KlEstimator::K2), which is that of the KL on-policy (verl's `+`).
    /// Default false.
    #[serde(default)]
    pub straight_through: bool,
    /// Clamps `x = ln ref - ln pi` to ± this before anything else; no gradient outside. Default: none (verl: 20 for k3).
    #[serde(default)]
    pub log_ratio_clamp: Option<f64>,
    /// Clamps the estimate to ± this; no gradient outside. Default: none (verl: 10 for k3).
    #[serde(default)]
    pub value_clamp: Option<f64>,
    /// Multiplies the estimate by the objective's ratio `pi / pi_old`, which makes it unbiased for tokens of the old policy
    /// (DeepSeek-V3.2, arXiv 2512.02556). The gradient runs through both factors. Only in a loss. Default false.
    #[serde(default)]
    pub importance_corrected: bool,
    /// How its tokens become a scalar. Default: as those of the surrogate. Only in a loss.
    #[serde(default)]
    pub aggregation: Option<Aggregation>,
}

impl KlPenalty {
    /// A plain penalty: no clamp, no correction, the gradient of the estimator itself.
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

    /// Rejects a coefficient or a clamp that is not above 0, and a gradient from two sources.
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

    /// Rejects what has no meaning inside a reward, where there is no gradient and no aggregation.
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
                "unset in a reward: it is about the gradient or the aggregation of a loss",
            )),
            None => Ok(()),
        }
    }

    /// Per-token values without coefficient and importance correction, differentiable in `log_probs`.
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

    /// The same on the host.
    pub fn value(&self, log_prob: f64, ref_log_prob: f64) -> f64 {
        let hold = |x: f64, bound: Option<f64>| bound.map_or(x, |bound| x.clamp(-bound, bound));
        let x = hold(ref_log_prob - log_prob, self.log_ratio_clamp);
        hold(self.estimator.value(0.0, x), self.value_clamp)
    }
}

/// The adaptive controller of a KL coefficient (Ziegler et al., arXiv 1909.08593, sec. 2.2).
///
/// After n samples with mean KL `k`: `coef *= 1 + clip(k/target - 1, -0.2, 0.2) * min(n / horizon, 4)`, so that one update changes the
/// coefficient by at most four fifths, and never its sign.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveKl {
    /// The coefficient now.
    pub coef: f64,
    /// The KL aimed at, in nats.
    pub target: f64,
    /// Samples over which a full correction of 20 % is made; usually many times those of one update.
    pub horizon: f64,
}

impl AdaptiveKl {
    /// Moves the coefficient after `samples` samples with mean KL `kl`.
    pub fn update(&mut self, kl: f64, samples: usize) {
        let error = (kl / self.target - 1.0).clamp(-0.2, 0.2);
        self.coef *= 1.0 + error * (samples as f64 / self.horizon).min(4.0);
    }
}
