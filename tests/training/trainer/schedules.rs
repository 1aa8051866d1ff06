//! Scheduled settings: a step equals that of a trainer with the values of the schedule.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rlvr::advantage::{Estimator, Gdpo, GroupMean};
use rlvr::loss::{KlEstimator, KlPenalty, PolicyObjective};
use rlvr::reward::{FnReward, Gate, RewardOptions, RewardSet};
use rlvr::train::{
    AdaptiveTarget, DynamicSampling, KlInReward, Piecewise, StepSchedules, TrainerConfig,
};

use crate::common::toy::{self, Rl};

/// Two updates a step, so that ratios and with them the clip range matter; a KL in the loss.
fn base() -> TrainerConfig {
    TrainerConfig {
        seed: 5,
        passes: 2,
        updates_per_pass: 2,
        objective: PolicyObjective::grpo().with_kl(Some(KlPenalty::new(0.1, KlEstimator::K3))),
        ..toy::config()
    }
}

/// The same with its KL in the reward.
fn in_reward(coef: f64) -> TrainerConfig {
    TrainerConfig {
        objective: PolicyObjective::grpo().with_kl(None),
        advantage: GroupMean::default().into(),
        kl_in_reward: Some(KlInReward {
            penalty: KlPenalty::new(coef, KlEstimator::K1),
            adaptive: None,
        }),
        ..base()
    }
}

fn clipped(low: f64, high: f64) -> TrainerConfig {
    let mut config = base();
    config.objective.surrogate = rlvr::loss::PpoClip::range(low, high).into();
    config
}

/// A setting, how it is scheduled, and settings that are fixed at its first and at its second
/// value.
struct Case {
    name: &'static str,
    scheduled: TrainerConfig,
    fixed: [TrainerConfig; 2],
}

/// Every setting jumps after two steps.
fn cases() -> Vec<Case> {
    let jump = |a: f64, b: f64| Some(Piecewise::steps([(0, a), (2, b)]));
    let case = |name, schedules, fixed: [TrainerConfig; 2]| Case {
        name,
        scheduled: TrainerConfig {
            schedules,
            ..fixed[0].clone()
        },
        fixed,
    };
    let at = |temperature: f64, cap: usize| {
        let mut config = base();
        config.generation.sampling.temperature = temperature;
        config.generation.max_new_tokens = cap;
        config
    };
    let none = StepSchedules::default;
    let mut short = case(
        "max_new_tokens",
        StepSchedules {
            max_new_tokens: jump(2.0, 4.0),
            ..none()
        },
        [at(1.0, 2), at(1.0, 4)],
    );
    short.scheduled.generation.max_new_tokens = 4;
    let kl = |coef: f64| {
        let objective = PolicyObjective::grpo();
        TrainerConfig {
            objective: objective.with_kl(Some(KlPenalty::new(coef, KlEstimator::K3))),
            ..base()
        }
    };
    vec![
        short,
        case(
            "temperature",
            StepSchedules {
                temperature: jump(1.0, 0.6),
                ..none()
            },
            [at(1.0, 4), at(0.6, 4)],
        ),
        case(
            "kl_coef",
            StepSchedules {
                kl_coef: jump(0.1, 2.0),
                ..none()
            },
            [kl(0.1), kl(2.0)],
        ),
        case(
            "kl_coef of a reward",
            StepSchedules {
                kl_coef: jump(0.1, 2.0),
                ..none()
            },
            [in_reward(0.1), in_reward(2.0)],
        ),
        case(
            "clip range",
            StepSchedules {
                clip_low: jump(0.2, 0.01),
                clip_high: jump(0.2, 0.02),
                ..none()
            },
            [clipped(0.2, 0.2), clipped(0.01, 0.02)],
        ),
    ]
}

/// The weights, bit for bit, after `steps` steps, and the numbers of the last step but for the
/// schedules'.
fn after(trainer: &mut Rl, steps: usize) -> (Vec<u64>, Vec<(String, u64)>) {
    let records = toy::steps(trainer, steps);
    let last = toy::bits(records.last().unwrap()).into_iter();
    let numbers = last.filter(|(name, _)| !name.starts_with("schedule/"));
    let weights = toy::weights(trainer.policy());
    let weights = weights.iter().map(|weight| weight.to_bits()).collect();
    (weights, numbers.collect())
}

#[test]
fn a_scheduled_change_equals_resuming_with_other_settings() {
    let device = toy::device();
    for case in cases() {
        let what = case.name;
        let folder = tempfile::tempdir().unwrap();
        let mut scheduled = toy::trainer(&case.scheduled, 0, &device);
        let mut fixed = toy::trainer(&case.fixed[0], 0, &device);
        assert_eq!(after(&mut scheduled, 2), after(&mut fixed, 2), "{what}");
        let saved = fixed.save_checkpoint(folder.path(), 1).unwrap();
        let mut changed = toy::trainer(&case.fixed[1], 0, &device);
        changed.load_checkpoint(saved).unwrap();
        let found = after(&mut scheduled, 2);
        assert_eq!(found, after(&mut changed, 2), "{what}");
        // The change has an effect.
        assert_ne!(found, after(&mut fixed, 2), "{what}");
    }
}

#[test]
fn a_resumed_run_continues_every_schedule() {
    let mut config = TrainerConfig {
        schedules: StepSchedules {
            temperature: Some(Piecewise::linear([(0, 1.0), (5, 0.5)])),
            max_new_tokens: Some(Piecewise::linear([(1, 2.0), (4, 4.0)])),
            kl_coef: Some(Piecewise::linear([(0, 0.1), (6, 0.0)])),
            clip_high: Some(Piecewise::linear([(0, 0.2), (6, 0.4)])),
            clip_low: None,
            reward_weights: [("short".into(), Piecewise::linear([(0, 0.0), (4, 1.0)]))].into(),
        },
        ..base()
    };
    config.generation.max_new_tokens = 4;
    let device = toy::device();
    let folder = tempfile::tempdir().unwrap();
    let mut straight = toy::trainer(&config, 0, &device);
    toy::steps(&mut straight, 3);
    let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
    let mut resumed = toy::trainer(&config, 9, &device);
    resumed.load_checkpoint(saved).unwrap();
    for step in 3..6_u64 {
        let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
        assert_eq!(toy::bits(&a), toy::bits(&b));
        for (name, value) in [
            ("temperature", 1.0 - 0.1 * step.min(5) as f64),
            (
                "max_new_tokens",
                (2.0 + (step - 1) as f64 * 2.0 / 3.0).min(4.0).round(),
            ),
            ("kl_coef", 0.1 * (1.0 - step as f64 / 6.0)),
            ("clip_high", 0.2 + 0.2 * step as f64 / 6.0),
            ("reward_weights/short", (step as f64 / 4.0).min(1.0)),
        ] {
            let found = toy::metric(&a, &format!("schedule/{name}"));
            assert!((found - value).abs() < 1e-12, "{name} of {step}: {found}");
        }
        assert_eq!(a.get("kl_coef"), a.get("schedule/kl_coef"));
        assert_eq!(a.get("schedule/clip_low"), None);
        let cap = toy::metric(&a, "schedule/max_new_tokens");
        assert!(toy::metric(&a, "completions/max_length") <= cap);
    }
    assert_eq!(
        toy::weights(straight.policy()),
        toy::weights(resumed.policy())
    );
}

/// `accuracy` as in the toy task, and a reward that counts how often it is called.
fn counted(calls: &Arc<AtomicU64>, gate: bool) -> RewardSet {
    let calls = calls.clone();
    let costly = FnReward::new("costly", move |_| {
        calls.fetch_add(1, Ordering::Relaxed);
        Ok(Some(3.0))
    });
    let accuracy = FnReward::new("accuracy", |input| {
        let right = input.completion().starts_with(input.answer());
        Ok(Some(if right { 1.0 } else { 0.0 }))
    });
    let options = match gate {
        true => RewardOptions::new().with_gate(Gate::on("costly")),
        false => RewardOptions::new(),
    };
    let builder = RewardSet::builder().add_with(1.0, accuracy, options);
    builder.add(0.0, costly).build().unwrap()
}

#[test]
fn a_reward_with_zero_weight_is_not_run() {
    let config = TrainerConfig {
        schedules: StepSchedules {
            reward_weights: [("costly".into(), Piecewise::steps([(0, 0.0), (2, 0.5)]))].into(),
            ..StepSchedules::default()
        },
        ..toy::config()
    };
    let calls = Arc::new(AtomicU64::new(0));
    let build = |gate| {
        let rewards = counted(&calls, gate);
        toy::build(&config, 0, &toy::device(), rewards, toy::problems()).unwrap()
    };
    let mut trainer = build(false);
    for _ in 0..2 {
        let record = trainer.step().unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 0);
        assert_eq!(record.get("rewards/costly/mean"), None);
        let mean = toy::metric(&record, "rewards/accuracy/mean");
        assert_eq!(toy::metric(&record, "reward"), mean);
    }
    let record = trainer.step().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 32);
    assert_eq!(toy::metric(&record, "rewards/costly/mean"), 3.0);
    let mean = toy::metric(&record, "rewards/accuracy/mean");
    assert!((toy::metric(&record, "reward") - (mean + 1.5)).abs() < 1e-12);
    let recorded = &trainer.last_rollouts().groups[0].rollouts[0].rewards;
    assert_eq!(
        (recorded[1].name.as_str(), recorded[1].weight),
        ("costly", 0.5)
    );
    // What a gate reads is run with or without a weight.
    calls.store(0, Ordering::Relaxed);
    build(true).step().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 32);
}

#[test]
fn per_reward_estimators_use_the_weights_of_the_step() {
    let at = |weight: f64, schedules| {
        let config = TrainerConfig {
            advantage: Estimator::Gdpo(Gdpo::default()),
            schedules,
            ..toy::config()
        };
        let share = |yes: bool| Ok(Some(if yes { 1.0 } else { 0.0 }));
        let accuracy = FnReward::new("accuracy", move |input| {
            share(input.completion().starts_with(input.answer()))
        });
        let long = FnReward::new("long", move |input| share(input.completion().len() > 1));
        let rewards = RewardSet::builder().add(1.0, accuracy).add(weight, long);
        let rewards = rewards.build().unwrap();
        let mut trainer = toy::build(&config, 0, &toy::device(), rewards, toy::problems()).unwrap();
        after(&mut trainer, 2)
    };
    let always = |weight| StepSchedules {
        reward_weights: [("long".into(), Piecewise::linear([(0, weight)]))].into(),
        ..StepSchedules::default()
    };
    let scheduled = at(9.0, always(0.5));
    assert_eq!(scheduled, at(0.5, StepSchedules::default()));
    assert_ne!(scheduled, at(9.0, StepSchedules::default()));
    // A reward that is not run has no part.
    assert_eq!(at(9.0, always(0.0)).0, at(0.0, StepSchedules::default()).0);
}

#[test]
fn invalid_schedules_are_errors() {
    let one = |value: f64| Some(Piecewise::linear([(0, 0.5), (3, value)]));
    let default = StepSchedules::default;
    let refused = |config: TrainerConfig, schedules: StepSchedules| {
        let config = TrainerConfig {
            schedules,
            ..config
        };
        let built = toy::build(&config, 0, &toy::device(), toy::rewards(), toy::problems());
        match built {
            Ok(_) => panic!("it was built"),
            Err(error) => error.to_string(),
        }
    };
    let adaptive = TrainerConfig {
        adaptive_kl: Some(AdaptiveTarget {
            target: 0.1,
            horizon: 100.0,
        }),
        ..base()
    };
    let twice = TrainerConfig {
        objective: base().objective,
        ..in_reward(0.1)
    };
    let plain = TrainerConfig {
        objective: PolicyObjective::reinforce(),
        ..toy::config()
    };
    let filtered = TrainerConfig {
        dynamic_sampling: Some(DynamicSampling {
            reward: Some("short".into()),
            ..DynamicSampling::default()
        }),
        ..base()
    };
    let temperature = |value| StepSchedules {
        temperature: one(value),
        ..default()
    };
    let cap = |value| StepSchedules {
        max_new_tokens: Some(Piecewise::linear([(0, 1.0), (9, value)])),
        ..default()
    };
    let kl = |value| StepSchedules {
        kl_coef: one(value),
        ..default()
    };
    let low = |value| StepSchedules {
        clip_low: one(value),
        ..default()
    };
    let weight = |name: &str, value| StepSchedules {
        reward_weights: [(name.to_string(), Piecewise::linear([(0, value)]))].into(),
        ..default()
    };
    for (config, schedules, expected) in [
        (base(), temperature(0.0), "`schedules.temperature[1]`: 0"),
        (base(), temperature(f64::NAN), "NaN"),
        (base(), cap(0.2), "`schedules.max_new_tokens[1]`: 0.2"),
        (base(), cap(5.0), "max_new_tokens = 4"),
        (base(), kl(-0.1), "`schedules.kl_coef[1]`: -0.1"),
        (adaptive, kl(0.1), "adaptive_kl"),
        (twice, kl(0.1), "only one KL penalty"),
        (plain.clone(), kl(0.1), "none without a KL penalty"),
        (plain, low(0.1), "`schedules.clip_low`: given"),
        (base(), low(-0.1), "schedules.clip_low.ppo_clip.low`: -0.1"),
        (base(), weight("shrt", 1.0), "[\"accuracy\", \"short\"]"),
        (filtered, weight("short", 0.0), "dynamic_sampling filters"),
        (
            base(),
            weight("short", f64::INFINITY),
            "schedules.reward_weights.short[0]`: inf",
        ),
    ] {
        let got = refused(config, schedules);
        assert!(got.contains(expected), "{expected}: {got}");
    }
}

#[test]
fn schedules_are_optional_in_files() {
    let old: TrainerConfig = serde_json::from_str(r#"{"seed": 3}"#).unwrap();
    assert_eq!(old.schedules, StepSchedules::default());
    let text = r#"{"schedules": {"max_new_tokens": [[0, 32.0], [8, 32.0], [8, 64.0]], "reward_weights": {"helpful": [[0, 0.5]]}}}"#;
    let read: TrainerConfig = serde_json::from_str(text).unwrap();
    let cap = read.schedules.max_new_tokens.as_ref().unwrap();
    assert_eq!((cap.at(7), cap.at(8)), (32.0, 64.0));
    let again = serde_json::to_string(&read).unwrap();
    assert_eq!(serde_json::from_str::<TrainerConfig>(&again).unwrap(), read);
    let wrong = r#"{"schedules": {"temprature": [[0, 1.0]]}}"#;
    assert!(serde_json::from_str::<TrainerConfig>(wrong).is_err());
}
