//! The experience of a step: scored rollouts and everything computed from them before the first
//! update.

use burn::tensor::Device;

use super::learners::{LearnerGroup, dealt_to};
use super::scorer::{Scorer, ScoringConfig};
use crate::advantage::Advantages;
use crate::policy::{PolicyModel, ValueModel, squared_probabilities, token_log_probs_only};
use crate::rollout::{RolloutBatch, RolloutBuffer, RolloutView, micro_batches};
use crate::types::PerToken;
use crate::{Error, Result};

/// The rollouts of a step with their per-token values.
#[derive(Debug)]
pub(super) struct Experience {
    pub rollouts: RolloutBuffer,
    /// Log-probs under the distributions from which the tokens were sampled.
    pub sampler_log_probs: PerToken,
    /// Log-probs of the policy before the first update; `None` if there is only one update.
    pub old_log_probs: Option<PerToken>,
    /// Log-probs of the reference, if there is one.
    pub ref_log_probs: Option<PerToken>,
    /// Values of the critic before the first update, if there is one.
    pub values: Option<PerToken>,
    pub advantages: Advantages,
    /// The share of the rollouts that a teacher has scored, if there is one.
    pub teacher_share: Option<f64>,
}

/// Calls `compute` on micro-batches of all rollouts, distributed over the learners, and returns the
/// rows in the order of the rollouts.
fn in_micro_batches<const N: usize>(
    group: &LearnerGroup,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
    device: &Device,
    compute: impl Fn(&RolloutBatch) -> Result<[PerToken; N]>,
) -> Result<[PerToken; N]> {
    let view = RolloutView::new(rollouts);
    let all: Vec<usize> = (0..rollouts.len()).collect();
    let rows = group.rows_together(all.len(), config.micro_batch);
    let parts = micro_batches(&view, &all, rows, config.max_tokens);
    in_parts(group, &view, &parts, device, compute)
}

/// Calls `compute` on each of `parts`, distributed over the learners, and returns the rows in the
/// order of the rollouts. Rollouts in no part have empty rows.
pub(super) fn in_parts<const N: usize>(
    group: &LearnerGroup,
    view: &RolloutView<'_>,
    parts: &[Vec<usize>],
    device: &Device,
    compute: impl Fn(&RolloutBatch) -> Result<[PerToken; N]>,
) -> Result<[PerToken; N]> {
    let dealt = |rank: usize| {
        let parts = parts.iter().enumerate();
        parts.filter(move |(at, _)| dealt_to(*at, group.size()) == rank)
    };
    let mine = || {
        let mut flat = Vec::new();
        for (_, part) in dealt(group.rank()) {
            let computed = compute(&RolloutBatch::new(view, part, device)?)?;
            flat.extend(computed.iter().flat_map(PerToken::values));
        }
        Ok(flat)
    };
    let all = group.gather_numbers("scores of tokens", mine())?;
    let mut numbers = [(); N].map(|()| vec![Vec::new(); view.rollouts().len()]);
    for (rank, flat) in all.iter().enumerate() {
        let mut rest = flat.as_slice();
        for (_, part) in dealt(rank) {
            for numbers in &mut numbers {
                for &row in part {
                    let length = view.rollouts()[row].trained_tokens();
                    let Some((values, later)) = rest.split_at_checked(length) else {
                        return Err(Error::learner(rank, "it sent too few token scores"));
                    };
                    numbers[row] = values.to_vec();
                    rest = later;
                }
            }
        }
    }
    Ok(numbers.map(PerToken::from))
}

/// Returns the log-probs of a scorer, which gets whole groups; each learner scores its share.
pub(super) fn scored(
    group: &LearnerGroup,
    scorer: &dyn Scorer,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let mine = || {
        let mut flat = Vec::new();
        for block in group.own_blocks(rollouts.groups.len()) {
            let scores = match block.len() == rollouts.groups.len() {
                true => score_groups(scorer, rollouts, config)?,
                false => {
                    let groups = rollouts.groups[block].to_vec();
                    score_groups(scorer, &RolloutBuffer { groups }, config)?
                }
            };
            flat.extend(scores.values());
        }
        Ok(flat)
    };
    let all = group.gather_numbers("scores of the reference", mine())?;
    let mut values = all.into_iter().flatten();
    let row = |length| values.by_ref().take(length).collect();
    let scores: Vec<Vec<f64>> = rollouts.lengths().into_iter().map(row).collect();
    Ok(PerToken::from(scores))
}

fn score_groups(
    scorer: &dyn Scorer,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let scores = scorer.log_probs(rollouts, config)?;
    scores.check_lengths("reference log-probs", &rollouts.lengths())?;
    Ok(scores)
}

/// Returns the log-prob of every token under `model`.
pub(super) fn log_probs<M: PolicyModel>(
    group: &LearnerGroup,
    model: &M,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let [log_probs] = in_micro_batches(group, rollouts, config, &model.device(), |batch| {
        Ok([batch.unpad(batch.log_probs(model, &config.log_probs)?, "log-probs")?])
    })?;
    Ok(log_probs)
}

/// Returns the log-prob of every token under `model`, and the sum of the squared probabilities over
/// the vocabulary at its position.
pub(super) fn probabilities<M: PolicyModel>(
    group: &LearnerGroup,
    model: &M,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<[PerToken; 2]> {
    let model = model.valid();
    in_micro_batches(group, rollouts, config, &model.device(), |batch| {
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

/// Returns the critic's value of every state.
pub(super) fn values<V: ValueModel>(
    group: &LearnerGroup,
    critic: &V,
    rollouts: &RolloutBuffer,
    config: &ScoringConfig,
) -> Result<PerToken> {
    let critic = critic.valid();
    let [values] = in_micro_batches(group, rollouts, config, &critic.device(), |batch| {
        Ok([batch.unpad(batch.values(&critic)?, "values")?])
    })?;
    Ok(values)
}
