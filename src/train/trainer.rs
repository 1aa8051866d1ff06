//! The loop's one step: generate, score, advantage, update.

use std::sync::Arc;

use super::config::TrainerConfig;
use super::controllers::Controllers;
use super::critic::{Critic, explained_variance};
use super::evaluate::{Evaluation, EvaluationConfig, evaluate};
use super::experience::{Experience, log_probs, probabilities, values};
use super::gather::Gathered;
use super::observer::StepRecord;
use super::optimizer::Optimizer;
use super::sampler_metrics::sampler_metrics;
use super::step_metrics::{StepTimes, mean, step_metrics};
use super::update::learn;
use crate::advantage::{
    AdvantageEstimator, AdvantageInput, Advantages, Components, Estimator, Probabilities,
};
use crate::loss::{Numerator, PolicyObjective, RolloutLogProbs, Surrogate, SurrogateLoss};
use crate::policy::{PolicyModel, ReferencePolicy, ValueHead, ValueModel};
use crate::prompt::{Problem, ProblemOrder, Tokenizer};
use crate::reward::{RewardSet, TokenReward};
use crate::rollout::RolloutBuffer;
use crate::types::PerToken;
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
    pub(super) problems: Vec<Arc<Problem>>,
    pub(super) order: ProblemOrder,
    pub(super) advantage: Arc<dyn AdvantageEstimator>,
    pub(super) token_rewards: Option<Arc<dyn TokenReward>>,
    pub(super) optimizer: Optimizer,
    pub(super) reference: Option<ReferencePolicy<M>>,
    pub(super) critic: Option<Critic<V>>,
    /// What is minimised, with the coefficients that it was configured with.
    objective: PolicyObjective,
    pub(super) controllers: Controllers,
    pub(super) steps_done: u64,
    /// How far the order of problems has come.
    pub(super) problems_asked: u64,
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
        if let Some(dynamic_sampling) = &config.dynamic_sampling {
            dynamic_sampling.check_reward(&rewards.names())?;
        }
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
            objective: config.objective.clone(),
            controllers: Controllers::new(&config),
            advantage: Arc::new(config.advantage.clone()),
            token_rewards: None,
            config,
            policy,
            tokenizer,
            rewards,
            problems: problems.into_iter().map(Arc::new).collect(),
            reference,
            critic,
            steps_done: 0,
            problems_asked: 0,
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
    /// If generation fails, dynamic sampling finds too few groups to learn from, or a loss or gradient is not finite. The policy is
    /// then as it was after the last whole update.
    pub fn step(&mut self) -> Result<StepRecord> {
        let mut times = StepTimes::start();
        let gathered = self.gather(&mut times)?;
        let (position, report) = (gathered.position, gathered.report.clone());
        let baselines = gathered.baselines.iter().flatten().copied();
        let greedy = mean(&baselines.flatten().collect::<Vec<f64>>());
        let experience = self.prepare(gathered)?;
        times.prepare = times.lap();
        let updates = learn(
            &self.config,
            &self.objective,
            &mut self.controllers,
            self.steps_done,
            &experience,
            &mut self.policy,
            &mut self.optimizer,
            self.critic.as_mut(),
        )?;
        times.update = times.lap();

        self.steps_done += 1;
        self.problems_asked = position;
        self.tokens_seen += experience.rollouts.tokens() as u64;
        if let Some(reference) = &mut self.reference {
            reference.after_step(self.steps_done, &self.policy);
        }
        let mut metrics = step_metrics(&experience, &updates, &times);
        metrics.extend(self.coefficients());
        metrics.extend(sampler_metrics(&self.objective, &experience)?);
        metrics.insert("num_tokens".into(), self.tokens_seen as f64);
        metrics.extend(report.iter().flat_map(|report| report.metrics()));
        metrics.extend(greedy.map(|greedy| ("baseline/reward".to_string(), greedy)));
        if let Some(&kl) = metrics.get("kl") {
            let rollouts = experience.rollouts.len();
            self.controllers.after_step(&self.config, kl, rollouts);
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
        self.config.check_estimator(estimator.as_ref())?;
        check_token_rewards(estimator.as_ref(), self.token_rewards.as_deref())?;
        if estimator.needs_values() != self.critic.is_some() {
            let expected = match self.critic {
                None => "an estimator without values, or Trainer::with_critic",
                Some(_) => "an estimator that uses the critic, such as gae",
            };
            return Err(Error::config("advantage", estimator.name(), expected));
        }
        self.config.advantage = Estimator::Custom(estimator.clone());
        self.advantage = estimator;
        Ok(self)
    }

    /// Replaces the configured surrogate by one of the caller's own; the other parts of the objective stay.
    ///
    /// # Errors
    /// If the surrogate refuses its settings, or does not go with the other parts.
    pub fn with_surrogate(mut self, surrogate: Arc<dyn SurrogateLoss>) -> Result<Self> {
        let surrogate = Surrogate::Custom(surrogate);
        let objective = self.config.objective.clone().with_surrogate(surrogate);
        objective.validate()?;
        self.config.objective = objective.clone();
        self.objective = objective;
        Ok(self)
    }

    /// The coefficients as they stand, by the names of their metrics.
    fn coefficients(&self) -> Vec<(String, f64)> {
        let controllers = &self.controllers;
        let objective = controllers.apply(&self.objective);
        let kl_in_loss = objective.kl.map(|kl| kl.coef);
        let bonus = controllers.entropy.is_some() || objective.entropy_coef != 0.0;
        [
            ("kl_coef", controllers.kl_in_reward.or(kl_in_loss)),
            ("entropy_coef", bonus.then_some(objective.entropy_coef)),
        ]
        .into_iter()
        .filter_map(|(name, coef)| Some((name.to_string(), coef?)))
        .collect()
    }

    /// Adds a reward for every token on top of the completions' totals.
    ///
    /// # Errors
    /// If the set has a reward of that name, or the estimator has no place for rewards of tokens.
    pub fn with_token_rewards(mut self, reward: Arc<dyn TokenReward>) -> Result<Self> {
        check_token_rewards(self.advantage.as_ref(), Some(reward.as_ref()))?;
        if self.rewards.names().contains(&reward.name()) {
            return Err(Error::config(
                "token_rewards.name",
                reward.name(),
                "a name that no reward of the set has",
            ));
        }
        self.token_rewards = Some(reward);
        Ok(self)
    }

    /// Everything that is computed once, before the first update.
    fn prepare(&self, gathered: Gathered) -> Result<Experience> {
        let rollouts = gathered.rollouts;
        let (config, rows) = (self.config.log_probs(), self.config.micro_batch);
        let several_updates = self.config.updates_per_step() > 1;
        let correction = self.objective.sampler_correction.as_ref();
        let bypass = correction.is_some_and(|one| one.numerator == Numerator::Current);
        let (old_log_probs, squares) = if self.advantage.needs_probabilities() {
            let [old, squares] = probabilities(&self.policy, &rollouts, rows, &config)?;
            (Some(old), Some(squares))
        } else if several_updates || self.controllers.kl_in_reward.is_some() || correction.is_some()
        {
            let old = log_probs(&self.policy, &rollouts, rows, &config)?;
            (Some(old), None)
        } else {
            (None, None)
        };
        let reference = self.reference.as_ref();
        let ref_log_probs = reference
            .map(|reference| log_probs(reference.model(), &rollouts, rows, &config))
            .transpose()?;
        let critic = self.critic.as_ref();
        let values = critic
            .map(|critic| values(&critic.model, &rollouts, rows))
            .transpose()?;
        let penalties = self.kl_penalties(old_log_probs.as_ref(), ref_log_probs.as_ref())?;
        let token_rewards = added(penalties, rollouts.token_rewards())?;
        let components = self.components(&rollouts);
        let weights = self.rewards.weights();
        let weighing = correction.filter(|one| one.acting_weights().is_some());
        let sampler_weights = match (weighing, &old_log_probs) {
            (Some(correction), Some(old)) if squares.is_some() => {
                let sampler = rollouts.log_probs();
                let log_probs = RolloutLogProbs::new(old, &sampler)?;
                correction.correct(log_probs, None).weights
            }
            _ => None,
        };
        let probabilities = match (&old_log_probs, &squares) {
            (Some(log_probs), Some(sum_pi_squared)) => Some(Probabilities {
                log_probs,
                sum_pi_squared,
                importance_weights: sampler_weights.as_ref(),
            }),
            _ => None,
        };
        let (scores, groups, lengths) =
            (rollouts.rewards(), rollouts.group_ids(), rollouts.lengths());
        let advantages: Advantages = self.advantage.estimate(&AdvantageInput {
            token_rewards: token_rewards.as_ref(),
            values: values.as_ref(),
            components: components.as_deref().map(|rewards| Components {
                rewards,
                weights: &weights,
            }),
            baselines: gathered.baselines.as_deref(),
            probabilities,
            ..AdvantageInput::new(&scores, &groups, &lengths)
        })?;
        // With a single update the old policy is the current one; but a correction compares it with the sampler. In the bypass the
        // sampler takes its place.
        let old_log_probs = match bypass {
            true => Some(rollouts.log_probs()),
            false => old_log_probs.filter(|_| several_updates || correction.is_some()),
        };
        Ok(Experience {
            rollouts,
            old_log_probs,
            ref_log_probs,
            values,
            advantages,
        })
    }

    /// The KL penalty on every token's reward, if there is one.
    fn kl_penalties(
        &self,
        old: Option<&PerToken>,
        reference: Option<&PerToken>,
    ) -> Result<Option<PerToken>> {
        let coefficient = self.controllers.kl_in_reward.zip(self.config.kl_in_reward);
        let (Some((coef, kl)), Some(old), Some(reference)) = (coefficient, old, reference) else {
            return Ok(None);
        };
        let penalty = |old, reference| -coef * kl.penalty.value(old, reference);
        old.zip_with(reference, penalty).map(Some)
    }

    /// The score of every reward of the set on every rollout, if the estimator asks for them.
    fn components(&self, rollouts: &RolloutBuffer) -> Option<Vec<Vec<Option<f64>>>> {
        let names = self.rewards.names();
        self.advantage.needs_components().then(|| {
            let scores = rollouts.rollouts();
            scores
                .map(|rollout| names.iter().map(|name| rollout.score(name)).collect())
                .collect()
        })
    }
}

/// Refuses rewards of tokens under an estimator that compares the rewards of the set one by one.
fn check_token_rewards(
    estimator: &dyn AdvantageEstimator,
    reward: Option<&dyn TokenReward>,
) -> Result<()> {
    match reward {
        Some(reward) if estimator.needs_components() => Err(Error::config(
            "token_rewards",
            reward.name(),
            format!(
                "none with `{}`: it standardises each reward by itself, and a token's belongs to none",
                estimator.name()
            ),
        )),
        _ => Ok(()),
    }
}

/// The sum of two, of which either may be absent.
fn added(a: Option<PerToken>, b: Option<PerToken>) -> Result<Option<PerToken>> {
    match (a, b) {
        (Some(a), Some(b)) => a.zip_with(&b, |a, b| a + b).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}
