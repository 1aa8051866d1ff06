//! Corrections for a sampler that differs from the trained policy. The engine that sampled (`mu`)
//! and the policy as the trainer computes it (`pi_old`) can give the same token different
//! probabilities because of other kernels, another precision or older weights. A correction weights
//! or rejects the sampled tokens; its diagnostics show whether one is needed.
//!
//! Everything is computed on the host in f64; nothing carries a gradient.

mod diagnostics;
mod off_policy;
mod rejection;
mod weights;

use serde::{Deserialize, Serialize};

pub use off_policy::OffPolicyMask;
pub use rejection::{Rejection, RejectionScope, RejectionStatistic};
pub use weights::{ImportanceWeights, WeightAction, WeightLevel};

use crate::types::PerToken;
use crate::{Error, Result};

/// The numerator of the importance weights, whose denominator is the sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numerator {
    /// `pi_old`: the decoupled form with three policies. The ratio of the surrogate is
    /// `pi / pi_old`.
    #[default]
    Old,
    /// `sg(pi)`: the form with two policies (verl's bypass mode), in which the sampler's log-probs
    /// are also the old log-probs.
    Current,
}

/// A correction for a sampler that differs from the policy: importance weights, rejection, or both.
///
/// With `d_t = ln pi_old(y_t) - ln mu(y_t)`:
///
/// - [weights](ImportanceWeights) multiply the surrogate of each token, not the KL term and the
///   entropy bonus;
/// - tokens or completions that fail a [rejection](Rejection) rule are removed from the mask of
///   every term. Weights are computed before.
///
/// Sources: TIS (Yao et al., 2025), IcePop (Ling team, 2025), verl's `rollout_correction`, TRL's
/// `vllm_importance_sampling_mode`.
///
/// ```
/// use rlvr::loss::SamplerCorrection;
///
/// let tis = SamplerCorrection::token_truncate(2.0);
/// let icepop = SamplerCorrection::token_mask(0.5, 5.0);
/// let trl = SamplerCorrection::sequence_mask(None, 3.0);
/// let geometric = SamplerCorrection::geometric_rejection(0.999, 1.001);
/// assert!(
///     [tis, icepop, trl, geometric]
///         .iter()
///         .all(|one| one.validate().is_ok())
/// );
/// ```
#[doc(alias("vllm_importance_sampling_correction", "rollout_correction"))]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerCorrection {
    /// The importance weights. Default: none.
    pub weights: Option<ImportanceWeights>,
    /// The rejection rules; a token must pass all of them. Default: none.
    pub rejection: Vec<Rejection>,
    /// The policy that weights and rejections compare with the sampler. Default: the old policy.
    pub numerator: Numerator,
    /// Computes the weights for the metrics without multiplying by them. Rejection still applies.
    /// Default false.
    pub measure_only: bool,
}

impl SamplerCorrection {
    fn weighting(level: WeightLevel, action: WeightAction, min: Option<f64>, max: f64) -> Self {
        Self {
            weights: Some(ImportanceWeights {
                min,
                max: Some(max),
                ..ImportanceWeights::new(level, action)
            }),
            ..Self::default()
        }
    }

    /// Truncated importance sampling (TIS): `min(exp(d_t), max)`.
    pub fn token_truncate(max: f64) -> Self {
        Self::weighting(WeightLevel::Token, WeightAction::Truncate, None, max)
    }

    /// IcePop: `exp(d_t)` where it lies in `[min, max]`, else 0.
    pub fn token_mask(min: f64, max: f64) -> Self {
        Self::weighting(WeightLevel::Token, WeightAction::Mask, Some(min), max)
    }

    /// Truncated sequence weights: `min(exp(sum_t d_t), max)` for the whole completion.
    pub fn sequence_truncate(max: f64) -> Self {
        Self::weighting(WeightLevel::Sequence, WeightAction::Truncate, None, max)
    }

    /// Masked sequence weights: `exp(sum_t d_t)` for the whole completion where it lies within the
    /// bounds, else 0. TRL's default, with a cap of 3.
    pub fn sequence_mask(min: Option<f64>, max: f64) -> Self {
        Self::weighting(WeightLevel::Sequence, WeightAction::Mask, min, max)
    }

    /// No weights; rejects completions whose geometric mean of `mu / pi_old` lies outside
    /// `[lower, upper]`.
    pub fn geometric_rejection(lower: f64, upper: f64) -> Self {
        Self {
            rejection: vec![Rejection {
                scope: RejectionScope::SequenceMean,
                statistic: RejectionStatistic::K1,
                lower: Some(lower),
                upper,
            }],
            ..Self::default()
        }
    }

    /// Adds a rejection rule.
    #[must_use]
    pub fn with_rejection(mut self, rejection: Rejection) -> Self {
        self.rejection.push(rejection);
        self
    }

    /// Rejects a correction that does nothing, and invalid bounds.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        if self.weights.is_none() && self.rejection.is_empty() {
            return Err(Error::config(
                "sampler_correction",
                "neither weights nor rejection",
                "at least one of them, or no correction at all",
            ));
        }
        if let Some(weights) = &self.weights {
            weights.validate()?;
        }
        self.rejection.iter().try_for_each(Rejection::validate)
    }

    /// Returns the weights that multiply the terms; `None` if they are only measured.
    pub(crate) fn acting_weights(&self) -> Option<ImportanceWeights> {
        self.weights.filter(|_| !self.measure_only)
    }

    /// Returns the weights if they are divided by their mean over the step.
    pub(super) fn normalized_weights(&self) -> Option<ImportanceWeights> {
        self.weights.filter(|weights| weights.batch_normalize)
    }

    /// Returns whether statistics of the whole step are needed: the mean of the weights, or the
    /// counts after rejection.
    pub(super) fn gathers(&self) -> bool {
        self.normalized_weights().is_some() || !self.rejection.is_empty()
    }

    /// Computes the weight of every token and which tokens are kept. The policy of `log_probs` must
    /// be the [numerator](Self::numerator).
    ///
    /// `weight_mean` is the mean of the whole step's weights, the divisor of
    /// [normalised](ImportanceWeights::batch_normalize) weights; with `None` it is the mean over
    /// these rollouts.
    pub fn correct(&self, log_probs: RolloutLogProbs, weight_mean: Option<f64>) -> TokenWeights {
        let weights = self.weights.map(|config| {
            let weights = config.weights(log_probs).bounded;
            if !config.batch_normalize {
                return weights;
            }
            let mean = weight_mean.unwrap_or_else(|| WeightSum::of(&config, log_probs).mean());
            weights.map(|weight| weight / mean)
        });
        let kept = self.kept(log_probs);
        TokenWeights { weights, kept }
    }

    /// Returns 1 at the tokens that pass every rejection, 0 at the others.
    pub(super) fn kept(&self, log_probs: RolloutLogProbs) -> PerToken {
        let mut kept = log_probs.policy.map(|_| 1.0);
        for rejection in &self.rejection {
            rejection.reject(log_probs, &mut kept);
        }
        kept
    }

    /// Returns metrics of the weights and rejections over the rollouts of a whole step, under
    /// verl's names.
    pub fn diagnostics(&self, log_probs: RolloutLogProbs) -> Vec<(String, f64)> {
        let mut metrics = log_probs.mismatch();
        if let Some(weights) = &self.weights {
            metrics.extend(diagnostics::of_weights(weights, log_probs));
        }
        metrics.extend(diagnostics::of_rejections(&self.rejection, log_probs));
        metrics
    }
}

/// The weights of a correction for the tokens of some rollouts.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenWeights {
    /// The importance weight of every token; `None` if the correction has no weights.
    pub weights: Option<PerToken>,
    /// 1 at every token that is kept, 0 where it is rejected.
    pub kept: PerToken,
}

/// The log-probs that a correction compares, for the trained tokens of some rollouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutLogProbs<'a> {
    policy: &'a PerToken,
    sampler: &'a PerToken,
}

impl<'a> RolloutLogProbs<'a> {
    /// Pairs `ln pi(y_t)` of the numerator policy with `ln mu(y_t)` of the sampler, in nats. NaN in
    /// `sampler` means that it could not score the token; its log-ratio then counts as 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two differ in the number of rollouts or of tokens.
    pub fn new(policy: &'a PerToken, sampler: &'a PerToken) -> Result<Self> {
        sampler.check_lengths("sampler log-probs", &policy.lengths())?;
        Ok(Self { policy, sampler })
    }

    /// Returns metrics of the difference between sampler and policy, under verl's names: `kl`
    /// (`E[ln mu - ln pi]`, in nats), `k3_kl`, the perplexities of both, their log-ratio, and the
    /// chi-square divergences `chi2_token` and `chi2_seq`.
    ///
    /// Two numerically different engines with equal weights show a `kl` of about 0.001. Means are
    /// over tokens, or over rollouts of the mean over the rollout's tokens, where a rollout without
    /// tokens counts as 0.
    pub fn mismatch(self) -> Vec<(String, f64)> {
        diagnostics::mismatch(self)
    }

    /// Returns TRL's two diagnostics: `sampling_logp_difference/{mean,max}` of `|ln pi - ln mu|`
    /// over the tokens that the sampler could score, and `importance_sampling_ratio/{min,mean,max}`
    /// of the bounded weights, over tokens or, for sequence weights, over all rollouts.
    pub fn sampling_difference(self, weights: Option<&ImportanceWeights>) -> Vec<(String, f64)> {
        diagnostics::sampling_difference(self, weights)
    }

    /// Returns the number of rollouts.
    fn len(&self) -> usize {
        self.policy.len()
    }

    /// Returns the log-ratio `ln pi - ln mu` of every token of rollout `b`.
    fn log_ratios(&self, b: usize) -> impl Iterator<Item = f64> + 'a {
        let pairs = self.policy[b].iter().zip(&self.sampler[b]);
        pairs.map(|(policy, sampler)| {
            if sampler.is_nan() {
                0.0
            } else {
                policy - sampler
            }
        })
    }

    /// Returns the log-ratios of all rollouts, concatenated.
    fn all_log_ratios(&self) -> Vec<f64> {
        (0..self.len()).flat_map(|b| self.log_ratios(b)).collect()
    }
}

/// The sum and count of weights, added up over micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WeightSum {
    sum: f64,
    count: usize,
}

impl WeightSum {
    /// Sums over the tokens, or over the completions that have tokens.
    pub(super) fn of(config: &ImportanceWeights, log_probs: RolloutLogProbs) -> Self {
        let counted = match config.level {
            WeightLevel::Token => usize::MAX,
            WeightLevel::Sequence => 1,
        };
        let mut total = Self::default();
        for row in config.weights(log_probs).bounded.rows() {
            for weight in row.iter().take(counted) {
                total.sum += weight;
                total.count += 1;
            }
        }
        total
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    /// Returns the mean, or 1 if it is too small to divide by.
    pub(super) fn mean(&self) -> f64 {
        let mean = self.sum / self.count.max(1) as f64;
        if mean > 1e-8 { mean } else { 1.0 }
    }
}
