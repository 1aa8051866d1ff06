//! The builder of a [`Trainer`].

use std::sync::Arc;

use super::collector::Collector;
use super::config::TrainerConfig;
use super::critic::Critic;
use super::learner::{Learner, Reference};
use super::learners::{LearnerGroup, Learners};
use super::problems::{ProblemSource, ShuffledProblems};
use super::scorer::Scorer;
use super::source::{OnPolicy, RolloutSource};
use super::teacher::{AdvantageTeacher, TeacherContext};
use super::trainer::Trainer;
use crate::advantage::{AdvantageEstimator, Distillation, Estimator};
use crate::environment::AgentLoop;
use crate::plan::ModelShape;
use crate::policy::{PolicyModel, ReferencePolicy, ValueHead, ValueModel, require_gradients};
use crate::prompt::Tokenizer;
use crate::reward::{RewardSet, TokenReward};
use crate::rollout::{RolloutEngine, check_prompts};
use crate::types::Problem;
use crate::{Error, Result};

/// Builds a [`Trainer`]; see [`Trainer::builder`].
///
/// [`rewards`](Self::rewards) and [`problems`](Self::problems) (or a
/// [`problem_source`](Self::problem_source)) are required, everything else has a default.
/// [`build`](Self::build) checks that the parts fit together.
#[must_use]
pub struct TrainerBuilder<M: PolicyModel, V: ValueModel> {
    config: TrainerConfig,
    policy: M,
    tokenizer: Arc<dyn Tokenizer>,
    rewards: Option<RewardSet>,
    problems: Vec<Problem>,
    problem_source: Option<Box<dyn ProblemSource>>,
    engine: Option<Box<dyn RolloutEngine<M>>>,
    agent_loop: Option<AgentLoop>,
    source: Box<dyn RolloutSource<M>>,
    critic: Option<V>,
    reference: Option<Box<dyn Scorer>>,
    teacher: AdvantageTeacher,
    token_rewards: Option<Arc<dyn TokenReward>>,
    learners: Option<Arc<dyn Learners>>,
    shape: Option<ModelShape>,
}

impl<M: PolicyModel> TrainerBuilder<M, ValueHead<M>> {
    pub(super) fn new(policy: M, tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self {
            config: TrainerConfig::default(),
            policy,
            tokenizer,
            rewards: None,
            problems: Vec::new(),
            problem_source: None,
            engine: None,
            agent_loop: None,
            source: Box::new(OnPolicy),
            critic: None,
            reference: None,
            teacher: AdvantageTeacher::default(),
            token_rewards: None,
            learners: None,
            shape: None,
        }
    }
}

impl<M: PolicyModel, V: ValueModel> TrainerBuilder<M, V> {
    /// Sets the settings. Default: [`TrainerConfig::default`]. If they have no stop tokens, the
    /// tokenizer's are used.
    pub fn config(mut self, config: TrainerConfig) -> Self {
        self.config = config;
        self
    }

    /// Sets the rewards of the completions.
    pub fn rewards(mut self, rewards: RewardSet) -> Self {
        self.rewards = Some(rewards);
        self
    }

    /// Adds rewards per token to the totals of the completions.
    pub fn token_rewards(mut self, reward: impl TokenReward) -> Self {
        self.token_rewards = Some(Arc::new(reward));
        self
    }

    /// Sets the problems, which are drawn in a new random order in each epoch.
    #[doc(alias = "train_dataset")]
    pub fn problems(mut self, problems: impl IntoIterator<Item = Problem>) -> Self {
        self.problems = problems.into_iter().collect();
        self
    }

    /// Sets a source of problems, such as a curriculum, in place of [`problems`](Self::problems).
    pub fn problem_source(mut self, source: impl ProblemSource + 'static) -> Self {
        self.problem_source = Some(Box::new(source));
        self
    }

    /// Adds a critic, for PPO. It needs an estimator that reads values, such as
    /// [`Gae`](crate::advantage::Gae). The critic must be on an autodiff device.
    pub fn critic<C: ValueModel>(self, critic: C) -> TrainerBuilder<M, C> {
        TrainerBuilder {
            critic: Some(critic),
            config: self.config,
            policy: self.policy,
            tokenizer: self.tokenizer,
            rewards: self.rewards,
            problems: self.problems,
            problem_source: self.problem_source,
            engine: self.engine,
            agent_loop: self.agent_loop,
            source: self.source,
            reference: self.reference,
            teacher: self.teacher,
            token_rewards: self.token_rewards,
            learners: self.learners,
            shape: self.shape,
        }
    }

    /// Sets the reference of the KL terms, and of the estimators that compare with one. Default:
    /// the policy at the beginning of training.
    pub fn reference(mut self, scorer: impl Scorer + 'static) -> Self {
        self.reference = Some(Box::new(scorer));
        self
    }

    /// Sets a teacher for the estimators that compare with one, such as
    /// [`Distillation`](crate::advantage::Distillation); the KL terms still use the reference.
    /// Default: the reference.
    pub fn teacher(mut self, scorer: impl Scorer + 'static) -> Self {
        self.teacher.scorer = Some(Box::new(scorer));
        self
    }

    /// Sets what the teacher reads in place of the prompts. The teacher is the reference unless a
    /// [`teacher`](Self::teacher) is set. Default: the prompts. The metric `teacher/share` is the
    /// share of the completions that the teacher has read.
    pub fn teacher_context(mut self, context: impl TeacherContext + 'static) -> Self {
        self.teacher.context = Some(Box::new(context));
        self
    }

    /// Sets the engine that generates completions. Default: the crate's own generator.
    pub fn engine(mut self, engine: impl RolloutEngine<M> + 'static) -> Self {
        self.engine = Some(Box::new(engine));
        self
    }

    /// Sets an environment with which problems are solved in several turns. Default: each problem
    /// is answered by one completion.
    pub fn agent_loop(mut self, agent_loop: AgentLoop) -> Self {
        self.agent_loop = Some(agent_loop);
        self
    }

    /// Sets the source of the rollouts of a step. Default: they are sampled from the current
    /// policy.
    pub fn source(mut self, source: impl RolloutSource<M> + 'static) -> Self {
        self.source = Box::new(source);
        self
    }

    /// Trains with several learners, whose number must divide [`TrainerConfig::shards`]. Each
    /// learner builds its trainer from the same parts. Default: one ([`Alone`](super::Alone)).
    pub fn learners(mut self, learners: impl Learners + 'static) -> Self {
        self.learners = Some(Arc::new(learners));
        self
    }

    /// Sets the shape of a policy that is not this crate's transformer, from which the ledger
    /// computes FLOPs and memory. Default: that of [`PolicyModel::as_causal`]; without one, two
    /// FLOPs for each parameter and token of a forward pass, and no prediction of memory.
    pub fn shape(mut self, shape: ModelShape) -> Self {
        self.shape = Some(shape);
        self
    }

    /// Checks the parts and builds the trainer.
    ///
    /// If a term needs a reference and [`reference`](Self::reference) was not called, a frozen copy
    /// of the policy is used.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid or has no effect, a part is missing, two parts do
    /// not fit together, the policy or the critic has no parameter that requires gradients, the
    /// tokenizer has more tokens than the policy, or a prompt cannot be encoded or leaves no room
    /// for a completion of the configured length. The error for a prompt names the problem's index.
    pub fn build(self) -> Result<Trainer<M, V>> {
        let mut config = self.config;
        if config.generation.stop_tokens.is_empty() {
            config.generation.stop_tokens = self.tokenizer.stop_tokens();
        }
        config.validate()?;
        let group = |learners| LearnerGroup::new(learners, &config);
        let learners = self.learners.map(group).transpose()?;
        let rewards = self
            .rewards
            .ok_or_else(|| Error::config("rewards", "none", "TrainerBuilder::rewards"))?;
        if let Some(dynamic_sampling) = &config.dynamic_sampling {
            dynamic_sampling.check_reward(&rewards.names())?;
        }
        config.schedules.check_rewards(&rewards.names())?;
        require_gradients(&self.policy, "policy")?;
        check_vocabulary(&config, self.tokenizer.as_ref(), self.policy.vocab_size())?;

        check_critic(&config.advantage, self.critic.is_some())?;
        if let Some(reward) = &self.token_rewards {
            check_token_rewards(&config.advantage, reward.as_ref(), &rewards)?;
        }
        let problems: Box<dyn ProblemSource> = match self.problem_source {
            Some(source) if self.problems.is_empty() => source,
            Some(_) => {
                return Err(Error::config(
                    "problems",
                    self.problems.len(),
                    "none beside a problem_source",
                ));
            }
            None => Box::new(ShuffledProblems::new(self.problems, config.seed)?),
        };
        let prompts = match self.agent_loop {
            // The environment supplies the prompt.
            Some(_) => Vec::new(),
            None => check_prompts(
                problems.problems().iter().map(Arc::as_ref),
                self.tokenizer.as_ref(),
                self.policy.vocab_size(),
                self.policy.max_positions(),
                config.generation.max_new_tokens,
            )?,
        };

        let compares = config.advantage.needs_ref_log_probs();
        if self.teacher.is_given() && !compares {
            return Err(Error::config(
                "teacher",
                "given",
                format!(
                    "none with the estimator `{}`, which uses no teacher; `distillation` does",
                    config.advantage.name()
                ),
            ));
        }
        if let Estimator::Distillation(Distillation { rewards: None, .. }) = &config.advantage
            && !self.teacher.is_given()
            && self.reference.is_none()
        {
            return Err(Error::config(
                "advantage",
                config.advantage.name(),
                "TrainerBuilder::teacher or TrainerBuilder::teacher_context with it: distilling a policy \
                 into itself gives no gradient",
            ));
        }
        if self.teacher.context.is_some() && self.agent_loop.is_some() {
            return Err(Error::config(
                "teacher_context",
                "given",
                "none with an agent_loop, whose episodes begin with the prompt of their environment",
            ));
        }
        let wanted = config.pulls_to_reference() || (compares && self.teacher.scorer.is_none());
        if config.reference_sync != crate::policy::ReferenceSync::Never && !wanted {
            return Err(Error::config(
                "reference_sync",
                format!("{:?}", config.reference_sync),
                "never with TrainerBuilder::teacher, because nothing else reads the reference",
            ));
        }
        let reference = match self.reference {
            Some(_) if !wanted => {
                return Err(Error::config(
                    "reference",
                    "given",
                    "none, because nothing reads it: there is no KL term, no estimator that uses it, and \
                     measure_kl is off",
                ));
            }
            Some(_) if config.reference_sync != crate::policy::ReferenceSync::Never => {
                return Err(Error::config(
                    "reference_sync",
                    format!("{:?}", config.reference_sync),
                    "never with TrainerBuilder::reference, which does not follow the policy",
                ));
            }
            Some(scorer) => Some(Reference::Scorer(scorer)),
            None if wanted => Some(Reference::Policy(ReferencePolicy::new(
                &self.policy,
                config.reference_sync,
            )?)),
            None => None,
        };

        let mut learner = Learner::new(config.clone(), self.policy)?;
        learner.reference = reference;
        learner.shape = self.shape.or(learner.shape);
        learner.teacher = self.teacher;
        if let Some(critic) = self.critic {
            require_gradients(&critic, "critic")?;
            learner.critic = Some(Critic::new(critic, config.critic)?);
        }
        learner.reward_names = rewards.names().into_iter().map(String::from).collect();
        learner.reward_weights = rewards.weights();
        let mut collector = Collector::new(config, self.tokenizer, problems, rewards);
        collector.prompts = prompts;
        collector.agent_loop = self.agent_loop;
        collector.token_rewards = self.token_rewards;
        if let Some(engine) = self.engine {
            collector.engine = engine;
        }
        if let Some(learners) = learners {
            collector.learners = learners.clone();
            learner.learners = learners;
        }
        self.source.check(&collector)?;
        Ok(Trainer::new(collector, learner, self.source))
    }
}

fn check_vocabulary(
    config: &TrainerConfig,
    tokenizer: &dyn Tokenizer,
    policy: usize,
) -> Result<()> {
    if tokenizer.vocab_size() > policy {
        return Err(Error::config(
            "tokenizer.vocab_size",
            tokenizer.vocab_size(),
            format!("at most the policy's {policy}"),
        ));
    }
    config.generation.check_stop_tokens(policy)
}

/// Rejects a critic that nothing reads, and an estimator that needs a critic but has none.
fn check_critic(estimator: &Estimator, critic: bool) -> Result<()> {
    if estimator.needs_values() == critic {
        return Ok(());
    }
    let expected = match critic {
        false => "an estimator without values, or TrainerBuilder::critic",
        true => "an estimator that uses the critic, such as gae",
    };
    Err(Error::config("advantage", estimator.name(), expected))
}

fn check_token_rewards(
    estimator: &Estimator,
    reward: &dyn TokenReward,
    rewards: &RewardSet,
) -> Result<()> {
    if estimator.needs_components() {
        return Err(Error::config(
            "token_rewards",
            reward.name(),
            format!(
                "none with `{}`, which standardises each reward of the set separately",
                estimator.name()
            ),
        ));
    }
    if rewards.names().contains(&reward.name()) {
        return Err(Error::config(
            "token_rewards.name",
            reward.name(),
            "a name that is not in the reward set",
        ));
    }
    Ok(())
}
