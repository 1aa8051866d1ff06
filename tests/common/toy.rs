//! A task that a one-layer policy learns in seconds: repeat the last character of the prompt.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use rlvr::advantage::{Estimator, Gae};
use rlvr::loss::PolicyObjective;
use rlvr::policy::ValueHead;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::GenerationConfig;
use rlvr::train::observer::StepRecord;
use rlvr::train::{
    CriticConfig, OptimizerConfig, Schedule, Trainer, TrainerBuilder, TrainerConfig,
};

use super::{devices, floats};

/// The trainer of these tests. Its critic type is fixed, with or without a critic.
pub type Rl = Trainer<CausalModel>;

/// The first backend of this build.
pub fn device() -> Device {
    devices().remove(0).1
}

/// Four characters, padding and the end: six tokens.
pub fn tokenizer() -> CharTokenizer {
    CharTokenizer::new("abcd", &[]).unwrap()
}

/// A one-layer policy with autodiff.
pub fn policy(seed: u64, device: &Device) -> CausalModel {
    let config = shape(tokenizer().vocab_size());
    config.init(seed, &device.clone().autodiff()).unwrap()
}

/// The shape of the policy, over a vocabulary of `tokens`.
pub fn shape(tokens: usize) -> CausalConfig {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        max_position_embeddings: 16,
        ..CausalConfig::new(tokens)
    }
}

/// Prompts of different lengths, so that batches are ragged; the answer is the last character.
pub fn problems() -> Vec<Problem> {
    [("a", "a"), ("ab", "b"), ("c", "c"), ("cad", "d")]
        .map(|(prompt, answer)| Problem::new(prompt, answer))
        .to_vec()
}

/// 1 for the right first character, and 0.25 for ending in time.
pub fn rewards() -> RewardSet {
    let share = |yes: bool| Ok(Some(if yes { 1.0 } else { 0.0 }));
    RewardSet::builder()
        .add(
            1.0,
            FnReward::new("accuracy", move |input| {
                share(input.completion().starts_with(input.answer()))
            }),
        )
        .add(
            0.25,
            FnReward::new("short", move |input| {
                share(input.rollout.finish == rlvr::rollout::FinishReason::Stop)
            }),
        )
        .build()
        .unwrap()
}

/// An optimizer with a learning rate for a tiny model.
pub fn optimizer(rate: f64) -> OptimizerConfig {
    OptimizerConfig::new(Schedule::constant(rate))
}

/// Four problems of eight completions, one update a step.
pub fn config() -> TrainerConfig {
    TrainerConfig {
        problems_per_step: 4,
        group_size: 8,
        generation: GenerationConfig {
            max_new_tokens: 4,
            stop_tokens: tokenizer().stop_tokens(),
            ..GenerationConfig::default()
        },
        optimizer: optimizer(0.02),
        ..TrainerConfig::default()
    }
}

/// The same with PPO's objective, advantages and critic.
pub fn ppo_config() -> TrainerConfig {
    TrainerConfig {
        objective: PolicyObjective::ppo(),
        advantage: Estimator::Gae(Gae::default()),
        critic: CriticConfig {
            optimizer: optimizer(0.02),
            ..CriticConfig::default()
        },
        ..config()
    }
}

/// A trainer on the task; with a critic if the advantages need one.
pub fn trainer(config: &TrainerConfig, policy_seed: u64, device: &Device) -> Rl {
    build(config, policy_seed, device, rewards(), problems()).unwrap()
}

/// The same with other rewards or problems.
pub fn build(
    config: &TrainerConfig,
    policy_seed: u64,
    device: &Device,
    rewards: RewardSet,
    problems: Vec<Problem>,
) -> rlvr::Result<Rl> {
    let builder = builder(config, policy_seed, device)
        .rewards(rewards)
        .problems(problems);
    builder.build()
}

/// The builder of a trainer on the task, without rewards and problems.
pub fn builder(
    config: &TrainerConfig,
    policy_seed: u64,
    device: &Device,
) -> TrainerBuilder<CausalModel, ValueHead<CausalModel>> {
    let builder = Rl::builder(policy(policy_seed, device), tokenizer()).config(config.clone());
    if matches!(config.advantage, Estimator::Gae(_)) {
        return builder.critic(ValueHead::new(policy(policy_seed + 1000, device)));
    }
    builder
}

/// The records of the next `count` steps.
pub fn steps(trainer: &mut Rl, count: usize) -> Vec<StepRecord> {
    (0..count).map(|_| trainer.step().unwrap()).collect()
}

/// The metrics of a step without times, bit by bit.
pub fn bits(record: &StepRecord) -> BTreeMap<String, u64> {
    let clock = [
        "time/",
        "tokens_per_second",
        "step_time",
        "cost/",
        "forecast/",
        "mfu/",
        "mbu/",
        "memory/",
    ];
    let timeless = |name: &str| !clock.iter().any(|prefix| name.starts_with(prefix));
    let metrics = record.metrics.iter().filter(|(name, _)| timeless(name));
    metrics
        .map(|(name, value)| (name.clone(), value.to_bits()))
        .collect()
}

/// A metric; panics if it is missing.
pub fn metric(record: &StepRecord, name: &str) -> f64 {
    let found = record.get(name);
    found.unwrap_or_else(|| panic!("no `{name}` in {:?}", record.metrics.keys()))
}

/// Every weight of a model, in the model's own order.
pub fn weights<M: Module>(model: &M) -> Vec<f64> {
    struct Collect(Vec<f64>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.extend(floats(param.val()));
        }
    }
    let mut collect = Collect(Vec::new());
    model.valid().visit(&mut collect);
    collect.0
}

/// The largest difference between two models' weights.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // `max` would ignore a NaN.
    differences.fold(0.0, |most, d| if d > most || d.is_nan() { d } else { most })
}
