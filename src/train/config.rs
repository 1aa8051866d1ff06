//! The settings of a reinforcement run.

use serde::{Deserialize, Serialize};

use super::dynamic_sampling::DynamicSampling;
use super::optimizer::OptimizerConfig;
use super::schedule::Schedule;
use super::scorer::ScoringConfig;
use super::step_schedules::StepSchedules;
use crate::advantage::{AdvantageEstimator, Estimator};
use crate::loss::{AdaptiveEntropy, KlEstimator, KlPenalty, PolicyObjective, ValueLossConfig};
use crate::policy::{LogProbConfig, ReferenceSync};
use crate::rollout::GenerationConfig;
use crate::{Error, Result};

/// The settings of a [`Trainer`](super::Trainer).
///
/// One step samples `problems_per_step * group_size` completions from one policy, and makes `passes *
/// updates_per_pass` optimizer updates on them.
#[doc(alias("GRPOConfig", "RLOOConfig", "PPOConfig"))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainerConfig {
    /// All randomness of the run derives from it. Default 0.
    pub seed: u64,
    /// Problems a step. Default 16.
    #[doc(alias("generation_batch_size", "train_batch_size"))]
    pub problems_per_step: usize,
    /// Completions of each problem; at least 2 for the group estimators. Default 8.
    #[doc(alias("num_generations", "rollout.n"))]
    pub group_size: usize,
    /// How completions are generated. A sampler that truncates (top-k, top-p, min-p, greedy) is refused: its
    /// log-probs are not those of the policy, and the ratio would be biased.
    pub generation: GenerationConfig,
    /// What is minimised. Default: [`PolicyObjective::grpo`].
    pub objective: PolicyObjective,
    /// How rewards become advantages. Default: the group's mean and deviation.
    #[doc(alias("adv_estimator", "scale_rewards"))]
    pub advantage: Estimator,
    /// Ask other problems in place of those whose completions were all worth the same (DAPO). Default: none.
    pub dynamic_sampling: Option<DynamicSampling>,
    /// How the policy is moved.
    pub optimizer: OptimizerConfig,
    /// How often each rollout is learned from. Default 1.
    #[doc(alias("num_iterations", "ppo_epochs"))]
    pub passes: u64,
    /// Into how many optimizer updates a pass is split, by whole groups. Default 1.
    #[doc(alias("steps_per_generation", "ppo_mini_batch_size"))]
    pub updates_per_pass: usize,
    /// The most rollouts that are forwarded together. Changes speed and memory, no result beyond rounding. Default 64.
    #[doc(alias(
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "ppo_micro_batch_size_per_gpu"
    ))]
    pub micro_batch: usize,
    /// The most tokens, padding included, that are forwarded together; a longer rollout is forwarded alone. Changes speed and memory,
    /// no result beyond rounding. Default: no limit but `micro_batch`.
    #[doc(alias("ppo_max_token_len_per_gpu", "use_dynamic_bsz"))]
    pub max_tokens_per_micro_batch: Option<usize>,
    /// Tokens whose logits exist at the same time. Default 1024.
    pub logit_chunk: usize,
    /// How the reference follows the policy, where there is one. Default: never.
    pub reference_sync: ReferenceSync,
    /// Measure the KL against the starting policy even if no term needs it; costs a forward a step. Default
    /// false.
    pub measure_kl: bool,
    /// A KL penalty on every token's reward, as in PPO from human feedback. Default: none.
    pub kl_in_reward: Option<KlInReward>,
    /// Moves the coefficient of the objective's KL term towards a target KL. Default: it stays.
    pub adaptive_kl: Option<AdaptiveTarget>,
    /// An entropy bonus whose coefficient moves by itself, in place of the objective's `entropy_coef`. Default: none.
    pub adaptive_entropy: Option<AdaptiveEntropy>,
    /// Parts that a step is cut into for several [`Learners`](super::Learners), a power of two and a multiple of their number: the sums of
    /// gradients follow a fixed tree over them, so that results do not depend on the number of learners. Changes no result beyond
    /// rounding. Default 1.
    pub shards: usize,
    /// Leave the sum of gradients to the learners' all-reduce: any number of learners, whose order of sums is not promised. Default false.
    pub all_reduce: bool,
    /// Divide the optimizer's moments, and the f32 copies of weights in half precision, among the learners (ZeRO-1). Changes no result.
    /// Default false.
    pub sharded_optimizer: bool,
    /// Leave completions that hit the length limit out of the update (DAPO's overlong filtering). Default
    /// false.
    #[doc(alias = "mask_truncated_completions")]
    pub mask_truncated: bool,
    /// The largest share of completions on which a reward may fail (an error, a panic, a time-out) before the step is an error, in
    /// [0, 1]. A step without any scored completion is always one. Default 0.5.
    pub max_reward_failures: f64,
    /// Settings that change in the course of the run. Default: none does.
    pub schedules: StepSchedules,
    /// The critic, needed by [`Gae`](crate::advantage::Gae). Default: its own defaults, unused without a critic.
    pub critic: CriticConfig,
}

impl Default for TrainerConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            problems_per_step: 16,
            group_size: 8,
            generation: GenerationConfig::default(),
            objective: PolicyObjective::grpo(),
            advantage: Estimator::default(),
            dynamic_sampling: None,
            optimizer: OptimizerConfig::default(),
            passes: 1,
            updates_per_pass: 1,
            micro_batch: 64,
            max_tokens_per_micro_batch: None,
            logit_chunk: 1024,
            reference_sync: ReferenceSync::Never,
            measure_kl: false,
            kl_in_reward: None,
            adaptive_kl: None,
            adaptive_entropy: None,
            shards: 1,
            all_reduce: false,
            sharded_optimizer: false,
            mask_truncated: false,
            max_reward_failures: 0.5,
            schedules: StepSchedules::default(),
            critic: CriticConfig::default(),
        }
    }
}

/// A KL penalty inside the reward: `r_t -= coef * KL_t(pi_old || ref)`.
#[doc(alias("use_kl_in_reward", "kl_ctrl"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlInReward {
    /// Coefficient and estimator; k1 is the usual one here.
    pub penalty: KlPenalty,
    /// Moves the coefficient towards a target KL. Default: it stays.
    #[serde(default)]
    pub adaptive: Option<AdaptiveTarget>,
}

/// What an adaptive KL coefficient aims at; see [`AdaptiveKl`](crate::loss::AdaptiveKl).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveTarget {
    /// The KL aimed at, in nats a token.
    pub target: f64,
    /// Rollouts over which a full correction of 20 % is made.
    pub horizon: f64,
}

impl AdaptiveTarget {
    /// `rollouts` are those of a step.
    fn validate(&self, place: &str, rollouts: usize) -> Result<()> {
        for (field, value) in [("target", self.target), ("horizon", self.horizon)] {
            if !(value.is_finite() && value > 0.0) {
                let field = format!("{place}.{field}");
                return Err(Error::config(field, value, "a finite number above 0"));
            }
        }
        if self.horizon < rollouts as f64 {
            return Err(Error::config(
                format!("{place}.horizon"),
                self.horizon,
                format!(
                    "at least the {rollouts} rollouts of a step: the horizon counts rollouts, and the \
                     coefficient would change its sign below a fifth of that"
                ),
            ));
        }
        Ok(())
    }
}

/// How the critic of PPO learns.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriticConfig {
    /// How the critic is moved.
    pub optimizer: OptimizerConfig,
    /// What it minimises.
    pub value_loss: ValueLossConfig,
    /// Steps in which only the critic learns, so that its first advantages are worth something. Default 0.
    #[doc(alias = "critic_warmup")]
    pub warmup_steps: u64,
}

impl Default for CriticConfig {
    fn default() -> Self {
        Self {
            optimizer: OptimizerConfig::new(Schedule::constant(1e-5)),
            value_loss: ValueLossConfig::default(),
            warmup_steps: 0,
        }
    }
}

impl TrainerConfig {
    /// Rejects invalid settings and settings without effect.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        self.generation.validate()?;
        self.objective.validate()?;
        self.optimizer.validate()?;
        self.critic.optimizer.validate()?;
        self.critic.value_loss.validate()?;
        self.reference_sync.validate()?;
        for (field, value) in [
            ("problems_per_step", self.problems_per_step),
            ("group_size", self.group_size),
            ("updates_per_pass", self.updates_per_pass),
            ("micro_batch", self.micro_batch),
            ("logit_chunk", self.logit_chunk),
            ("passes", self.passes as usize),
            (
                "max_tokens_per_micro_batch",
                self.max_tokens_per_micro_batch.unwrap_or(1),
            ),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if !self.shards.is_power_of_two() {
            return Err(Error::config("shards", self.shards, "a power of two"));
        }
        if self.all_reduce && self.shards > 1 {
            return Err(Error::config(
                "shards",
                self.shards,
                "1 with all_reduce, which cuts a step into as many parts as there are learners",
            ));
        }
        if !(0.0..=1.0).contains(&self.max_reward_failures) {
            return Err(Error::config(
                "max_reward_failures",
                self.max_reward_failures,
                "a share in [0, 1]",
            ));
        }
        if self.reference_sync != ReferenceSync::Never && !self.needs_reference() {
            return Err(Error::config(
                "reference_sync",
                format!("{:?}", self.reference_sync),
                "never, since nothing reads the reference: there is no KL term and measure_kl is off",
            ));
        }
        self.log_probs().validate()?;
        self.check_estimator(&self.advantage)?;
        if let Some(dynamic_sampling) = &self.dynamic_sampling {
            dynamic_sampling.validate()?;
            if self.group_size < 2 {
                return Err(Error::config(
                    "group_size",
                    self.group_size,
                    "at least 2 under dynamic_sampling: the rewards of a single completion never differ",
                ));
            }
        }
        if self.updates_per_pass > self.problems_per_step {
            return Err(Error::config(
                "updates_per_pass",
                self.updates_per_pass,
                format!(
                    "at most problems_per_step = {}: groups are kept whole",
                    self.problems_per_step
                ),
            ));
        }
        if self.generation.sampling.truncates() {
            return Err(Error::config(
                "generation.sampling",
                format!("{:?}", self.generation.sampling),
                "temperature above 0, without top_k, top_p and min_p: the log-probs of a truncated \
                 sampler are not the policy's",
            ));
        }
        if self.generation.stop_tokens.is_empty() {
            return Err(Error::config(
                "generation.stop_tokens",
                "[]",
                "at least one token, usually the tokenizer's stop_tokens()",
            ));
        }
        self.check_kl_gradient()?;
        self.check_controllers()?;
        self.schedules.validate(self)
    }

    /// Refuses a KL term whose gradient says nothing: k1 is a difference of log-probs, and the expected gradient of a log-prob under
    /// the policy's own tokens is 0.
    fn check_kl_gradient(&self) -> Result<()> {
        let vanishes = |kl: KlPenalty| {
            kl.estimator == KlEstimator::K1 && !kl.straight_through && !kl.importance_corrected
        };
        match self.objective.kl.filter(|kl| vanishes(*kl)) {
            None => Ok(()),
            Some(_) => Err(Error::config(
                "objective.kl.estimator",
                "k1",
                "k2 or k3, or k1 with straight_through or importance_corrected, or k1 in kl_in_reward: the gradient of a plain k1 in \
                 the loss is noise around 0 on the policy's own tokens, whatever the reference says",
            )),
        }
    }

    /// Refuses coefficients that are to move where there is nothing to multiply.
    fn check_controllers(&self) -> Result<()> {
        let rollouts = self.problems_per_step * self.group_size;
        if let Some(kl) = &self.kl_in_reward {
            kl.penalty.validate_in_reward()?;
            if let Some(adaptive) = kl.adaptive {
                adaptive.validate("kl_in_reward.adaptive", rollouts)?;
            }
        }
        if let Some(adaptive) = self.adaptive_kl {
            adaptive.validate("adaptive_kl", rollouts)?;
            if self.objective.kl.is_none() {
                return Err(Error::config(
                    "adaptive_kl",
                    "given",
                    "none without objective.kl, whose coefficient it would move",
                ));
            }
        }
        if let Some(adaptive) = &self.adaptive_entropy {
            adaptive.validate()?;
            if self.objective.entropy_coef != 0.0 {
                return Err(Error::config(
                    "objective.entropy_coef",
                    self.objective.entropy_coef,
                    "0 with adaptive_entropy, which sets the coefficient itself",
                ));
            }
        }
        Ok(())
    }

    /// Refuses an estimator that these settings leave without what it compares.
    pub(super) fn check_estimator(&self, estimator: &dyn AdvantageEstimator) -> Result<()> {
        estimator.validate()?;
        if self.group_size < 2 && estimator.needs_groups() {
            return Err(Error::config(
                "group_size",
                self.group_size,
                format!(
                    "at least 2: `{}` compares the completions of a group with each other",
                    estimator.name()
                ),
            ));
        }
        match self.kl_in_reward {
            Some(_) => estimator.validate_kl_in_reward(),
            None => Ok(()),
        }
    }

    /// How log-probs are computed: at the temperature of the sampler.
    pub fn log_probs(&self) -> LogProbConfig {
        LogProbConfig {
            temperature: self.generation.sampling.temperature,
            chunk: self.logit_chunk,
        }
    }

    /// How rollouts are scored.
    pub(super) fn scoring(&self) -> ScoringConfig {
        ScoringConfig {
            log_probs: self.log_probs(),
            micro_batch: self.micro_batch,
            max_tokens: self.max_tokens_per_micro_batch,
        }
    }

    /// Whether some term reads the reference policy.
    pub fn needs_reference(&self) -> bool {
        self.pulls_to_reference() || self.advantage.needs_ref_log_probs()
    }

    /// Whether a KL term or its measurement reads the reference policy.
    pub(super) fn pulls_to_reference(&self) -> bool {
        self.objective.kl.is_some() || self.kl_in_reward.is_some() || self.measure_kl
    }

    /// Optimizer updates a step.
    pub fn updates_per_step(&self) -> u64 {
        self.passes * self.updates_per_pass as u64
    }
}
