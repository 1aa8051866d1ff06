//! Counts and statistics of a whole optimizer step, passed to each of its micro-batches.

use std::collections::BTreeMap;

/// The numbers of tokens and completions of one optimizer step, over all of its micro-batches.
///
/// With these as denominators the micro-batch losses sum to the loss of the step, however it is
/// split, padded or ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCounts {
    /// Trained tokens.
    pub tokens: usize,
    /// Completions. Whether to count one without trained tokens is up to the caller: TRL counts it,
    /// verl does not.
    pub sequences: usize,
}

impl StepCounts {
    /// Counts completions with the given numbers of trained tokens.
    pub fn of(lengths: &[usize]) -> Self {
        Self {
            tokens: lengths.iter().sum(),
            sequences: lengths.len(),
        }
    }
}

/// The denominators of an aggregation. Usually whole numbers; dividing them reproduces the gradient
/// accumulation or data-parallel factor of another framework.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denominators {
    /// Tokens of the step.
    pub tokens: f64,
    /// Completions of the step.
    pub sequences: f64,
    /// Prompts of the step; used only by
    /// [`Aggregation::PromptMean`](super::Aggregation::PromptMean).
    pub prompts: f64,
}

impl From<StepCounts> for Denominators {
    /// Counts every completion as a separate prompt.
    fn from(counts: StepCounts) -> Self {
        Self {
            tokens: counts.tokens as f64,
            sequences: counts.sequences as f64,
            prompts: counts.sequences as f64,
        }
    }
}

/// Statistics of the whole optimizer step, for the loss of a micro-batch.
///
/// For most objectives [`StepCounts`] convert to it. An objective that compares a token with the
/// others of its step - a quantile of entropies, the largest covariances, weights divided by their
/// mean - needs [`PolicyObjective::statistics`](super::PolicyObjective::statistics); without them
/// its loss is an error.
#[derive(Clone, Debug, PartialEq)]
pub struct StepStatistics {
    /// Denominators of the surrogate.
    pub policy: Denominators,
    /// Denominators of the KL term.
    pub kl: Denominators,
    /// Denominators of the entropy bonus. With a token selection, the tokens are the selected ones.
    pub entropy: Denominators,
    /// Tokens with at least this entropy, in nats, are selected.
    pub entropy_threshold: Option<f64>,
    /// The mean of the sampler weights, their divisor.
    pub weight_mean: Option<f64>,
    /// The number of tokens of each prompt, by the ids of
    /// [`LossInput::prompts`](super::LossInput::prompts); for
    /// [`Aggregation::PromptMean`](super::Aggregation::PromptMean).
    pub prompt_tokens: Option<BTreeMap<usize, usize>>,
    /// The numbers that the surrogate gathered; see
    /// [`SurrogateLoss::gather`](super::SurrogateLoss::gather).
    pub surrogate: Option<Vec<f64>>,
}

impl StepStatistics {
    /// Creates statistics with the same denominators for every term and nothing else.
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
