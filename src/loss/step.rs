//! What a whole optimizer step hands to each of its micro-batches.

use std::collections::BTreeMap;

/// What one optimizer step consists of, over all of its micro-batches.
///
/// Counted once and handed to every micro-batch, the counts make the sum of the micro-batch losses the loss of the
/// whole, however it is split, padded or ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCounts {
    /// Tokens that are trained on.
    pub tokens: usize,
    /// Completions. Whether one without a token counts is decided by who counts: TRL counts it, verl
    /// does not.
    pub sequences: usize,
}

impl StepCounts {
    /// The counts of completions with the given numbers of tokens.
    pub fn of(lengths: &[usize]) -> Self {
        Self {
            tokens: lengths.iter().sum(),
            sequences: lengths.len(),
        }
    }
}

/// What the aggregation of one term divides by. Usually whole numbers; a peer's gradient accumulation or data-parallel factor is a
/// division of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denominators {
    /// Tokens of the step.
    pub tokens: f64,
    /// Completions of the step.
    pub sequences: f64,
    /// Prompts of the step; read by [`Aggregation::PromptMean`](super::Aggregation::PromptMean) alone.
    pub prompts: f64,
}

impl From<StepCounts> for Denominators {
    /// Every completion counts as a prompt of its own.
    fn from(counts: StepCounts) -> Self {
        Self {
            tokens: counts.tokens as f64,
            sequences: counts.sequences as f64,
            prompts: counts.sequences as f64,
        }
    }
}

/// Everything about the step that the loss of a micro-batch cannot see for itself.
///
/// From [`StepCounts`] alone for most objectives. One that compares a token with the others of its step - a
/// quantile of entropies, the largest covariances, weights divided by their mean - needs
/// [`PolicyObjective::statistics`](super::PolicyObjective::statistics), and refuses to guess from the micro-batch.
#[derive(Clone, Debug, PartialEq)]
pub struct StepStatistics {
    /// Denominators of the surrogate.
    pub policy: Denominators,
    /// Denominators of the KL term.
    pub kl: Denominators,
    /// Denominators of the entropy bonus. With a token selection its tokens are the selected ones.
    pub entropy: Denominators,
    /// Tokens with at least this entropy, in nats, are learned from.
    pub entropy_threshold: Option<f64>,
    /// The mean of the sampler weights, by which they are divided.
    pub weight_mean: Option<f64>,
    /// How many tokens each prompt has, by the numbers of [`LossInput::prompts`](super::LossInput::prompts); for
    /// [`Aggregation::PromptMean`](super::Aggregation::PromptMean).
    pub prompt_tokens: Option<BTreeMap<usize, usize>>,
    /// What the surrogate itself has gathered; see [`SurrogateLoss::gather`](super::SurrogateLoss::gather).
    pub surrogate: Option<Vec<f64>>,
}

impl StepStatistics {
    /// The same denominators for every term, nothing else.
    pub fn new(denominators: impl Into<Denominators>) -> Self {
        let denominators = denominators.into();
        Self {
            policy: denominators,
            kl: denominators,
            entropy: denominators,
            entropy_threshold: None,
            weight_mean: None,
            prompt_tokens: None,
            surrogate: None,
        }
    }
}

impl From<StepCounts> for StepStatistics {
    fn from(counts: StepCounts) -> Self {
        Self::new(counts)
    }
}

impl From<&StepStatistics> for StepStatistics {
    fn from(statistics: &StepStatistics) -> Self {
        statistics.clone()
    }
}
