//! From experience to updates: passes, mini-batches of whole groups, micro-batches.

use burn::optim::{GradientsAccumulator, GradientsParams};

use super::config::TrainerConfig;
use super::critic::Critic;
use super::experience::Experience;
use super::optimizer::{Optimizer, UpdateReport};
use crate::loss::{LossInput, LossMetrics, StepCounts, value_loss};
use crate::policy::{PolicyModel, ScoredTokens, ValueModel};
use crate::random;
use crate::rollout::RolloutBatch;
use crate::{Error, Result};

/// The word that keeps the order of groups apart from the run's other streams.
const SHUFFLE: u64 = 0x5348_5546_464C_4500;

/// What the updates of one step did.
#[derive(Debug, Default)]
pub(super) struct Updates {
    pub policy: Vec<UpdateReport>,
    pub critic: Vec<UpdateReport>,
    pub metrics: LossMetrics,
    pub value_metrics: LossMetrics,
}

/// Makes all updates of step `step` (counted from 0).
pub(super) fn learn<M: PolicyModel, V: ValueModel>(
    config: &TrainerConfig,
    step: u64,
    experience: &Experience,
    policy: &mut M,
    optimizer: &mut Optimizer,
    mut critic: Option<&mut Critic<V>>,
) -> Result<Updates> {
    let mut updates = Updates::default();
    let policy_learns = critic
        .as_ref()
        .is_none_or(|critic| step >= critic.config.warmup_steps);
    for pass in 0..config.passes {
        for rows in mini_batches(config, step, pass, experience) {
            let rollouts: Vec<_> = experience.rollouts.rollouts().collect();
            let kept: Vec<usize> = rows
                .into_iter()
                .filter(|&row| !(config.mask_truncated && rollouts[row].is_truncated()))
                .collect();
            let lengths: Vec<usize> = kept.iter().map(|&row| rollouts[row].tokens.len()).collect();
            let counts = StepCounts::of(&lengths);
            if let Some(critic) = critic.as_deref_mut() {
                critic_update(config, experience, &kept, counts, critic, &mut updates)?;
            }
            if policy_learns {
                let report = policy_update(
                    config,
                    experience,
                    &kept,
                    counts,
                    policy,
                    optimizer,
                    &mut updates,
                )?;
                updates.policy.push(report);
            }
        }
    }
    Ok(updates)
}

/// The rollouts of each update of a pass: whole groups, in an order of their own for each pass.
fn mini_batches(
    config: &TrainerConfig,
    step: u64,
    pass: u64,
    experience: &Experience,
) -> Vec<Vec<usize>> {
    let mut starts = Vec::new();
    let mut next = 0;
    for group in &experience.rollouts.groups {
        starts.push(next..next + group.rollouts.len());
        next += group.rollouts.len();
    }
    if config.updates_per_pass > 1 {
        let mut rng = random::generator(&[config.seed, SHUFFLE, step, pass]);
        random::shuffle(&mut rng, &mut starts);
    }
    let (groups, parts) = (starts.len(), config.updates_per_pass);
    (0..parts)
        .map(|part| part * groups / parts..(part + 1) * groups / parts)
        .map(|range| starts[range].iter().cloned().flatten().collect())
        .collect()
}

fn policy_update<M: PolicyModel>(
    config: &TrainerConfig,
    experience: &Experience,
    rows: &[usize],
    counts: StepCounts,
    policy: &mut M,
    optimizer: &mut Optimizer,
    updates: &mut Updates,
) -> Result<UpdateReport> {
    // A rollout without an advantage has no gradient: the denominators still count it, so leaving it
    // out changes nothing but the time.
    let advantages = &experience.advantages.per_token;
    let moving: Vec<usize> = if config.objective.ignores_zero_advantages() {
        let moves = |row: &usize| advantages[*row].iter().any(|&a| a != 0.0);
        rows.iter().copied().filter(moves).collect()
    } else {
        rows.to_vec()
    };
    let device = policy.device();
    let mut gradients = GradientsAccumulator::<M>::new();
    for part in moving.chunks(config.micro_batch) {
        let batch = RolloutBatch::new(&experience.rollouts, part, &device)?;
        let optional = |rows: &Option<Vec<Vec<f64>>>, what: &str| {
            let rows = rows.as_ref();
            rows.map(|rows| batch.per_token(rows, what)).transpose()
        };
        let scored = ScoredTokens::new(
            batch.hidden_states(policy)?,
            policy.unembedding(),
            batch.targets.clone(),
            &config.log_probs(),
        )?;
        let input = LossInput {
            old_log_probs: optional(&experience.old_log_probs, "old log-probs")?,
            ref_log_probs: optional(&experience.ref_log_probs, "reference log-probs")?,
            entropies: Some(scored.entropies.clone()),
            ..LossInput::new(
                scored.log_probs.clone(),
                batch.per_token(advantages, "advantages")?,
                batch.mask.clone(),
            )
        };
        let loss = config.objective.loss(&input, counts)?;
        let metrics = loss.sums.read()?;
        let value = metrics.sum("loss").unwrap_or(f64::NAN);
        if !value.is_finite() {
            return Err(Error::NonFinite {
                what: "the policy loss".into(),
                value,
                step: optimizer.updates(),
                advice: "look for log-probs of -inf, or lower the learning rate".into(),
            });
        }
        updates.metrics.merge(&metrics);
        gradients.accumulate(policy, scored.backward(loss.loss, policy)?);
    }
    optimizer.step(policy, gradients.grads())
}

fn critic_update<V: ValueModel>(
    config: &TrainerConfig,
    experience: &Experience,
    rows: &[usize],
    counts: StepCounts,
    critic: &mut Critic<V>,
    updates: &mut Updates,
) -> Result<()> {
    let (Some(old), Some(returns)) = (&experience.values, &experience.advantages.returns) else {
        return Err(Error::config(
            "advantage",
            "an estimator without returns",
            "one that gives the critic returns, such as gae",
        ));
    };
    let device = critic.model.device();
    let mut gradients = GradientsAccumulator::<V>::new();
    for part in rows.chunks(config.micro_batch) {
        let batch = RolloutBatch::new(&experience.rollouts, part, &device)?;
        let loss = value_loss(
            &batch.values(&critic.model)?,
            &batch.per_token(old, "values")?,
            &batch.per_token(returns, "returns")?,
            &batch.mask,
            &critic.config.value_loss,
            counts,
        )?;
        updates.value_metrics.merge(&loss.sums.read()?);
        let new = GradientsParams::from_grads(loss.loss.backward(), &critic.model);
        gradients.accumulate(&critic.model, new);
    }
    let report = critic
        .optimizer
        .step(&mut critic.model, gradients.grads())?;
    updates.critic.push(report);
    Ok(())
}
