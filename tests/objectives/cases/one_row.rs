//! The loss of a few tokens in one row.

use burn::tensor::Device;
use rlvr::loss::{
    Aggregation, LossInput, LossMetrics, PolicyObjective, PpoClip, Reinforce, StepCounts, Surrogate,
};

use crate::common::{assert_close, floats, matrix};

pub fn clip(clip: PpoClip) -> PolicyObjective {
    PolicyObjective {
        surrogate: Surrogate::PpoClip(clip),
        ..PolicyObjective::ppo()
    }
}

pub fn reinforce(aggregation: Aggregation) -> PolicyObjective {
    PolicyObjective {
        surrogate: Surrogate::Reinforce(Reinforce {}),
        aggregation,
        ..PolicyObjective::ppo()
    }
}

/// Loss, gradient in the log-probs and metrics of one completion.
pub fn one_row(
    objective: &PolicyObjective,
    log_probs: &[f64],
    old: Option<&[f64]>,
    advantages: &[f64],
    device: &Device,
) -> (f64, Vec<f64>, LossMetrics) {
    let row = |numbers: &[f64]| matrix(&[numbers.to_vec()], device);
    let leaf = row(log_probs).autodiff().require_grad();
    let input = LossInput {
        old_log_probs: old.map(row),
        ..LossInput::new(
            leaf.clone(),
            row(advantages),
            row(&vec![1.0; log_probs.len()]),
        )
    };
    let counts = StepCounts::of(&[log_probs.len()]);
    let loss = objective.loss(&input, counts).unwrap();
    let gradient = floats(leaf.grad(&loss.loss.backward()).unwrap());
    (floats(loss.loss)[0], gradient, loss.sums.read().unwrap())
}

/// The loss of every token by itself.
pub fn terms(
    objective: &PolicyObjective,
    log_probs: &[f64],
    old: &[f64],
    advantages: &[f64],
    device: &Device,
) -> Vec<f64> {
    (0..log_probs.len())
        .map(|t| {
            let old = Some(&old[t..=t]);
            one_row(
                objective,
                &log_probs[t..=t],
                old,
                &advantages[t..=t],
                device,
            )
            .0
        })
        .collect()
}

pub fn assert_all(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert_close(*got, *want, 0.0, 2e-5, what);
    }
}
