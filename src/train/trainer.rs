//! The loop's one step: generate, score, advantage, update.

use std::sync::Arc;

use super::config::TrainerConfig;
use super::critic::{Critic, explained_variance};
use super::evaluate::{Evaluation, EvaluationConfig, evaluate};
use super::experience::{Experience, log_probs, values};
use super::observer::StepRecord;
use super::optimizer::Optimizer;
use super::step_metrics::{StepTimes, step_metrics};
use super::update::learn;
use crate::advantage::{AdvantageEstimator, AdvantageInput, Advantages};
use crate::loss::AdaptiveKl;
use crate::policy::{PolicyModel, ReferencePolicy, ValueHead, ValueModel};
use crate::prompt::{Problem, ProblemOrder, Tokenizer};
use crate::reward::RewardSet;
use crate::rollout::{GenerationRequest, RolloutBuffer, generate, sample_group};
use crate::{Error, Result};

/// Teaches a policy by reinforcement.
///
/// Each [`step`](Self::step) samples completions for the next problems, scores them, compares them, and moves
/// the policy. [`run`](Self::run) adds evaluation, checkpoints, observers and a way to stop. With a critic
/// ([`with_critic`](Self::with_critic)) the same loop is PPO.
pub struct Trainer<M: PolicyModel, V: ValueModel = ValueHead<M>> {
    pub(super) config: TrainerConfig,
    pub(super) policy: M,
    pub(super) tokenizer: Arc<dyn Tokenizer>,
    pub(super) rewards: Arc<RewardSet>,
    pub(super) problems: Vec<Problem>,
    pub(super) order: ProblemOrder,
    advantage: Arc<dyn AdvantageEstimator>,
    pub(super) optimizer: Optimizer,
    pub(super) reference: Option<ReferencePolicy<M>>,
    pub(super) critic: Option<Critic<V>>,
    /// The coefficient of the KL in the reward, as its controller has left it.
    pub(super) kl_coef: Option<f64>,
    pub(super) steps_done: u64,
    pub(super) tokens_seen: u64,
    pub(super) last_rollouts: RolloutBuffer,
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    /// A trainer for `policy` on `problems`. The policy's parameters must be on the gradient tape
    /// ([`burn::tensor::Device::autodiff`]). A reference, if some term needs one, is the policy as given.
    ///
    /// # Errors
    /// If the configuration is refused, there is no problem, or the advantage estimator needs a critic.
    pub fn new(
        config: TrainerConfig,
        policy: M,
        tokenizer: Arc<dyn Tokenizer>,
        rewards: Arc<RewardSet>,
        problems: Vec<Problem>,
    ) -> Result<Self> {
        if config.advantage.needs_values() {
            return Err(Error::config(
                "advantage",
                config.advantage.name(),
                "an estimator without values, or Trainer::with_critic",
            ));
        }
        Self::build(config, policy, tokenizer, rewards, problems, None)
    }

    /// A trainer with a critic: PPO, given an estimator that reads values.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if the estimator would not use the critic.
    pub fn with_critic(
        config: TrainerConfig,
        policy: M,
        critic: V,
        tokenizer: Arc<dyn Tokenizer>,
        rewards: Arc<RewardSet>,
        problems: Vec<Problem>,
    ) -> Result<Self> {
        if !config.advantage.needs_values() {
            return Err(Error::config(
                "advantage",
                config.advantage.name(),
                "an estimator that uses the critic, such as gae",
            ));
        }
        let critic = Critic::new(critic, config.critic)?;
        Self::build(config, policy, tokenizer, rewards, problems, Some(critic))
    }

    fn build(
        config: TrainerConfig,
        policy: M,
        tokenizer: Arc<dyn Tokenizer>,
        rewards: Arc<RewardSet>,
        problems: Vec<Problem>,
        critic: Option<Critic<V>>,
    ) -> Result<Self> {
        config.validate()?;
        if tokenizer.vocab_size() > policy.vocab_size() {
            return Err(Error::config(
                "tokenizer.vocab_size",
                tokenizer.vocab_size(),
                format!("at most the policy's {}", policy.vocab_size()),
            ));
        }
        let reference = config
            .needs_reference()
            .then(|| ReferencePolicy::new(&policy, config.reference_sync))
            .transpose()?;
        Ok(Self {
            order: ProblemOrder::new(problems.len(), config.seed)?,
            optimizer: Optimizer::new(config.optimizer)?,
            kl_coef: config.kl_in_reward.map(|kl| kl.penalty.coef),
            advantage: Arc::new(config.advantage.clone()),
            config,
            policy,
            tokenizer,
            rewards,
            problems,
            reference,
            critic,
            steps_done: 0,
            tokens_seen: 0,
            last_rollouts: RolloutBuffer::new(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

    /// The policy as it is now.
    pub fn policy(&self) -> &M {
        &self.policy
    }

    /// The policy, when training is over.
    pub fn into_policy(self) -> M {
        self.policy
    }

    /// The number of steps done, those before a resume included.
    pub fn steps_done(&self) -> u64 {
        self.steps_done
    }

    /// The rollouts of the last step, scored.
    pub fn last_rollouts(&self) -> &RolloutBuffer {
        &self.last_rollouts
    }

    /// Examines the policy as it is now.
    ///
    /// # Errors
    /// As [`evaluate`](super::evaluate()).
    pub fn evaluate(&self, problems: &[Problem], config: &EvaluationConfig) -> Result<Evaluation> {
        evaluate(
            &self.policy,
            self.tokenizer.as_ref(),
            &self.rewards,
            problems,
            &self.config.generation,
            config,
        )
    }

    /// One step: rollouts, rewards, advantages, updates. Returns its metrics, named as in TRL where TRL has
    /// one.
    ///
    /// # Errors
    /// If generation fails, or a loss or gradient is not finite. The policy is then as it was after the last
    /// whole update.
    pub fn step(&mut self) -> Result<StepRecord> {
        let mut times = StepTimes::start();
        let mut rollouts = self.generate()?;
        times.generate = times.lap();
        self.rewards.score_rollouts(&mut rollouts);
        times.reward = times.lap();
        let experience = self.prepare(rollouts)?;
        times.prepare = times.lap();
        let updates = learn(
            &self.config,
            self.steps_done,
            &experience,
            &mut self.policy,
            &mut self.optimizer,
            self.critic.as_mut(),
        )?;
        times.update = times.lap();

        self.steps_done += 1;
        self.tokens_seen += experience.rollouts.tokens() as u64;
        if let Some(reference) = &mut self.reference {
            reference.after_step(self.steps_done, &self.policy);
        }
        let mut metrics = step_metrics(&experience, &updates, &times, self.kl_coef);
        metrics.insert("num_tokens".into(), self.tokens_seen as f64);
        if let (Some(kl), Some(coef)) = (self.config.kl_in_reward, &mut self.kl_coef)
            && let (Some(adaptive), Some(&measured)) = (kl.adaptive, metrics.get("kl"))
        {
            let mut controller = AdaptiveKl {
                coef: *coef,
                target: adaptive.target,
                horizon: adaptive.horizon,
            };
            controller.update(measured, experience.rollouts.len());
            *coef = controller.coef;
        }
        if let (Some(values), Some(returns)) = (&experience.values, &experience.advantages.returns)
            && let Some(explained) = explained_variance(values, returns)
        {
            metrics.insert("value/explained_variance".into(), explained);
        }
        self.last_rollouts = experience.rollouts;
        Ok(StepRecord {
            step: self.steps_done,
            metrics,
        })
    }

    /// Replaces the configured estimator by one of the caller's own.
    ///
    /// # Errors
    /// If the estimator refuses its settings, or needs values where there is no critic, or leaves a critic unused.
    pub fn with_advantage(mut self, estimator: Arc<dyn AdvantageEstimator>) -> Result<Self> {
        estimator.validate()?;
        if estimator.needs_values() != self.critic.is_some() {
            let expected = match self.critic {
                None => "an estimator without values, or Trainer::with_critic",
                Some(_) => "an estimator that uses the critic, such as gae",
            };
            return Err(Error::config("advantage", estimator.name(), expected));
        }
        self.advantage = estimator;
        Ok(self)
    }

    /// Samples the groups of this step.
    fn generate(&self) -> Result<RolloutBuffer> {
        let count = self.config.problems_per_step;
        let start = self.steps_done * count as u64;
        let indices = self.order.indices(start, count);
        let requests = indices
            .iter()
            .enumerate()
            .map(|(offset, &index)| {
                // A problem that comes twice in a step does so in two epochs.
                let epoch = (start + offset as u64) / self.problems.len() as u64;
                Ok(GenerationRequest::new(
                    self.tokenizer.encode(&self.problems[index].prompt)?,
                    self.config.group_size,
                    [self.config.seed, self.steps_done, epoch, index as u64],
                ))
            })
            .collect::<Result<Vec<_>>>()?;
        let completions = generate(&self.policy.valid(), &requests, &self.config.generation)?;
        let mut buffer = RolloutBuffer::new();
        for ((index, request), completions) in indices.into_iter().zip(requests).zip(completions) {
            buffer.push(sample_group(
                self.problems[index].clone(),
                request.prompt,
                completions,
                self.tokenizer.as_ref(),
                self.optimizer.updates(),
            )?);
        }
        Ok(buffer)
    }

    /// Everything that is computed once, before the first update.
    fn prepare(&self, rollouts: RolloutBuffer) -> Result<Experience> {
        let (config, rows) = (self.config.log_probs(), self.config.micro_batch);
        let several_updates = self.config.updates_per_step() > 1;
        let old_log_probs = (several_updates || self.kl_coef.is_some())
            .then(|| log_probs(&self.policy, &rollouts, rows, &config))
            .transpose()?;
        let reference = self.reference.as_ref();
        let ref_log_probs = reference
            .map(|reference| log_probs(reference.model(), &rollouts, rows, &config))
            .transpose()?;
        let critic = self.critic.as_ref();
        let values = critic
            .map(|critic| values(&critic.model, &rollouts, rows))
            .transpose()?;
        let token_rewards = match (self.kl_coef, &old_log_probs, &ref_log_probs) {
            (Some(coef), Some(old), Some(reference)) => {
                let estimator = self.config.kl_in_reward.map(|kl| kl.penalty.estimator);
                let penalty = |(&old, &reference): (&f64, &f64)| {
                    estimator.map_or(0.0, |e| -coef * e.value(old, reference))
                };
                let row = |(old, reference): (&Vec<f64>, &Vec<f64>)| {
                    old.iter().zip(reference).map(penalty).collect()
                };
                Some(
                    old.iter()
                        .zip(reference)
                        .map(row)
                        .collect::<Vec<Vec<f64>>>(),
                )
            }
            _ => None,
        };
        let advantages = self.advantages(&rollouts, token_rewards.as_deref(), values.as_deref())?;
        Ok(Experience {
            rollouts,
            old_log_probs: old_log_probs.filter(|_| several_updates),
            ref_log_probs,
            values,
            advantages,
        })
    }

    fn advantages(
        &self,
        rollouts: &RolloutBuffer,
        token_rewards: Option<&[Vec<f64>]>,
        values: Option<&[Vec<f64>]>,
    ) -> Result<Advantages> {
        let (rewards, groups, lengths) =
            (rollouts.rewards(), rollouts.group_ids(), rollouts.lengths());
        self.advantage.estimate(&AdvantageInput {
            token_rewards,
            values,
            ..AdvantageInput::new(&rewards, &groups, &lengths)
        })
    }
}
