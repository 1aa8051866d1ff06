//! The updates of a step: passes, mini-batches of whole groups, micro-batches.

use burn::module::Module;
use burn::optim::GradientsParams;
use rayon::prelude::*;

use super::config::TrainerConfig;
use super::experience::{Experience, in_parts};
use super::gradients::{Computed, Gradients, Shards, gathered};
use super::learner::Learner;
use super::learners::{LearnerGroup, dealt_to};
use super::optimizer::{Optimizer, UpdateReport};
use crate::loss::{
    LossInput, LossMetrics, PolicyObjective, StepCounts, StepStatistics, value_loss,
};
use crate::policy::{
    GradientSum, PolicyModel, ScoredTokens, TokenScores, ValueModel, fork, is_small,
};
use crate::random;
use crate::rollout::{RolloutBatch, RolloutView, micro_batches};
use crate::types::PerToken;
use crate::{Error, Result};

/// The domain separator of the random order of groups.
const SHUFFLE: u64 = 0x5348_5546_464C_4500;

/// The results of the updates of a step.
#[derive(Debug, Default)]
pub(super) struct Updates {
    pub policy: Vec<UpdateReport>,
    pub critic: Vec<UpdateReport>,
    pub metrics: LossMetrics,
    pub value_metrics: LossMetrics,
    /// The reason for the first skipped update, if any.
    pub skipped: Option<Error>,
}

/// A completed update, or the [`Error::NonFinite`] for which it was skipped.
type Outcome<T> = std::result::Result<T, Error>;

/// Makes an update with the gradients of all learners; skips it if they are not finite.
fn make<M: Module>(
    group: &LearnerGroup,
    optimizer: &mut Optimizer,
    model: &mut M,
    gradients: Gradients,
) -> Result<Outcome<UpdateReport>> {
    let outcome = match gradients {
        Gradients::Whole(gradients) => optimizer.step(model, gradients),
        Gradients::Part(part) => optimizer.step_together(group, model, part),
    };
    match outcome {
        Err(error) if !matches!(error, Error::NonFinite { .. }) => Err(error),
        outcome => Ok(outcome),
    }
}

/// Returns the shards of this learner, each with its micro-batches and their positions in `parts`.
fn own_shards<'a>(
    group: &LearnerGroup,
    parts: &'a [Vec<usize>],
) -> impl Iterator<Item = Vec<(usize, &'a Vec<usize>)>> {
    let shards = group.shards();
    group.own_shards().map(move |shard| {
        let own = |(at, _): &(usize, &Vec<usize>)| dealt_to(*at, shards) == shard;
        parts.iter().enumerate().filter(own).collect()
    })
}

impl<M: PolicyModel, V: ValueModel> Learner<M, V> {
    /// Makes all updates of a step.
    pub(super) fn update(
        &mut self,
        config: &TrainerConfig,
        experience: &Experience,
    ) -> Result<Updates> {
        let mut updates = Updates::default();
        let step = self.progress.steps;
        let policy_learns = self
            .critic
            .as_ref()
            .is_none_or(|critic| step >= critic.config.warmup_steps);
        let view = RolloutView::new(&experience.rollouts);
        let lengths = experience.rollouts.lengths();
        for pass in 0..config.passes {
            for rows in mini_batches(config, step, pass, experience) {
                let dropped =
                    |row: usize| config.mask_truncated && view.rollouts()[row].is_truncated();
                let kept: Vec<usize> = rows.into_iter().filter(|&row| !dropped(row)).collect();
                if self.critic.is_some() {
                    let kept_lengths: Vec<usize> = kept.iter().map(|&row| lengths[row]).collect();
                    let counts = StepCounts::of(&kept_lengths);
                    match self.update_critic(experience, &view, &kept, counts)? {
                        Ok((report, metrics)) => {
                            updates.value_metrics.merge(&metrics);
                            updates.critic.push(report);
                        }
                        Err(reason) => updates.skipped = updates.skipped.or(Some(reason)),
                    }
                }
                if policy_learns {
                    let objective = self.controllers.apply(&config.objective);
                    let update = Update {
                        config,
                        objective: &objective,
                        adaptive_entropy: self.controllers.entropy.is_some(),
                        experience,
                        view: &view,
                        lengths: &lengths,
                        rows: &kept,
                        learners: &self.learners,
                    };
                    match update.apply(&mut self.policy, &mut self.optimizer)? {
                        Ok((report, metrics)) => {
                            if let (Some(entropy), Some(mean)) =
                                (&mut self.controllers.entropy, metrics.mean("entropy"))
                            {
                                entropy.update(mean);
                            }
                            updates.metrics.merge(&metrics);
                            updates.policy.push(report);
                        }
                        Err(reason) => updates.skipped = updates.skipped.or(Some(reason)),
                    }
                }
            }
        }
        Ok(updates)
    }

    fn update_critic(
        &mut self,
        experience: &Experience,
        view: &RolloutView<'_>,
        rows: &[usize],
        counts: StepCounts,
    ) -> Result<Outcome<(UpdateReport, LossMetrics)>> {
        let returns = experience.advantages.returns.as_ref();
        let (Some(critic), Some(old), Some(returns)) =
            (&mut self.critic, &experience.values, returns)
        else {
            return Err(Error::config(
                "advantage",
                "an estimator without returns",
                "one that gives the critic returns, such as gae",
            ));
        };
        let device = critic.model.device();
        let parts = cut(
            &self.config,
            &self.learners,
            view,
            rows,
            self.config.micro_batch,
        );
        let own = || {
            let mut metrics = Vec::new();
            let mut shards = Shards::of(&critic.model);
            for shard in own_shards(&self.learners, &parts) {
                let mut gradients = GradientSum::default();
                for (at, part) in shard {
                    let batch = RolloutBatch::new(view, part, &device)?;
                    let pass = batch.value_pass(&critic.model)?;
                    let loss = value_loss(
                        &pass.values,
                        &batch.per_token(old, "values")?,
                        &batch.per_token(returns, "returns")?,
                        &batch.mask,
                        &critic.config.value_loss,
                        counts,
                    )?;
                    metrics.push((at, loss.sums.read()?));
                    let new = pass.backward(loss.loss, &critic.model)?;
                    gradients.add(&critic.model, new);
                }
                shards.push(gradients);
            }
            Ok(Computed {
                metrics,
                gradients: shards.finish(),
            })
        };
        let computed = own();
        let (metrics, gradients) = gathered(&self.learners, &critic.model, computed)?;
        let (optimizer, model) = (&mut critic.optimizer, &mut critic.model);
        let report = make(&self.learners, optimizer, model, gradients)?;
        Ok(report.map(|report| (report, metrics)))
    }
}

/// Divides the rollouts `rows` into micro-batches.
fn cut(
    config: &TrainerConfig,
    learners: &LearnerGroup,
    view: &RolloutView<'_>,
    rows: &[usize],
    max_rows: usize,
) -> Vec<Vec<usize>> {
    let together = learners.rows_together(rows.len(), max_rows);
    micro_batches(view, rows, together, config.max_tokens_per_micro_batch)
}

/// For [small](is_small) models: the rollouts in one thread's micro-batch, and the number of
/// micro-batches that are processed in parallel.
const SMALL_ROWS: usize = 16;
const SMALL_PARTS: usize = 8;

/// Returns the rollouts of each update of a pass: whole groups, in a different order in each pass.
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
        // A step may have fewer groups than updates.
        .filter(|range| !range.is_empty())
        .map(|range| starts[range].iter().cloned().flatten().collect())
        .collect()
}

/// One update of the policy: its rollouts and everything that it reads.
struct Update<'a> {
    config: &'a TrainerConfig,
    objective: &'a PolicyObjective,
    /// The entropy controller needs the entropy of all rows, even if the current bonus is 0.
    adaptive_entropy: bool,
    experience: &'a Experience,
    view: &'a RolloutView<'a>,
    lengths: &'a [usize],
    rows: &'a [usize],
    learners: &'a LearnerGroup,
}

impl Update<'_> {
    fn apply<M: PolicyModel>(
        &self,
        policy: &mut M,
        optimizer: &mut Optimizer,
    ) -> Result<Outcome<(UpdateReport, LossMetrics)>> {
        let statistics = self.statistics(policy)?;
        let computed = self.own_shards(policy, &statistics);
        let (sums, gradients) = gathered(self.learners, policy, computed)?;
        if let Some(value) = sums.sum("loss").filter(|loss| !loss.is_finite()) {
            return Ok(Err(Error::NonFinite {
                what: "the policy loss".into(),
                value,
                step: optimizer.updates(),
                advice: "look for log-probs of -inf, or lower the learning rate".into(),
            }));
        }
        let report = make(self.learners, optimizer, policy, gradients)?;
        Ok(report.map(|report| (report, sums)))
    }

    /// Computes the losses and gradients of this learner's shards.
    fn own_shards<M: PolicyModel>(
        &self,
        policy: &M,
        statistics: &StepStatistics,
    ) -> Result<Computed> {
        let small = is_small(policy);
        let rows = self.config.micro_batch;
        let rows = if small { rows.min(SMALL_ROWS) } else { rows };
        let parts = cut(self.config, self.learners, self.view, &self.moving(), rows);
        let mut metrics = Vec::new();
        let mut shards = Shards::of(policy);
        for shard in own_shards(self.learners, &parts) {
            let mut gradients = GradientSum::default();
            let mut sums = LossMetrics::default();
            for together in shard.chunks(if small { SMALL_PARTS } else { 1 }) {
                // Each micro-batch has its own autodiff graph; sums are in a fixed order,
                // independent of threads.
                let models: Vec<(M, &Vec<usize>)> = match together {
                    [(_, one)] => vec![(policy.clone(), *one)],
                    several => several
                        .iter()
                        .map(|(_, part)| (fork(policy), *part))
                        .collect(),
                };
                let done: Vec<_> = models
                    .into_par_iter()
                    .map(|(policy, part)| self.part(&policy, part, statistics))
                    .collect::<Result<_>>()?;
                for ((at, _), (new, part_gradients)) in together.iter().zip(done) {
                    sums.merge(&new);
                    metrics.push((*at, new));
                    gradients.add(policy, part_gradients);
                }
                if sums.sum("loss").is_none_or(|loss| !loss.is_finite()) {
                    // The update will be skipped, so the remaining micro-batches are not needed.
                    break;
                }
            }
            shards.push(gradients);
        }
        Ok(Computed {
            metrics,
            gradients: shards.finish(),
        })
    }

    /// Computes the loss of the rollouts `part` and its gradients; no gradients if it is not
    /// finite.
    fn part<M: PolicyModel>(
        &self,
        policy: &M,
        part: &[usize],
        statistics: &StepStatistics,
    ) -> Result<(LossMetrics, GradientsParams)> {
        let batch = RolloutBatch::new(self.view, part, &policy.device())?;
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
            .loss(&self.input(&batch, part, scores)?, statistics)?;
        let sums = loss.sums.read()?;
        if sums.sum("loss").is_none_or(|loss| !loss.is_finite()) {
            return Ok((sums, GradientsParams::new()));
        }
        let gradients = scored.backward(loss.loss, policy)?;
        Ok((sums, gradients))
    }

    /// Returns the rows with a gradient. A rollout with zero advantages has none; the denominators
    /// still count it, so skipping it only saves time.
    fn moving(&self) -> Vec<usize> {
        let advantages = &self.experience.advantages.per_token;
        let moves = |row: &usize| advantages[*row].iter().any(|&a| a != 0.0);
        let all = !self.objective.ignores_zero_advantages() || self.adaptive_entropy;
        self.rows
            .iter()
            .copied()
            .filter(|row| all || moves(row))
            .collect()
    }

    /// Computes the statistics over the whole update that the micro-batches need.
    fn statistics<M: PolicyModel>(&self, policy: &M) -> Result<StepStatistics> {
        let lengths: Vec<usize> = self.rows.iter().map(|&row| self.lengths[row]).collect();
        let mut statistics = StepStatistics::from(StepCounts::of(&lengths));
        let whole_step = self.objective.needs_whole_step();
        if self.objective.needs_statistics() {
            let model = policy.valid();
            let mut inputs = Vec::new();
            let most = self.config.micro_batch;
            let parts = cut(self.config, self.learners, self.view, self.rows, most);
            let score = |batch: &RolloutBatch| {
                let scores = batch.score(&model, &self.config.log_probs())?;
                Ok([
                    batch.unpad(scores.log_probs, "log-probs")?,
                    batch.unpad(scores.entropies, "entropies")?,
                ])
            };
            let device = model.device();
            let current = whole_step
                .then(|| in_parts(self.learners, self.view, &parts, &device, score))
                .transpose()?;
            for part in parts {
                let batch = RolloutBatch::new(self.view, &part, &device)?;
                let scores = match &current {
                    Some([log_probs, entropies]) => TokenScores {
                        log_probs: batch.per_token(log_probs, "log-probs")?,
                        entropies: batch.per_token(entropies, "entropies")?,
                    },
                    // These statistics do not depend on the current policy.
                    None => TokenScores {
                        log_probs: batch
                            .per_token(&self.experience.sampler_log_probs, "sampler log-probs")?,
                        entropies: batch.mask.clone(),
                    },
                };
                inputs.push(self.input(&batch, &part, scores)?);
            }
            statistics = self.objective.statistics(&inputs)?;
        }
        Ok(statistics)
    }

    /// Returns the loss input for a micro-batch of the rollouts `part`.
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
        let sampler = corrects
            .then(|| batch.per_token(&self.experience.sampler_log_probs, "sampler log-probs"));
        let groups = self.view.group_ids();
        Ok(LossInput {
            old_log_probs: optional(&self.experience.old_log_probs, "old log-probs")?,
            ref_log_probs: optional(&self.experience.ref_log_probs, "reference log-probs")?,
            sampler_log_probs: sampler.transpose()?,
            entropies: Some(scores.entropies),
            prompts: Some(part.iter().map(|&row| groups[row]).collect()),
            ..LossInput::new(
                scores.log_probs,
                batch.per_token(&self.experience.advantages.per_token, "advantages")?,
                batch.mask.clone(),
            )
        })
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // Device::ndarray
#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use crate::host::count;
    use crate::loss::PolicyObjective;
    use crate::policy::causal::CausalConfig;
    use crate::prompt::{CharTokenizer, Problem, Tokenizer};
    use crate::reward::{FnReward, RewardSet};
    use crate::rollout::GenerationConfig;
    use crate::train::{Trainer, TrainerConfig};

    /// `ndarray` stands for an accelerator.
    #[test]
    fn an_update_reads_the_device_once_for_each_micro_batch_and_once_for_the_norm() {
        let tokenizer = CharTokenizer::new("ab", &[]).unwrap();
        let device = Device::ndarray().autodiff();
        let policy = CausalConfig::new(tokenizer.vocab_size());
        let config = TrainerConfig {
            problems_per_step: 2,
            group_size: 4,
            micro_batch: 2,
            // Nothing is scored before the update.
            objective: PolicyObjective::dapo(),
            generation: GenerationConfig::new(3, tokenizer.stop_tokens()),
            ..TrainerConfig::default()
        };
        let odd = FnReward::plain("odd", |input| (input.rollout.sample % 2) as f64);
        let mut trainer = Trainer::builder(policy.init(0, &device).unwrap(), tokenizer)
            .config(config)
            .rewards(RewardSet::builder().add(1.0, odd).build().unwrap())
            .problems(vec![Problem::new("a", ""), Problem::new("b", "")])
            .build()
            .unwrap();
        // Reads are counted for each thread.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        pool.unwrap().install(|| {
            let collected = trainer.collect().unwrap();
            let (record, [reads, bytes]) = count::reads(|| trainer.learn(collected));
            record.unwrap();
            let micro_batches = 8 / 2;
            assert_eq!(reads, micro_batches + 1);
            assert!(bytes < 1000, "{bytes} bytes");
        });
    }
}
