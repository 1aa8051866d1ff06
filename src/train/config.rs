//! The settings of a [`Trainer`](super::Trainer).

use serde::{Deserialize, Serialize};

use super::dynamic_sampling::DynamicSampling;
use super::optimizer::OptimizerConfig;
use super::schedule::Schedule;
use super::scorer::ScoringConfig;
use super::step_schedules::StepSchedules;
use crate::advantage::{AdvantageEstimator, Estimator};
use crate::loss::{AdaptiveEntropy, KlEstimator, KlPenalty, PolicyObjective, ValueLossConfig};
use crate::policy::{LogProbConfig, ReferenceSync, WeightFormat};
use crate::rollout::GenerationConfig;
use crate::{Error, Result};

/// The settings of a [`Trainer`](super::Trainer).
///
/// A step samples `problems_per_step * group_size` completions from one policy and makes
/// `passes * updates_per_pass` optimizer updates on them.
#[doc(alias("GRPOConfig", "RLOOConfig", "PPOConfig"))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainerConfig {
    /// The seed of all randomness of the run. Default 0.
    pub seed: u64,
    /// Problems per step. Default 16.
    #[doc(alias("generation_batch_size", "train_batch_size"))]
    pub problems_per_step: usize,
    /// Completions per problem; at least 2 for estimators that compare within a group. Default 8.
    #[doc(alias("num_generations", "rollout.n"))]
    pub group_size: usize,
    /// How completions are generated. A truncating sampler (top-k, top-p, min-p, greedy) is an
    /// error: its log-probs differ from the policy's, which would bias the ratio.
    pub generation: GenerationConfig,
    /// The loss. Default: [`PolicyObjective::grpo`].
    pub objective: PolicyObjective,
    /// How rewards become advantages. Default: standardised by the mean and deviation of the group.
    #[doc(alias("adv_estimator", "scale_rewards"))]
    pub advantage: Estimator,
    /// Replaces groups whose completions all have the same reward by other problems (DAPO).
    /// Default: off.
    pub dynamic_sampling: Option<DynamicSampling>,
    /// The optimizer of the policy.
    pub optimizer: OptimizerConfig,
    /// Passes over the rollouts of a step. Default 1.
    #[doc(alias("num_iterations", "ppo_epochs"))]
    pub passes: u64,
    /// Optimizer updates per pass; each uses whole groups. Default 1.
    #[doc(alias("steps_per_generation", "ppo_mini_batch_size"))]
    pub updates_per_pass: usize,
    /// The largest number of rollouts in one forward pass. Affects speed and memory, and results
    /// only by rounding. Default 64.
    #[doc(alias(
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "ppo_micro_batch_size_per_gpu"
    ))]
    pub micro_batch: usize,
    /// The largest number of tokens, padding included, in one forward pass; a longer rollout has
    /// its own. Affects speed and memory, and results only by rounding. Default: only `micro_batch`
    /// limits it.
    #[doc(alias("ppo_max_token_len_per_gpu", "use_dynamic_bsz"))]
    pub max_tokens_per_micro_batch: Option<usize>,
    /// The number of tokens whose logits are in memory at the same time. Default 1024.
    pub logit_chunk: usize,
    /// How the reference policy follows the policy. Default: never.
    pub reference_sync: ReferenceSync,
    /// Measures the KL from the reference even if no term needs it; costs one forward pass per
    /// step. Default false.
    pub measure_kl: bool,
    /// A KL penalty in the reward of every token, as in RLHF with PPO. Default: none.
    pub kl_in_reward: Option<KlInReward>,
    /// Adapts the coefficient of the objective's KL term to a target KL. Default: fixed.
    pub adaptive_kl: Option<AdaptiveTarget>,
    /// An entropy bonus with an adaptive coefficient, in place of the objective's `entropy_coef`.
    /// Default: none.
    pub adaptive_entropy: Option<AdaptiveEntropy>,
    /// The number of parts that a step is divided into for several [`Learners`](super::Learners): a
    /// power of two and a multiple of their number. Gradients are summed in a fixed tree over the
    /// parts, so results do not depend on the number of learners. Affects results only by rounding.
    /// Default 1.
    pub shards: usize,
    /// Sums gradients by the learners' all-reduce, in an unspecified order; allows any number of
    /// learners. Default false.
    pub all_reduce: bool,
    /// Divides the optimizer's moments, and the f32 copies of half-precision weights, among the
    /// learners (ZeRO-1). Does not affect results. Default false.
    pub sharded_optimizer: bool,
    /// Excludes completions that hit the length limit from the update (DAPO's overlong filtering).
    /// Default false.
    #[doc(alias = "mask_truncated_completions")]
    pub mask_truncated: bool,
    /// The share of completions, in [0, 1], on which a reward may fail (error, panic or time-out).
    /// A step with more failures, or without any scored completion, is an error. Default 0.5.
    pub max_reward_failures: f64,
    /// Settings that change during the run. Default: none.
    pub schedules: StepSchedules,
    /// The settings of the critic, which [`Gae`](crate::advantage::Gae) needs. Not used without a
    /// critic.
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

/// A KL penalty in the reward: `r_t -= coef * KL_t(pi_old || ref)`.
#[doc(alias("use_kl_in_reward", "kl_ctrl"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KlInReward {
    /// Coefficient and estimator; k1 is usual here.
    pub penalty: KlPenalty,
    /// Adapts the coefficient to a target KL. Default: fixed.
    #[serde(default)]
    pub adaptive: Option<AdaptiveTarget>,
}

/// The target of an adaptive KL coefficient; see [`AdaptiveKl`](crate::loss::AdaptiveKl).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveTarget {
    /// The target KL, in nats per token.
    pub target: f64,
    /// The number of rollouts over which the coefficient changes by up to 20 %.
    pub horizon: f64,
}

impl AdaptiveTarget {
    /// Rejects invalid settings; `rollouts` is the number of rollouts in a step.
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
                    "at least the {rollouts} rollouts of a step: below a fifth of that the coefficient could \
                     become negative"
                ),
            ));
        }
        Ok(())
    }
}

/// The settings of a critic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CriticConfig {
    /// The optimizer of the critic.
    pub optimizer: OptimizerConfig,
    /// The loss of the critic.
    pub value_loss: ValueLossConfig,
    /// The number of first steps in which only the critic is trained. Default 0.
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
    /// Rejects invalid settings, and settings that have no effect.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
    pub fn validate(&self) -> Result<()> {
        self.generation.validate()?;
        self.objective.validate()?;
        if self.generation.weights != WeightFormat::Trained
            && self.objective.sampler_correction.is_none()
        {
            return Err(Error::config(
                "objective.sampler_correction",
                "none",
                format!(
                    "one with generation.weights = {}, such as SamplerCorrection::token_truncate(2.0): \
                     the rollouts are sampled from other weights than those that are trained",
                    self.generation.weights.name()
                ),
            ));
        }
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
                "1 with all_reduce, which divides a step into one part per learner",
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
                "never, because nothing reads the reference: there is no KL term and measure_kl is off",
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
                    "at least 2 with dynamic_sampling: the rewards of a single completion never differ",
                ));
            }
        }
        if self.updates_per_pass > self.problems_per_step {
            return Err(Error::config(
                "updates_per_pass",
                self.updates_per_pass,
                format!(
                    "at most problems_per_step = {}: groups are not split",
                    self.problems_per_step
                ),
            ));
        }
        if self.generation.sampling.truncates() {
            return Err(Error::config(
                "generation.sampling",
                format!("{:?}", self.generation.sampling),
                "a temperature above 0 without top_k, top_p and min_p: the log-probs of a truncated \
                 sampler differ from the policy's",
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

    /// Rejects a KL term whose expected gradient is 0: k1 is a difference of log-probs, and the
    /// expected gradient of a log-prob over the policy's own samples is 0.
    fn check_kl_gradient(&self) -> Result<()> {
        let vanishes = |kl: KlPenalty| {
            kl.estimator == KlEstimator::K1 && !kl.straight_through && !kl.importance_corrected
        };
        match self.objective.kl.filter(|kl| vanishes(*kl)) {
            None => Ok(()),
            Some(_) => Err(Error::config(
                "objective.kl.estimator",
                "k1",
                "k2 or k3, or k1 with straight_through or importance_corrected, or k1 in kl_in_reward: \
                 the expected gradient of a plain k1 in the loss is 0 on the policy's own samples",
            )),
        }
    }

    /// Rejects adaptive coefficients without a term to multiply.
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
                    "none without objective.kl, whose coefficient it adapts",
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

    /// Rejects an estimator that does not work with these settings.
    pub(super) fn check_estimator(&self, estimator: &dyn AdvantageEstimator) -> Result<()> {
        estimator.validate()?;
        if self.group_size < 2 && estimator.needs_groups() {
            return Err(Error::config(
                "group_size",
                self.group_size,
                format!(
                    "at least 2: `{}` compares the completions of a group",
                    estimator.name()
                ),
            ));
        }
        match self.kl_in_reward {
            Some(_) => estimator.validate_kl_in_reward(),
            None => Ok(()),
        }
    }

    /// Returns how log-probs are computed: at the temperature of the sampler.
    pub fn log_probs(&self) -> LogProbConfig {
        LogProbConfig {
            temperature: self.generation.sampling.temperature,
            chunk: self.logit_chunk,
        }
    }

    /// Returns how rollouts are scored.
    pub(super) fn scoring(&self) -> ScoringConfig {
        ScoringConfig {
            log_probs: self.log_probs(),
            micro_batch: self.micro_batch,
            max_tokens: self.max_tokens_per_micro_batch,
        }
    }

    /// Returns whether any term reads the reference policy.
    pub fn needs_reference(&self) -> bool {
        self.pulls_to_reference() || self.advantage.needs_ref_log_probs()
    }

    /// Returns whether a KL term or its measurement reads the reference policy.
    pub(super) fn pulls_to_reference(&self) -> bool {
        self.objective.kl.is_some() || self.kl_in_reward.is_some() || self.measure_kl
    }

    /// Returns the number of optimizer updates per step.
    pub fn updates_per_step(&self) -> u64 {
        self.passes * self.updates_per_pass as u64
    }
}
