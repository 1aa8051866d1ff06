//! What one step has learned from: scored rollouts and everything that was computed about them before the
//! first update.

use burn::tensor::Device;

use super::scorer::ScoringConfig;
use crate::Result;
use crate::advantage::Advantages;
use crate::policy::{PolicyModel, ValueModel, squared_probabilities, token_log_probs_only};
use crate::rollout::{RolloutBatch, RolloutBuffer};
use crate::types::PerToken;

/// The rollouts of a step with their per-token numbers, each a vector per rollout.
#[derive(Debug)]
pub(super) struct Experience {
    pub rollouts: RolloutBuffer,
    /// Log-probs of the policy before the first update; none if there is only one update.
    pub old_log_probs: Option<PerToken>,
    /// Log-probs of the reference, if there is one.
    pub ref_log_probs: Option<PerToken>,
    /// Values of the critic before the first update, if there is one.
    pub values: Option<PerToken>,
    pub advantages: Advantages,
}

/// Calls `compute` on micro-batches of all rollouts and puts the rows together again.
fn in_micro_batches(
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
    device: &Device,
    compute: impl Fn(&RolloutBatch) -> Result<PerToken>,
) -> Result<PerToken> {
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let mut rows = PerToken::default();
    for part in all.chunks(config.micro_batch) {
        let numbers = compute(&RolloutBatch::new(rollouts, part, device)?)?;
        rows.extend(Vec::from(numbers));
    }
    Ok(rows)
}

/// The log-prob of every token under `model`.
pub(super) fn log_probs<M: PolicyModel>(
    model: &M,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    in_micro_batches(rollouts, config, &model.device(), |batch| {
        batch.unpad(batch.log_probs(model, &config.log_probs)?, "log-probs")
    })
}

/// The log-prob of every token under `model`, and the sum of the squared probabilities of all it could have said there.
pub(super) fn probabilities<M: PolicyModel>(
    model: &M,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<[PerToken; 2]> {
    let model = model.valid();
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let (mut log_probs, mut squares) = (PerToken::default(), PerToken::default());
    for part in all.chunks(config.micro_batch) {
        let batch = RolloutBatch::new(rollouts, part, &model.device())?;
        let hidden = batch.hidden_states(&model)?;
        let targets = batch.targets.clone();
        let log_p = token_log_probs_only(
            hidden.clone(),
            model.unembedding(),
            targets,
            &config.log_probs,
        )?;
        log_probs.extend(Vec::from(batch.unpad(log_p, "log-probs")?));
        let sums = squared_probabilities(hidden, model.unembedding(), &config.log_probs)?;
        squares.extend(Vec::from(batch.unpad(sums, "squared probabilities")?));
    }
    Ok([log_probs, squares])
}

/// The critic's value of every state.
pub(super) fn values<V: ValueModel>(
    critic: &V,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let critic = critic.valid();
    in_micro_batches(rollouts, config, &critic.device(), |batch| {
        batch.unpad(batch.values(&critic)?, "values")
    })
}
