//! Dynamic sampling: groups without a signal are replaced, up to a bound, also in a resumed run.

use rlvr::Error;
use rlvr::advantage::{Estimator, ReinforcePlusPlus};
use rlvr::prompt::{Problem, ProblemOrder};
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::{RewardOutcome, RewardRecord, Rollout, RolloutGroup};
use rlvr::train::{DynamicSampling, Exhausted, TrainerConfig};

use crate::common::toy::{self, Rl};
use crate::common::{assert_close, devices};

/// Twelve prompts; those that start with `a` or `b` have the same reward for every completion.
fn problems() -> Vec<Problem> {
    let prompts = [
        "a", "b", "c", "d", "ac", "bd", "ca", "db", "ad", "bc", "cc", "dd",
    ];
    prompts.map(|prompt| Problem::new(prompt, "")).to_vec()
}

/// The first token's id, or always the same.
fn rewards() -> RewardSet {
    let telling = FnReward::new("telling", |input| {
        let flat = input.prompt().starts_with(['a', 'b']);
        let first = input.completion().bytes().next().unwrap_or(0);
        Ok(Some(if flat { 1.0 } else { f64::from(first) }))
    });
    let flat = FnReward::new("flat", |_| Ok(Some(1.0)));
    RewardSet::builder()
        .add(0.01, telling)
        .add(1.0, flat)
        .build()
        .unwrap()
}

fn config(dynamic_sampling: Option<DynamicSampling>) -> TrainerConfig {
    TrainerConfig {
        seed: 3,
        dynamic_sampling,
        ..toy::config()
    }
}

fn trainer(config: &TrainerConfig, policy_seed: u64, device: &burn::tensor::Device) -> Rl {
    toy::build(config, policy_seed, device, rewards(), problems()).unwrap()
}

fn asked(trainer: &Rl) -> Vec<&str> {
    let groups = &trainer.last_rollouts().groups;
    groups
        .iter()
        .map(|group| group.problem.prompt.as_str())
        .collect()
}

#[test]
fn flat_groups_are_replaced_by_the_next_problems() {
    let config = config(Some(DynamicSampling::default()));
    let mut trainer = trainer(&config, 0, &toy::device());
    let (order, problems) = (ProblemOrder::new(12, 3).unwrap(), problems());
    let mut position = 0;
    for _ in 0..2 {
        let record = trainer.step().unwrap();
        // The expected order: rounds until four problems have a signal; each round has as many as
        // the share so far suggests, at most those of a step.
        let telling = |index: &usize| problems[*index].prompt.starts_with(['c', 'd']);
        let (mut count, mut found) = (0u64, Vec::new());
        while found.len() < 4 {
            let missing = 4 - found.len();
            let round = match found.len() {
                0 => 4,
                some => (missing * count as usize).div_ceil(some).clamp(missing, 4),
            };
            found.extend(order.indices(position, round).into_iter().filter(telling));
            position += round as u64;
            count += round as u64;
        }
        let want: Vec<_> = found.iter().map(|&i| problems[i].prompt.as_str()).collect();
        assert_eq!(asked(&trainer), want[..4]);
        let metric = |name: &str| toy::metric(&record, &format!("dynamic_sampling/{name}"));
        assert_eq!(metric("problems"), count as f64);
        assert_eq!(metric("unfilled"), 0.0);
        let share = 1.0 - found.len() as f64 / count as f64;
        assert_close(
            metric("frac_zero_std"),
            share,
            1e-12,
            1e-12,
            "frac_zero_std",
        );
        assert_eq!(metric("refills") > 0.0, count > 4);
        assert_eq!(metric("dropped_tokens") > 0.0, count > 4);
        assert_eq!(toy::metric(&record, "frac_reward_zero_std"), 0.0);
        // Flat groups have a total of 1.01, below the others'.
        let kept = toy::metric(&record, "reward");
        assert!(metric("reward") < kept || count == 4);
    }
    assert!(position > 8, "nothing was replaced");
}

#[test]
fn a_step_without_flat_groups_is_unchanged() {
    // If all problems have a signal, nothing is replaced.
    let telling: Vec<Problem> = problems()
        .into_iter()
        .filter(|p| p.prompt.starts_with(['c', 'd']))
        .collect();
    let run = |dynamic: Option<DynamicSampling>| {
        let mut trainer = toy::build(
            &config(dynamic),
            0,
            &toy::device(),
            rewards(),
            telling.clone(),
        )
        .unwrap();
        let records = toy::steps(&mut trainer, 3);
        (toy::weights(trainer.policy()), records)
    };
    let (plain, records) = run(None);
    assert!(
        records
            .iter()
            .all(|r| toy::metric(r, "frac_reward_zero_std") == 0.0)
    );
    assert!(
        records
            .iter()
            .all(|r| r.get("dynamic_sampling/problems").is_none())
    );
    assert_eq!(run(Some(DynamicSampling::default())).0, plain);
}

#[test]
fn at_the_bound_the_step_fails_or_continues() {
    let flat: Vec<Problem> = problems()
        .into_iter()
        .filter(|p| p.prompt.starts_with(['a', 'b']))
        .collect();
    let built = |dynamic: Option<DynamicSampling>| {
        toy::build(&config(dynamic), 0, &toy::device(), rewards(), flat.clone()).unwrap()
    };
    let fail = DynamicSampling {
        max_rounds: 3,
        exhausted: Exhausted::Fail,
        ..DynamicSampling::default()
    };
    let mut trainer = built(Some(fail.clone()));
    let before = toy::weights(trainer.policy());
    for _ in 0..2 {
        // It fails the same way twice: no state has changed.
        let error = trainer.step().unwrap_err();
        assert!(
            matches!(
                error,
                Error::NoSignal {
                    step: 0,
                    kept: 0,
                    wanted: 4,
                    asked: 12,
                    ..
                }
            ),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("0 of 4") && text.contains("12 problems"),
            "{text}"
        );
        assert!(text.contains("dynamic_sampling.exhausted"), "{text}");
    }
    assert_eq!(
        (trainer.steps_done(), toy::weights(trainer.policy())),
        (0, before)
    );

    let go_on = |exhausted| DynamicSampling {
        exhausted,
        ..fail.clone()
    };
    // Without a signal, the default measures the first groups and changes nothing.
    let mut without_kl = config(Some(go_on(Exhausted::SmallerStep)));
    without_kl.objective = rlvr::loss::PolicyObjective::dapo();
    let trainer = toy::build(&without_kl, 0, &toy::device(), rewards(), flat.clone());
    let mut trainer = trainer.unwrap();
    let before = toy::weights(trainer.policy());
    let record = trainer.step().unwrap();
    assert_eq!(toy::metric(&record, "frac_reward_zero_std"), 1.0);
    assert_eq!(toy::weights(trainer.policy()), before);

    let mut trainer = built(Some(go_on(Exhausted::KeepZeroVariance)));
    let record = trainer.step().unwrap();
    let metric = |name: &str| toy::metric(&record, &format!("dynamic_sampling/{name}"));
    assert_eq!((metric("problems"), metric("unfilled")), (12.0, 4.0));
    assert_eq!((metric("refills"), metric("frac_zero_std")), (2.0, 1.0));
    // The groups that were dropped first fill the step, as without dynamic sampling.
    let mut plain = built(None);
    plain.step().unwrap();
    assert_eq!(trainer.last_rollouts(), plain.last_rollouts());
}

#[test]
fn missing_groups_at_the_bound_make_a_smaller_step() {
    let one_round = DynamicSampling {
        max_rounds: 1,
        ..DynamicSampling::default()
    };
    let mut trainer = trainer(&config(Some(one_round)), 0, &toy::device());
    let mut sizes = Vec::new();
    for _ in 0..4 {
        let record = trainer.step().unwrap();
        let missing = toy::metric(&record, "dynamic_sampling/unfilled") as usize;
        assert_eq!(trainer.last_rollouts().groups.len(), 4 - missing);
        sizes.push(4 - missing);
    }
    assert!(sizes.iter().any(|&size| size < 4), "{sizes:?}");
}

#[test]
fn the_reward_that_must_differ_can_be_named() {
    let named = |name: &str| DynamicSampling {
        reward: Some(name.into()),
        max_rounds: 2,
        exhausted: Exhausted::KeepZeroVariance,
    };
    let mut trainer = trainer(&config(Some(named("flat"))), 0, &toy::device());
    let record = trainer.step().unwrap();
    assert_eq!(toy::metric(&record, "dynamic_sampling/frac_zero_std"), 1.0);
    let result = toy::build(
        &config(Some(named("colour"))),
        0,
        &toy::device(),
        rewards(),
        problems(),
    );
    let text = result.err().unwrap().to_string();
    assert!(
        text.contains("dynamic_sampling.reward")
            && text.contains("colour")
            && text.contains("telling"),
        "{text}"
    );
}

#[test]
fn invalid_settings_are_errors() {
    let refused = |config: &TrainerConfig, word: &str| {
        let text = config.validate().unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    };
    let none = DynamicSampling {
        max_rounds: 0,
        ..DynamicSampling::default()
    };
    refused(&config(Some(none)), "max_rounds");
    // Some estimators need no group, but a single reward never differs.
    let alone = TrainerConfig {
        group_size: 1,
        advantage: Estimator::ReinforcePlusPlus(ReinforcePlusPlus::default()),
        ..config(Some(DynamicSampling::default()))
    };
    refused(&alone, "dynamic_sampling");
}

/// A rollout with a total and one named score.
fn rollout(total: Option<f64>, score: Option<f64>, tokens: &[f64]) -> Rollout {
    let outcome = score.map_or(RewardOutcome::Abstained, RewardOutcome::Score);
    Rollout {
        rewards: vec![RewardRecord {
            name: "accuracy".into(),
            weight: 1.0,
            outcome,
            seconds: 0.0,
        }],
        reward: total,
        token_rewards: tokens.to_vec(),
        ..Rollout::new(vec![1, 2], vec![-0.1, -0.1], "")
    }
}

#[test]
fn groups_with_different_rewards_have_a_signal() {
    let total = DynamicSampling::default();
    let named = DynamicSampling {
        reward: Some("accuracy".into()),
        ..DynamicSampling::default()
    };
    let signal = |sampling: &DynamicSampling, rollouts: &[Rollout]| {
        let group = RolloutGroup::new(Problem::new("a", ""), vec![2], rollouts.to_vec());
        sampling.has_signal(&group).unwrap()
    };
    let (one, zero) = (
        rollout(Some(1.0), Some(1.0), &[]),
        rollout(Some(0.0), Some(1.0), &[]),
    );
    let unscored = rollout(None, Some(0.0), &[]);
    assert!(signal(&total, &[one.clone(), zero.clone()]));
    assert!(!signal(&total, &[one.clone(), one.clone()]));
    // The totals differ in another reward than the accuracy.
    assert!(!signal(&named, &[one.clone(), zero.clone()]));
    assert!(signal(
        &named,
        &[one.clone(), rollout(Some(1.0), Some(0.0), &[])]
    ));
    // A single scored completion has no comparison, and one without a total is not used.
    assert!(!signal(&total, &[one.clone(), unscored.clone()]));
    assert!(!signal(&named, &[one.clone(), unscored.clone()]));
    assert!(!signal(&total, &[unscored.clone(), unscored]));
    assert!(!signal(&total, std::slice::from_ref(&one)));
    // Token rewards are part of the total; rounding is not a signal.
    assert!(signal(
        &total,
        &[one.clone(), rollout(Some(1.0), Some(1.0), &[0.0, 0.5])]
    ));
    assert!(!signal(
        &total,
        &[
            rollout(Some(0.3), None, &[]),
            rollout(Some(0.1 + 0.2), None, &[])
        ]
    ));
}

#[test]
fn a_resumed_run_samples_the_same_problems_bit_for_bit() {
    let config = config(Some(DynamicSampling::default()));
    for (backend, device) in devices() {
        let folder = tempfile::tempdir().unwrap();
        let mut straight = trainer(&config, 0, &device);
        let early = toy::steps(&mut straight, 3);
        let asked: f64 = early
            .iter()
            .map(|r| toy::metric(r, "dynamic_sampling/problems"))
            .sum();
        assert!(asked > 12.0, "nothing was replaced");
        let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
        let mut resumed = trainer(&config, 99, &device);
        resumed.load_checkpoint(&saved).unwrap();
        for _ in 0..3 {
            let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
            assert_eq!(toy::bits(&a), toy::bits(&b), "{backend}");
            assert_eq!(
                straight.last_rollouts(),
                resumed.last_rollouts(),
                "{backend}"
            );
        }
        assert_eq!(
            toy::weights(straight.policy()),
            toy::weights(resumed.policy()),
            "{backend}"
        );
    }
}
