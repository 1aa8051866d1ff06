//! Runs that use every feature that could differ between learners.

use rlvr::Result;
use rlvr::loss::{
    AdaptiveEntropy, KlEstimator, KlPenalty, PolicyObjective, SamplerCorrection, TopEntropy,
};
use rlvr::policy::ValueHead;
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::train::{
    AdaptiveTarget, DynamicSampling, KlInReward, Learners, ModelScorer, Piecewise, StepSchedules,
    Trainer, TrainerConfig,
};

use crate::common::toy;

/// How a trainer is built.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub config: TrainerConfig,
    pub policy_seed: u64,
    pub lora: bool,
    pub teacher: bool,
}

/// Four shards, and micro-batches of a few rollouts.
fn config() -> TrainerConfig {
    TrainerConfig {
        shards: 4,
        micro_batch: 3,
        ..toy::config()
    }
}

impl Case {
    fn new(name: &'static str, config: TrainerConfig) -> Self {
        Self {
            name,
            config,
            policy_seed: 3,
            lora: false,
            teacher: false,
        }
    }

    /// DAPO with two updates a step and a KL whose coefficient moves.
    pub fn grpo() -> Self {
        let config = TrainerConfig {
            updates_per_pass: 2,
            objective: PolicyObjective::dapo().with_kl(Some(KlPenalty::new(0.1, KlEstimator::K3))),
            adaptive_kl: Some(AdaptiveTarget {
                target: 0.01,
                horizon: 100.0,
            }),
            ..config()
        };
        Self::new("grpo", config)
    }

    /// A critic, two passes, a KL in the reward whose coefficient moves.
    pub fn ppo() -> Self {
        let config = TrainerConfig {
            passes: 2,
            kl_in_reward: Some(KlInReward {
                penalty: KlPenalty::new(0.1, KlEstimator::K1),
                adaptive: Some(AdaptiveTarget {
                    target: 0.01,
                    horizon: 100.0,
                }),
            }),
            shards: 4,
            micro_batch: 5,
            ..toy::ppo_config()
        };
        Self::new("ppo", config)
    }

    /// Adapters on frozen weights.
    pub fn lora() -> Self {
        Self {
            lora: true,
            ..Self::new("lora", config())
        }
    }

    pub fn trainer(&self, learners: impl Learners + 'static) -> Result<Trainer<CausalModel>> {
        let device = toy::device();
        let mut policy = toy::policy(self.policy_seed, &device);
        if self.lora {
            policy = policy.with_lora(&LoraConfig {
                rank: 2,
                ..LoraConfig::default()
            })?;
        }
        let mut builder = Trainer::builder(policy, toy::tokenizer())
            .config(self.config.clone())
            .rewards(toy::rewards())
            .problems(toy::problems())
            .learners(learners);
        if self.teacher {
            let teacher = toy::policy(17, &device);
            builder = builder.reference(ModelScorer::new("teacher", &teacher));
        }
        match self.name {
            "ppo" => {
                let critic = toy::policy(self.policy_seed + 1000, &device);
                builder.critic(ValueHead::new(critic)).build()
            }
            _ => builder.build(),
        }
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let dynamic = TrainerConfig {
        dynamic_sampling: Some(DynamicSampling {
            reward: Some("accuracy".into()),
            ..DynamicSampling::default()
        }),
        group_size: 2,
        updates_per_pass: 2,
        ..config()
    };
    // One problem for four learners, and fewer rollouts than shards.
    let few = TrainerConfig {
        problems_per_step: 1,
        group_size: 3,
        ..config()
    };
    // Step-wide statistics: thresholds of the current policy's entropies, and weights over all
    // tokens.
    let statistics = TrainerConfig {
        objective: PolicyObjective {
            top_entropy: Some(TopEntropy { share: 0.5 }),
            ..PolicyObjective::grpo()
        },
        adaptive_entropy: Some(AdaptiveEntropy {
            target: 1.0,
            ..AdaptiveEntropy::default()
        }),
        max_tokens_per_micro_batch: Some(30),
        ..config()
    };
    let correction = TrainerConfig {
        objective: PolicyObjective::dapo()
            .with_kl(Some(KlPenalty::new(0.05, KlEstimator::K3)))
            .with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0))),
        mask_truncated: true,
        ..config()
    };
    let scheduled = TrainerConfig {
        updates_per_pass: 2,
        schedules: StepSchedules {
            temperature: Some(Piecewise::linear([(0, 1.0), (2, 0.5)])),
            max_new_tokens: Some(Piecewise::steps([(0, 2.0), (1, 4.0)])),
            clip_high: Some(Piecewise::linear([(0, 0.2), (2, 0.01)])),
            reward_weights: [("short".into(), Piecewise::steps([(0, 0.0), (1, 1.0)]))].into(),
            ..StepSchedules::default()
        },
        ..config()
    };
    vec![
        Case::grpo(),
        Case::ppo(),
        Case::lora(),
        Case::new("dynamic sampling", dynamic),
        Case::new("few problems", few),
        Case::new("statistics", statistics),
        Case::new("scheduled", scheduled),
        Case {
            teacher: true,
            ..Case::new("teacher", correction)
        },
    ]
}
