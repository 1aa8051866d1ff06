//! Token selection by entropy, the off-policy mask, and entropy bonuses.

use rlvr::loss::{
    AdaptiveEntropy, Aggregation, LossInput, OffPolicyMask, PolicyObjective, TopEntropy,
};

use super::one_row::reinforce;
use crate::common::{assert_close, devices, floats, matrix};

/// The entropies that are selected out of those of a step.
fn selected(share: f64, entropies: &[Vec<f64>], mask: &[Vec<f64>]) -> Vec<f64> {
    let objective = PolicyObjective {
        top_entropy: Some(TopEntropy { share }),
        ..reinforce(Aggregation::TokenMean)
    };
    let mut all: Vec<Vec<f64>> = Vec::new();
    for (_, device) in devices() {
        let tensor = |rows: &[Vec<f64>]| matrix(rows, &device);
        let ones = tensor(mask).ones_like();
        let leaf = ones.clone().neg().autodiff().require_grad();
        let input = LossInput {
            entropies: Some(tensor(entropies)),
            ..LossInput::new(leaf.clone(), ones, tensor(mask))
        };
        let step = objective.statistics(std::slice::from_ref(&input)).unwrap();
        let loss = objective.loss(&input, &step).unwrap();
        let gradient = floats(leaf.grad(&loss.loss.backward()).unwrap());
        let trace = floats(loss.tokens.selected.unwrap() * loss.tokens.mask);
        let mut own = Vec::new();
        for (i, h) in entropies.iter().flatten().enumerate() {
            assert_eq!(
                trace[i] != 0.0,
                gradient[i] != 0.0,
                "selected is learned from"
            );
            if trace[i] != 0.0 {
                own.push(*h);
            }
        }
        // The denominator still counts every token.
        let tokens = mask.iter().flatten().sum::<f64>().max(1.0);
        assert_close(
            floats(loss.loss)[0],
            own.len() as f64 / tokens,
            1e-6,
            0.0,
            "loss",
        );
        assert_eq!(
            loss.sums.read().unwrap().sum("selected"),
            Some(own.len() as f64)
        );
        all.push(own);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    all.remove(0)
}

#[test]
fn the_quantile_of_entropy_is_over_the_tokens_of_the_step() {
    let entropies = [
        vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
        vec![0.7, 0.8, 0.9, 1.0, 1.1, 1.2],
    ];
    let mask = [vec![1.0; 6], vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0]];
    assert_eq!(selected(0.2, &entropies, &mask), [0.9, 1.0]);
    assert_eq!(selected(0.5, &entropies, &mask), [0.6, 0.7, 0.8, 0.9, 1.0]);
    // All but the smallest, and the largest alone.
    assert_eq!(selected(0.999, &entropies, &mask).len(), 9);
    assert_eq!(selected(1e-9, &entropies, &mask), [1.0]);
    assert!(selected(0.2, &entropies, &[vec![0.0; 6], vec![0.0; 6]]).is_empty());
    // Equal entropies are selected together.
    assert_eq!(selected(0.25, &[vec![0.5; 4]], &[vec![1.0; 4]]), [0.5; 4]);
    let entropies = [
        vec![0.1, 0.2, 0.3, 1.4, 0.5, 0.14],
        vec![0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
    ];
    let mask = [
        vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
        vec![1.0, 1.0, 1.0, 1.0, 0.0, 0.0],
    ];
    assert_eq!(selected(0.2, &entropies, &mask), [1.4, 0.8]);
}

#[test]
fn the_off_policy_mask_excludes_bad_completions_that_became_unlikely() {
    let objective = PolicyObjective {
        off_policy_mask: Some(OffPolicyMask { threshold: 1.0 }),
        ..reinforce(Aggregation::TokenSum)
    };
    for (backend, device) in devices() {
        let kept = |log_probs: [[f64; 4]; 3], advantages: [f64; 3], mask: [f64; 4]| -> Vec<bool> {
            let rows = |rows: [[f64; 4]; 3]| matrix(&rows.map(Vec::from), &device);
            let leaf = rows(log_probs).autodiff().require_grad();
            let input = LossInput {
                sampler_log_probs: Some(rows([[0.0; 4]; 3])),
                ..LossInput::new(
                    leaf.clone(),
                    rows(advantages.map(|a| [a; 4])),
                    rows([mask; 3]),
                )
            };
            let step = objective.statistics(std::slice::from_ref(&input)).unwrap();
            let loss = objective.loss(&input, &step).unwrap();
            let gradient = floats(leaf.grad(&loss.loss.backward()).unwrap());
            gradient.chunks(4).map(|row| row[0] != 0.0).collect()
        };
        let log_probs = [[-2.0; 4], [-0.5; 4], [-2.0; 4]];
        let got = kept(log_probs, [1.0, -1.0, -1.0], [1.0; 4]);
        assert_eq!(got, [true, true, false], "{backend}");
        // Padding has no effect.
        let padded = [-2.0, -2.0, -1e4, 1e4];
        let near = [-0.5, -0.5, -1e4, 1e4];
        let got = kept(
            [padded, near, padded],
            [1.0, -1.0, -1.0],
            [1.0, 1.0, 0.0, 0.0],
        );
        assert_eq!(got, [true, true, false], "{backend}");
    }
}

#[test]
fn the_entropy_bonus_applies_below_the_target() {
    let start = AdaptiveEntropy {
        coef: 0.01,
        ..AdaptiveEntropy::default()
    };
    for (entropy, coef, bonus) in [(0.1, 0.015, 0.015), (0.2, 0.015, 0.015), (0.3, 0.005, 0.0)] {
        let mut adaptive = start;
        adaptive.update(entropy);
        assert_close(adaptive.coef, coef, 1e-12, 0.0, "coef");
        assert_close(adaptive.bonus(), bonus, 1e-12, 0.0, "bonus");
    }
    // It stays between 0 and the maximum.
    let mut adaptive = start;
    (0..9).for_each(|_| adaptive.update(5.0));
    assert_eq!(adaptive.coef, 0.0);
    (0..999).for_each(|_| adaptive.update(0.0));
    assert_eq!((adaptive.coef, adaptive.bonus()), (1.0, 1.0));
    assert_eq!(start.bonus(), 0.0); // nothing is known yet
}

#[test]
fn the_bonus_over_a_step_is_the_mean_entropy() {
    // For any split, and for any aggregation of the surrogate if the bonus has its own.
    let entropies = [[1.0, 2.0], [4.0, 99.0]];
    let mask = [[1.0, 1.0], [1.0, 0.0]];
    for (backend, device) in devices() {
        for aggregation in [
            Aggregation::TokenSum,
            Aggregation::SequenceMeanTokenMean,
            Aggregation::Constant { length: 9 },
        ] {
            let objective = PolicyObjective {
                entropy_coef: 0.5,
                entropy_aggregation: Some(Aggregation::TokenMean),
                ..reinforce(aggregation)
            };
            let part = |b: usize| {
                let row = |row: [f64; 2]| matrix(&[row.to_vec()], &device);
                LossInput {
                    entropies: Some(row(entropies[b])),
                    ..LossInput::new(row([-1.0; 2]), row([0.0; 2]), row(mask[b]))
                }
            };
            let parts = [part(0), part(1)];
            let step = objective.statistics(&parts).unwrap();
            let losses = parts
                .iter()
                .map(|part| floats(objective.loss(part, &step).unwrap().loss)[0]);
            assert_close(losses.sum(), -0.5 * 7.0 / 3.0, 1e-6, 0.0, backend);
        }
    }
}
