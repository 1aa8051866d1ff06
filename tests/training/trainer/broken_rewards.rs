//! Failing rewards: the run continues without the rollouts that they failed on.

use std::time::Duration;

use rlvr::reward::{FnReward, RewardOptions, RewardSet};
use rlvr::rollout::{RewardOutcome, Rollout};
use rlvr::train::TrainerConfig;

use crate::common::{quiet_reward_panics, toy};

const LIMIT: Duration = Duration::from_secs(2);

/// One reward that works, and one that fails in a different way for each first character.
fn fragile() -> RewardSet {
    quiet_reward_panics();
    let sound = FnReward::new("sound", |input| Ok(Some(input.length() as f64)));
    let fragile = FnReward::new("fragile", |input| match input.completion().chars().next() {
        Some('a') => panic!("no a"),
        Some('b') => Err("no b".into()),
        Some('c') => Ok(Some(f64::NAN)),
        Some('d') => {
            std::thread::sleep(300 * LIMIT);
            Ok(Some(1.0))
        }
        _ => Ok(Some(1.0)),
    });
    RewardSet::builder()
        .add(1.0, sound)
        .add_with(
            0.5,
            fragile,
            RewardOptions::new()
                .with_time_limit(LIMIT)
                .with_concurrency(16),
        )
        .build()
        .unwrap()
}

#[test]
fn a_reward_that_panics_errs_is_nan_or_hangs_fails_only_its_rollouts() {
    let config = TrainerConfig {
        problems_per_step: 2,
        group_size: 8,
        // Most of them fail.
        max_reward_failures: 1.0,
        ..toy::config()
    };
    let mut trainer = toy::build(&config, 0, &toy::device(), fragile(), toy::problems()).unwrap();
    let mut kinds = [0u32; 5];
    for _ in 0..2 {
        let record = trainer.step().unwrap();
        let (mut broken, late_before) = (0.0, f64::from(kinds[3]));
        for rollout in trainer.last_rollouts().rollouts() {
            assert_eq!(rollout.score("sound"), Some(rollout.tokens.len() as f64));
            let outcome = &rollout.rewards[1].outcome;
            let first = rollout.text.chars().next();
            let (kind, expected) = match first {
                Some('a') => (0, *outcome == RewardOutcome::Panicked("no a".into())),
                Some('b') => (1, *outcome == RewardOutcome::Failed("no b".into())),
                Some('c') => {
                    let told = matches!(outcome, RewardOutcome::Failed(why) if why.contains("NaN"));
                    (2, told)
                }
                Some('d') => {
                    let limit = RewardOutcome::TimedOut(LIMIT.as_secs_f64());
                    (3, *outcome == limit)
                }
                _ => (4, *outcome == RewardOutcome::Score(1.0)),
            };
            assert!(expected, "{first:?}: {outcome:?}");
            kinds[kind] += 1;
            let whole = rollout.tokens.len() as f64 + 0.5;
            assert_eq!(rollout.reward, (kind == 4).then_some(whole));
            broken += f64::from(kind < 4);
        }
        assert_eq!(toy::metric(&record, "rewards/failures"), broken);
        assert_eq!(toy::metric(&record, "rewards/unscored"), broken);
        // The means are over what was scored.
        assert_eq!(record.get("rewards/fragile/mean"), Some(1.0));
        assert_eq!(toy::metric(&record, "rewards/fragile/std"), 0.0);
        assert_eq!(toy::metric(&record, "rewards/fragile/failed"), broken);
        assert_eq!(toy::metric(&record, "rewards/sound/failed"), 0.0);
        let late = f64::from(kinds[3]) - late_before;
        assert_eq!(toy::metric(&record, "rewards/fragile/timed_out"), late);
        // Timed-out rewards took the whole limit.
        assert!(toy::metric(&record, "time/reward/fragile") >= late * LIMIT.as_secs_f64());
    }
    assert!(kinds.iter().all(|&seen| seen > 0), "{kinds:?}");
    let weights = toy::weights(trainer.policy());
    assert!(weights.iter().all(|weight| weight.is_finite()));
}

#[test]
fn rollouts_without_a_reward_give_no_gradient() {
    quiet_reward_panics();
    // Fails for one completion of each group. The others are compared as if it were absent.
    let set = |broken: bool| {
        let fragile = FnReward::new("accuracy", move |input| match input.completion().len() {
            0 if broken => Err("nothing was said".into()),
            _ => Ok(Some(f64::from(
                input.completion().starts_with(input.answer()),
            ))),
        });
        RewardSet::builder().add(1.0, fragile).build().unwrap()
    };
    let step = |broken| {
        let mut config = toy::config();
        config.group_size = 4;
        config.objective = rlvr::loss::PolicyObjective::dapo();
        let mut trainer =
            toy::build(&config, 0, &toy::device(), set(broken), toy::problems()).unwrap();
        let record = trainer.step().unwrap();
        let unscored = |r: &&Rollout| r.reward.is_none();
        let none = trainer.last_rollouts().rollouts().filter(unscored).count();
        assert_eq!(toy::metric(&record, "rewards/unscored"), none as f64);
        (none, toy::metric(&record, "reward"))
    };
    let ((some, without), (none, with)) = (step(true), step(false));
    assert!(some > 0 && none == 0, "{some}");
    // The empty completion is never right, so excluding it raises the mean; a zero would not.
    let scored = 16.0 - some as f64;
    assert!((without * scored - with * 16.0).abs() < 1e-9);
}

#[test]
fn a_step_without_any_reward_is_an_error_and_leaves_the_policy_unchanged() {
    quiet_reward_panics();
    let broken = FnReward::new("accuracy", |_| -> Result<Option<f64>, _> { panic!("no") });
    let set = RewardSet::builder().add(1.0, broken).build().unwrap();
    let config = TrainerConfig {
        objective: rlvr::loss::PolicyObjective::dapo(),
        ..toy::config()
    };
    let mut trainer = toy::build(&config, 0, &toy::device(), set, toy::problems()).unwrap();
    let start = toy::weights(trainer.policy());
    for _ in 0..2 {
        let error = trainer.step().unwrap_err().to_string();
        for part in ["`accuracy`", "32 of 32", "no"] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert_eq!(trainer.steps_done(), 0);
    assert_eq!(toy::weights(trainer.policy()), start);
}

#[test]
fn abstaining_is_not_a_failure() {
    fn build(reward: impl rlvr::reward::Reward) -> toy::Rl {
        let set = RewardSet::builder().add(1.0, reward).build().unwrap();
        toy::build(&toy::config(), 0, &toy::device(), set, toy::problems()).unwrap()
    }
    let one = |input: &rlvr::reward::RewardInput| input.prompt() == "a";
    let mut trainer = build(FnReward::new("accuracy", move |input| {
        Ok(one(input).then_some(input.rollout.tokens.len() as f64))
    }));
    let record = trainer.step().unwrap();
    assert_eq!(toy::metric(&record, "rewards/failures"), 0.0);
    assert_eq!(toy::metric(&record, "rewards/accuracy/abstained"), 24.0);
    assert_eq!(toy::metric(&record, "rewards/unscored"), 24.0);
    // A step without any score has no signal.
    let mut trainer = build(FnReward::new("accuracy", |_| Ok(None)));
    let error = trainer.step().unwrap_err().to_string();
    assert!(
        error.contains("none of 32") && error.contains("abstained"),
        "{error}"
    );
}
