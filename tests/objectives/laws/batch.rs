//! A step of rollouts as plain numbers, and the loss of the crate on it.

use burn::tensor::{Device, Tensor};
use rlvr::loss::{LossInput, LossMetrics, PolicyObjective, StepStatistics};

use crate::common::{floats, matrix};

/// The inputs of the loss at one position of `[B, T]`. Values are multiples of 1/1024: exact in
/// f32, as are their differences.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    pub mask: bool,
    pub log_prob: f64,
    pub old: f64,
    pub reference: f64,
    /// NaN: the sampler could not score the token.
    pub sampler: f64,
    pub entropy: f64,
    pub advantage: f64,
}

pub const NOTHING: Cell = Cell {
    mask: false,
    log_prob: 0.0,
    old: 0.0,
    reference: 0.0,
    sampler: 0.0,
    entropy: 0.0,
    advantage: 0.0,
};

/// The value at positions that must not be read.
pub const POISON: Cell = Cell {
    mask: false,
    log_prob: f64::NAN,
    old: f64::INFINITY,
    reference: f64::NEG_INFINITY,
    sampler: f64::NAN,
    entropy: f64::NAN,
    advantage: f64::INFINITY,
};

/// One completion.
#[derive(Clone, Debug)]
pub struct Row {
    pub prompt: usize,
    pub cells: Vec<Cell>,
}

impl Row {
    /// A completion that is alone in its prompt.
    pub fn alone(cells: Vec<Cell>) -> Self {
        Self { prompt: 0, cells }
    }

    pub fn tokens(&self) -> impl Iterator<Item = (usize, &Cell)> {
        self.cells.iter().enumerate().filter(|(_, cell)| cell.mask)
    }
}

pub fn width(rows: &[Row]) -> usize {
    let widths = rows.iter().map(|row| row.cells.len());
    widths.max().unwrap_or(0).max(1)
}

/// Every input of a cell, including those that are only measured; `log_probs` and `entropies` have
/// gradients.
pub fn input(rows: &[Row], device: &Device) -> LossInput {
    let width = width(rows);
    let tensor = |of: fn(&Cell) -> f64| {
        let padded = rows.iter().map(|row| {
            let cells = row.cells.iter().chain(std::iter::repeat(&NOTHING));
            cells.take(width).map(of).collect()
        });
        matrix(&padded.collect::<Vec<Vec<f64>>>(), device)
    };
    let leaf = |tensor: Tensor<2>| tensor.autodiff().require_grad();
    LossInput {
        old_log_probs: Some(tensor(|cell| cell.old)),
        ref_log_probs: Some(tensor(|cell| cell.reference)),
        sampler_log_probs: Some(tensor(|cell| cell.sampler)),
        entropies: Some(leaf(tensor(|cell| cell.entropy))),
        prompts: Some(rows.iter().map(|row| row.prompt).collect()),
        ..LossInput::new(
            leaf(tensor(|cell| cell.log_prob)),
            tensor(|cell| cell.advantage),
            tensor(|cell| f64::from(cell.mask)),
        )
    }
}

/// Loss, gradients row by row and metrics of a micro-batch.
pub struct Outcome {
    pub loss: f64,
    pub log_probs: Vec<Vec<f64>>,
    pub entropies: Vec<Vec<f64>>,
    pub metrics: LossMetrics,
}

impl Outcome {
    pub fn of(objective: &PolicyObjective, input: &LossInput, step: &StepStatistics) -> Self {
        let loss = objective.loss(input, step).unwrap();
        let gradients = loss.loss.backward();
        let [rows, width] = input.mask.dims();
        let gradient = |leaf: &Tensor<2>| {
            let flat = leaf.grad(&gradients).map(floats);
            let flat = flat.unwrap_or(vec![0.0; rows * width]);
            flat.chunks_exact(width).map(<[f64]>::to_vec).collect()
        };
        Self {
            loss: floats(loss.loss.clone())[0],
            log_probs: gradient(&input.log_probs),
            entropies: gradient(input.entropies.as_ref().unwrap()),
            metrics: loss.sums.read().unwrap(),
        }
    }

    /// The step as one micro-batch.
    pub fn whole(objective: &PolicyObjective, rows: &[Row], device: &Device) -> Self {
        let input = input(rows, device);
        let step = objective.statistics(std::slice::from_ref(&input)).unwrap();
        Self::of(objective, &input, &step)
    }

    /// The largest value, to which rounding is relative.
    pub fn scale(&self) -> f64 {
        let gradients = self.log_probs.iter().chain(&self.entropies).flatten();
        gradients
            .map(|g| g.abs())
            .sum::<f64>()
            .max(self.loss.abs())
            .max(1.0)
    }
}

/// Eight tokens: a ragged batch with a gap, a token without a sampler log-prob and a row without
/// tokens. Every part of [`parts`](super::parts) has an effect on it, and nothing is close to a
/// kink.
pub fn small_batch() -> Vec<Row> {
    // Log-prob, d to the old policy, d of old to sampler, x to the reference, entropy, advantage.
    let cell = |[log_prob, moved, sampled, away, entropy, advantage]: [f64; 6]| Cell {
        mask: true,
        log_prob,
        old: log_prob - moved,
        reference: log_prob + away,
        sampler: log_prob - moved - sampled,
        entropy,
        advantage,
    };
    let row = |prompt, cells| Row { prompt, cells };
    vec![
        row(
            0,
            vec![
                cell([-1.0, 0.5, 0.25, 0.5, 0.875, 1.0]),
                cell([-2.0, -0.375, -0.5, -0.75, 1.5, -0.5]),
                cell([-0.5, 0.125, 0.0625, 0.25, 0.25, 0.75]),
            ],
        ),
        row(
            0,
            vec![
                cell([-2.0, -0.75, -1.0, 1.25, 0.625, -1.25]),
                POISON,
                cell([-1.5, 0.25, f64::NAN, -0.125, 1.125, -0.25]),
            ],
        ),
        row(
            1,
            vec![
                cell([-0.25, 0.75, -0.125, 0.375, 0.375, 0.5]),
                cell([-1.25, 0.0625, -0.25, -0.5, 2.0, 0.625]),
            ],
        ),
        row(2, vec![POISON; 3]),
    ]
}
