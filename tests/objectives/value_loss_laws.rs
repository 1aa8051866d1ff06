//! Laws of the value loss on any batch: the formula, its gradient, and invariance under splitting,
//! padding and reordering.

use burn::tensor::Device;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rlvr::loss::{Aggregation, LossMetrics, StepCounts, ValueLossConfig, value_loss};

use crate::common::{assert_close, devices, floats, matrix};

#[derive(Clone, Copy, Debug)]
struct Cell {
    mask: bool,
    value: f64,
    old: f64,
    target: f64,
}

type Rows = Vec<Vec<Cell>>;

const RANGE: f64 = 0.25;

fn every_config() -> Vec<ValueLossConfig> {
    let aggregations = [
        Aggregation::TokenMean,
        Aggregation::TokenSum,
        Aggregation::SequenceMeanTokenMean,
        Aggregation::SequenceMeanTokenSum,
        Aggregation::Constant { length: 7 },
    ];
    let with = |clip_range| {
        aggregations.map(|aggregation| ValueLossConfig {
            clip_range,
            aggregation,
        })
    };
    [with(None), with(Some(RANGE))].concat()
}

/// The value that the clip allows.
fn near(cell: &Cell) -> f64 {
    cell.value.clamp(cell.old - RANGE, cell.old + RANGE)
}

/// Whether a kink is near: at the bounds, and where both errors are equal beyond them.
fn on_a_kink(cell: &Cell) -> bool {
    let moved = (cell.value - cell.old).abs();
    let errors = (cell.value - cell.target).abs() - (near(cell) - cell.target).abs();
    (moved - RANGE).abs() < 0.02 || (moved > RANGE && errors.abs() < 0.02)
}

prop_compose! {
    /// Multiples of 1/1024: exact in f32, as are their differences.
    fn cell()(
        mask in prop::bool::weighted(0.8),
        value in -2048i32..2048,
        moved in -700i32..700,
        error in -1024i32..1024,
    ) -> Cell {
        let [value, moved, error] = [value, moved, error].map(|x| f64::from(x) / 1024.0);
        Cell { mask, value, old: value - moved, target: value - error }
    }
}

fn rows() -> impl Strategy<Value = Rows> {
    let cell = cell().prop_filter("kink", |cell| !on_a_kink(cell));
    prop::collection::vec(prop::collection::vec(cell, 0..12), 1..6)
        .prop_filter("no token", |rows| rows.iter().flatten().any(|c| c.mask))
}

fn counts(rows: &Rows) -> StepCounts {
    let tokens = |row: &Vec<Cell>| row.iter().filter(|cell| cell.mask).count();
    StepCounts::of(&rows.iter().map(tokens).collect::<Vec<_>>())
}

/// Loss, gradients row by row, and metrics; rows are filled up with `filler`.
fn evaluate(
    config: &ValueLossConfig,
    rows: &Rows,
    counts: StepCounts,
    filler: Cell,
    device: &Device,
) -> (f64, Vec<Vec<f64>>, LossMetrics) {
    let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let tensor = |of: fn(&Cell) -> f64| {
        let filled: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| {
                let cells = row.iter().chain(std::iter::repeat(&filler));
                cells.take(width).map(of).collect()
            })
            .collect();
        matrix(&filled, device)
    };
    let values = tensor(|cell| cell.value).autodiff().require_grad();
    let loss = value_loss(
        &values,
        &tensor(|cell| cell.old),
        &tensor(|cell| cell.target),
        &tensor(|cell| f64::from(cell.mask)),
        config,
        counts,
    )
    .unwrap();
    let gradient = floats(values.grad(&loss.loss.backward()).unwrap());
    (
        floats(loss.loss)[0],
        gradient.chunks_exact(width).map(<[f64]>::to_vec).collect(),
        loss.sums.read().unwrap(),
    )
}

const NOTHING: Cell = Cell {
    mask: false,
    value: 0.0,
    old: 0.0,
    target: 0.0,
};

/// The loss in f64, one token at a time.
fn formula(config: &ValueLossConfig, rows: &Rows, counts: StepCounts) -> f64 {
    let (tokens, sequences) = (counts.tokens as f64, counts.sequences as f64);
    let mut loss = 0.0;
    for row in rows {
        let own: Vec<&Cell> = row.iter().filter(|cell| cell.mask).collect();
        for cell in &own {
            let mut error = (cell.value - cell.target).abs();
            if config.clip_range.is_some() {
                error = error.max((near(cell) - cell.target).abs());
            }
            loss += 0.5 * error * error
                / match config.aggregation {
                    Aggregation::TokenMean => tokens,
                    Aggregation::TokenSum => 1.0,
                    Aggregation::SequenceMeanTokenMean => own.len() as f64 * sequences,
                    Aggregation::SequenceMeanTokenSum => sequences,
                    Aggregation::Constant { length } => sequences * length as f64,
                    Aggregation::PromptMean => unreachable!("refused for a critic"),
                };
        }
    }
    loss
}

fn hold<S: Strategy>(strategy: impl Fn() -> S, law: impl Fn(&ValueLossConfig, &Device, &S::Value)) {
    let devices = devices();
    for config in every_config() {
        let runner = Config {
            failure_persistence: None,
            max_shrink_iters: 200,
            ..Config::with_cases(24)
        };
        let result = TestRunner::new(runner).run(&strategy(), |drawn| {
            for (_, device) in &devices {
                law(&config, device, &drawn);
            }
            Ok(())
        });
        if let Err(error) = result {
            panic!("{config:?}\n{error}");
        }
    }
}

fn assert_row(got: &[f64], want: &[f64], what: &str) {
    for (got, want) in got.iter().zip(want) {
        assert_close(*got, *want, 1e-5, 1e-7, what);
    }
}

#[test]
fn value_and_gradient_match_the_formula() {
    hold(rows, |config, device, rows| {
        let counts = StepCounts {
            tokens: counts(rows).tokens + 5,
            sequences: rows.len() + 2,
        };
        let (loss, gradient, metrics) = evaluate(config, rows, counts, NOTHING, device);
        assert_close(loss, formula(config, rows, counts), 1e-5, 1e-6, "loss");
        assert_eq!(metrics.sum("value_loss").unwrap(), loss);
        let step = 1e-5;
        for (b, row) in rows.iter().enumerate() {
            for t in 0..row.len() {
                let at = |by: f64| {
                    let mut rows = rows.clone();
                    rows[b][t].value += by;
                    formula(config, &rows, counts)
                };
                let want = (at(step) - at(-step)) / (2.0 * step);
                assert_close(gradient[b][t], want, 1e-4, 1e-6, "gradient");
            }
        }
        let worse = |cell: &&Cell| {
            cell.mask && (near(cell) - cell.target).abs() > (cell.value - cell.target).abs()
        };
        let clipped = rows.iter().flatten().filter(worse).count() as f64;
        let want = config.clip_range.map(|_| clipped);
        assert_eq!(metrics.sum("value_clip"), want);
    });
}

#[test]
fn splitting_padding_and_reordering_change_nothing() {
    let drawn = || {
        let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e38];
        let poison = prop::collection::vec(prop::sample::select(values.to_vec()), 3);
        rows().prop_flat_map(move |rows| {
            let order: Vec<usize> = (0..rows.len()).collect();
            let cut = 0..rows.len();
            (Just(rows), Just(order).prop_shuffle(), cut, poison.clone())
        })
    };
    hold(drawn, |config, device, (rows, order, cut, poison)| {
        let counts = counts(rows);
        let (loss, gradient, _) = evaluate(config, rows, counts, NOTHING, device);

        let poisoned = Cell {
            mask: false,
            value: poison[0],
            old: poison[1],
            target: poison[2],
        };
        let mut padded = rows.clone();
        for cell in padded.iter_mut().flatten().filter(|cell| !cell.mask) {
            *cell = poisoned;
        }
        padded.push(vec![poisoned; 14]);
        let (same, wide, _) = evaluate(config, &padded, counts, poisoned, device);
        assert_close(same, loss, 1e-6, 1e-6, "padded loss");
        for (b, row) in padded.iter().enumerate() {
            for t in 0..14 {
                let token = row.get(t).is_some_and(|cell| cell.mask);
                let want = if token { gradient[b][t] } else { 0.0 };
                let rtol = if token { 1e-5 } else { 0.0 };
                assert_close(wide[b][t], want, rtol, 0.0, "gradient beside padding");
            }
        }

        let mut sum = 0.0;
        for part in [&order[..*cut], &order[*cut..]] {
            if part.is_empty() {
                continue;
            }
            let micro: Rows = part.iter().map(|&b| rows[b].clone()).collect();
            let (share, own, _) = evaluate(config, &micro, counts, NOTHING, device);
            sum += share;
            for (own, &b) in own.iter().zip(part) {
                assert_row(own, &gradient[b], "gradient of a micro-batch");
            }
        }
        assert_close(sum, loss, 1e-5, 1e-6, "sum of the shares");
    });
}

#[test]
fn invalid_settings_and_shapes_are_errors() {
    let (_, device) = devices().remove(0);
    let of = |width: usize| matrix(&[vec![1.0; width]], &device);
    let refusal = |config: &ValueLossConfig, widths: [usize; 4]| {
        let [values, old, returns, mask] = widths.map(of);
        value_loss(&values, &old, &returns, &mask, config, StepCounts::of(&[2]))
            .unwrap_err()
            .to_string()
    };
    for range in [0.0, -0.2, f64::NAN, f64::INFINITY] {
        let config = ValueLossConfig {
            clip_range: Some(range),
            ..ValueLossConfig::default()
        };
        let message = refusal(&config, [2; 4]);
        assert!(message.contains("value_loss.clip_range"), "{message}");
        assert!(message.contains("above 0, or none"), "{message}");
    }
    let config = ValueLossConfig {
        aggregation: Aggregation::Constant { length: 0 },
        ..ValueLossConfig::default()
    };
    let message = refusal(&config, [2; 4]);
    assert!(message.contains("aggregation.constant.length"), "{message}");
    let config = ValueLossConfig {
        aggregation: Aggregation::PromptMean,
        ..ValueLossConfig::default()
    };
    let message = refusal(&config, [2; 4]);
    for part in [
        "value_loss.aggregation`: prompt_mean",
        "the value loss has no prompts",
    ] {
        assert!(message.contains(part), "{message}");
    }
    for (widths, field) in [
        ([2, 3, 2, 2], "old_values"),
        ([2, 2, 3, 2], "returns"),
        ([2, 2, 2, 3], "mask"),
    ] {
        let want = format!("{field}: got [1, 3], expected [1, 2], as values");
        assert_eq!(refusal(&ValueLossConfig::default(), widths), want);
    }
}
