//! The first half of a step: problems are drawn, completions generated and scored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::config::TrainerConfig;
use super::dynamic_sampling::fill;
use super::learners::LearnerGroup;
use super::problems::{Draw, ProblemSource};
use crate::Result;
use crate::advantage::AdvantageEstimator;
use crate::environment::AgentLoop;
use crate::fnv::Fnv;
use crate::policy::PolicyModel;
use crate::prompt::Tokenizer;
use crate::reward::failures::check_failures;
use crate::reward::{RewardSet, TokenReward, score_tokens};
use crate::rollout::{
    GenerationConfig, LocalEngine, RolloutEngine, RolloutRequest, SamplingConfig, sample_rollouts,
};
use crate::types::{Rollout, RolloutBuffer, RolloutGroup};

/// The policy that a step's rollouts are sampled from.
#[derive(Debug)]
pub struct PolicyState<'a, M> {
    /// The policy, on the autodiff device.
    pub policy: &'a M,
    /// The number of steps done before this one; part of the address of the step's randomness.
    pub step: u64,
    /// The number of optimizer updates made so far.
    pub version: u64,
}

impl<M> Clone for PolicyState<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for PolicyState<'_, M> {}

/// The data of a training step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Collected {
    /// The scored rollouts.
    pub rollouts: RolloutBuffer,
    /// `[N]` The baseline of each rollout, for estimators that need one: the reward of the greedy
    /// completion of its problem.
    pub baselines: Option<Vec<Option<f64>>>,
    /// Metrics by name, which become part of the step's record.
    pub metrics: BTreeMap<String, f64>,
}

impl From<RolloutBuffer> for Collected {
    fn from(rollouts: RolloutBuffer) -> Self {
        Self {
            rollouts,
            ..Self::default()
        }
    }
}

/// Seconds spent in one [`Collector::collect`].
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    generate: f64,
    reward: f64,
}

/// Draws problems, generates completions with the policy, and scores them: the first half of a
/// training step.
///
/// A [`Trainer`](super::Trainer) owns one and passes it to its
/// [`RolloutSource`](super::RolloutSource), which calls [`collect`](Self::collect) or its parts.
pub struct Collector<M: PolicyModel> {
    pub(super) tokenizer: Arc<dyn Tokenizer>,
    pub(super) engine: Box<dyn RolloutEngine<M>>,
    /// Runs episodes of several turns; `None` for single completions.
    pub(super) agent_loop: Option<AgentLoop>,
    pub(super) problems: Box<dyn ProblemSource>,
    /// The rewards, with the weights of the step.
    pub(super) rewards: RewardSet,
    /// The rewards with the weights they were built with.
    pub(super) given_rewards: RewardSet,
    pub(super) token_rewards: Option<Arc<dyn TokenReward>>,
    pub(super) learners: LearnerGroup,
    /// The settings in the current step.
    pub(super) config: TrainerConfig,
    /// The encoded prompts of the source's known problems, by their index.
    pub(super) prompts: Vec<Vec<u32>>,
}

impl<M: PolicyModel> Collector<M> {
    /// Creates a collector with the crate's own generator and one learner.
    pub(super) fn new(
        config: TrainerConfig,
        tokenizer: Arc<dyn Tokenizer>,
        problems: Box<dyn ProblemSource>,
        rewards: RewardSet,
    ) -> Self {
        Self {
            tokenizer,
            engine: Box::new(LocalEngine),
            agent_loop: None,
            problems,
            given_rewards: rewards.clone(),
            rewards,
            token_rewards: None,
            learners: LearnerGroup::alone(&config),
            config,
            prompts: Vec::new(),
        }
    }

    /// The settings of the trainer, as they are in the current step.
    pub fn config(&self) -> &TrainerConfig {
        &self.config
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &dyn Tokenizer {
        self.tokenizer.as_ref()
    }

    /// The rewards, with the weights of the current step.
    pub fn rewards(&self) -> &RewardSet {
        &self.rewards
    }

    /// Applies the settings of step `step`, counted from 0.
    pub(super) fn begin_step(&mut self, step: u64) {
        // A schedule does not depend on the previous value.
        self.config = self.config.at_step(step);
        let weights = self.config.schedules.reward_weights(step);
        if !weights.is_empty() {
            self.rewards = self.given_rewards.reweighted(&weights);
        }
        self.problems.begin_step(step);
    }

    /// Restores an earlier state of the problem source.
    ///
    /// # Errors
    /// Returns the errors of [`ProblemSource::restore`].
    pub fn restore_problems(&mut self, state: &Value) -> Result<()> {
        self.problems.restore(state)
    }

    /// Collects the scored rollouts of a step: `problems_per_step` groups, in several rounds if
    /// dynamic sampling is on.
    ///
    /// # Errors
    /// Returns an error if there are no problems, generation fails, too many rewards fail, or
    /// dynamic sampling finds too few groups with a signal and is configured to fail. The problem
    /// source is then unchanged.
    pub fn collect(&mut self, state: PolicyState<'_, M>) -> Result<Collected> {
        let before = self.problems.state();
        let collected = self.collect_groups(state);
        if collected.is_err() {
            self.problems.restore(&before)?;
        }
        collected
    }

    fn collect_groups(&mut self, state: PolicyState<'_, M>) -> Result<Collected> {
        let mut work = Work::default();
        let mut metrics = BTreeMap::new();
        let groups = match self.config.dynamic_sampling.clone() {
            None => {
                let count = self.config.problems_per_step;
                self.sample(state, count, &mut work)?.groups
            }
            Some(dynamic) => {
                let count = self.config.problems_per_step;
                let ask = |round| Ok(self.sample(state, round, &mut work)?.groups);
                let (groups, report) = fill(&dynamic, state.step, count, ask)?;
                metrics.extend(report.metrics());
                groups
            }
        };
        let rollouts = RolloutBuffer { groups };
        let baselines = match self.config.advantage.needs_baselines() {
            true => Some(self.greedy_rewards(state, &rollouts, &mut work)?),
            false => None,
        };
        metrics.insert("time/generate".into(), work.generate);
        metrics.insert("time/reward".into(), work.reward);
        Ok(Collected {
            rollouts,
            baselines,
            metrics,
        })
    }

    /// Generates and scores the groups of the next `count` problems.
    ///
    /// # Errors
    /// Returns the errors of [`collect`](Self::collect), but the problem source has then advanced.
    pub fn ask(&mut self, state: PolicyState<'_, M>, count: usize) -> Result<RolloutBuffer> {
        self.sample(state, count, &mut Work::default())
    }

    fn sample(
        &mut self,
        state: PolicyState<'_, M>,
        count: usize,
        work: &mut Work,
    ) -> Result<RolloutBuffer> {
        let draws = self.problems.draw(count)?;
        let questions = draws
            .into_iter()
            .map(|draw| self.question(draw, state.step))
            .collect::<Result<Vec<_>>>()?;
        let generation = self.config.generation.clone();
        let rollouts = self.answered(state, &questions, &generation, work)?;
        check_failures(&rollouts, self.config.max_reward_failures)?;
        self.problems.observe(&rollouts.groups);
        Ok(rollouts)
    }

    pub(super) fn question(&self, draw: Draw, step: u64) -> Result<RolloutRequest> {
        let Draw {
            problem,
            index,
            epoch,
        } = draw;
        let known = self.problems.problems().get(index as usize);
        let prompt = match self.prompts.get(index as usize) {
            // The environment supplies the prompt.
            _ if self.agent_loop.is_some() => Vec::new(),
            Some(prompt) if known.is_some_and(|known| Arc::ptr_eq(known, &problem)) => {
                prompt.clone()
            }
            _ => self.tokenizer.encode_prompt(&problem.prompt)?,
        };
        let address = vec![self.config.seed, step, epoch, index];
        Ok(RolloutRequest {
            problem,
            prompt,
            samples: self.config.group_size,
            address,
        })
    }

    /// Generates and scores this learner's share of the completions, and gathers the others'.
    fn answered(
        &mut self,
        state: PolicyState<'_, M>,
        questions: &[RolloutRequest],
        generation: &GenerationConfig,
        work: &mut Work,
    ) -> Result<RolloutBuffer> {
        let started = Instant::now();
        let rewards_before = work.reward;
        let mine = self.own_answers(state, questions, generation, work);
        let all = self.learners.gather("rollouts", mine)?;
        // The rest of the time is generation, waiting for the other learners included.
        let seconds = started.elapsed().as_secs_f64();
        work.generate += seconds - (work.reward - rewards_before);
        let groups = all.into_iter().flat_map(|part| part.groups).collect();
        Ok(RolloutBuffer { groups })
    }

    fn own_answers(
        &mut self,
        state: PolicyState<'_, M>,
        questions: &[RolloutRequest],
        generation: &GenerationConfig,
        work: &mut Work,
    ) -> Result<RolloutBuffer> {
        let mut all = RolloutBuffer::new();
        for block in self.learners.own_blocks(questions.len()) {
            let questions = &questions[block];
            let (engine, tokenizer) = (self.engine.as_mut(), self.tokenizer.as_ref());
            let (policy, version) = (state.policy, state.version);
            let mut rollouts = match &self.agent_loop {
                None => sample_rollouts(engine, policy, version, tokenizer, questions, generation)?,
                Some(agent_loop) => {
                    agent_loop.run(engine, policy, version, tokenizer, questions, generation)?
                }
            };
            let started = Instant::now();
            self.score(&mut rollouts);
            work.reward += started.elapsed().as_secs_f64();
            all.groups.extend(rollouts.groups);
        }
        Ok(all)
    }

    /// Scores rollouts: first the completions, then their tokens.
    pub fn score(&self, rollouts: &mut RolloutBuffer) {
        score(&self.rewards, self.token_rewards.as_deref(), rollouts);
    }

    /// `[N]` The reward of the greedy completion of each rollout's problem (ReMax); one completion
    /// for each group.
    fn greedy_rewards(
        &mut self,
        state: PolicyState<'_, M>,
        rollouts: &RolloutBuffer,
        work: &mut Work,
    ) -> Result<Vec<Option<f64>>> {
        let (questions, generation) = self.greedy(rollouts);
        let greedy = self.answered(state, &questions, &generation, work)?;
        Ok(greedy_baselines(&greedy, rollouts))
    }

    /// Requests for one greedy completion of each problem of `rollouts`.
    pub(super) fn greedy(
        &self,
        rollouts: &RolloutBuffer,
    ) -> (Vec<RolloutRequest>, GenerationConfig) {
        let question = |group: &RolloutGroup| RolloutRequest {
            problem: group.problem.clone(),
            prompt: group.prompt_tokens.clone(),
            samples: 1,
            // Greedy decoding uses no randomness, so the address is irrelevant.
            address: vec![self.config.seed],
        };
        let generation = GenerationConfig {
            sampling: SamplingConfig::greedy(),
            ..self.config.generation.clone()
        };
        (rollouts.groups.iter().map(question).collect(), generation)
    }

    /// The FNV-1a hash of the source's known problems, in their order.
    pub(super) fn problems_fingerprint(&self) -> u64 {
        let mut hash = Fnv::default();
        for problem in self.problems.problems() {
            let metadata = serde_json::Value::from(problem.metadata.clone()).to_string();
            for text in [&problem.prompt, &problem.answer, &metadata] {
                hash.text_and_end(text);
            }
        }
        hash.finish()
    }
}

/// Scores the completions, then their tokens.
pub(super) fn score(
    rewards: &RewardSet,
    token_rewards: Option<&dyn TokenReward>,
    rollouts: &mut RolloutBuffer,
) {
    rewards.score_rollouts(rollouts);
    if let Some(reward) = token_rewards {
        score_tokens(reward, rollouts);
    }
}

/// `[N]` The reward of each rollout's group in `greedy`, which has one completion per group.
pub(super) fn greedy_baselines(
    greedy: &RolloutBuffer,
    rollouts: &RolloutBuffer,
) -> Vec<Option<f64>> {
    let rewards: Vec<_> = greedy.rollouts().map(Rollout::total_reward).collect();
    let ids = rollouts.group_ids().into_iter();
    ids.map(|id| rewards[id]).collect()
}
