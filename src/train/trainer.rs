//! The trainer: reinforcement learning steps of two halves.

use std::sync::Arc;

use super::builder::TrainerBuilder;
use super::checkpoint_folder::RunFolder;
use super::collector::{Collected, Collector};
use super::config::TrainerConfig;
use super::evaluate::{Evaluation, EvaluationConfig, Players, evaluate_with};
use super::learner::Learner;
use super::observer::StepRecord;
use super::source::RolloutSource;
use crate::Result;
use crate::plan::LedgerState;
use crate::policy::{PolicyModel, ValueHead, ValueModel};
use crate::prompt::Tokenizer;
use crate::types::{Problem, RolloutBuffer};

/// Trains a policy by reinforcement learning.
///
/// A [`step`](Self::step) has two halves: [`collect`](Self::collect) samples completions of the
/// next problems and scores them, [`learn`](Self::learn) estimates advantages and updates the
/// policy. [`run`](Self::run) adds evaluation, checkpoints, observers and a stop flag. With a
/// critic ([`TrainerBuilder::critic`]) the same loop is PPO.
///
/// ```
/// use rlvr::prelude::*;
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex().autodiff();
/// let tokenizer = CharTokenizer::new("ab", &[])?;
/// let policy = CausalConfig {
///     hidden_size: 8,
///     intermediate_size: 8,
///     ..CausalConfig::new(tokenizer.vocab_size())
/// }
/// .init(0, &device)?;
/// let ends_in_b = FnReward::new("ends_in_b", |input| {
///     Ok(Some(if input.completion().ends_with('b') {
///         1.0
///     } else {
///         0.0
///     }))
/// });
/// let mut trainer = Trainer::builder(policy, tokenizer)
///     .config(TrainerConfig {
///         problems_per_step: 1,
///         ..TrainerConfig::default()
///     })
///     .rewards(RewardSet::builder().add(1.0, ends_in_b).build()?)
///     .problems([Problem::new("a", "b")])
///     .build()?;
/// let record = trainer.step()?;
/// assert!(record.get("reward").is_some());
///
/// // The same in two halves, with access to the rollouts in between.
/// let collected = trainer.collect()?;
/// assert_eq!(collected.rollouts.groups[0].problem.answer, "b");
/// trainer.learn(collected)?;
/// assert_eq!(trainer.steps_done(), 2);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[doc(alias(
    "GRPOTrainer",
    "RLOOTrainer",
    "RayPPOTrainer",
    "Learner",
    "SupervisedTraining"
))]
pub struct Trainer<M: PolicyModel, V: ValueModel = ValueHead<M>> {
    pub(super) collector: Collector<M>,
    pub(super) learner: Learner<M, V>,
    pub(super) source: Box<dyn RolloutSource<M>>,
    pub(super) last_rollouts: RolloutBuffer,
    /// The cost of the steps so far.
    pub(super) ledger: LedgerState,
    /// The folder of this run's checkpoints.
    pub(super) run_folder: RunFolder,
}

impl<M: PolicyModel> Trainer<M, ValueHead<M>> {
    /// Returns a builder of a trainer for `policy`, which must be on an autodiff device
    /// ([`burn::tensor::Device::autodiff`]).
    pub fn builder(
        policy: M,
        tokenizer: impl Tokenizer + 'static,
    ) -> TrainerBuilder<M, ValueHead<M>> {
        TrainerBuilder::new(policy, Arc::new(tokenizer))
    }
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    pub(super) fn new(
        collector: Collector<M>,
        learner: Learner<M, V>,
        source: Box<dyn RolloutSource<M>>,
    ) -> Self {
        Self {
            collector,
            learner,
            source,
            last_rollouts: RolloutBuffer::new(),
            ledger: LedgerState::default(),
            run_folder: RunFolder::default(),
        }
    }

    /// Returns the settings.
    pub fn config(&self) -> &TrainerConfig {
        &self.learner.config
    }

    /// Returns the current policy.
    pub fn policy(&self) -> &M {
        &self.learner.policy
    }

    /// Consumes the trainer and returns the policy.
    pub fn into_policy(self) -> M {
        self.learner.policy
    }

    /// Returns the number of steps done, including those before a resume.
    pub fn steps_done(&self) -> u64 {
        self.learner.progress.steps
    }

    /// Returns the number of optimizer updates of the policy so far, which is recorded in rollouts.
    pub fn policy_version(&self) -> u64 {
        self.learner.updates_made().0
    }

    /// Returns the bytes of optimizer state on this learner, of policy and critic: moments, and f32
    /// copies of half-precision weights.
    pub fn optimizer_bytes(&self) -> usize {
        let learner = &self.learner;
        let bytes = learner
            .optimizer
            .state_bytes(&learner.learners, &learner.policy);
        let critic = learner.critic.as_ref();
        bytes
            + critic.map_or(0, |one| {
                one.optimizer.state_bytes(&learner.learners, &one.model)
            })
    }

    /// Returns the scored rollouts of the last step.
    pub fn last_rollouts(&self) -> &RolloutBuffer {
        &self.last_rollouts
    }

    /// Evaluates the current policy. With several learners, which share the problems, all of them
    /// must call this method.
    ///
    /// # Errors
    /// Returns the errors of [`evaluate`](super::evaluate()).
    pub fn evaluate(&self, problems: &[Problem], config: &EvaluationConfig) -> Result<Evaluation> {
        let players = Players {
            learners: &self.learner.learners,
            agent_loop: self.collector.agent_loop.as_ref(),
        };
        evaluate_with(
            players,
            &self.learner.policy,
            self.collector.tokenizer.as_ref(),
            &self.collector.given_rewards,
            problems,
            &self.learner.config.generation,
            config,
        )
    }

    /// Makes one training step: [`collect`](Self::collect), then [`learn`](Self::learn). Returns
    /// its metrics, which are listed at [`StepRecord`].
    ///
    /// # Errors
    /// Returns the errors of [`collect`](Self::collect) and [`learn`](Self::learn).
    pub fn step(&mut self) -> Result<StepRecord> {
        let before = self.collector.problems.state();
        let collected = self.collect()?;
        let record = self.learn(collected);
        if record.is_err() {
            // A failed step does not consume problems.
            self.source.undo(&mut self.collector, &before)?;
        }
        record
    }

    /// The first half of a step: returns the scored rollouts of the rollout source. By default they
    /// are sampled from the current policy for the next problems.
    ///
    /// # Errors
    /// Returns an error if generation fails, a reward fails on too many completions, no completion
    /// is scored, or dynamic sampling finds too few groups with a signal and is configured to fail.
    /// The trainer is then unchanged.
    pub fn collect(&mut self) -> Result<Collected> {
        let Self {
            collector,
            learner,
            source,
            ..
        } = self;
        learner.check_start()?;
        collector.begin_step(learner.progress.steps);
        source.next(collector, learner.state())
    }

    /// The second half of a step: estimates advantages and updates the policy on `collected`, which
    /// may come from [`collect`](Self::collect) or from elsewhere. Returns the metrics of the step.
    ///
    /// An update whose loss or gradient is not finite is skipped: weights and moments do not
    /// change, and the step is counted in `skipped_steps`.
    ///
    /// # Errors
    /// Returns an error if there are no rollouts, or if this would be the third skipped step in a
    /// row. Weights, moments and counters are then unchanged, unless an update of the step was made
    /// before.
    pub fn learn(&mut self, collected: Collected) -> Result<StepRecord> {
        let (record, rollouts) = self.learner.learn(collected)?;
        self.last_rollouts = rollouts;
        Ok(record)
    }

    /// Returns whether no update was made since the last complete step.
    pub(super) fn is_whole(&self) -> bool {
        self.learner.updates_made() == self.learner.progress.updates
    }
}
