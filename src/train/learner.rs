//! The second half of a step: advantages are estimated and the policy is updated.

use std::sync::OnceLock;

use serde_json::Value;

use super::collector::{Collected, PolicyState};
use super::config::TrainerConfig;
use super::controllers::Controllers;
use super::critic::{Critic, explained_variance};
use super::experience::{Experience, log_probs, probabilities, scored, values};
use super::learners::{LearnerGroup, rollouts_hash, weights_hash};
use super::observer::StepRecord;
use super::optimizer::Optimizer;
use super::sampler_metrics::sampler_metrics;
use super::scorer::{Scorer, ScoringConfig};
use super::step_metrics::{StepTimes, mean, step_metrics};
use super::teacher::AdvantageTeacher;
use super::usage::Passes;
use crate::advantage::{
    AdvantageEstimator, AdvantageInput, Advantages, Components, Probabilities, TurnCredit,
};
use crate::loss::{Numerator, RolloutLogProbs};
use crate::plan::ModelShape;
use crate::policy::{PolicyModel, ReferencePolicy, ValueModel};
use crate::types::{PerToken, Rollout, RolloutBuffer, Turn};
use crate::{Error, Result};

/// The run ends after this many consecutive skipped steps.
const MOST_SKIPPED: u64 = 3;

/// The reference of the KL terms and of some estimators.
pub(super) enum Reference<M: PolicyModel> {
    /// An earlier policy, which may follow the current one.
    Policy(ReferencePolicy<M>),
    /// Another scorer.
    Scorer(Box<dyn Scorer>),
}

impl<M: PolicyModel> Reference<M> {
    /// The name in a checkpoint.
    pub fn name(&self) -> String {
        match self {
            Self::Policy(_) => "policy".into(),
            Self::Scorer(scorer) => scorer.name(),
        }
    }

    pub fn log_probs(
        &self,
        learners: &LearnerGroup,
        rollouts: &RolloutBuffer,
        config: &ScoringConfig,
    ) -> Result<PerToken> {
        match self {
            Self::Policy(reference) => log_probs(learners, reference.model(), rollouts, config),
            Self::Scorer(scorer) => scored(learners, scorer.as_ref(), rollouts, config),
        }
    }
}

/// Estimates advantages and updates the policy: the second half of a training step.
///
/// A [`Trainer`](super::Trainer) owns one. It holds everything that training changes: policy,
/// critic, reference, optimizers and adaptive coefficients.
pub(super) struct Learner<M: PolicyModel, V: ValueModel> {
    pub(super) config: TrainerConfig,
    pub(super) policy: M,
    pub(super) optimizer: Optimizer,
    pub(super) reference: Option<Reference<M>>,
    /// The teacher of the advantages, in place of the reference.
    pub(super) teacher: AdvantageTeacher,
    pub(super) critic: Option<Critic<V>>,
    pub(super) controllers: Controllers,
    pub(super) learners: LearnerGroup,
    /// Names and weights of the rewards, for estimators that need them separately.
    pub(super) reward_names: Vec<String>,
    pub(super) reward_weights: Vec<f64>,
    pub(super) progress: Progress,
    /// The shape of the policy, if it is known.
    pub(super) shape: Option<ModelShape>,
    /// The cached result of [`description`](Self::description).
    description: OnceLock<Value>,
    /// Set once the learners' settings and weights were compared.
    checked: OnceLock<()>,
}

/// The progress of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Progress {
    /// Steps done.
    pub steps: u64,
    /// Updates of the policy and of the critic at the end of the last step.
    pub updates: (u64, u64),
    /// Tokens trained on.
    pub tokens: u64,
    /// Steps skipped because a loss or gradient was not finite.
    pub skipped: u64,
    /// The number of consecutive skipped steps at the end.
    pub skipped_in_a_row: u64,
}

impl<M: PolicyModel, V: ValueModel> Learner<M, V> {
    pub(super) fn new(config: TrainerConfig, policy: M) -> Result<Self> {
        Ok(Self {
            optimizer: Optimizer::new(config.optimizer)?,
            controllers: Controllers::new(&config),
            learners: LearnerGroup::alone(&config),
            shape: policy
                .as_causal()
                .map(|model| ModelShape::from(model.config())),
            config,
            policy,
            reference: None,
            teacher: AdvantageTeacher::default(),
            critic: None,
            reward_names: Vec::new(),
            reward_weights: Vec::new(),
            progress: Progress::default(),
            description: OnceLock::new(),
            checked: OnceLock::new(),
        })
    }

    /// Returns the multipliers of the work of a step.
    pub(super) fn passes(&self) -> Passes {
        let config = &self.config;
        let scores = [
            self.reads_reference(),
            self.teacher.is_given(),
            self.wants_old_log_probs(),
        ];
        Passes {
            devices: self.learners.size(),
            scoring: scores.into_iter().map(u8::from).sum::<u8>().into(),
            updates: config.passes as f64,
        }
    }

    /// Returns whether the reference scores the rollouts. In advantages a teacher replaces it.
    fn reads_reference(&self) -> bool {
        self.reference.is_some() && (self.config.pulls_to_reference() || !self.teacher.is_given())
    }

    /// Returns whether log-probs of the policy before the first update are needed.
    fn wants_old_log_probs(&self) -> bool {
        self.config.updates_per_step() > 1
            || self.controllers.kl_in_reward.is_some()
            || self.config.objective.sampler_correction.is_some()
            || self.config.advantage.needs_ref_log_probs()
    }

    /// Describes the policy's architecture, frozen weights and adapters, for checkpoints. None of
    /// them changes, so the frozen weights are read from the device only once.
    pub(super) fn description(&self) -> Result<&Value> {
        if let Some(known) = self.description.get() {
            return Ok(known);
        }
        let description = self.policy.describe()?;
        Ok(self.description.get_or_init(|| description))
    }

    /// Returns the policy from which the next step's rollouts are sampled.
    pub(super) fn state(&self) -> PolicyState<'_, M> {
        PolicyState {
            policy: &self.policy,
            step: self.progress.steps,
            version: self.optimizer.updates(),
        }
    }

    /// Estimates advantages and updates the policy on `collected`. Returns the metrics of the step
    /// and the rollouts.
    ///
    /// # Errors
    /// Returns the errors of [`Trainer::learn`](super::Trainer::learn).
    pub(super) fn learn(&mut self, collected: Collected) -> Result<(StepRecord, RolloutBuffer)> {
        let mut times = StepTimes::start();
        if collected.rollouts.is_empty() {
            return Err(Error::shape("rollouts", 0, "at least one to learn from"));
        }
        let Collected {
            rollouts,
            baselines,
            metrics: collected,
        } = collected;
        self.check_learners(&rollouts)?;
        let config = self.config.at_step(self.progress.steps);
        let greedy: Vec<f64> = baselines.iter().flatten().copied().flatten().collect();
        let experience = self.prepare(&config, rollouts, baselines.as_deref())?;
        times.prepare = times.lap();
        let updates = self.update(&config, &experience)?;
        times.update = times.lap();
        let mut progress = self.progress;
        progress.steps += 1;
        progress.updates = self.updates_made();
        progress.tokens += experience.rollouts.tokens() as u64;
        match &updates.skipped {
            None => progress.skipped_in_a_row = 0,
            Some(reason) => {
                progress.skipped += 1;
                progress.skipped_in_a_row += 1;
                tracing::warn!(step = progress.steps, %reason, "the update was skipped");
                if let Error::NonFinite {
                    what,
                    value,
                    advice,
                    ..
                } = reason
                    && progress.skipped_in_a_row >= MOST_SKIPPED
                {
                    return Err(Error::NonFinite {
                        what: what.clone(),
                        value: *value,
                        step: progress.steps,
                        advice: format!(
                            "{MOST_SKIPPED} steps in a row were skipped for such a number; {advice}"
                        ),
                    });
                }
            }
        }
        self.progress = progress;

        if let Some(Reference::Policy(reference)) = &mut self.reference {
            reference.after_step(progress.steps, &self.policy);
        }
        let mut metrics = step_metrics(&experience, &updates, &times, &collected);
        metrics.extend(collected);
        metrics.extend(self.coefficients(&config));
        metrics.extend(config.schedules.metrics(progress.steps - 1));
        metrics.extend(sampler_metrics(&config.objective, &experience)?);
        metrics.insert("num_tokens".into(), progress.tokens as f64);
        metrics.insert("skipped_steps".into(), progress.skipped as f64);
        metrics.extend(
            experience
                .teacher_share
                .map(|share| ("teacher/share".to_string(), share)),
        );
        metrics.extend(mean(&greedy).map(|greedy| ("baseline/reward".to_string(), greedy)));
        // The controllers only react to steps that updated the policy.
        if let Some(&kl) = metrics.get("kl").filter(|_| !updates.policy.is_empty()) {
            let rollouts = experience.rollouts.len();
            self.controllers.after_step(&self.config, kl, rollouts);
        }
        if let (Some(values), Some(returns)) = (&experience.values, &experience.advantages.returns)
            && let Some(explained) = explained_variance(values, returns)
        {
            metrics.insert("value/explained_variance".into(), explained);
        }
        let record = StepRecord {
            step: progress.steps,
            metrics,
        };
        Ok((record, experience.rollouts))
    }

    /// Returns an error unless all learners have the same rollouts, settings and weights.
    fn check_learners(&self, rollouts: &RolloutBuffer) -> Result<()> {
        if !self.learners.several() {
            return Ok(());
        }
        self.check_start()?;
        let hash = rollouts_hash(rollouts);
        self.learners.check_same("rollouts", Ok(hash))
    }

    /// At the start of training, checks that all learners have the same settings and weights.
    ///
    /// # Errors
    /// Returns an error if they differ.
    pub(super) fn check_start(&self) -> Result<()> {
        if !self.learners.several() || self.checked.set(()).is_err() {
            return Ok(());
        }
        let broken = |reason| {
            Error::config(
                "settings",
                reason,
                "settings that can be serialized as JSON",
            )
        };
        let settings = serde_json::to_vec(&self.config).map_err(broken);
        let settings = settings.map(|bytes| u64::from(crc32fast::hash(&bytes)));
        self.learners.check_same("settings", settings)?;
        self.check_weights()
    }

    /// Checks that all learners have the same weights.
    ///
    /// # Errors
    /// Returns an error if they differ, or cannot be read from the device.
    pub(super) fn check_weights(&self) -> Result<()> {
        if !self.learners.several() {
            return Ok(());
        }
        self.learners
            .check_same("weights of the policy", weights_hash(&self.policy))?;
        match &self.critic {
            None => Ok(()),
            Some(critic) => {
                let hash = weights_hash(&critic.model);
                self.learners.check_same("weights of the critic", hash)
            }
        }
    }

    /// Computes everything that is needed before the first update.
    fn prepare(
        &self,
        config: &TrainerConfig,
        rollouts: RolloutBuffer,
        baselines: Option<&[Option<f64>]>,
    ) -> Result<Experience> {
        let sampler_log_probs = rollouts.log_probs();
        let scoring = config.scoring();
        let several_updates = config.updates_per_step() > 1;
        let correction = config.objective.sampler_correction.as_ref();
        let bypass = correction.is_some_and(|one| one.numerator == Numerator::Current);
        let wants_old = self.wants_old_log_probs();
        let (old_log_probs, squares) = if config.advantage.needs_probabilities() {
            let [old, squares] = probabilities(&self.learners, &self.policy, &rollouts, &scoring)?;
            (Some(old), Some(squares))
        } else if wants_old {
            (
                Some(log_probs(
                    &self.learners,
                    &self.policy,
                    &rollouts,
                    &scoring,
                )?),
                None,
            )
        } else {
            (None, None)
        };
        let reference = self.reference.as_ref().filter(|_| self.reads_reference());
        let ref_log_probs = reference
            .map(|reference| reference.log_probs(&self.learners, &rollouts, &scoring))
            .transpose()?;
        let critic = self.critic.as_ref();
        let values = critic
            .map(|critic| values(&self.learners, &critic.model, &rollouts, &scoring))
            .transpose()?;
        let teacher = match &old_log_probs {
            Some(policy) => self.teacher.scores(self, &scoring, policy, &rollouts)?,
            None => None,
        };
        let penalties =
            self.kl_penalties(config, old_log_probs.as_ref(), ref_log_probs.as_ref())?;
        let token_rewards = added(penalties, rollouts.token_rewards())?;
        let components = self.components(&rollouts);
        let weights = self.weights(config);
        let weighing = correction.filter(|one| one.acting_weights().is_some());
        let sampler_weights = match (weighing, &old_log_probs) {
            (Some(correction), Some(old)) if squares.is_some() => {
                let log_probs = RolloutLogProbs::new(old, &sampler_log_probs)?;
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
        let positions = positions(&rollouts);
        let turns = turns(&rollouts);
        let advantages: Advantages = config.advantage.estimate(&AdvantageInput {
            positions: positions.as_deref(),
            turns: turns.as_deref(),
            token_rewards: token_rewards.as_ref(),
            values: values.as_ref(),
            components: components.as_deref().map(|rewards| Components {
                rewards,
                weights: &weights,
            }),
            baselines,
            policy_log_probs: old_log_probs.as_ref(),
            ref_log_probs: teacher
                .as_ref()
                .map(|teacher| &teacher.log_probs)
                .or(ref_log_probs.as_ref()),
            probabilities,
            ..AdvantageInput::new(&scores, &groups, &lengths)
        })?;
        // With a single update the old policy is the current one, but a correction compares it with
        // the sampler. In bypass mode the sampler's log-probs replace it.
        let old_log_probs = match bypass {
            true => Some(sampler_log_probs.clone()),
            false => old_log_probs.filter(|_| several_updates || correction.is_some()),
        };
        Ok(Experience {
            rollouts,
            sampler_log_probs,
            old_log_probs,
            ref_log_probs,
            values,
            advantages,
            teacher_share: teacher.map(|teacher| teacher.share),
        })
    }

    /// Returns the KL penalty on every token's reward, if there is one.
    fn kl_penalties(
        &self,
        config: &TrainerConfig,
        old: Option<&PerToken>,
        reference: Option<&PerToken>,
    ) -> Result<Option<PerToken>> {
        let coefficient = self.kl_in_reward_coef(config).zip(config.kl_in_reward);
        let (Some((coef, kl)), Some(old), Some(reference)) = (coefficient, old, reference) else {
            return Ok(None);
        };
        let penalty = |old, reference| -coef * kl.penalty.value(old, reference);
        old.zip_with(reference, penalty).map(Some)
    }

    /// Returns the score of every reward of the set for every rollout, if the estimator needs them.
    fn components(&self, rollouts: &RolloutBuffer) -> Option<Vec<Vec<Option<f64>>>> {
        let names = &self.reward_names;
        self.config.advantage.needs_components().then(|| {
            let scores = rollouts.rollouts();
            scores
                .map(|rollout| names.iter().map(|name| rollout.score(name)).collect())
                .collect()
        })
    }

    /// Returns the weights of the rewards in this step.
    fn weights(&self, config: &TrainerConfig) -> Vec<f64> {
        let scheduled = config.schedules.reward_weights(self.progress.steps);
        let both = self.reward_names.iter().zip(&self.reward_weights);
        let now = |(name, &weight): (&String, &f64)| scheduled.get(name).copied().unwrap_or(weight);
        both.map(now).collect()
    }

    /// Returns the coefficient of the KL in the reward, if there is one.
    fn kl_in_reward_coef(&self, config: &TrainerConfig) -> Option<f64> {
        match config.kl_in_reward {
            Some(kl) if kl.adaptive.is_none() => Some(kl.penalty.coef),
            _ => self.controllers.kl_in_reward,
        }
    }

    /// Returns the current coefficients by the names of their metrics.
    fn coefficients(&self, config: &TrainerConfig) -> Vec<(String, f64)> {
        let controllers = &self.controllers;
        let objective = controllers.apply(&config.objective);
        let kl_in_loss = objective.kl.map(|kl| kl.coef);
        let bonus = controllers.entropy.is_some() || objective.entropy_coef != 0.0;
        [
            ("kl_coef", self.kl_in_reward_coef(config).or(kl_in_loss)),
            ("entropy_coef", bonus.then_some(objective.entropy_coef)),
        ]
        .into_iter()
        .filter_map(|(name, coef)| Some((name.to_string(), coef?)))
        .collect()
    }

    /// Returns the number of optimizer updates of policy and critic.
    pub(super) fn updates_made(&self) -> (u64, u64) {
        let critic = self.critic.as_ref().map_or(0, |c| c.optimizer.updates());
        (self.optimizer.updates(), critic)
    }
}

/// Returns the indices of the trained tokens of each rollout; `None` if all tokens are trained.
fn positions(rollouts: &RolloutBuffer) -> Option<Vec<Vec<usize>>> {
    let trained = |rollout: &Rollout| {
        let all = 0..rollout.tokens.len();
        all.filter(|&token| rollout.is_trained(token)).collect()
    };
    let masked = rollouts.rollouts().any(|rollout| !rollout.mask.is_empty());
    masked.then(|| rollouts.rollouts().map(trained).collect())
}

/// Returns the replies of each rollout; `None` if no rollout is an episode.
fn turns(rollouts: &RolloutBuffer) -> Option<Vec<Vec<TurnCredit>>> {
    let credits = |rollout: &Rollout| match &rollout.episode {
        None => vec![TurnCredit {
            tokens: rollout.trained_tokens(),
            reward: 0.0,
            state: 0,
        }],
        Some(episode) => {
            let before = [0]
                .into_iter()
                .chain(episode.turns.iter().map(Turn::state_after));
            let both = episode.turns.iter().zip(before);
            both.map(|(turn, state)| TurnCredit {
                tokens: turn.tokens,
                reward: turn.reward.unwrap_or(0.0),
                state,
            })
            .collect()
        }
    };
    let played = rollouts.rollouts().any(|rollout| rollout.episode.is_some());
    played.then(|| rollouts.rollouts().map(credits).collect())
}

/// Adds two optional values.
fn added(a: Option<PerToken>, b: Option<PerToken>) -> Result<Option<PerToken>> {
    match (a, b) {
        (Some(a), Some(b)) => a.zip_with(&b, |a, b| a + b).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}
