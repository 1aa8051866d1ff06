//! Computes the loss of a micro-batch.

use burn::tensor::Tensor;

use super::aggregation::prompt_tokens;
use super::gather::{Columns, compared};
use super::input::{Cleaner, missing};
use super::ratio::LARGEST_EXPONENT;
use super::surrogate::{SurrogateInput, SurrogateLoss, SurrogateTerm};
use super::{
    Aggregation, Denominators, KlEstimator, LossInput, LossSums, PolicyObjective, RatioLevel,
    RolloutLogProbs, StepStatistics,
};
use crate::Result;

/// The result of [`PolicyObjective::loss`].
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// The scalar to minimise, `[1]`: this micro-batch's share of the step's loss; the shares sum
    /// to the whole.
    pub loss: Tensor<1>,
    /// Sums for metrics, detached.
    pub sums: LossSums,
    /// The mask, selection and weights of the tokens.
    pub tokens: TokenStats,
}

/// The mask, selection and weights of the tokens of a batch; all `[B, T]`, detached, and defined
/// only where the input mask is 1.
#[derive(Clone, Debug)]
pub struct TokenStats {
    /// The mask after rejection: 1 at trained tokens.
    pub mask: Tensor<2>,
    /// 1 at selected tokens, if there is a token selection.
    pub selected: Option<Tensor<2>>,
    /// 1 at tokens that the off-policy mask keeps, if there is one.
    pub kept: Option<Tensor<2>>,
    /// The importance weights of the sampler correction, if it has weights.
    pub weights: Option<Tensor<2>>,
}

/// Reduces the terms of a batch to a scalar.
struct WeightedSum<'a> {
    mask: &'a Tensor<2>,
    prompt_tokens: Option<&'a Tensor<2>>,
}

impl WeightedSum<'_> {
    fn of(&self, terms: Tensor<2>, how: Aggregation, by: Denominators) -> Result<Tensor<1>> {
        Ok((terms * how.weights(self.mask, self.prompt_tokens, by)?).sum())
    }
}

impl PolicyObjective {
    /// Computes the loss of one micro-batch of an optimizer step.
    ///
    /// `step` describes the whole step: [`StepCounts`](super::StepCounts) for most objectives, the
    /// result of [`statistics`](Self::statistics) for any. Old, reference and sampler log-probs,
    /// advantages and mask are detached.
    ///
    /// # Errors
    /// Returns an error if the objective is invalid, shapes differ, an input that a term needs is
    /// missing, or the objective [needs statistics](Self::needs_statistics) and `step` has only
    /// counts.
    pub fn loss(&self, input: &LossInput, step: impl Into<StepStatistics>) -> Result<PolicyLoss> {
        self.validate()?;
        input.check_shapes()?;
        let step = step.into();
        let cleaner = Cleaner::new(&input.mask.clone().inner());
        let log_probs = cleaner.clean(&input.log_probs);
        let old = match &input.old_log_probs {
            Some(old) => cleaner.constant(old),
            None => log_probs.clone().inner(),
        };
        let (mask, weights) = self.correct(input, &step)?;

        let difference = (log_probs.clone() - old.clone()) * mask.clone();
        let log_ratio = self.ratio_level.log_ratio(difference.clone(), &mask);
        let log_ratio = match &self.log_ratio_clamp {
            Some(clamp) => clamp.apply(log_ratio),
            None => log_ratio,
        };
        let log_ratio = log_ratio.clamp_max(LARGEST_EXPONENT);
        let advantages = cleaner.constant(&input.advantages);
        let correction = self.sampler_correction.as_ref();
        let acts = correction.is_some_and(|one| one.acting_weights().is_some());
        let multiplies = weights.clone().filter(|_| acts);
        let inside = self.surrogate.takes_sampler_weights();
        let term = self.surrogate.term(&SurrogateInput {
            log_probs: log_probs.clone(),
            old_log_probs: old.clone(),
            difference: difference.clone(),
            log_ratio: log_ratio.clone(),
            ref_log_probs: input.ref_log_probs.as_ref().map(|r| cleaner.constant(r)),
            advantages: advantages.clone() * mask.clone(),
            mask: mask.clone(),
            sampler_weights: multiplies.clone().filter(|_| inside),
            gathered: step.surrogate.clone(),
        })?;

        let mut sums = LossSums::new(&mask);
        let mut terms = term.loss.clone();
        let kept = match &self.off_policy_mask {
            Some(off_policy) => {
                let sampler = match &input.sampler_log_probs {
                    Some(sampler) => cleaner.constant(sampler),
                    None => old,
                };
                let constant = log_probs.clone().inner();
                let kept = off_policy.keep(&constant, &sampler, &advantages, &mask);
                sums.count("kept", kept.clone());
                Some(kept.float())
            }
            None => None,
        };
        let selected = self.select(input, &step, &cleaner, &mut sums)?;
        let factors = [
            kept.as_ref(),
            selected.as_ref(),
            multiplies.as_ref().filter(|_| !inside),
        ];
        for factor in factors.into_iter().flatten() {
            terms = terms * factor.clone();
        }

        let prompt_tokens = match self.compares_prompts() {
            true => Some(prompt_tokens(input, &step)?),
            false => None,
        };
        let sum = WeightedSum {
            mask: &mask,
            prompt_tokens: prompt_tokens.as_ref(),
        };
        let policy_loss = sum.of(terms, self.aggregation, step.policy)?;
        let mut loss = policy_loss.clone();
        if let Some((coef, kl)) =
            self.kl_term(input, &cleaner, &log_probs, &log_ratio, &mut sums)?
        {
            let how = self.kl.and_then(|kl| kl.aggregation);
            let kl_loss = sum.of(kl, how.unwrap_or(self.aggregation), step.kl)?;
            sums.scalar("kl_loss", kl_loss.clone());
            loss = loss + kl_loss.mul_scalar(coef);
        }
        if let Some(entropies) = self.entropy_term(input, &cleaner, selected.as_ref(), &mut sums)? {
            let how = self.entropy_aggregation.unwrap_or(self.aggregation);
            let bonus = sum.of(entropies, how, step.entropy)?;
            sums.scalar("entropy_loss", bonus.clone());
            loss = loss - bonus.mul_scalar(self.entropy_coef);
        }
        self.measure(
            input,
            &mut sums,
            difference.inner(),
            log_ratio.inner(),
            term,
        );
        if let Some(weights) = &weights {
            sums.add("sampler_weight", weights.clone());
        }
        sums.scalar("policy_loss", policy_loss);
        sums.scalar("loss", loss.clone());
        Ok(PolicyLoss {
            loss,
            sums,
            tokens: TokenStats {
                mask,
                selected,
                kept,
                weights,
            },
        })
    }

    /// Returns the coefficient of the KL term and its value at every token, if there is one;
    /// otherwise the KL is only reported.
    fn kl_term(
        &self,
        input: &LossInput,
        cleaner: &Cleaner,
        log_probs: &Tensor<2>,
        log_ratio: &Tensor<2>,
        sums: &mut LossSums,
    ) -> Result<Option<(f64, Tensor<2>)>> {
        let Some(reference) = &input.ref_log_probs else {
            return match self.kl {
                Some(_) => Err(missing("ref_log_probs", "a KL term")),
                None => Ok(None),
            };
        };
        let reference = cleaner.constant(reference);
        let Some(penalty) = &self.kl else {
            let kl = KlEstimator::K3.per_token(log_probs.clone().inner(), reference);
            sums.add("kl", kl);
            return Ok(None);
        };
        let mut kl = penalty.per_token(log_probs.clone(), reference);
        if penalty.importance_corrected {
            // Each factor alone may reach e^80; their product has to fit f32.
            let half = 0.5 * LARGEST_EXPONENT;
            kl = kl.clamp_max(half.exp()) * log_ratio.clone().clamp_max(half).exp();
        }
        sums.add("kl", kl.clone());
        Ok(Some((penalty.coef, kl)))
    }

    /// Returns the entropies that enter the bonus, if there is one; otherwise they are only
    /// reported.
    fn entropy_term(
        &self,
        input: &LossInput,
        cleaner: &Cleaner,
        selected: Option<&Tensor<2>>,
        sums: &mut LossSums,
    ) -> Result<Option<Tensor<2>>> {
        let paid = self.entropy_coef != 0.0;
        let Some(entropies) = &input.entropies else {
            return match paid {
                true => Err(missing("entropies", "an entropy bonus")),
                false => Ok(None),
            };
        };
        let entropies = cleaner.clean(entropies);
        sums.add("entropy", entropies.clone());
        Ok(paid.then(|| match selected {
            Some(selected) => entropies * selected.clone(),
            None => entropies,
        }))
    }

    /// Returns the mask after rejection and the weights of the sampler correction.
    fn correct(
        &self,
        input: &LossInput,
        step: &StepStatistics,
    ) -> Result<(Tensor<2>, Option<Tensor<2>>)> {
        let mask = input.mask.clone().inner();
        let Some(correction) = &self.sampler_correction else {
            return Ok((mask, None));
        };
        let normalized = correction.normalized_weights().is_some();
        if normalized && step.weight_mean.is_none() {
            return Err(needs_statistics(
                "weight_mean",
                "sampler weights divided by their mean",
            ));
        }
        let columns = Columns::of(&mask)?;
        let [policy, sampler] = compared(correction, input, &columns)?;
        let log_probs = RolloutLogProbs::new(&policy, &sampler)?;
        let corrected = correction.correct(log_probs, step.weight_mean);
        let weights = corrected.weights.map(|w| columns.write(&w, &mask));
        if correction.rejection.is_empty() {
            return Ok((mask, weights));
        }
        Ok((columns.write(&corrected.kept, &mask), weights))
    }

    /// Returns the selection of the tokens of highest entropy, if the objective has one.
    fn select(
        &self,
        input: &LossInput,
        step: &StepStatistics,
        cleaner: &Cleaner,
        sums: &mut LossSums,
    ) -> Result<Option<Tensor<2>>> {
        if self.top_entropy.is_none() {
            return Ok(None);
        }
        let Some(entropies) = &input.entropies else {
            return Err(missing("entropies", "a selection by entropy"));
        };
        let Some(threshold) = step.entropy_threshold else {
            return Err(needs_statistics(
                "entropy_threshold",
                "a selection by entropy",
            ));
        };
        let selected = cleaner.constant(entropies).greater_equal_scalar(threshold);
        sums.count("selected", selected.clone());
        Ok(Some(selected.float()))
    }

    fn measure(
        &self,
        input: &LossInput,
        sums: &mut LossSums,
        difference: Tensor<2>,
        log_ratio: Tensor<2>,
        term: SurrogateTerm,
    ) {
        if !input.is_on_policy() {
            let moved = KlEstimator::K3.per_token(difference.zeros_like(), difference.clone());
            sums.add("approx_kl", moved);
        } else {
            sums.add("approx_kl", difference.zeros_like());
        }
        let held = match (&self.log_ratio_clamp, self.ratio_level) {
            (Some(_), RatioLevel::Token) => log_ratio.clone(),
            _ => difference,
        };
        sums.add("ppo_kl", held.neg());
        sums.add("ratio", log_ratio.exp());
        let clipped = match (&term.clipped, &term.clipped_low, &term.clipped_high) {
            (Some(clipped), ..) => Some(clipped.clone()),
            (None, Some(low), Some(high)) => Some(low.clone().bool_or(high.clone())),
            _ => None,
        };
        let counts = [
            ("clip_low", term.clipped_low),
            ("clip_high", term.clipped_high),
            ("clip", clipped),
            ("bounded", term.bounded),
        ];
        for (name, marked) in counts {
            if let Some(marked) = marked {
                sums.count(name, marked);
            }
        }
        for (name, values) in term.measured {
            sums.add_with_rows(name, values);
        }
    }
}

pub(super) fn needs_statistics(field: &str, part: &str) -> crate::Error {
    crate::Error::config(
        format!("statistics.{field}"),
        "none",
        format!(
            "the value that PolicyObjective::statistics computes over the whole step: the objective has {part}"
        ),
    )
}
