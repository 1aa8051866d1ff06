//! From experience to updates: passes, mini-batches of whole groups, micro-batches.

use super::config::TrainerConfig;
use super::controllers::Controllers;
use super::critic::Critic;
use super::experience::Experience;
use super::optimizer::{Optimizer, UpdateReport};
use crate::loss::{
    LossInput, LossMetrics, PolicyObjective, StepCounts, StepStatistics, value_loss,
};
use crate::policy::{GradientSum, PolicyModel, ScoredTokens, TokenScores, ValueModel};
use crate::random;
use crate::rollout::RolloutBatch;
use crate::types::PerToken;
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
#[allow(clippy::too_many_arguments)] // the trainer's own parts, each for a reason
pub(super) fn learn<M: PolicyModel, V: ValueModel>(
    config: &TrainerConfig,
    objective: &PolicyObjective,
    controllers: &mut Controllers,
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
    let (groups, lengths) = (
        experience.rollouts.group_ids(),
        experience.rollouts.lengths(),
    );
    let sampler = experience.rollouts.log_probs();
    for pass in 0..config.passes {
        for rows in mini_batches(config, step, pass, experience) {
            let rollouts: Vec<_> = experience.rollouts.rollouts().collect();
            let kept: Vec<usize> = rows
                .into_iter()
                .filter(|&row| !(config.mask_truncated && rollouts[row].is_truncated()))
                .collect();
            if let Some(critic) = critic.as_deref_mut() {
                let kept_lengths: Vec<usize> = kept.iter().map(|&row| lengths[row]).collect();
                let counts = StepCounts::of(&kept_lengths);
                critic_update(config, experience, &kept, counts, critic, &mut updates)?;
            }
            if policy_learns {
                let objective = controllers.apply(objective);
                let update = Update {
                    config,
                    objective: &objective,
                    adaptive_entropy: controllers.entropy.is_some(),
                    experience,
                    sampler: &sampler,
                    advantages: &experience.advantages.per_token,
                    groups: &groups,
                    lengths: &lengths,
                    rows: &kept,
                };
                let (report, metrics) = update.apply(policy, optimizer)?;
                if let (Some(entropy), Some(mean)) =
                    (&mut controllers.entropy, metrics.mean("entropy"))
                {
                    entropy.update(mean);
                }
                updates.metrics.merge(&metrics);
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

/// One update of the policy: the rollouts that it learns from and everything that is known about them.
struct Update<'a> {
    config: &'a TrainerConfig,
    objective: &'a PolicyObjective,
    /// A controller wants to know the entropy of all rows, whether or not a bonus is paid now.
    adaptive_entropy: bool,
    experience: &'a Experience,
    /// Log-probs of the sampler, a row for each rollout.
    sampler: &'a PerToken,
    advantages: &'a PerToken,
    /// The group of each rollout.
    groups: &'a [usize],
    lengths: &'a [usize],
    rows: &'a [usize],
}

impl Update<'_> {
    fn apply<M: PolicyModel>(
        &self,
        policy: &mut M,
        optimizer: &mut Optimizer,
    ) -> Result<(UpdateReport, LossMetrics)> {
        let statistics = self.statistics(policy)?;
        let device = policy.device();
        let mut sums = LossMetrics::default();
        let mut gradients = GradientSum::default();
        for part in self.moving().chunks(self.config.micro_batch) {
            let batch = RolloutBatch::new(&self.experience.rollouts, part, &device)?;
            let scored = ScoredTokens::new(
                batch.forward_pass(policy)?,
                policy.unembedding(),
                batch.targets.clone(),
                &self.config.log_probs(),
            )?;
            let scores = TokenScores {
                log_probs: scored.log_probs.clone(),
                entropies: scored.entropies.clone(),
            };
            let loss = self
                .objective
                .loss(&self.input(&batch, part, scores)?, &statistics)?;
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
            sums.merge(&metrics);
            gradients.add(policy, scored.backward(loss.loss, policy)?);
        }
        Ok((optimizer.step(policy, gradients.finish())?, sums))
    }

    /// The rows that have a gradient. A rollout without an advantage has none: the denominators still count it, so leaving it
    /// out changes nothing but the time.
    fn moving(&self) -> Vec<usize> {
        let moves = |row: &usize| self.advantages[*row].iter().any(|&a| a != 0.0);
        let all = !self.objective.ignores_zero_advantages() || self.adaptive_entropy;
        self.rows
            .iter()
            .copied()
            .filter(|row| all || moves(row))
            .collect()
    }

    /// What the micro-batches have to know of each other.
    fn statistics<M: PolicyModel>(&self, policy: &M) -> Result<StepStatistics> {
        let lengths: Vec<usize> = self.rows.iter().map(|&row| self.lengths[row]).collect();
        let mut statistics = StepStatistics::from(StepCounts::of(&lengths));
        let whole_step = self.objective.needs_whole_step();
        if self.objective.needs_statistics() {
            let model = policy.valid();
            let mut inputs = Vec::new();
            for part in self.rows.chunks(self.config.micro_batch) {
                let batch = RolloutBatch::new(&self.experience.rollouts, part, &model.device())?;
                let scores = match whole_step {
                    true => batch.score(&model, &self.config.log_probs())?,
                    // Only what was known before the update is compared.
                    false => TokenScores {
                        log_probs: batch.per_token(self.sampler, "sampler log-probs")?,
                        entropies: batch.mask.clone(),
                    },
                };
                inputs.push(self.input(&batch, part, scores)?);
            }
            statistics = self.objective.statistics(&inputs)?;
        }
        Ok(statistics)
    }

    /// What the loss reads of a micro-batch of the rollouts `part`.
    fn input(
        &self,
        batch: &RolloutBatch,
        part: &[usize],
        scores: TokenScores,
    ) -> Result<LossInput> {
        let optional = |rows: &Option<PerToken>, what: &str| {
            let rows = rows.as_ref();
            rows.map(|rows| batch.per_token(rows, what)).transpose()
        };
        let objective = self.objective;
        let corrects =
            objective.sampler_correction.is_some() || objective.off_policy_mask.is_some();
        let sampler = corrects.then(|| batch.per_token(self.sampler, "sampler log-probs"));
        Ok(LossInput {
            old_log_probs: optional(&self.experience.old_log_probs, "old log-probs")?,
            ref_log_probs: optional(&self.experience.ref_log_probs, "reference log-probs")?,
            sampler_log_probs: sampler.transpose()?,
            entropies: Some(scores.entropies),
            prompts: Some(part.iter().map(|&row| self.groups[row]).collect()),
            ..LossInput::new(
                scores.log_probs,
                batch.per_token(self.advantages, "advantages")?,
                batch.mask.clone(),
            )
        })
    }
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
    let mut gradients = GradientSum::default();
    for part in rows.chunks(config.micro_batch) {
        let batch = RolloutBatch::new(&experience.rollouts, part, &device)?;
        let pass = batch.value_pass(&critic.model)?;
        let loss = value_loss(
            &pass.values,
            &batch.per_token(old, "values")?,
            &batch.per_token(returns, "returns")?,
            &batch.mask,
            &critic.config.value_loss,
            counts,
        )?;
        updates.value_metrics.merge(&loss.sums.read()?);
        let new = pass.backward(loss.loss, &critic.model)?;
        gradients.add(&critic.model, new);
    }
    let report = critic
        .optimizer
        .step(&mut critic.model, gradients.finish())?;
    updates.critic.push(report);
    Ok(())
}
