//! Splitting, reordering and padding the rollouts of a step changes nothing.

use std::sync::OnceLock;

use burn::tensor::Device;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rlvr::loss::{ClipCov, KlCov, LossInput, LossMetrics, PolicyObjective, StepCounts, Surrogate};

use super::batch::{Cell, Outcome, POISON, Row, input, small_batch, width};
use super::covering::covering;
use super::parts::Parts;
use crate::common::{assert_close, devices};

// ---- drawn steps -------------------------------------------------------------------------------

fn exact(x: f64) -> f64 {
    (x * 1024.0).round() / 1024.0
}

fn signed(low: f64, high: f64) -> impl Strategy<Value = f64> {
    (low..high, any::<bool>()).prop_map(|(x, negative)| exact(if negative { -x } else { x }))
}

prop_compose! {
    pub fn cell()(
        mask in prop::bool::weighted(0.8),
        log_prob in -3.0..-0.05,
        moved in signed(0.01, 0.9),
        sampled in prop::option::weighted(0.9, signed(0.01, 0.9)),
        away in signed(0.1, 1.0),
        entropy in 0.0..2.5,
        advantage in signed(0.2, 2.0),
    ) -> Cell {
        let (log_prob, old) = (exact(log_prob), exact(log_prob) - moved);
        Cell {
            mask,
            log_prob,
            old,
            reference: log_prob + away,
            sampler: sampled.map_or(f64::NAN, |sampled| old - sampled),
            entropy: exact(entropy),
            advantage,
        }
    }
}

/// Ragged rows of up to three prompts, some of them empty, with holes in the mask; at least one
/// token.
pub fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0usize..3, prop::collection::vec(cell(), 0..6))
        .prop_map(|(prompt, cells)| Row { prompt, cells });
    prop::collection::vec(row, 1..6).prop_filter("no token", |rows| {
        rows.iter().any(|row| row.tokens().count() > 0)
    })
}

/// Objectives that contain every pair of choices, and those with step-wide statistics in all
/// combinations.
pub fn objectives() -> &'static [PolicyObjective] {
    static ALL: OnceLock<Vec<PolicyObjective>> = OnceLock::new();
    ALL.get_or_init(build)
}

fn build() -> Vec<PolicyObjective> {
    let parts = Parts::all();
    let chosen = covering(&parts, 2).into_iter();
    let mut all: Vec<PolicyObjective> = chosen.map(|places| parts.objective(places)).collect();
    // A share of the tokens, so that there is a random selection and a ranking.
    let few_cov = Surrogate::ClipCov(ClipCov {
        ratio: 0.25,
        lower: -0.5,
        ..ClipCov::default()
    });
    let few_kl = Surrogate::KlCov(KlCov {
        ratio: 0.25,
        coef: 1.0,
    });
    for surrogate in [few_cov, few_kl] {
        // Prompt mean, corrected KL, normalised weights with rejections, mask, selection, bonus.
        let base = parts.objective([0, 0, 5, 7, 10, 1, 1, 1, 0]);
        all.push(base.clone().with_surrogate(surrogate.clone()));
        all.push(PolicyObjective::dapo().with_surrogate(surrogate));
    }
    all
}

/// Runs a law on drawn steps for every objective, on every backend.
pub fn hold<S: Strategy>(
    strategy: impl Fn() -> S,
    law: impl Fn(&PolicyObjective, &Device, &S::Value),
) {
    for (backend, device) in devices() {
        for objective in objectives() {
            // One step each: there are hundreds of objectives.
            let config = Config {
                failure_persistence: None,
                max_shrink_iters: 200,
                ..Config::with_cases(1)
            };
            let result = TestRunner::new(config).run(&strategy(), |drawn| {
                law(objective, &device, &drawn);
                Ok(())
            });
            if let Err(error) = result {
                panic!("{backend} {objective:?}\n{error}");
            }
        }
    }
}

/// The gradients of row `a` of one outcome are those of row `b` of another, as far as both have
/// columns.
fn assert_row(got: &Outcome, a: usize, want: &Outcome, b: usize, what: &str) {
    let scale = want.scale();
    for (got, want) in [
        (&got.log_probs[a], &want.log_probs[b]),
        (&got.entropies[a], &want.entropies[b]),
    ] {
        for (got, want) in got.iter().zip(want) {
            assert_close(*got, *want, 2e-6, 2e-6 * scale, what);
        }
    }
}

fn assert_sums(got: &LossMetrics, want: &Outcome, what: &str) {
    let scale = want.scale();
    for name in [
        "tokens",
        "loss",
        "policy_loss",
        "ratio",
        "kl",
        "entropy",
        "approx_kl",
    ] {
        let (got, want) = (got.sum(name).unwrap(), want.metrics.sum(name).unwrap());
        assert_close(got, want, 1e-5, 2e-6 * scale, &format!("{name} {what}"));
    }
    for name in ["clip", "bounded", "kept", "selected", "phi"] {
        let (got, want) = (got.sum(name), want.metrics.sum(name));
        match want {
            Some(want) => assert_close(got.unwrap(), want, 1e-5, 1e-5, name),
            None => assert_eq!(got, None, "{name} {what}"),
        }
    }
}

// ---- the laws ----------------------------------------------------------------------------------

#[test]
fn the_losses_of_any_micro_batches_add_up_to_the_whole() {
    let split = || (rows(), prop::collection::vec(0usize..3, 6));
    hold(split, |objective, device, (rows, places)| {
        let whole = Outcome::whole(objective, rows, device);
        // Each part is as wide as its own longest row.
        let parts: Vec<Vec<usize>> = (0..3)
            .map(|part| (0..rows.len()).filter(|&b| places[b] == part).collect())
            .filter(|part: &Vec<usize>| !part.is_empty())
            .collect();
        let inputs: Vec<LossInput> = parts
            .iter()
            .map(|part| {
                let own: Vec<Row> = part.iter().map(|&b| rows[b].clone()).collect();
                input(&own, device)
            })
            .collect();
        let step = objective.statistics(&inputs).unwrap();
        let mut sum = 0.0;
        let mut metrics = LossMetrics::default();
        for (part, input) in parts.iter().zip(&inputs) {
            let got = Outcome::of(objective, input, &step);
            sum += got.loss;
            metrics.merge(&got.metrics);
            for (at, &b) in part.iter().enumerate() {
                assert_row(&got, at, &whole, b, "gradient of a micro-batch");
            }
        }
        assert_close(sum, whole.loss, 2e-6, 2e-6 * whole.scale(), "loss");
        assert_sums(&metrics, &whole, "of micro-batches");
    });
}

#[test]
fn padding_and_empty_completions_have_no_effect() {
    let drawn = || {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e38];
        let poison = prop::collection::vec(prop::sample::select(values.to_vec()), 6);
        (rows(), poison, 0usize..4, 0usize..3)
    };
    hold(
        drawn,
        |objective, device, (rows, poison, columns, extra)| {
            let plain = Outcome::whole(objective, rows, device);
            let poisoned = Cell {
                mask: false,
                log_prob: poison[0],
                old: poison[1],
                reference: poison[2],
                sampler: poison[3],
                entropy: poison[4],
                advantage: poison[5],
            };
            let wide = width(rows) + columns;
            let mut padded = rows.clone();
            let empty = Row {
                prompt: 9,
                cells: vec![POISON],
            };
            padded.resize(rows.len() + extra, empty);
            for row in &mut padded {
                row.cells.resize(wide, poisoned);
                for cell in row.cells.iter_mut().filter(|cell| !cell.mask) {
                    *cell = poisoned;
                }
            }
            let got = Outcome::whole(objective, &padded, device);
            assert_close(got.loss, plain.loss, 2e-6, 2e-6 * plain.scale(), "loss");
            for b in 0..rows.len() {
                assert_row(&got, b, &plain, b, "gradient beside padding");
            }
            for (b, row) in padded.iter().enumerate() {
                for t in (0..wide).filter(|&t| !row.cells[t].mask) {
                    assert_eq!(got.log_probs[b][t], 0.0, "log-prob gradient at padding");
                    assert_eq!(got.entropies[b][t], 0.0, "entropy gradient at padding");
                }
            }
            assert_sums(&got.metrics, &plain, "beside padding");
        },
    );
}

#[test]
fn reordering_the_rollouts_reorders_the_gradient() {
    let shuffled = || {
        rows().prop_flat_map(|rows| {
            let order: Vec<usize> = (0..rows.len()).collect();
            (Just(rows), Just(order).prop_shuffle())
        })
    };
    hold(shuffled, |objective, device, (rows, order)| {
        let want = Outcome::whole(objective, rows, device);
        let moved: Vec<Row> = order.iter().map(|&b| rows[b].clone()).collect();
        let got = Outcome::whole(objective, &moved, device);
        assert_close(got.loss, want.loss, 2e-6, 2e-6 * want.scale(), "loss");
        for (at, &b) in order.iter().enumerate() {
            assert_row(&got, at, &want, b, "gradient");
        }
        assert_sums(&got.metrics, &want, "of reordered rows");
    });
}

#[test]
fn step_wide_statistics_are_required_for_a_micro_batch() {
    let parts = Parts::all();
    let (_, device) = devices().remove(0);
    let row = small_batch();
    let input = input(&row, &device);
    let counts = StepCounts {
        tokens: 7,
        sequences: 3,
    };
    let mut refused = 0;
    for places in parts.one_by_one() {
        let objective = parts.objective(places);
        let step = objective.statistics(std::slice::from_ref(&input)).unwrap();
        let needs = step.entropy_threshold.is_some()
            || step.weight_mean.is_some()
            || step.prompt_tokens.is_some()
            || step.surrogate.is_some();
        match objective.loss(&input, counts) {
            Ok(_) => assert!(!needs, "{objective:?}"),
            Err(error) => {
                refused += 1;
                let message = error.to_string();
                assert!(needs && message.contains("`statistics."), "{message}");
                assert!(message.contains("PolicyObjective::statistics"), "{message}");
            }
        }
    }
    assert!(refused > 50, "{refused}");
}
