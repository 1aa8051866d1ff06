//! The updates of a step: their number, their tokens, and invariance under splitting.

use std::sync::{Arc, Mutex};

use burn::module::Module;
use burn::tensor::Tensor;
use rlvr::advantage::{Estimator, GroupMean};
use rlvr::loss::{KlEstimator, KlPenalty, PolicyObjective};
use rlvr::policy::causal::CausalModel;
use rlvr::policy::{KvCache, PolicyModel, TokenBatch};
use rlvr::prompt::Problem;
use rlvr::rollout::{
    Completion, FinishReason, GenerationConfig, GenerationRequest, LocalEngine, RolloutEngine,
};
use rlvr::train::observer::StepRecord;
use rlvr::train::{OptimizerConfig, Trainer, TrainerConfig};

use crate::common::toy;
use crate::common::{assert_close, devices};

/// Objectives with every kind of denominator, with and without terms beside the surrogate.
fn objectives() -> Vec<(&'static str, TrainerConfig)> {
    let with = |objective| TrainerConfig {
        objective,
        ..toy::config()
    };
    let k2 = KlPenalty::new(0.1, KlEstimator::K2);
    vec![
        ("grpo", with(PolicyObjective::grpo())),
        ("dapo", with(PolicyObjective::dapo())),
        (
            "dr_grpo",
            TrainerConfig {
                advantage: Estimator::GroupMean(GroupMean::default()),
                ..with(PolicyObjective::dr_grpo(4))
            },
        ),
        (
            "with entropy and k2",
            with(
                PolicyObjective::dapo()
                    .with_entropy_coef(0.05)
                    .with_kl(Some(k2)),
            ),
        ),
        ("ppo", toy::ppo_config()),
    ]
}

/// The weights and the record of the first step for some micro-batch size.
fn first_step(
    config: &TrainerConfig,
    micro_batch: usize,
    logit_chunk: usize,
    device: &burn::tensor::Device,
) -> (Vec<f64>, StepRecord) {
    let config = TrainerConfig {
        micro_batch,
        logit_chunk,
        // AdamW divides the gradient by its own size. A large epsilon avoids dividing rounding
        // errors by rounding errors.
        optimizer: OptimizerConfig {
            epsilon: 1e-3,
            ..config.optimizer
        },
        ..config.clone()
    };
    let mut trainer = toy::trainer(&config, 3, device);
    let record = trainer.step().unwrap();
    (toy::weights(trainer.policy()), record)
}

#[test]
fn the_micro_batch_size_changes_nothing() {
    for (at, (backend, device)) in devices().into_iter().enumerate() {
        let start = toy::weights(&toy::policy(3, &device));
        let sizes = [(5, 7), (1, 1000), (5, 1000), (1000, 1), (1000, 7)];
        // The second backend needs no second survey of sizes.
        let sizes = if at == 0 { &sizes[..] } else { &sizes[..1] };
        for (name, config) in objectives() {
            let (want, whole) = first_step(&config, 1000, 1000, &device);
            let moved = toy::distance(&want, &start);
            assert!(moved > 1e-3, "{name}: the step moved by {moved} only");
            for &(micro_batch, chunk) in sizes {
                let (got, record) = first_step(&config, micro_batch, chunk, &device);
                let what = format!("{backend} {name} micro-batch {micro_batch} chunk {chunk}");
                let apart = toy::distance(&got, &want);
                assert!(apart < 1e-5, "{what}: {apart}");
                for metric in ["loss", "grad_norm", "value/loss", "value/grad_norm"] {
                    if let Some(want) = whole.get(metric) {
                        let got = toy::metric(&record, metric);
                        assert_close(got, want, 1e-4, 1e-5, &format!("{what} {metric}"));
                    }
                }
            }
        }
    }
}

#[test]
fn the_micro_batch_size_changes_nothing_over_several_passes() {
    let config = TrainerConfig {
        passes: 2,
        updates_per_pass: 2,
        ..toy::config()
    };
    let device = toy::device();
    let (want, _) = first_step(&config, 1000, 1000, &device);
    for micro_batch in [1, 5] {
        let (got, _) = first_step(&config, micro_batch, 1000, &device);
        let apart = toy::distance(&got, &want);
        assert!(apart < 1e-5, "micro-batch {micro_batch}: {apart}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
            toy::steps(&mut trainer, 2);
            let rollouts: Vec<_> = trainer
                .last_rollouts()
                .rollouts()
                .map(|rollout| (rollout.tokens.clone(), rollout.log_probs.clone()))
                .collect();
            (rollouts, toy::weights(trainer.policy()))
        })
    };
    let one = on(1);
    assert!(one == on(2) && one == on(3));
}

// ---- token budgets -------------------------------------------------------------------------------

/// A policy that records rows and width of forward passes with more than one token per row.
#[derive(Module, Debug)]
struct Watched {
    inner: CausalModel,
    #[module(skip)]
    passes: Arc<Mutex<Vec<[usize; 2]>>>,
}

impl PolicyModel for Watched {
    crate::passed_on_to_inner!();

    fn forward(&self, tokens: &TokenBatch, cache: &mut KvCache) -> rlvr::Result<Tensor<3>> {
        let hidden = self.inner.forward(tokens, cache)?;
        if hidden.is_autodiff() {
            let shape = [tokens.rows(), tokens.width()];
            self.passes.lock().unwrap().push(shape);
        }
        Ok(hidden)
    }
}

/// Rows and width of the first update's forward passes of completions, the narrowest first, and the
/// weights after it.
fn watched(config: &TrainerConfig) -> (Vec<[usize; 2]>, Vec<f64>) {
    let passes = Arc::default();
    let policy = Watched {
        inner: toy::policy(3, &toy::device()),
        passes: Arc::clone(&passes),
    };
    // Prompts of one token have no prefix, so every pass is one of completions.
    let problems = ["a", "b", "c", "d"].map(|prompt| Problem::new(prompt, prompt));
    let mut trainer = Trainer::builder(policy, toy::tokenizer())
        .config(config.clone())
        .rewards(toy::rewards())
        .problems(problems)
        .build()
        .unwrap();
    trainer.step().unwrap();
    let mut seen = std::mem::take(&mut *passes.lock().unwrap());
    // Several threads compute them in any order.
    seen.sort_by_key(|&[rows, width]| (width, rows));
    (seen, toy::weights(&trainer.policy().inner))
}

#[test]
fn micro_batches_are_of_similar_length_and_keep_the_token_budget() {
    let config = |micro_batch, max_tokens_per_micro_batch| TrainerConfig {
        // Rows without an advantage are left out; this objective has a gradient at all of them.
        objective: PolicyObjective::dapo().with_entropy_coef(0.01),
        micro_batch,
        max_tokens_per_micro_batch,
        optimizer: OptimizerConfig {
            epsilon: 1e-3,
            ..toy::optimizer(0.02)
        },
        ..toy::config()
    };
    let (whole, want) = watched(&config(1000, None));
    // A small model: at most 16 completions for each thread.
    assert_eq!(
        whole.iter().map(|[rows, _]| rows).collect::<Vec<_>>(),
        [&16, &16]
    );
    let padded = |passes: &[[usize; 2]]| {
        passes
            .iter()
            .map(|[rows, width]| rows * width)
            .sum::<usize>()
    };

    let (sorted, weights) = watched(&config(4, None));
    assert_eq!(sorted.len(), 8);
    assert!(padded(&sorted) < padded(&whole), "{sorted:?}");
    assert!(toy::distance(&weights, &want) < 1e-5);

    // One token of prompt for each.
    let (budget, weights) = watched(&config(1000, Some(20)));
    assert!(
        budget.iter().all(|[rows, width]| rows * (width + 1) <= 20),
        "{budget:?}"
    );
    assert_eq!(budget.iter().map(|[rows, _]| rows).sum::<usize>(), 32);
    assert!(toy::distance(&weights, &want) < 1e-5);
    // Less than any completion has: each is a separate micro-batch.
    let (alone, weights) = watched(&config(1000, Some(1)));
    assert_eq!(alone.len(), 32);
    assert!(toy::distance(&weights, &want) < 1e-5);
}

/// The number of updates of a step, from the policy version of the next step's rollouts.
fn updates_of_a_step(config: &TrainerConfig) -> u64 {
    let mut trainer = toy::trainer(config, 0, &toy::device());
    toy::steps(&mut trainer, 1);
    let version = |trainer: &toy::Rl| {
        let mut versions = trainer.last_rollouts().rollouts().map(|r| r.policy_version);
        let first = versions.next().unwrap();
        assert!(versions.all(|version| version == first));
        first
    };
    assert_eq!(version(&trainer), 0);
    toy::steps(&mut trainer, 1);
    version(&trainer)
}

#[test]
fn a_step_makes_passes_times_updates_per_pass_updates() {
    for (passes, updates_per_pass) in [(1, 1), (3, 1), (1, 4), (3, 2)] {
        let config = TrainerConfig {
            passes,
            updates_per_pass,
            ..toy::config()
        };
        let want = passes * updates_per_pass as u64;
        assert_eq!(updates_of_a_step(&config), want);
        assert_eq!(config.updates_per_step(), want);
    }
}

#[test]
fn a_step_makes_as_many_updates_when_the_groups_do_not_divide_evenly() {
    for (problems_per_step, updates_per_pass) in [(4, 3), (5, 4), (7, 5)] {
        let config = TrainerConfig {
            problems_per_step,
            updates_per_pass,
            ..toy::config()
        };
        assert_eq!(updates_of_a_step(&config), updates_per_pass as u64);
    }
}

#[test]
fn the_schedule_counts_updates_not_steps() {
    let mut config = TrainerConfig {
        passes: 2,
        updates_per_pass: 2,
        ..toy::config()
    };
    config.optimizer.schedule.warmup = 10;
    let records = toy::steps(&mut toy::trainer(&config, 0, &toy::device()), 3);
    let rates: Vec<f64> = records
        .iter()
        .map(|record| toy::metric(record, "learning_rate"))
        .collect();
    // The last update of each step: the 4th, the 8th, the 12th.
    for (got, want) in rates.iter().zip([0.4, 0.8, 1.0]) {
        assert_close(*got, want * 0.02, 1e-12, 0.0, "learning rate");
    }
}

#[test]
fn a_single_update_is_on_policy_to_the_last_bit() {
    for (name, config) in objectives() {
        let config = TrainerConfig {
            optimizer: toy::optimizer(0.1),
            ..config
        };
        for record in toy::steps(&mut toy::trainer(&config, 0, &toy::device()), 3) {
            for metric in [
                "clip_ratio/region_mean",
                "clip_ratio/low_mean",
                "clip_ratio/high_mean",
                "policy/approx_kl",
            ] {
                assert_eq!(toy::metric(&record, metric), 0.0, "{name} {metric}");
            }
            assert_eq!(toy::metric(&record, "policy/ratio_mean"), 1.0, "{name}");
        }
    }
}

#[test]
fn many_passes_with_a_large_rate_leave_the_clip_range() {
    let config = TrainerConfig {
        passes: 8,
        optimizer: toy::optimizer(0.1),
        ..toy::config()
    };
    let record = toy::steps(&mut toy::trainer(&config, 0, &toy::device()), 1).remove(0);
    let region = toy::metric(&record, "clip_ratio/region_mean");
    assert!(region > 0.01 && region < 1.0, "{region}");
    let sides = ["low", "high"].map(|s| toy::metric(&record, &format!("clip_ratio/{s}_mean")));
    assert!(sides.iter().all(|&side| side > 0.0), "{sides:?}");
    assert_close(region, sides[0] + sides[1], 1e-12, 0.0, "region");
    let moved = toy::metric(&record, "policy/approx_kl");
    assert!(moved > 1e-3, "{moved}");

    // A range that nothing leaves clips nothing.
    let wide = TrainerConfig {
        objective: PolicyObjective::deepseek_r1(),
        ..config
    };
    let record = toy::steps(&mut toy::trainer(&wide, 0, &toy::device()), 1).remove(0);
    assert_eq!(toy::metric(&record, "clip_ratio/low_mean"), 0.0);
    assert!(toy::metric(&record, "policy/approx_kl") > 1e-3);
}

/// An engine whose completions are all truncated.
struct Endless;

impl RolloutEngine<CausalModel> for Endless {
    fn generate(
        &mut self,
        policy: &CausalModel,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> rlvr::Result<Vec<Vec<Completion>>> {
        let mut answers = LocalEngine.generate(policy, version, requests, config)?;
        for completion in answers.iter_mut().flatten() {
            completion.finish = FinishReason::Length;
        }
        Ok(answers)
    }
}

#[test]
fn masking_all_completions_leaves_the_weights_unchanged() {
    for config in [
        toy::config(),
        TrainerConfig {
            advantage: toy::ppo_config().advantage,
            ..toy::config()
        },
    ] {
        let run = |mask_truncated| {
            let config = TrainerConfig {
                mask_truncated,
                passes: 2,
                ..config.clone()
            };
            let builder = toy::builder(&config, 0, &toy::device())
                .rewards(toy::rewards())
                .problems(toy::problems());
            let mut trainer = builder.engine(Endless).build().unwrap();
            let start = toy::weights(trainer.policy());
            let records = toy::steps(&mut trainer, 2);
            for record in &records {
                assert_eq!(toy::metric(record, "completions/clipped_ratio"), 1.0);
                assert!(toy::metric(record, "reward_std") > 0.0);
            }
            toy::distance(&toy::weights(trainer.policy()), &start)
        };
        assert_eq!(run(true), 0.0);
        // Without the mask the weights change.
        assert!(run(false) > 1e-3);
    }
}

#[test]
fn masking_excludes_only_truncated_completions() {
    let step = |mask_truncated| {
        let config = TrainerConfig {
            mask_truncated,
            ..toy::config()
        };
        let mut trainer = toy::trainer(&config, 0, &toy::device());
        let record = trainer.step().unwrap();
        (record, toy::weights(trainer.policy()))
    };
    let ((masked, with), (plain, without)) = (step(true), step(false));
    let clipped = toy::metric(&masked, "completions/clipped_ratio");
    assert!(clipped > 0.1 && clipped < 0.9, "{clipped}");
    assert!(toy::metric(&masked, "grad_norm") > 0.0);
    assert!(toy::distance(&with, &without) > 1e-3);
    // The metrics of rollouts cover all of them in both cases.
    for name in ["reward", "completions/mean_length", "entropy"] {
        assert_eq!(masked.get(name), plain.get(name));
    }
}

#[test]
fn a_step_without_signal_changes_nothing() {
    let config = TrainerConfig {
        objective: PolicyObjective::dapo(),
        ..toy::config()
    };
    let same = rlvr::reward::RewardSet::builder()
        .add(
            1.0,
            rlvr::reward::FnReward::new("accuracy", |_| Ok(Some(0.7))),
        )
        .build()
        .unwrap();
    let mut trainer = toy::build(&config, 0, &toy::device(), same, toy::problems()).unwrap();
    let start = toy::weights(trainer.policy());
    let record = trainer.step().unwrap();
    assert_eq!(toy::weights(trainer.policy()), start);
    assert_eq!(toy::metric(&record, "frac_reward_zero_std"), 1.0);
    assert_eq!(toy::metric(&record, "grad_norm"), 0.0);
}
