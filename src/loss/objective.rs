//! The policy objective: a composition, checked when it is built.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    Aggregation, KlEstimator, KlPenalty, LossSums, RatioLevel, StepCounts, Surrogate,
    SurrogateInput,
};
use crate::{Error, Result};

/// What a policy loss reads. Every tensor is `[B, T]`; what stands at padding is never looked at, not even
/// NaN.
#[derive(Clone, Debug)]
pub struct LossInput {
    /// `ln pi(y_t)` of the policy that is being trained; carries the gradient.
    pub log_probs: Tensor<2>,
    /// `ln pi_old(y_t)` of the policy before this step's updates; constant. `None`: the first update after
    /// sampling, where it equals `log_probs` and the ratio is exactly 1.
    pub old_log_probs: Option<Tensor<2>>,
    /// `ln pi_ref(y_t)` of the reference; constant. Needed with a KL term; without one it is only measured.
    pub ref_log_probs: Option<Tensor<2>>,
    /// Entropy of the policy at each token, in nats; carries the gradient of an entropy bonus.
    pub entropies: Option<Tensor<2>>,
    /// `A_t`; constant.
    pub advantages: Tensor<2>,
    /// 1 at completion tokens, 0 elsewhere.
    pub mask: Tensor<2>,
}

impl LossInput {
    /// An on-policy input without reference and entropies.
    pub fn new(log_probs: Tensor<2>, advantages: Tensor<2>, mask: Tensor<2>) -> Self {
        Self {
            log_probs,
            old_log_probs: None,
            ref_log_probs: None,
            entropies: None,
            advantages,
            mask,
        }
    }
}

/// The scalar to minimise and what is known about it.
#[derive(Clone, Debug)]
pub struct PolicyLoss {
    /// This micro-batch's share of the step's loss; the shares add up.
    pub loss: Tensor<1>,
    /// Sums for metrics, off the gradient tape.
    pub sums: LossSums,
}

/// ```text
/// loss = aggregate(surrogate) + kl.coef * aggregate(KL(pi || ref)) - entropy_coef * aggregate(H)
/// ```
///
/// All three terms share one aggregation and one set of denominators. Build one from a preset
/// ([`grpo`](Self::grpo), [`deepseek_r1`](Self::deepseek_r1), [`dr_grpo`](Self::dr_grpo), [`dapo`](Self::dapo),
/// [`ppo`](Self::ppo)) or from its parts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyObjective {
    /// The term of each token.
    pub surrogate: Surrogate,
    /// What the ratio is taken over. Default: the token.
    #[serde(default)]
    pub ratio_level: RatioLevel,
    /// How tokens become a scalar.
    pub aggregation: Aggregation,
    /// The pull towards the reference in the loss. Default: none.
    #[serde(default)]
    pub kl: Option<KlPenalty>,
    /// The coefficient of the entropy bonus; 0 is none. Default 0.
    #[serde(default)]
    pub entropy_coef: f64,
}

impl PolicyObjective {
    /// Refuses parts, or combinations of parts, that make no sense, with the reason.
    pub fn validate(&self) -> Result<()> {
        self.surrogate.validate(self.ratio_level)?;
        self.aggregation.validate()?;
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
        Ok(())
    }

    /// The same objective with another KL term, or none.
    pub fn with_kl(self, kl: Option<KlPenalty>) -> Self {
        Self { kl, ..self }
    }

    /// The same objective with another entropy coefficient.
    pub fn with_entropy_coef(self, entropy_coef: f64) -> Self {
        Self {
            entropy_coef,
            ..self
        }
    }

    /// Whether a rollout with zero advantages has no gradient, so that it need not be computed: true
    /// without a KL term and an entropy bonus.
    pub fn ignores_zero_advantages(&self) -> bool {
        self.kl.is_none() && self.entropy_coef == 0.0
    }

    /// The loss of one micro-batch of a step with the given counts.
    ///
    /// Detached: old and reference log-probs, advantages, mask. Metrics are means over tokens of what this
    /// batch saw.
    ///
    /// # Errors
    /// If the objective is refused, shapes differ, or an input that a term needs is missing.
    pub fn loss(&self, input: &LossInput, counts: StepCounts) -> Result<PolicyLoss> {
        self.validate()?;
        check_shapes(input)?;
        let mask = input.mask.clone().inner();
        let padding = mask.clone().equal_scalar(0.0);
        // Padding is cleaned before any arithmetic: 0 * NaN is NaN, forward and backward.
        let clean = |tensor: &Tensor<2>| tensor.clone().mask_fill(padding.clone(), 0.0);
        let constant = |tensor: &Tensor<2>| clean(&tensor.clone().inner());

        let log_probs = clean(&input.log_probs);
        let old = match &input.old_log_probs {
            Some(old) => constant(old),
            None => log_probs.clone().inner(),
        };
        let difference = log_probs.clone() - old;
        let log_ratio = self.ratio_level.log_ratio(difference.clone(), &mask);
        let term = self.surrogate.term(&SurrogateInput {
            log_probs: log_probs.clone(),
            log_ratio: log_ratio.clone(),
            advantages: constant(&input.advantages),
        });

        let weights = self.aggregation.weights(&mask, counts);
        let aggregate = |values: Tensor<2>| (values * weights.clone()).sum();
        let policy_loss = aggregate(term.loss);
        let mut loss = policy_loss.clone();
        let mut sums = LossSums::new(&mask);

        let reference = input.ref_log_probs.as_ref().map(constant);
        match (&self.kl, reference) {
            (Some(penalty), Some(reference)) => {
                let kl = penalty.estimator.per_token(log_probs, reference);
                sums.add("kl", kl.clone(), &mask);
                let kl_loss = aggregate(kl);
                sums.scalar("kl_loss", kl_loss.clone());
                loss = loss + kl_loss.mul_scalar(penalty.coef);
            }
            (None, Some(reference)) => {
                let kl = KlEstimator::K3.per_token(log_probs.inner(), reference);
                sums.add("kl", kl, &mask);
            }
            (Some(_), None) => return Err(missing("ref_log_probs", "a KL term")),
            (None, None) => {}
        }
        match &input.entropies {
            Some(entropies) => {
                let entropies = clean(entropies);
                sums.add("entropy", entropies.clone(), &mask);
                if self.entropy_coef != 0.0 {
                    let bonus = aggregate(entropies);
                    sums.scalar("entropy_loss", bonus.clone());
                    loss = loss - bonus.mul_scalar(self.entropy_coef);
                }
            }
            None if self.entropy_coef != 0.0 => {
                return Err(missing("entropies", "an entropy bonus"));
            }
            None => {}
        }

        let difference = difference.inner();
        let moved = KlEstimator::K3.per_token(difference.zeros_like(), difference);
        sums.add("approx_kl", moved, &mask);
        sums.add("ratio", log_ratio.inner().exp(), &mask);
        if let Some(marked) = term.clipped_low {
            sums.count("clip_low", marked, &mask);
        }
        if let Some(marked) = term.clipped_high {
            sums.count("clip_high", marked, &mask);
        }
        sums.scalar("policy_loss", policy_loss);
        sums.scalar("loss", loss.clone());
        Ok(PolicyLoss { loss, sums })
    }
}

fn missing(field: &str, term: &str) -> Error {
    Error::config(field, "none", format!("given: the objective has {term}"))
}

fn check_shapes(input: &LossInput) -> Result<()> {
    let expected = input.log_probs.dims();
    let others = [
        ("old_log_probs", input.old_log_probs.as_ref()),
        ("ref_log_probs", input.ref_log_probs.as_ref()),
        ("entropies", input.entropies.as_ref()),
        ("advantages", Some(&input.advantages)),
        ("mask", Some(&input.mask)),
    ];
    for (name, tensor) in others {
        if let Some(tensor) = tensor
            && tensor.dims() != expected
        {
            return Err(Error::shape(
                name,
                format!("{:?}", tensor.dims()),
                format!("{expected:?}, as log_probs"),
            ));
        }
    }
    Ok(())
}
