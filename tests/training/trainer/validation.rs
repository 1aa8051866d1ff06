//! Invalid settings are errors that name field and value when the trainer is built.

use rlvr::advantage::{Estimator, Gae, Group};
use rlvr::loss::{KlEstimator, KlPenalty, PolicyObjective};
use rlvr::policy::{ReferenceSync, ValueHead};
use rlvr::prompt::CharTokenizer;
use rlvr::rollout::SamplingConfig;
use rlvr::train::{AdaptiveTarget, KlInReward, RunCheckpoints, RunConfig, TrainerConfig};

use crate::common::toy::{self, Rl};

fn message(result: rlvr::Result<Rl>) -> String {
    match result {
        Ok(_) => panic!("it was built"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn k1_with_a_gradient_is_valid() {
    let plain = KlPenalty::new(0.1, KlEstimator::K1);
    for kl in [
        KlPenalty {
            straight_through: true,
            ..plain
        },
        KlPenalty {
            importance_corrected: true,
            ..plain
        },
        KlPenalty::new(0.1, KlEstimator::K2),
    ] {
        let config = TrainerConfig {
            objective: PolicyObjective::grpo().with_kl(Some(kl)),
            ..toy::config()
        };
        config.validate().unwrap();
    }
}

#[test]
fn invalid_settings_are_errors_with_name_and_value() {
    type Change = fn(&mut TrainerConfig);
    let kl = |coef, target, horizon| KlInReward {
        penalty: KlPenalty::new(coef, KlEstimator::K1),
        adaptive: Some(AdaptiveTarget { target, horizon }),
    };
    let cases: Vec<(&str, &str, Change)> = vec![
        ("group_size", "1", |c| c.group_size = 1),
        ("group_size", "0", |c| c.group_size = 0),
        ("problems_per_step", "0", |c| c.problems_per_step = 0),
        ("passes", "0", |c| c.passes = 0),
        ("updates_per_pass", "0", |c| c.updates_per_pass = 0),
        ("updates_per_pass", "5", |c| c.updates_per_pass = 5),
        ("micro_batch", "0", |c| c.micro_batch = 0),
        ("chunk", "0", |c| c.logit_chunk = 0),
        ("max_new_tokens", "0", |c| c.generation.max_new_tokens = 0),
        ("max_rows", "0", |c| c.generation.max_rows = 0),
        ("sampling", "top_k: Some(3)", |c| {
            c.generation.sampling.top_k = Some(3);
        }),
        ("sampling", "top_p: Some(0.9)", |c| {
            c.generation.sampling.top_p = Some(0.9);
        }),
        ("sampling", "min_p: Some(0.1)", |c| {
            c.generation.sampling.min_p = Some(0.1);
        }),
        ("temperature", "0", |c| {
            c.generation.sampling = SamplingConfig::greedy();
        }),
        ("temperature", "-1", |c| {
            c.generation.sampling.temperature = -1.0;
        }),
        ("temperature", "NaN", |c| {
            c.generation.sampling.temperature = f64::NAN;
        }),
        ("peak", "0", |c| c.optimizer.schedule.peak = 0.0),
        ("beta_1", "1", |c| c.optimizer.beta_1 = 1.0),
        ("beta_2", "-0.5", |c| c.optimizer.beta_2 = -0.5),
        ("epsilon", "0", |c| c.optimizer.epsilon = 0.0),
        ("weight_decay", "-1", |c| c.optimizer.weight_decay = -1.0),
        ("max_grad_norm", "0", |c| {
            c.optimizer.max_grad_norm = Some(0.0);
        }),
        ("kl.coef", "0", |c| {
            c.objective =
                PolicyObjective::grpo().with_kl(Some(KlPenalty::new(0.0, KlEstimator::K3)));
        }),
        ("objective.kl.estimator", "k1", |c| {
            c.objective =
                PolicyObjective::grpo().with_kl(Some(KlPenalty::new(0.1, KlEstimator::K1)));
        }),
        ("entropy_coef", "NaN", |c| {
            c.objective.entropy_coef = f64::NAN;
        }),
        ("length", "0", |c| c.objective = PolicyObjective::dr_grpo(0)),
        ("group.floor", "0", |c| {
            c.advantage = Estimator::Group(Group {
                floor: 0.0,
                ..Group::default()
            });
        }),
        ("reference_sync.steps", "0", |c| {
            c.reference_sync = ReferenceSync::Every { steps: 0 };
        }),
        ("reference_sync.alpha", "1.5", |c| {
            c.reference_sync = ReferenceSync::MovingAverage {
                steps: 1,
                alpha: 1.5,
            };
        }),
        ("clip_range", "-0.2", |c| {
            c.critic.value_loss.clip_range = Some(-0.2);
        }),
    ];
    for (field, value, change) in cases {
        let mut config = toy::config();
        change(&mut config);
        let got = message(toy::build(
            &config,
            0,
            &toy::device(),
            toy::rewards(),
            toy::problems(),
        ));
        let (named, given) = got
            .split_once("; expected ")
            .expect(&got)
            .0
            .split_once(": ")
            .unwrap();
        assert!(named.contains(field), "{field} = {value}: {got}");
        assert!(given.contains(value), "{field} = {value}: {got}");
    }
    for (field, value, kl) in [
        ("kl.coef", "-1", kl(-1.0, 0.1, 10.0)),
        ("adaptive.target", "0", kl(0.1, 0.0, 10.0)),
        ("adaptive.horizon", "inf", kl(0.1, 0.1, f64::INFINITY)),
    ] {
        let config = TrainerConfig {
            kl_in_reward: Some(kl),
            advantage: rlvr::advantage::GroupMean::default().into(),
            ..toy::config()
        };
        let got = config.validate().unwrap_err().to_string();
        assert!(got.contains(field) && got.contains(value), "{got}");
    }
}

#[test]
fn an_invalid_logit_chunk_is_named() {
    let config = TrainerConfig {
        logit_chunk: 0,
        ..toy::config()
    };
    let got = config.validate().unwrap_err().to_string();
    assert!(got.contains("`logit_chunk`"), "{got}");
}

#[test]
fn a_single_completion_is_enough_for_a_critic() {
    let config = TrainerConfig {
        group_size: 1,
        ..toy::ppo_config()
    };
    let mut trainer = toy::trainer(&config, 0, &toy::device());
    assert!(trainer.step().is_ok());
}

#[test]
fn gae_needs_a_critic_and_a_critic_needs_gae() {
    let device = toy::device();
    let builder = |config| {
        Rl::builder(toy::policy(0, &device), toy::tokenizer())
            .config(config)
            .rewards(toy::rewards())
            .problems(toy::problems())
    };
    let got = message(builder(toy::ppo_config()).build());
    assert!(got.contains("`advantage`: gae"), "{got}");
    assert!(got.contains("TrainerBuilder::critic"), "{got}");

    let critic = ValueHead::new(toy::policy(1, &device));
    let got = message(builder(toy::config()).critic(critic).build());
    assert!(got.contains("`advantage`: group"), "{got}");
    assert!(got.contains("gae"), "{got}");
}

#[test]
fn custom_estimators_are_validated_too() {
    let build = |estimator: Estimator| {
        let config = TrainerConfig {
            advantage: estimator,
            ..toy::config()
        };
        let builder = Rl::builder(toy::policy(0, &toy::device()), toy::tokenizer());
        let builder = builder.config(config).rewards(toy::rewards());
        builder.problems(toy::problems()).build()
    };
    let got = message(build(Estimator::custom(Gae::default())));
    assert!(got.contains("`advantage`: gae"), "{got}");
    let wrong = Group {
        floor: -1.0,
        ..Group::default()
    };
    let got = message(build(Estimator::custom(wrong)));
    assert!(got.contains("floor") && got.contains("-1"), "{got}");
    // A valid one takes effect.
    let other = Estimator::custom(rlvr::advantage::LeaveOneOut::default());
    let mut other = build(other).unwrap();
    let mut own = toy::trainer(&toy::config(), 0, &toy::device());
    let norm = |t: &mut Rl| toy::metric(&t.step().unwrap(), "grad_norm");
    assert_ne!(norm(&mut other), norm(&mut own));
}

#[test]
fn setting_a_critic_keeps_the_estimator() {
    let config = TrainerConfig {
        advantage: Estimator::custom(Group::default()),
        ..toy::ppo_config()
    };
    let critic = ValueHead::new(toy::policy(1, &toy::device()));
    let builder = toy::builder(&config, 0, &toy::device()).critic(critic);
    let builder = builder.rewards(toy::rewards()).problems(toy::problems());
    let got = message(builder.build());
    assert!(got.contains("`advantage`: group"), "{got}");
}

#[test]
fn a_tokenizer_larger_than_the_model_is_an_error() {
    let large = CharTokenizer::new("abcdefgh", &[]).unwrap();
    let trainer = Rl::builder(toy::policy(0, &toy::device()), large)
        .config(toy::config())
        .rewards(toy::rewards())
        .problems(toy::problems())
        .build();
    let got = message(trainer);
    assert!(
        got.contains("vocab_size`: 10") && got.contains('6'),
        "{got}"
    );
}

#[test]
fn empty_and_unencodable_problems_are_errors() {
    let build = |problems| {
        let (device, rewards) = (toy::device(), toy::rewards());
        toy::build(&toy::config(), 0, &device, rewards, problems)
    };
    let got = message(build(Vec::new()));
    assert!(
        got.contains("`problems`: none; expected at least one"),
        "{got}"
    );
    let foreign = vec![rlvr::prompt::Problem::new("x", "x")];
    let got = message(build(foreign));
    assert!(got.contains("problems[0]") && got.contains("'x'"), "{got}");
}

#[test]
fn a_completion_too_long_for_the_model_is_an_error_before_generation() {
    let mut config = toy::config();
    config.generation.max_new_tokens = 15;
    let (rewards, problems) = (toy::rewards(), toy::problems());
    let got = message(toy::build(&config, 0, &toy::device(), rewards, problems));
    assert!(
        got.contains("problems[3]") && got.contains("3 tokens"),
        "{got}"
    );
    assert!(
        got.contains("at most 2") && got.contains("max_new_tokens"),
        "{got}"
    );
}

#[test]
fn an_interval_of_zero_is_an_error() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = |every, keep| {
        Some(RunCheckpoints {
            folder: folder.path().to_path_buf(),
            every,
            keep,
        })
    };
    for (field, every, keep) in [("checkpoints.every", 0, 1), ("keep", 1, 0)] {
        let run = RunConfig {
            steps: 1,
            checkpoints: checkpoints(every, keep),
            ..RunConfig::default()
        };
        let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
        let mut history = rlvr::train::observer::History::new();
        let error = trainer.run(&run, &mut history, &stop).unwrap_err();
        let got = error.to_string();
        assert!(got.contains(&format!("{field}`: 0")), "{got}");
    }
}
