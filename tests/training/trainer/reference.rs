//! The reference policy: the measured KL, updates, and the KL in the reward.

use rlvr::advantage::GroupMean;
use rlvr::loss::{KlEstimator, KlPenalty, PolicyObjective};
use rlvr::policy::ReferenceSync;
use rlvr::train::observer::StepRecord;
use rlvr::train::{AdaptiveTarget, KlInReward, TrainerConfig};

use crate::common::toy;
use crate::common::{assert_close, devices};

fn kls(records: &[StepRecord]) -> Vec<f64> {
    records.iter().map(|r| toy::metric(r, "kl")).collect()
}

#[test]
fn measuring_the_kl_changes_no_bit_of_the_training() {
    for (backend, device) in devices() {
        let run = |measure_kl| {
            let config = TrainerConfig {
                objective: PolicyObjective::dapo(),
                measure_kl,
                passes: 2,
                ..toy::config()
            };
            let mut trainer = toy::trainer(&config, 0, &device);
            let records = toy::steps(&mut trainer, 3);
            let weights = toy::weights(trainer.policy());
            (records, weights, trainer.last_rollouts().clone())
        };
        let (with, without) = (run(true), run(false));
        assert_eq!(with.1, without.1, "{backend}");
        assert_eq!(with.2, without.2, "{backend}");
        let measured = kls(&with.0);
        assert!(measured[2] > 1e-3, "{measured:?}");
        assert!(without.0.iter().all(|record| record.get("kl").is_none()));
    }
}

#[test]
fn the_kl_is_zero_after_the_reference_is_updated() {
    let run = |reference_sync| {
        let config = TrainerConfig {
            objective: PolicyObjective::dapo(),
            measure_kl: true,
            reference_sync,
            ..toy::config()
        };
        kls(&toy::steps(
            &mut toy::trainer(&config, 0, &toy::device()),
            5,
        ))
    };
    // Sampling and training compute log-probs differently: zero up to rounding.
    let zero = |kl: f64| kl.abs() < 1e-6;
    let never = run(ReferenceSync::Never);
    assert!(zero(never[0]) && never[1..].iter().all(|&kl| kl > 1e-4));
    assert!(never[4] > never[1], "{never:?}");
    let every = run(ReferenceSync::Every { steps: 1 });
    assert!(every.iter().all(|&kl| zero(kl)), "{every:?}");
    let second = run(ReferenceSync::Every { steps: 2 });
    for (at, &kl) in second.iter().enumerate() {
        assert_eq!(zero(kl), at % 2 == 0, "{second:?}");
    }
    // A whole share is a replacement; half a share is somewhere between following and staying.
    let share = |alpha| run(ReferenceSync::MovingAverage { steps: 1, alpha });
    assert!(share(1.0).iter().all(|&kl| zero(kl)));
    let half = share(0.5);
    assert!(half[4] > 1e-5 && half[4] < never[4], "{half:?} {never:?}");
}

#[test]
fn the_kl_is_that_of_the_rollouts_against_the_starting_policy() {
    let config = TrainerConfig {
        objective: PolicyObjective::dapo(),
        measure_kl: true,
        ..toy::config()
    };
    let device = toy::device();
    let mut trainer = toy::trainer(&config, 0, &device);
    let record = toy::steps(&mut trainer, 3).remove(2);
    let rollouts = trainer.last_rollouts();
    let batch = rlvr::rollout::RolloutBatch::all(rollouts, &device).unwrap();
    let start = toy::policy(0, &device);
    let scores = batch.score(&start, &config.log_probs()).unwrap();
    let reference = batch.unpad(scores.log_probs, "reference").unwrap();
    let mut sum = 0.0;
    for (rollout, row) in rollouts.rollouts().zip(reference.rows()) {
        for (&spoken, reference) in rollout.log_probs.iter().zip(row) {
            let x = reference - f64::from(spoken);
            sum += x.exp() - x - 1.0;
        }
    }
    let want = sum / rollouts.tokens() as f64;
    assert_close(toy::metric(&record, "kl"), want, 1e-6, 1e-9, "kl");
    assert!(want > 1e-3, "{want}");
}

fn with_kl_in_reward(coef: f64, adaptive: Option<AdaptiveTarget>) -> TrainerConfig {
    TrainerConfig {
        objective: PolicyObjective::dapo(),
        advantage: GroupMean::default().into(),
        measure_kl: true,
        kl_in_reward: Some(KlInReward {
            penalty: KlPenalty::new(coef, KlEstimator::K1),
            adaptive,
        }),
        ..toy::config()
    }
}

#[test]
fn the_adaptive_coefficient_follows_ziegler_step_by_step() {
    let (coef, horizon) = (0.1, 320.0);
    // Above the KL of the first step, which is 0, and below that of later ones.
    let target = 0.02;
    let config = with_kl_in_reward(coef, Some(AdaptiveTarget { target, horizon }));
    let records = toy::steps(&mut toy::trainer(&config, 0, &toy::device()), 12);
    let mut want = coef;
    for record in &records {
        assert_close(toy::metric(record, "kl_coef"), want, 1e-12, 0.0, "kl_coef");
        let error = toy::metric(record, "kl") / target - 1.0;
        want *= 1.0 + error.clamp(-0.2, 0.2) * 32.0 / horizon;
    }
    let coefs: Vec<f64> = records
        .iter()
        .map(|record| toy::metric(record, "kl_coef"))
        .collect();
    assert!(coefs[1] < coef, "{coefs:?}");
    let ups = coefs.windows(2).any(|pair| pair[1] > pair[0]);
    assert!(ups, "{coefs:?}");
}

#[test]
fn without_a_target_the_coefficient_is_constant() {
    let config = with_kl_in_reward(0.1, None);
    let records = toy::steps(&mut toy::trainer(&config, 0, &toy::device()), 3);
    assert!(records.iter().all(|r| r.get("kl_coef") == Some(0.1)));
}

#[test]
fn a_kl_in_the_reward_keeps_the_policy_near_the_reference() {
    let free = TrainerConfig {
        kl_in_reward: None,
        ..with_kl_in_reward(1.0, None)
    };
    let last = |config: &TrainerConfig| {
        let records = toy::steps(&mut toy::trainer(config, 0, &toy::device()), 30);
        kls(&records[25..]).iter().sum::<f64>() / 5.0
    };
    let (free, held) = (last(&free), last(&with_kl_in_reward(2.0, None)));
    assert!(held < 0.5 * free, "{held} with the penalty, {free} without");
}
