//! The policy objective and its validation.

use serde::{Deserialize, Serialize};

use super::surrogate::{RatioUse, SurrogateLoss};
use super::{
    Aggregation, KlPenalty, LogRatioClamp, Numerator, OffPolicyMask, RatioLevel, SamplerCorrection,
    Surrogate, TopEntropy,
};
use crate::{Error, Result};

/// A policy objective: a surrogate with aggregation, KL term, entropy bonus and corrections.
///
/// ```text
/// L_t  = surrogate(ln pi, ln r, A)                  the term of each token
/// L_t *= keep_t                                     with an off-policy mask
/// L_t *= selected_t                                 with a token selection
/// L_t *= w_t                                        with sampler weights
/// loss = aggregate(L) + kl.coef * aggregate(KL(pi || ref))
///                     - entropy_coef * aggregate(H * selected)
/// ```
///
/// Masks, selection and weights affect neither the KL term nor a denominator; a rejection of the
/// sampler correction removes tokens from the mask of every term. Create one from a preset
/// ([`presets`](super::presets)) or from its parts; the surrogate may be custom
/// ([`Surrogate::custom`]).
///
/// ```
/// use rlvr::loss::{Aggregation, PolicyObjective, RatioLevel, SamplerCorrection};
///
/// let objective = PolicyObjective {
///     ratio_level: RatioLevel::Sequence,
///     aggregation: Aggregation::SequenceMeanTokenMean,
///     sampler_correction: Some(SamplerCorrection::token_truncate(2.0)),
///     ..PolicyObjective::dapo()
/// };
/// objective.validate()?;
///
/// // DPPO bounds the probability of each token and has no sequence ratio.
/// let invalid = PolicyObjective {
///     ratio_level: RatioLevel::Sequence,
///     ..PolicyObjective::dppo_tv()
/// };
/// assert!(invalid.validate().unwrap_err().to_string().contains("dppo"));
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyObjective {
    /// The term of each token.
    #[doc(alias = "loss_mode")]
    pub surrogate: Surrogate,
    /// The level of the importance ratio. Default: token.
    #[serde(default)]
    pub ratio_level: RatioLevel,
    /// Bounds on the log-ratio. Default: none.
    #[serde(default)]
    pub log_ratio_clamp: Option<LogRatioClamp>,
    /// How token terms are reduced to a scalar.
    pub aggregation: Aggregation,
    /// The KL penalty to the reference in the loss. Default: none.
    #[serde(default)]
    pub kl: Option<KlPenalty>,
    /// The coefficient of the entropy bonus; 0 is none. Default 0.
    #[doc(alias = "entropy_coeff")]
    #[serde(default)]
    pub entropy_coef: f64,
    /// How the token entropies are reduced to a scalar. Default: as the surrogate's terms.
    #[serde(default)]
    pub entropy_aggregation: Option<Aggregation>,
    /// Trains on the tokens of highest entropy only. Default: on all tokens.
    #[serde(default)]
    pub top_entropy: Option<TopEntropy>,
    /// Excludes completions with a negative advantage that have become unlikely. Default: none.
    #[serde(default)]
    pub off_policy_mask: Option<OffPolicyMask>,
    /// Weights or rejects tokens whose probability under the sampler differs. Default: none.
    #[serde(default)]
    pub sampler_correction: Option<SamplerCorrection>,
}

impl PolicyObjective {
    /// Creates an objective of a surrogate and an aggregation, with token ratios and nothing else.
    pub fn new(surrogate: impl Into<Surrogate>, aggregation: Aggregation) -> Self {
        Self {
            surrogate: surrogate.into(),
            ratio_level: RatioLevel::Token,
            log_ratio_clamp: None,
            aggregation,
            kl: None,
            entropy_coef: 0.0,
            entropy_aggregation: None,
            top_entropy: None,
            off_policy_mask: None,
            sampler_correction: None,
        }
    }

    /// Replaces the surrogate.
    #[must_use]
    pub fn with_surrogate(self, surrogate: impl Into<Surrogate>) -> Self {
        Self {
            surrogate: surrogate.into(),
            ..self
        }
    }

    /// Replaces the KL term.
    #[must_use]
    pub fn with_kl(self, kl: Option<KlPenalty>) -> Self {
        Self { kl, ..self }
    }

    /// Replaces the entropy coefficient.
    #[must_use]
    pub fn with_entropy_coef(self, entropy_coef: f64) -> Self {
        Self {
            entropy_coef,
            ..self
        }
    }

    /// Replaces the sampler correction.
    #[must_use]
    pub fn with_sampler_correction(self, sampler_correction: Option<SamplerCorrection>) -> Self {
        Self {
            sampler_correction,
            ..self
        }
    }

    /// Returns whether a rollout with zero advantages has no gradient, so that it can be skipped:
    /// true without a KL term and an entropy bonus, for surrogates proportional to the advantage.
    pub fn ignores_zero_advantages(&self) -> bool {
        self.kl.is_none() && self.entropy_coef == 0.0 && self.surrogate.vanishes_without_advantage()
    }

    /// Returns whether [`statistics`](Self::statistics) needs the current log-probs and entropies
    /// of the whole step, that is, a forward pass over all of it before the first loss.
    pub(crate) fn needs_whole_step(&self) -> bool {
        let current = self.sampler_correction.as_ref().is_some_and(|correction| {
            correction.numerator == Numerator::Current && correction.gathers()
        });
        self.top_entropy.is_some() || self.surrogate.gathers() || current
    }

    /// Returns whether some term gives every prompt equal weight.
    pub(super) fn compares_prompts(&self) -> bool {
        let of_kl = self.kl.and_then(|kl| kl.aggregation);
        let all = [Some(self.aggregation), of_kl, self.entropy_aggregation];
        all.contains(&Some(Aggregation::PromptMean))
    }

    /// Returns whether [`loss`](Self::loss) needs [`statistics`](Self::statistics) of the whole
    /// step; otherwise [`StepCounts`](super::StepCounts) are enough.
    pub fn needs_statistics(&self) -> bool {
        let correction = self.sampler_correction.as_ref();
        let gathers = correction.is_some_and(SamplerCorrection::gathers);
        self.needs_whole_step() || self.compares_prompts() || gathers
    }

    /// Rejects invalid parts and invalid combinations of parts.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and, for a combination, the other part.
    pub fn validate(&self) -> Result<()> {
        let surrogate = self.surrogate.name();
        let ratio_use = self.surrogate.ratio_use();
        self.surrogate.validate(self.ratio_level)?;
        self.aggregation.validate()?;
        if let Some(aggregation) = &self.entropy_aggregation {
            aggregation.validate()?;
        }
        if let Some(kl) = &self.kl {
            kl.validate()?;
        }
        if !self.entropy_coef.is_finite() {
            return Err(Error::config(
                "entropy_coef",
                self.entropy_coef,
                "a finite number",
            ));
        }
        if let Some(clamp) = &self.log_ratio_clamp {
            clamp.validate()?;
            let corrected_kl = self.kl.is_some_and(|kl| kl.importance_corrected);
            if ratio_use != RatioUse::Objective && !corrected_kl {
                return Err(Error::config(
                    "log_ratio_clamp",
                    "set",
                    format!(
                        "none with the {surrogate} surrogate: it does not read the objective's ratio"
                    ),
                ));
            }
        }
        if let Some(selection) = &self.top_entropy {
            selection.validate()?;
            if !self.surrogate.is_per_token() {
                return Err(Error::config(
                    "top_entropy",
                    "set",
                    format!(
                        "none with the {surrogate} surrogate: it has one term for the whole completion and no tokens to select"
                    ),
                ));
            }
        }
        if let Some(mask) = &self.off_policy_mask {
            mask.validate()?;
        }
        match &self.sampler_correction {
            Some(correction) => self.validate_correction(correction),
            None => Ok(()),
        }
    }

    fn validate_correction(&self, correction: &SamplerCorrection) -> Result<()> {
        correction.validate()?;
        let surrogate = self.surrogate.name();
        let Some(weights) = correction.acting_weights() else {
            return Ok(());
        };
        if correction.numerator == Numerator::Current
            && self.surrogate.ratio_use() != RatioUse::None
        {
            return Err(Error::config(
                "sampler_correction.numerator",
                "current",
                format!(
                    "old, or measure_only, with the {surrogate} surrogate: its own ratio already compares the current policy \
                     with the sampler, and would count twice"
                ),
            ));
        }
        self.surrogate.validate_sampler_weights(weights.level)
    }
}
