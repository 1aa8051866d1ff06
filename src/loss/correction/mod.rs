//! When generation and training disagree: the engine that sampled (`mu`) and the policy as the trainer computes it (`pi_old`)
//! give the same token different probabilities - other kernels, other precision, other weights. A correction weighs or rejects
//! what was sampled, and its diagnostics tell whether one is needed.
//!
//! Everything here is host arithmetic in f64 on the rows of a step: a few numbers per token, none of which carries a gradient.

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

/// Whose log-probs stand above those of the sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Numerator {
    /// `pi_old`: the usual, decoupled form with three policies. The ratio of the surrogate is `pi / pi_old`.
    #[default]
    Old,
    /// `sg(pi)`: the bypass with two policies, where the sampler's log-probs serve as the old ones too.
    Current,
}

/// The correction of a sampler that is not the policy: importance weights, rejection, or both.
///
/// With `d_t = ln pi_old(y_t) - ln mu(y_t)`:
///
/// - [weights](ImportanceWeights) multiply the surrogate of each token; the KL term and the entropy bonus are left alone;
/// - tokens or completions that a [rejection](Rejection) refuses leave the mask, for every term. Their weights are computed before.
///
/// Sources: TIS (Yao et al., 2025), IcePop (Ling team, 2025), verl's `rollout_correction`, TRL's `vllm_importance_sampling_mode`.
///
/// ```
/// use rlvr::loss::SamplerCorrection;
///
/// let tis = SamplerCorrection::token_truncate(2.0);
/// let icepop = SamplerCorrection::token_mask(0.5, 5.0);
/// let trl = SamplerCorrection::sequence_mask(None, 3.0);
/// let geometric = SamplerCorrection::geometric_rejection(0.999, 1.001);
/// assert!([tis, icepop, trl, geometric].iter().all(|one| one.validate().is_ok()));
/// ```
#[doc(alias("vllm_importance_sampling_correction", "rollout_correction"))]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerCorrection {
    /// How terms are weighed. Default: not at all.
    pub weights: Option<ImportanceWeights>,
    /// What is refused; all must pass. Default: nothing.
    pub rejection: Vec<Rejection>,
    /// Whose log-probs the weights and rejections compare with the sampler's. Default: the old policy's.
    pub numerator: Numerator,
    /// Compute the weights for the metrics, but do not multiply by them. Rejection still acts. Default false.
    pub measure_only: bool,
}

impl SamplerCorrection {
    fn weighing(level: WeightLevel, action: WeightAction, min: Option<f64>, max: f64) -> Self {
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
        Self::weighing(WeightLevel::Token, WeightAction::Truncate, None, max)
    }

    /// IcePop: `exp(d_t)` where it lies in `[min, max]`, else 0.
    pub fn token_mask(min: f64, max: f64) -> Self {
        Self::weighing(WeightLevel::Token, WeightAction::Mask, Some(min), max)
    }

    /// `min(exp(sum_t d_t), max)` for the whole completion.
    pub fn sequence_truncate(max: f64) -> Self {
        Self::weighing(WeightLevel::Sequence, WeightAction::Truncate, None, max)
    }

    /// `exp(sum_t d_t)` for the whole completion where it lies in the bounds, else 0. TRL's default, with a cap of 3.
    pub fn sequence_mask(min: Option<f64>, max: f64) -> Self {
        Self::weighing(WeightLevel::Sequence, WeightAction::Mask, min, max)
    }

    /// No weights; completions whose geometric mean of `mu / pi_old` lies outside of `[lower, upper]` are rejected.
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

    /// The same correction with one more rejection.
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

    /// The weights that the terms are multiplied by: none if they are only measured.
    pub fn acting_weights(&self) -> Option<ImportanceWeights> {
        self.weights.filter(|_| !self.measure_only)
    }

    /// The weights that are divided by their mean over the step.
    pub(super) fn normalized_weights(&self) -> Option<ImportanceWeights> {
        self.weights.filter(|weights| weights.batch_normalize)
    }

    /// Whether the step has to be compared before its micro-batches: for a mean of weights, or for counts after rejection.
    pub(super) fn gathers(&self) -> bool {
        self.normalized_weights().is_some() || !self.rejection.is_empty()
    }

    /// The weight of every token, and which tokens are kept, where `log_probs.policy` is the [numerator](Self::numerator).
    ///
    /// `weight_mean` is the mean of the whole step's weights, by which [normalised](ImportanceWeights::batch_normalize) weights are
    /// divided; `None` takes that of these rollouts.
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

    /// 1 at the tokens that pass every rejection, 0 at the others.
    pub(super) fn kept(&self, log_probs: RolloutLogProbs) -> PerToken {
        let mut kept = log_probs.policy.map(|_| 1.0);
        for rejection in &self.rejection {
            rejection.reject(log_probs, &mut kept);
        }
        kept
    }

    /// What the weights and rejections did to the rollouts of a whole step, by the names that verl gives them.
    pub fn diagnostics(&self, log_probs: RolloutLogProbs) -> Vec<(String, f64)> {
        let mut metrics = log_probs.mismatch();
        if let Some(weights) = &self.weights {
            metrics.extend(diagnostics::of_weights(weights, log_probs));
        }
        metrics.extend(diagnostics::of_rejections(&self.rejection, log_probs));
        metrics
    }
}

/// What a correction makes of the tokens of some rollouts.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenWeights {
    /// The importance weight of every token; none if the correction has no weights.
    pub weights: Option<PerToken>,
    /// 1 at every token that is kept, 0 where it is rejected.
    pub kept: PerToken,
}

/// The log-probs that a correction compares, of the trained tokens of some rollouts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutLogProbs<'a> {
    policy: &'a PerToken,
    sampler: &'a PerToken,
}

impl<'a> RolloutLogProbs<'a> {
    /// `ln pi(y_t)` of the policy that is the numerator, and `ln mu(y_t)` of the sampler, in nats. NaN in `sampler`: it could not
    /// score the token, whose log-ratio then counts as 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two differ in the number of rollouts or of tokens.
    pub fn new(policy: &'a PerToken, sampler: &'a PerToken) -> Result<Self> {
        sampler.check_lengths("sampler log-probs", &policy.lengths())?;
        Ok(Self { policy, sampler })
    }

    /// How far sampler and policy are apart, whether or not anything is corrected, by the names that verl gives the numbers: `kl`
    /// (`E[ln mu - ln pi]`), `k3_kl`, perplexities of both, their log-ratio, and the chi-square divergences `chi2_token` and `chi2_seq`.
    ///
    /// A `kl` of about 0.001 is what two numerically different engines with equal weights show. Means are over tokens, or over rollouts
    /// of the mean over the rollout's tokens; a rollout without a token counts as 0 among them.
    pub fn mismatch(self) -> Vec<(String, f64)> {
        diagnostics::mismatch(self)
    }

    /// TRL's two diagnostics: `sampling_logp_difference/{mean,max}` of `|ln pi - ln mu|` over the tokens that the sampler could score, and
    /// `importance_sampling_ratio/{min,mean,max}` of the bounded weights, over tokens or, for weights of whole completions, over all
    /// rollouts.
    pub fn sampling_difference(self, weights: Option<&ImportanceWeights>) -> Vec<(String, f64)> {
        diagnostics::sampling_difference(self, weights)
    }

    /// The number of rollouts.
    fn len(&self) -> usize {
        self.policy.len()
    }

    /// The log-ratio `ln pi - ln mu` of every token of rollout `b`.
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

    /// Those of all rollouts, one after the other.
    fn all_log_ratios(&self) -> Vec<f64> {
        (0..self.len()).flat_map(|b| self.log_ratios(b)).collect()
    }
}

/// The sum of some weights and their number, to be added up over micro-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WeightSum {
    sum: f64,
    count: usize,
}

impl WeightSum {
    /// Over the tokens, or over the completions that have a token.
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

    /// 1 where there is nothing to divide by.
    pub(super) fn mean(&self) -> f64 {
        let mean = self.sum / self.count.max(1) as f64;
        if mean > 1e-8 { mean } else { 1.0 }
    }
}
