//! What one step has learned from: scored rollouts and everything that was computed about them before the
//! first update.

use burn::tensor::Device;

use super::scorer::ScoringConfig;
use crate::Result;
use crate::advantage::Advantages;
use crate::policy::{PolicyModel, ValueModel, squared_probabilities, token_log_probs_only};
use crate::rollout::{RolloutBatch, RolloutBuffer, RolloutView, micro_batches};
use crate::types::PerToken;

/// The rollouts of a step with their per-token numbers, each a vector per rollout.
#[derive(Debug)]
pub(super) struct Experience {
    pub rollouts: RolloutBuffer,
    /// Log-probs under the distributions that the tokens were sampled from.
    pub sampler_log_probs: PerToken,
    /// Log-probs of the policy before the first update; none if there is only one update.
    pub old_log_probs: Option<PerToken>,
    /// Log-probs of the reference, if there is one.
    pub ref_log_probs: Option<PerToken>,
    /// Values of the critic before the first update, if there is one.
    pub values: Option<PerToken>,
    pub advantages: Advantages,
}

/// Calls `compute` on micro-batches of all rollouts, and puts the rows in the order of the rollouts.
fn in_micro_batches<const N: usize>(
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
    device: &Device,
    compute: impl Fn(&RolloutBatch) -> Result<[PerToken; N]>,
) -> Result<[PerToken; N]> {
    let view = RolloutView::new(rollouts);
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let mut numbers = [(); N].map(|()| vec![Vec::new(); all.len()]);
    for part in micro_batches(&view, &all, config.micro_batch, config.max_tokens) {
        let computed = compute(&RolloutBatch::new(&view, &part, device)?)?;
        for (numbers, computed) in numbers.iter_mut().zip(computed) {
            for (&row, values) in part.iter().zip(Vec::from(computed)) {
                numbers[row] = values;
            }
        }
    }
    Ok(numbers.map(PerToken::from))
}

/// The log-prob of every token under `model`.
pub(super) fn log_probs<M: PolicyModel>(
    model: &M,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let [log_probs] = in_micro_batches(rollouts, config, &model.device(), |batch| {
        Ok([batch.unpad(batch.log_probs(model, &config.log_probs)?, "log-probs")?])
    })?;
    Ok(log_probs)
}

/// The log-prob of every token under `model`, and the sum of the squared probabilities of all it could have said there.
pub(super) fn probabilities<M: PolicyModel>(
    model: &M,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<[PerToken; 2]> {
    let model = model.valid();
    in_micro_batches(rollouts, config, &model.device(), |batch| {
        let hidden = batch.hidden_states(&model)?;
        let log_probs = token_log_probs_only(
            hidden.clone(),
            model.unembedding(),
            batch.targets.clone(),
            &config.log_probs,
        )?;
        let sums = squared_probabilities(hidden, model.unembedding(), &config.log_probs)?;
        Ok([
            batch.unpad(log_probs, "log-probs")?,
            batch.unpad(sums, "squared probabilities")?,
        ])
    })
}

/// The critic's value of every state.
pub(super) fn values<V: ValueModel>(
    critic: &V,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let critic = critic.valid();
    let [values] = in_micro_batches(rollouts, config, &critic.device(), |batch| {
        Ok([batch.unpad(batch.values(&critic)?, "values")?])
    })?;
    Ok(values)
}
