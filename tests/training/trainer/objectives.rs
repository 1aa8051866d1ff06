//! Every objective in the trainer: recipes learn, step-wide objectives do not depend on the
//! micro-batch size, and adaptive coefficients move and are saved.

use rlvr::Result;
use rlvr::loss::{
    AdaptiveEntropy, Aggregation, ClipCov, KlCov, KlEstimator, KlPenalty, Numerator,
    PolicyObjective, Reinforce, SamplerCorrection, Surrogate, SurrogateInput, SurrogateLoss,
    SurrogateTerm, TopEntropy,
};
use rlvr::train::observer::StepRecord;
use rlvr::train::{AdaptiveTarget, OptimizerConfig, TrainerConfig};

use crate::common::toy;
use crate::common::{assert_close, devices};

fn with(objective: PolicyObjective) -> TrainerConfig {
    TrainerConfig {
        objective,
        ..toy::config()
    }
}

#[test]
fn every_recipe_learns() {
    for name in TrainerConfig::recipes() {
        let config = toy::config().with_recipe(name).unwrap();
        let mut trainer = toy::trainer(&config, 1, &toy::device());
        let mut records = Vec::new();
        for _ in 0..25 {
            match trainer.step() {
                Ok(record) => records.push(record),
                // Dynamic sampling has no signal left once every problem is solved.
                Err(rlvr::Error::NoSignal { .. }) => break,
                Err(error) => panic!("{name}: {error}"),
            }
        }
        assert!(records.len() >= 10, "{name}: {} steps", records.len());
        let last = records.len() - 5;
        let mean = |records: &[StepRecord]| {
            records
                .iter()
                .map(|r| toy::metric(r, "reward"))
                .sum::<f64>()
                / records.len() as f64
        };
        let (before, after) = (mean(&records[..5]), mean(&records[last..]));
        assert!(after > before + 0.1, "{name}: {before} -> {after}");
    }
}

/// Objectives that cannot be computed from a micro-batch alone.
fn of_the_whole_step() -> Vec<(&'static str, PolicyObjective)> {
    let dapo = PolicyObjective::dapo;
    let normalized = |mut correction: SamplerCorrection| {
        let weights = correction.weights.as_mut().unwrap();
        weights.batch_normalize = true;
        Some(correction)
    };
    vec![
        (
            "top entropy",
            PolicyObjective {
                top_entropy: Some(TopEntropy { share: 0.3 }),
                entropy_coef: 0.01,
                ..dapo()
            },
        ),
        (
            "clip_cov",
            PolicyObjective::new(
                Surrogate::ClipCov(ClipCov {
                    ratio: 0.2,
                    lower: 0.01,
                    ..ClipCov::default()
                }),
                Aggregation::TokenMean,
            ),
        ),
        (
            "kl_cov",
            PolicyObjective::new(
                Surrogate::KlCov(KlCov {
                    ratio: 0.2,
                    ..KlCov::default()
                }),
                Aggregation::TokenMean,
            ),
        ),
        (
            "normalised weights",
            dapo().with_sampler_correction(normalized(SamplerCorrection::token_truncate(2.0))),
        ),
        (
            "rejection",
            dapo().with_sampler_correction(Some(SamplerCorrection::geometric_rejection(0.9, 1.1))),
        ),
        (
            "bypass",
            PolicyObjective::new(Surrogate::Reinforce(Reinforce {}), Aggregation::TokenMean)
                .with_sampler_correction(normalized(SamplerCorrection {
                    numerator: Numerator::Current,
                    ..SamplerCorrection::token_truncate(2.0)
                })),
        ),
        (
            "prompt mean",
            PolicyObjective {
                aggregation: Aggregation::PromptMean,
                ..dapo()
            },
        ),
    ]
}

#[test]
fn step_wide_objectives_do_not_depend_on_the_micro_batch_size() {
    for (at, (backend, device)) in devices().into_iter().enumerate() {
        // The second backend needs no second survey of sizes.
        let sizes: &[usize] = if at == 0 { &[1, 5] } else { &[5] };
        for (name, objective) in of_the_whole_step() {
            let cut = |micro_batch| {
                let config = TrainerConfig {
                    micro_batch,
                    passes: 2,
                    optimizer: OptimizerConfig {
                        epsilon: 1e-3,
                        ..toy::config().optimizer
                    },
                    ..with(objective.clone())
                };
                let mut trainer = toy::trainer(&config, 3, &device);
                let record = trainer.step().unwrap();
                (toy::weights(trainer.policy()), toy::metric(&record, "loss"))
            };
            let (want, loss) = cut(1000);
            let start = toy::weights(&toy::policy(3, &device));
            assert!(
                toy::distance(&want, &start) > 1e-3,
                "{name}: the step moved nothing"
            );
            for &micro_batch in sizes {
                let what = format!("{backend} {name} micro-batch {micro_batch}");
                let (got, other) = cut(micro_batch);
                let apart = toy::distance(&got, &want);
                assert!(apart < 2e-5, "{what}: {apart}");
                assert_close(other, loss, 1e-4, 1e-5, &what);
            }
        }
    }
}

#[test]
fn generation_and_training_agree_and_the_metrics_say_so() {
    let objective = PolicyObjective::dapo()
        .with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0)));
    let mut trainer = toy::trainer(&with(objective), 5, &toy::device());
    let record = trainer.step().unwrap();
    let near = |name: &str, want: f64| {
        assert_close(toy::metric(&record, name), want, 0.0, 1e-5, name);
    };
    near("sampling/sampling_logp_difference/max", 0.0);
    near("sampling/importance_sampling_ratio/min", 1.0);
    near("sampling/importance_sampling_ratio/max", 1.0);
    near("rollout_corr/kl", 0.0);
    near("rollout_corr/rollout_is_eff_sample_size", 1.0);
    // It was not requested, so it is not computed.
    let mut plain = toy::trainer(&with(PolicyObjective::dapo()), 5, &toy::device());
    assert_eq!(plain.step().unwrap().get("rollout_corr/kl"), None);
}

#[test]
fn the_kl_coefficient_of_the_loss_moves_towards_its_target() {
    let kl = KlPenalty::new(0.1, KlEstimator::K3);
    let config = TrainerConfig {
        adaptive_kl: Some(AdaptiveTarget {
            target: 1e-4,
            horizon: 320.0,
        }),
        ..with(PolicyObjective::dapo().with_kl(Some(kl)))
    };
    let mut trainer = toy::trainer(&config, 1, &toy::device());
    let records = toy::steps(&mut trainer, 4);
    let coefs: Vec<f64> = records.iter().map(|r| toy::metric(r, "kl_coef")).collect();
    let measured: Vec<f64> = records.iter().map(|r| toy::metric(r, "kl")).collect();
    assert_eq!(coefs[0], 0.1);
    for step in 1..4 {
        let error = (measured[step - 1] / 1e-4 - 1.0).clamp(-0.2, 0.2);
        let want = coefs[step - 1] * (1.0 + error * 32.0 / 320.0);
        assert_close(coefs[step], want, 1e-9, 0.0, "coefficient");
    }
    assert!(
        coefs[3] > coefs[1],
        "the policy moves away, so the coefficient grows: {coefs:?}"
    );

    let folder = tempfile::tempdir().unwrap();
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    let want = toy::steps(&mut trainer, 2);
    let mut resumed = toy::trainer(&config, 1, &toy::device());
    resumed.load_checkpoint(saved).unwrap();
    for (got, want) in toy::steps(&mut resumed, 2).iter().zip(&want) {
        for name in ["kl_coef", "loss", "reward"] {
            assert_eq!(toy::metric(got, name), toy::metric(want, name), "{name}");
        }
    }
}

#[test]
fn the_adaptive_entropy_bonus_applies_below_the_target() {
    let adaptive = AdaptiveEntropy {
        target: 10.0, // more than six tokens can have: always too certain
        step: 0.01,
        max: 0.025,
        ..AdaptiveEntropy::default()
    };
    let config = TrainerConfig {
        adaptive_entropy: Some(adaptive),
        passes: 2,
        ..with(PolicyObjective::dapo())
    };
    let mut trainer = toy::trainer(&config, 1, &toy::device());
    let first = trainer.step().unwrap();
    assert_close(
        toy::metric(&first, "entropy_coef"),
        0.02,
        1e-12,
        0.0,
        "after two updates",
    );
    let folder = tempfile::tempdir().unwrap();
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    let want = trainer.step().unwrap();
    assert_eq!(toy::metric(&want, "entropy_coef"), 0.025, "at its maximum");

    let mut resumed = toy::trainer(&config, 1, &toy::device());
    resumed.load_checkpoint(saved).unwrap();
    let got = resumed.step().unwrap();
    for name in ["entropy_coef", "loss", "grad_norm"] {
        assert_eq!(toy::metric(&got, name), toy::metric(&want, name), "{name}");
    }

    let certain = TrainerConfig {
        adaptive_entropy: Some(AdaptiveEntropy {
            target: 0.001,
            ..adaptive
        }),
        ..config
    };
    let mut trainer = toy::trainer(&certain, 1, &toy::device());
    assert_eq!(toy::metric(&trainer.step().unwrap(), "entropy_coef"), 0.0);
}

#[test]
fn settings_that_changed_take_effect_after_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let adaptive = AdaptiveEntropy {
        target: 10.0,
        step: 0.01,
        ..AdaptiveEntropy::default()
    };
    let fixed = |coef| TrainerConfig {
        adaptive_entropy: Some(adaptive),
        ..with(PolicyObjective::dapo().with_kl(Some(KlPenalty::new(coef, KlEstimator::K3))))
    };
    let mut trainer = toy::trainer(&fixed(0.1), 1, &toy::device());
    trainer.step().unwrap();
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    // A fixed coefficient is a setting, and so is a target; the adaptive coefficient is state.
    let changed = TrainerConfig {
        adaptive_entropy: Some(AdaptiveEntropy {
            step: 0.1,
            ..adaptive
        }),
        ..fixed(0.3)
    };
    let mut resumed = toy::trainer(&changed, 1, &toy::device());
    resumed.load_checkpoint(saved).unwrap();
    let record = resumed.step().unwrap();
    assert_eq!(toy::metric(&record, "kl_coef"), 0.3);
    assert_close(
        toy::metric(&record, "entropy_coef"),
        0.11,
        1e-12,
        0.0,
        "entropy",
    );
}

/// `L = -r A`, unclipped.
#[derive(Debug)]
struct Unclipped;

impl SurrogateLoss for Unclipped {
    fn name(&self) -> &str {
        "unclipped"
    }
    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        Ok(SurrogateTerm::new(
            (input.ratio() * input.advantages.clone()).neg(),
        ))
    }
}

fn unclipped(config: &TrainerConfig) -> toy::Rl {
    let objective = PolicyObjective {
        surrogate: Surrogate::custom(Unclipped),
        ..config.objective.clone()
    };
    let config = TrainerConfig {
        objective,
        ..config.clone()
    };
    toy::trainer(&config, 2, &toy::device())
}

#[test]
fn a_custom_surrogate_replaces_the_configured_one() {
    // On-policy the unclipped ratio has the gradient of the clipped one.
    let config = with(PolicyObjective::dapo());
    let mut plain = toy::trainer(&config, 2, &toy::device());
    let mut own = unclipped(&config);
    let (want, got) = (plain.step().unwrap(), own.step().unwrap());
    assert_close(
        toy::metric(&got, "loss"),
        toy::metric(&want, "loss"),
        1e-6,
        1e-7,
        "loss",
    );
    let apart = toy::distance(&toy::weights(own.policy()), &toy::weights(plain.policy()));
    assert!(apart < 1e-5, "{apart}");

    // Two passes are off-policy, where it differs from PPO.
    let twice = TrainerConfig {
        passes: 6,
        ..config
    };
    let mut plain = toy::trainer(&twice, 2, &toy::device());
    let mut own = unclipped(&twice);
    plain.step().unwrap();
    own.step().unwrap();
    let apart = toy::distance(&toy::weights(own.policy()), &toy::weights(plain.policy()));
    assert!(apart > 1e-4, "{apart}");
}

#[test]
fn coefficients_without_a_term_are_errors() {
    let refusal = |config: TrainerConfig| config.validate().unwrap_err().to_string();
    let target = AdaptiveTarget {
        target: 0.1,
        horizon: 100.0,
    };
    let without_kl = TrainerConfig {
        adaptive_kl: Some(target),
        ..with(PolicyObjective::dapo())
    };
    assert!(refusal(without_kl).contains("adaptive_kl"));
    let twice = TrainerConfig {
        adaptive_entropy: Some(AdaptiveEntropy::default()),
        ..with(PolicyObjective::dapo().with_entropy_coef(0.1))
    };
    let message = refusal(twice);
    assert!(
        message.contains("entropy_coef") && message.contains("adaptive_entropy"),
        "{message}"
    );
}

/// A surrogate whose loss is NaN in some of its calls, counted from 0.
#[derive(Debug)]
struct Flaky {
    calls: std::sync::atomic::AtomicU64,
    broken: std::ops::Range<u64>,
}

impl SurrogateLoss for Flaky {
    fn name(&self) -> &str {
        "flaky"
    }

    fn term(&self, input: &SurrogateInput) -> Result<SurrogateTerm> {
        let call = self
            .calls
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let factor = match self.broken.contains(&call) {
            true => f64::NAN,
            false => -1.0,
        };
        let loss = input.ratio() * input.advantages.clone();
        Ok(SurrogateTerm::new(loss.mul_scalar(factor)))
    }
}

/// A trainer whose loss is NaN in the given steps; a step has one update of two micro-batches.
fn flaky(broken: std::ops::Range<u64>) -> toy::Rl {
    let surrogate = Surrogate::custom(Flaky {
        calls: 0.into(),
        broken: 2 * broken.start..2 * broken.end,
    });
    let config = with(PolicyObjective {
        surrogate,
        ..PolicyObjective::dapo()
    });
    toy::trainer(&config, 2, &toy::device())
}

#[test]
fn a_step_that_is_not_finite_is_skipped_and_counted() {
    let mut trainer = flaky(1..3);
    let mut skipped = Vec::new();
    for step in 0..5 {
        let before = toy::weights(trainer.policy());
        let record = trainer.step().unwrap();
        skipped.push(toy::metric(&record, "skipped_steps"));
        let moved = toy::weights(trainer.policy()) != before;
        assert_eq!(moved, !(1..3).contains(&step), "step {step}");
        assert!(record.metrics.values().all(|value| value.is_finite()));
    }
    assert_eq!(skipped, [0.0, 1.0, 2.0, 2.0, 2.0]);
    assert_eq!(trainer.steps_done(), 5);
}

#[test]
fn three_skipped_steps_in_a_row_end_the_run_and_keep_its_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = flaky(2..9);
    let run = rlvr::train::RunConfig {
        steps: 9,
        checkpoints: Some(rlvr::train::RunCheckpoints {
            folder: folder.path().into(),
            every: 1,
            keep: 9,
        }),
        ..rlvr::train::RunConfig::default()
    };
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mut history = rlvr::train::observer::History::new();
    let error = trainer.run(&run, &mut history, &stop).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("the policy loss") && error.contains("step 5"),
        "{error}"
    );
    assert_eq!(trainer.steps_done(), 4);
    let latest = rlvr::train::latest_checkpoint(folder.path())
        .unwrap()
        .unwrap();
    assert!(latest.ends_with("step-00000004"), "{latest:?}");
    // A checkpoint keeps the number of consecutive skips.
    let mut resumed = flaky(0..9);
    resumed.load_checkpoint(latest).unwrap();
    assert_eq!(
        toy::weights(resumed.policy()),
        toy::weights(trainer.policy())
    );
    assert!(resumed.step().is_err());
}
