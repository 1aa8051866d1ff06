//! What one step has learned from: scored rollouts and everything that was computed about them before the
//! first update.

use burn::tensor::Device;

use crate::Result;
use crate::advantage::Advantages;
use crate::policy::{
    LogProbConfig, PolicyModel, ValueModel, squared_probabilities, token_log_probs,
};
use crate::rollout::{RolloutBatch, RolloutBuffer};

/// The rollouts of a step with their per-token numbers, each a vector per rollout.
#[derive(Debug)]
pub(super) struct Experience {
    pub rollouts: RolloutBuffer,
    /// Log-probs of the policy before the first update; none if there is only one update.
    pub old_log_probs: Option<Vec<Vec<f64>>>,
    /// Log-probs of the reference, if there is one.
    pub ref_log_probs: Option<Vec<Vec<f64>>>,
    /// Values of the critic before the first update, if there is one.
    pub values: Option<Vec<Vec<f64>>>,
    pub advantages: Advantages,
}

/// Calls `compute` on micro-batches of all rollouts and puts the rows together again.
fn in_micro_batches(
    rollouts: &RolloutBuffer,
    micro_batch: usize,
    device: &Device,
    compute: impl Fn(&RolloutBatch) -> Result<Vec<Vec<f64>>>,
) -> Result<Vec<Vec<f64>>> {
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let mut rows = Vec::with_capacity(all.len());
    for part in all.chunks(micro_batch) {
        rows.extend(compute(&RolloutBatch::new(rollouts, part, device)?)?);
    }
    Ok(rows)
}

/// The log-prob of every token under the distribution that it was sampled from.
pub(super) fn sampler_log_probs(rollouts: &RolloutBuffer) -> Vec<Vec<f64>> {
    let row = |log_probs: &Vec<f32>| log_probs.iter().map(|&x| f64::from(x)).collect();
    rollouts
        .rollouts()
        .map(|rollout| row(&rollout.log_probs))
        .collect()
}

/// The log-prob of every token under `model`.
pub(super) fn log_probs<M: PolicyModel>(
    model: &M,
    rollouts: &RolloutBuffer,
    micro_batch: usize,
    config: &LogProbConfig,
) -> Result<Vec<Vec<f64>>> {
    in_micro_batches(rollouts, micro_batch, &model.device(), |batch| {
        batch.unpad(batch.score(model, config)?.log_probs, "log-probs")
    })
}

/// The log-prob of every token under `model`, and the sum of the squared probabilities of all it could have said there.
pub(super) fn probabilities<M: PolicyModel>(
    model: &M,
    rollouts: &RolloutBuffer,
    micro_batch: usize,
    config: &LogProbConfig,
) -> Result<[Vec<Vec<f64>>; 2]> {
    let model = model.valid();
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let (mut log_probs, mut squares) = (Vec::new(), Vec::new());
    for part in all.chunks(micro_batch) {
        let batch = RolloutBatch::new(rollouts, part, &model.device())?;
        let hidden = batch.hidden_states(&model)?;
        let targets = batch.targets.clone();
        let scores = token_log_probs(hidden.clone(), model.unembedding(), targets, config)?;
        log_probs.extend(batch.unpad(scores.log_probs, "log-probs")?);
        let sums = squared_probabilities(hidden, model.unembedding(), config)?;
        squares.extend(batch.unpad(sums, "squared probabilities")?);
    }
    Ok([log_probs, squares])
}

/// The critic's value of every state.
pub(super) fn values<V: ValueModel>(
    critic: &V,
    rollouts: &RolloutBuffer,
    micro_batch: usize,
) -> Result<Vec<Vec<f64>>> {
    let critic = critic.valid();
    in_micro_batches(rollouts, micro_batch, &critic.device(), |batch| {
        batch.unpad(batch.values(&critic)?, "values")
    })
}
