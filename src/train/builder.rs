//! How a trainer is put together.

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

/// The parts of a [`Trainer`]; see [`Trainer::builder`].
///
/// [`rewards`](Self::rewards) and [`problems`](Self::problems) (or a [`problem_source`](Self::problem_source)) are required,
/// everything else has a default. [`build`](Self::build) checks the parts against each other.
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
    /// The settings. Default: [`TrainerConfig::default`]. Without stop tokens the tokenizer's are used.
    pub fn config(mut self, config: TrainerConfig) -> Self {
        self.config = config;
        self
    }

    /// The rewards of the completions.
    pub fn rewards(mut self, rewards: RewardSet) -> Self {
        self.rewards = Some(rewards);
        self
    }

    /// Rewards of single tokens on top of the completions' totals.
    pub fn token_rewards(mut self, reward: impl TokenReward) -> Self {
        self.token_rewards = Some(Arc::new(reward));
        self
    }

    /// The problems, which are drawn in a new random order in each epoch.
    #[doc(alias = "train_dataset")]
    pub fn problems(mut self, problems: impl IntoIterator<Item = Problem>) -> Self {
        self.problems = problems.into_iter().collect();
        self
    }

    /// Another source of problems, such as a curriculum, in place of [`problems`](Self::problems).
    pub fn problem_source(mut self, source: impl ProblemSource + 'static) -> Self {
        self.problem_source = Some(Box::new(source));
        self
    }

    /// A critic: PPO, with an estimator that reads values, such as [`Gae`](crate::advantage::Gae). Its parameters must be on the
    /// gradient tape.
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

    /// A reference or teacher in place of the policy as it is when training begins.
    pub fn reference(mut self, scorer: impl Scorer + 'static) -> Self {
        self.reference = Some(Box::new(scorer));
        self
    }

    /// A teacher beside the reference: advantages compare with it, as [`Distillation`](crate::advantage::Distillation) does, while KL terms go on
    /// to pull towards the reference. Default: the reference.
    pub fn teacher(mut self, scorer: impl Scorer + 'static) -> Self {
        self.teacher.scorer = Some(Box::new(scorer));
        self
    }

    /// What the teacher reads in place of the prompts, the reference if no other [`teacher`](Self::teacher) is given. Default: the
    /// prompts. The metric `teacher/share` is the share of the completions that it has read.
    pub fn teacher_context(mut self, context: impl TeacherContext + 'static) -> Self {
        self.teacher.context = Some(Box::new(context));
        self
    }

    /// Where completions come from. Default: the crate's own generator.
    pub fn engine(mut self, engine: impl RolloutEngine<M> + 'static) -> Self {
        self.engine = Some(Box::new(engine));
        self
    }

    /// Problems are played with an environment, in several turns. Default: each is answered by one completion.
    pub fn agent_loop(mut self, agent_loop: AgentLoop) -> Self {
        self.agent_loop = Some(agent_loop);
        self
    }

    /// Where the rollouts of a step come from. Default: sampled from the current policy ([`OnPolicy`]).
    pub fn source(mut self, source: impl RolloutSource<M> + 'static) -> Self {
        self.source = Box::new(source);
        self
    }

    /// Several learners, whose number must divide [`TrainerConfig::shards`]. Each builds its trainer of the same parts. Default: one
    /// ([`Alone`](super::Alone)).
    pub fn learners(mut self, learners: impl Learners + 'static) -> Self {
        self.learners = Some(Arc::new(learners));
        self
    }

    /// The shape of a policy that is not this crate's own transformer, for what the ledger of a run says of FLOPs and memory. Default: that of
    /// [`PolicyModel::as_causal`]; without one, two FLOPs for each parameter and token of a forward pass, and no prediction of memory.
    pub fn shape(mut self, shape: ModelShape) -> Self {
        self.shape = Some(shape);
        self
    }

    /// Checks the parts and puts them together.
    ///
    /// A reference, if some term needs one and [`reference`](Self::reference) gave none, is the policy as given.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid or has no effect, a part is missing, the parts do not go together, the policy or
    /// the critic has no parameter that requires gradients, the vocabularies do not fit, or a prompt cannot be encoded or is too
    /// long for the policy with a completion of the configured length. The error of a prompt names the problem's index.
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
            // Its environment says what the policy reads.
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
                    "none with the estimator `{}`, which compares with none; `distillation` does",
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
                "TrainerBuilder::teacher or TrainerBuilder::teacher_context with it: from the policy that it begins with, a policy \
                 learns nothing",
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
                "never with TrainerBuilder::teacher, since nothing else reads the reference",
            ));
        }
        let reference = match self.reference {
            Some(_) if !wanted => {
                return Err(Error::config(
                    "reference",
                    "given",
                    "none, since nothing reads it: there is no KL term, no estimator that compares with it, and \
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

/// Rejects a critic that nothing reads, and an estimator without the critic that it needs.
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
                "none with `{}`: it standardises each reward by itself, and a token's belongs to none",
                estimator.name()
            ),
        ));
    }
    if rewards.names().contains(&reward.name()) {
        return Err(Error::config(
            "token_rewards.name",
            reward.name(),
            "a name that no reward of the set has",
        ));
    }
    Ok(())
}
