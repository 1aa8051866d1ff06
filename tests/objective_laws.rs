//! What must hold for every composition of an objective on any batch: the formula and its gradient, and that splitting,
//! padding and reordering the rollouts of a step changes nothing.

mod common;

use burn::tensor::{Device, Tensor};
use common::{assert_close, devices, floats, matrix};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rlvr::loss::{
    Aggregation, KlEstimator, KlPenalty, LossInput, LossMetrics, PolicyObjective, PpoClip,
    RatioLevel, Reinforce, StepCounts, Surrogate,
};

// ---- the matrix of compositions ----------------------------------------------------------------

const PLAIN: PpoClip = PpoClip {
    low: 0.2,
    high: 0.2,
    delta: None,
    dual_clip: None,
};
/// Where the gradient of some surrogate below jumps; drawn ratios stay clear of them.
const KINKS: [f64; 5] = [0.8, 1.2, 1.28, 1.5, 2.0];

fn surrogates() -> [Surrogate; 5] {
    [
        Surrogate::PpoClip(PLAIN),
        Surrogate::PpoClip(PpoClip {
            high: 0.28,
            ..PLAIN
        }),
        Surrogate::PpoClip(PpoClip {
            delta: Some(2.0),
            ..PLAIN
        }),
        Surrogate::PpoClip(PpoClip {
            dual_clip: Some(1.5),
            ..PLAIN
        }),
        Surrogate::Reinforce(Reinforce {}),
    ]
}

const AGGREGATIONS: [Aggregation; 4] = [
    Aggregation::TokenMean,
    Aggregation::SequenceMeanTokenMean,
    Aggregation::SequenceMeanTokenSum,
    Aggregation::Constant { length: 7 },
];

/// Every composition that is not refused: 288 of them.
fn every_objective() -> Vec<PolicyObjective> {
    let estimators = [
        None,
        Some(KlEstimator::K1),
        Some(KlEstimator::K2),
        Some(KlEstimator::K3),
    ];
    let mut all = Vec::new();
    for surrogate in surrogates() {
        for ratio_level in [RatioLevel::Token, RatioLevel::Sequence] {
            for aggregation in AGGREGATIONS {
                for estimator in estimators {
                    for entropy_coef in [0.0, 0.01] {
                        all.push(PolicyObjective {
                            surrogate,
                            ratio_level,
                            aggregation,
                            // Large, so that a wrong KL term is not lost beside the surrogate.
                            kl: estimator.map(|estimator| KlPenalty {
                                coef: 0.5,
                                estimator,
                            }),
                            entropy_coef,
                        });
                    }
                }
            }
        }
    }
    all.retain(|objective| objective.validate().is_ok());
    all
}

#[test]
fn only_reinforce_on_sequences_is_missing_from_the_matrix() {
    let all = every_objective();
    assert_eq!(all.len(), (4 * 2 + 1) * 4 * 4 * 2);
    for objective in &all {
        let reinforce = matches!(objective.surrogate, Surrogate::Reinforce(_));
        assert!(!reinforce || objective.ratio_level == RatioLevel::Token);
    }
}

// ---- batches -----------------------------------------------------------------------------------

/// What the loss reads at one place of `[B, T]`. Numbers are multiples of 1/1024: exact in f32, as are their differences.
#[derive(Clone, Copy, Debug)]
struct Cell {
    mask: bool,
    log_prob: f64,
    old: f64,
    reference: f64,
    entropy: f64,
    advantage: f64,
}

type Rows = Vec<Vec<Cell>>;

const NOTHING: Cell = Cell {
    mask: false,
    log_prob: 0.0,
    old: 0.0,
    reference: 0.0,
    entropy: 0.0,
    advantage: 0.0,
};

fn exact(x: f64) -> f64 {
    (x * 1024.0).round() / 1024.0
}

fn signed(low: f64, high: f64) -> impl Strategy<Value = f64> {
    (low..high, any::<bool>()).prop_map(|(x, negative)| exact(if negative { -x } else { x }))
}

prop_compose! {
    fn cell()(
        mask in prop::bool::weighted(0.8),
        log_prob in -3.0..-0.05,
        moved in -1.0..1.0,
        away in signed(0.1, 1.0),
        entropy in 0.0..2.5,
        advantage in signed(0.2, 2.0),
    ) -> Cell {
        let log_prob = exact(log_prob);
        Cell {
            mask,
            log_prob,
            old: log_prob - exact(moved),
            reference: log_prob + away,
            entropy: exact(entropy),
            advantage,
        }
    }
}

/// Ragged rows, some of them empty, with holes in the mask; at least one token.
fn rows() -> impl Strategy<Value = Rows> {
    prop::collection::vec(prop::collection::vec(cell(), 0..6), 1..6)
        .prop_filter("no token", |rows| rows.iter().flatten().any(|c| c.mask))
}

fn counts(rows: &Rows) -> StepCounts {
    let tokens = |row: &Vec<Cell>| row.iter().filter(|cell| cell.mask).count();
    StepCounts::of(&rows.iter().map(tokens).collect::<Vec<_>>())
}

fn width(rows: &Rows) -> usize {
    rows.iter().map(Vec::len).max().unwrap_or(0).max(1)
}

fn mean_log_ratio(row: &[Cell]) -> f64 {
    let own: Vec<f64> = row
        .iter()
        .filter(|cell| cell.mask)
        .map(|cell| cell.log_prob - cell.old)
        .collect();
    own.iter().sum::<f64>() / own.len().max(1) as f64
}

/// The same batch with old log-probs shifted until no ratio is near a kink.
fn settled(mut rows: Rows, level: RatioLevel) -> Rows {
    let near = |log_ratio: f64| KINKS.iter().any(|k| (log_ratio.exp() - k).abs() < 0.02);
    let step = exact(0.05);
    for row in &mut rows {
        match level {
            RatioLevel::Token => {
                for cell in row {
                    while near(cell.log_prob - cell.old) {
                        cell.old -= step;
                    }
                }
            }
            RatioLevel::Sequence => {
                while near(mean_log_ratio(row)) {
                    row.iter_mut().for_each(|cell| cell.old -= step);
                }
            }
        }
    }
    rows
}

// ---- the loss of the crate ---------------------------------------------------------------------

/// Loss, gradients row by row, and metrics.
struct Outcome {
    loss: f64,
    log_probs: Vec<Vec<f64>>,
    entropies: Vec<Vec<f64>>,
    metrics: LossMetrics,
}

fn evaluate(
    objective: &PolicyObjective,
    rows: &Rows,
    counts: StepCounts,
    on_policy: bool,
    device: &Device,
) -> Outcome {
    let width = width(rows);
    let tensor = |of: fn(&Cell) -> f64| {
        let padded: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let cells = row.iter().chain(std::iter::repeat(&NOTHING));
                cells.take(width).map(of).collect()
            })
            .collect();
        matrix(&padded, device)
    };
    let log_probs = tensor(|cell| cell.log_prob).autodiff().require_grad();
    let entropies = tensor(|cell| cell.entropy).autodiff().require_grad();
    let input = LossInput {
        old_log_probs: (!on_policy).then(|| tensor(|cell| cell.old)),
        ref_log_probs: Some(tensor(|cell| cell.reference)),
        entropies: Some(entropies.clone()),
        ..LossInput::new(
            log_probs.clone(),
            tensor(|cell| cell.advantage),
            tensor(|cell| f64::from(cell.mask)),
        )
    };
    let loss = objective.loss(&input, counts).unwrap();
    let gradients = loss.loss.backward();
    let gradient = |leaf: Tensor<2>| {
        let flat = leaf.grad(&gradients).map(floats);
        let flat = flat.unwrap_or(vec![0.0; rows.len() * width]);
        flat.chunks_exact(width).map(<[f64]>::to_vec).collect()
    };
    Outcome {
        loss: floats(loss.loss)[0],
        log_probs: gradient(log_probs),
        entropies: gradient(entropies),
        metrics: loss.sums.read().unwrap(),
    }
}

/// Compares the gradients of row `a` of one outcome and row `b` of another, as far as both have columns.
fn assert_row(got: &Outcome, a: usize, want: &Outcome, b: usize, what: &str) {
    for (got, want) in [
        (&got.log_probs[a], &want.log_probs[b]),
        (&got.entropies[a], &want.entropies[b]),
    ] {
        for (got, want) in got.iter().zip(want) {
            assert_close(*got, *want, 1e-5, 2e-6, what);
        }
    }
}

/// Runs a law on batches of their own for every composition, on every backend.
fn hold<S: Strategy>(
    cases: u32,
    strategy: impl Fn() -> S,
    law: impl Fn(&PolicyObjective, &Device, &S::Value),
) {
    let devices = devices();
    for objective in every_objective() {
        let config = Config {
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::with_cases(cases)
        };
        let result = TestRunner::new(config).run(&strategy(), |drawn| {
            for (_, device) in &devices {
                law(&objective, device, &drawn);
            }
            Ok(())
        });
        if let Err(error) = result {
            panic!("{objective:?}\n{error}");
        }
    }
}

// ---- the formula, written again ----------------------------------------------------------------

/// The loss in f64, straight from the papers, one token at a time.
fn formula(objective: &PolicyObjective, rows: &Rows, counts: StepCounts) -> f64 {
    let (tokens, sequences) = (counts.tokens as f64, counts.sequences as f64);
    let mut loss = 0.0;
    for row in rows {
        let own: Vec<&Cell> = row.iter().filter(|cell| cell.mask).collect();
        for cell in &own {
            let log_ratio = match objective.ratio_level {
                RatioLevel::Token => cell.log_prob - cell.old,
                RatioLevel::Sequence => mean_log_ratio(row),
            };
            let a = cell.advantage;
            let mut term = match objective.surrogate {
                Surrogate::Reinforce(_) => -a * cell.log_prob,
                // A gain stops growing above 1 + high; a loss stops falling below 1 - low, and growing at its cap.
                Surrogate::PpoClip(clip) if a > 0.0 => -a * log_ratio.exp().min(1.0 + clip.high),
                Surrogate::PpoClip(clip) => {
                    let cap = clip.delta.or(clip.dual_clip).unwrap_or(f64::INFINITY);
                    -a * log_ratio.exp().max(1.0 - clip.low).min(cap)
                }
            };
            if let Some(kl) = objective.kl {
                let x = cell.reference - cell.log_prob;
                term += kl.coef
                    * match kl.estimator {
                        KlEstimator::K1 => -x,
                        KlEstimator::K2 => x * x / 2.0,
                        KlEstimator::K3 => x.exp() - 1.0 - x,
                    };
            }
            term -= objective.entropy_coef * cell.entropy;
            loss += term
                / match objective.aggregation {
                    Aggregation::TokenMean => tokens,
                    Aggregation::SequenceMeanTokenMean => own.len() as f64 * sequences,
                    Aggregation::SequenceMeanTokenSum => sequences,
                    Aggregation::Constant { length } => sequences * length as f64,
                };
        }
    }
    loss
}

/// The derivative of the formula in one number of the batch, by central differences in f64.
fn slope(
    objective: &PolicyObjective,
    rows: &Rows,
    counts: StepCounts,
    (b, t): (usize, usize),
    change: fn(&mut Cell, f64),
) -> f64 {
    let step = 1e-5;
    let at = |by: f64| {
        let mut rows = rows.clone();
        change(&mut rows[b][t], by);
        formula(objective, &rows, counts)
    };
    (at(step) - at(-step)) / (2.0 * step)
}

#[test]
fn value_and_gradient_are_those_of_the_formula() {
    hold(3, rows, |objective, device, rows| {
        let rows = settled(rows.clone(), objective.ratio_level);
        // Counts of a step of which these rollouts are only a part.
        let counts = StepCounts {
            tokens: counts(&rows).tokens + 5,
            sequences: rows.len() + 2,
        };
        let got = evaluate(objective, &rows, counts, false, device);
        let want = formula(objective, &rows, counts);
        assert_close(got.loss, want, 1e-5, 2e-5, "loss");
        for (b, row) in rows.iter().enumerate() {
            for t in 0..row.len() {
                let want = slope(objective, &rows, counts, (b, t), |c, by| c.log_prob += by);
                assert_close(got.log_probs[b][t], want, 1e-4, 3e-6, "log-prob gradient");
                let want = slope(objective, &rows, counts, (b, t), |c, by| c.entropy += by);
                assert_close(got.entropies[b][t], want, 1e-4, 3e-6, "entropy gradient");
            }
        }
    });
}

// ---- splitting, padding, reordering ------------------------------------------------------------

#[test]
fn the_losses_of_any_micro_batches_add_up_to_the_whole() {
    let split = || (rows(), prop::collection::vec(0usize..3, 6));
    hold(2, split, |objective, device, (rows, parts)| {
        let counts = counts(rows);
        let whole = evaluate(objective, rows, counts, false, device);
        let mut sum = 0.0;
        let mut metrics = LossMetrics::default();
        for part in 0..3 {
            let own: Vec<usize> = (0..rows.len()).filter(|&b| parts[b] == part).collect();
            if own.is_empty() {
                continue;
            }
            // Each part is as wide as its own longest row.
            let micro: Rows = own.iter().map(|&b| rows[b].clone()).collect();
            let micro = evaluate(objective, &micro, counts, false, device);
            sum += micro.loss;
            metrics.merge(&micro.metrics);
            for (at, &b) in own.iter().enumerate() {
                assert_row(&micro, at, &whole, b, "gradient of a micro-batch");
            }
        }
        assert_close(sum, whole.loss, 1e-5, 2e-5, "loss");
        for name in ["tokens", "loss", "policy_loss", "ratio", "kl", "approx_kl"] {
            let (got, want) = (metrics.sum(name), whole.metrics.sum(name));
            assert_close(got.unwrap(), want.unwrap(), 1e-5, 1e-5, name);
        }
    });
}

#[test]
fn what_stands_at_padding_is_never_looked_at() {
    let poison = || {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e38];
        let poison = prop::collection::vec(prop::sample::select(values.to_vec()), 5);
        (rows(), poison, 0usize..4, 0usize..3)
    };
    hold(
        2,
        poison,
        |objective, device, (rows, poison, columns, extra)| {
            let counts = counts(rows);
            let plain = evaluate(objective, rows, counts, false, device);
            let poisoned = Cell {
                mask: false,
                log_prob: poison[0],
                old: poison[1],
                reference: poison[2],
                entropy: poison[3],
                advantage: poison[4],
            };
            let wide = width(rows) + columns;
            let mut padded = rows.clone();
            padded.resize(rows.len() + extra, Vec::new());
            for row in &mut padded {
                row.resize(wide, poisoned);
                for cell in row.iter_mut().filter(|cell| !cell.mask) {
                    *cell = poisoned;
                }
            }
            let got = evaluate(objective, &padded, counts, false, device);
            assert_close(got.loss, plain.loss, 1e-6, 1e-5, "loss");
            for b in 0..rows.len() {
                assert_row(&got, b, &plain, b, "gradient beside padding");
            }
            for (b, row) in padded.iter().enumerate() {
                for t in (0..wide).filter(|&t| !row[t].mask) {
                    assert_eq!(got.log_probs[b][t], 0.0, "log-prob gradient at padding");
                    assert_eq!(got.entropies[b][t], 0.0, "entropy gradient at padding");
                }
            }
            for name in ["tokens", "ratio", "kl", "entropy", "approx_kl", "loss"] {
                let (got, want) = (got.metrics.sum(name), plain.metrics.sum(name));
                assert_close(got.unwrap(), want.unwrap(), 1e-6, 1e-5, name);
            }
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
    hold(2, shuffled, |objective, device, (rows, order)| {
        let counts = counts(rows);
        let want = evaluate(objective, rows, counts, false, device);
        let moved: Rows = order.iter().map(|&b| rows[b].clone()).collect();
        let got = evaluate(objective, &moved, counts, false, device);
        assert_close(got.loss, want.loss, 1e-6, 1e-5, "loss");
        for (at, &b) in order.iter().enumerate() {
            assert_row(&got, at, &want, b, "gradient");
        }
    });
}

// ---- special points ----------------------------------------------------------------------------

#[test]
fn an_objective_knows_whether_rollouts_without_advantage_have_a_gradient() {
    hold(2, rows, |objective, device, rows| {
        let mut flat = rows.clone();
        for cell in flat.iter_mut().flatten() {
            cell.advantage = 0.0;
        }
        let got = evaluate(objective, &flat, counts(&flat), false, device);
        let gradients = got.log_probs.iter().chain(&got.entropies).flatten();
        let steepest = gradients.fold(0f64, |most, gradient| most.max(gradient.abs()));
        if objective.ignores_zero_advantages() {
            assert_eq!((steepest, got.loss), (0.0, 0.0));
        } else {
            assert!(steepest > 1e-5, "steepest {steepest}");
        }
    });
}

#[test]
fn on_policy_every_surrogate_is_the_policy_gradient() {
    hold(2, rows, |objective, device, rows| {
        let mut rows = rows.clone();
        for row in &mut rows {
            // One advantage a completion: with several, a sequence ratio hands each token their mean.
            let shared = row.first().map_or(0.0, |cell| cell.advantage);
            for cell in row {
                cell.advantage = shared;
                cell.old = cell.log_prob;
            }
        }
        let counts = counts(&rows);
        let none = evaluate(objective, &rows, counts, true, device);
        let equal = evaluate(objective, &rows, counts, false, device);
        let reinforce = PolicyObjective {
            surrogate: Surrogate::Reinforce(Reinforce {}),
            ratio_level: RatioLevel::Token,
            ..*objective
        };
        let reinforce = evaluate(&reinforce, &rows, counts, true, device);
        for b in 0..rows.len() {
            assert_row(&none, b, &reinforce, b, "gradient without old log-probs");
            assert_row(&equal, b, &none, b, "gradient with equal old log-probs");
        }
        assert_eq!(none.loss, equal.loss);
        assert_eq!(none.metrics, equal.metrics);
        for clipped in ["clip_low", "clip_high"] {
            let count = none.metrics.sum(clipped);
            let clips = matches!(objective.surrogate, Surrogate::PpoClip(_));
            assert_eq!(count, clips.then_some(0.0), "{clipped}");
        }
        let tokens = counts.tokens as f64;
        assert_eq!(none.metrics.sum("ratio"), Some(tokens));
        assert_eq!(none.metrics.sum("approx_kl"), Some(0.0));
    });
}

#[test]
fn a_clip_range_of_zero_has_the_policy_gradient_on_policy() {
    // The ratio stands exactly on both bounds: neither may swallow the gradient.
    for (backend, device) in devices() {
        let cell = |log_prob: f64, advantage: f64| Cell {
            mask: true,
            log_prob,
            advantage,
            ..NOTHING
        };
        let rows = vec![vec![cell(-1.0, 2.0), cell(-0.5, -3.0)]];
        for low in [0.0, 0.2] {
            let objective = PolicyObjective {
                surrogate: Surrogate::PpoClip(PpoClip::range(low, 0.0)),
                ..PolicyObjective::ppo()
            };
            let got = evaluate(&objective, &rows, counts(&rows), true, &device);
            assert_eq!(got.log_probs, [[-1.0, 1.5]], "{backend} {low}");
        }
    }
}

#[test]
fn inputs_that_are_only_measured_change_no_gradient() {
    for (backend, device) in devices() {
        let cell = Cell {
            mask: true,
            log_prob: -1.0,
            old: -1.1,
            reference: -1.5,
            entropy: 0.75,
            advantage: 2.0,
        };
        let rows = vec![vec![cell]];
        let objective = PolicyObjective::dapo();
        let measured = evaluate(&objective, &rows, counts(&rows), false, &device);
        let leaf = matrix(&[vec![-1.0]], &device).autodiff().require_grad();
        let bare = LossInput {
            old_log_probs: Some(matrix(&[vec![-1.1]], &device)),
            ..LossInput::new(
                leaf.clone(),
                matrix(&[vec![2.0]], &device),
                matrix(&[vec![1.0]], &device),
            )
        };
        let loss = objective.loss(&bare, counts(&rows)).unwrap();
        let gradient = floats(leaf.grad(&loss.loss.backward()).unwrap());
        assert_eq!(measured.log_probs, [gradient], "{backend}");
        assert_eq!(measured.entropies, [[0.0]], "{backend}");
        let metrics = loss.sums.read().unwrap();
        assert_eq!(metrics.sum("loss"), measured.metrics.sum("loss"));
        assert_eq!((metrics.sum("kl"), metrics.sum("entropy")), (None, None));
        let k3 = (-0.5f64).exp() - 0.5;
        assert_close(measured.metrics.sum("kl").unwrap(), k3, 0.0, 1e-6, backend);
        assert_eq!(measured.metrics.sum("entropy"), Some(0.75), "{backend}");
    }
}
