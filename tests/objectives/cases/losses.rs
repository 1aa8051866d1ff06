//! Surrogates on a few tokens.

use rlvr::loss::{
    Aggregation, BinaryDivergence, Cispo, CispoBand, Dppo, Dro, LossInput, PolicyObjective,
    PpoClip, RatioLevel, Sapo, StepCounts, Surrogate,
};

use super::one_row::{assert_all, clip, one_row, reinforce, terms};
use crate::common::{assert_close, devices, floats, matrix};

#[test]
fn the_ppo_clip_takes_the_pessimistic_side() {
    // Ratios 0.5, 1, 1.5.
    let (old, new) = ([-1.0; 3], [-1.693_147, -1.0, -0.594_535]);
    let advantages = [1.0, -1.0, 2.0];
    for (backend, device) in devices() {
        let ppo = PolicyObjective::ppo();
        let got = terms(&ppo, &new, &old, &advantages, &device);
        assert_all(&got, &[-0.5, 1.0, -2.4], backend);
        let (loss, gradient, metrics) = one_row(&ppo, &new, Some(&old), &advantages, &device);
        assert_close(loss, -0.633_333, 0.0, 2e-5, backend);
        // -A r / N inside the clip range, 0 outside.
        assert_all(&gradient, &[-0.5 / 3.0, 1.0 / 3.0, 0.0], backend);
        assert_eq!(metrics.sum("clip_high"), Some(1.0), "{backend}");
        assert_eq!(metrics.sum("clip_low"), Some(0.0), "{backend}");
        assert_close(metrics.mean("ratio").unwrap(), 1.0, 0.0, 1e-5, backend);

        // A clipped loss: the ratio is low and the advantage negative.
        let (loss, gradient, metrics) =
            one_row(&ppo, &[-1.693_147], Some(&[-1.0]), &[-1.0], &device);
        assert_close(loss, 0.8, 0.0, 1e-5, backend);
        assert_eq!(gradient, [0.0], "{backend}");
        assert_eq!(metrics.sum("clip_low"), Some(1.0), "{backend}");
        assert_eq!(metrics.sum("clip_high"), Some(0.0), "{backend}");

        // Clip-higher moves the upper bound only.
        let dapo = PolicyObjective::dapo();
        let got = terms(&dapo, &new, &old, &advantages, &device);
        assert_all(&got, &[-0.5, 1.0, -2.56], backend);
        assert_all(
            &terms(&dapo, &new[..1], &old[..1], &[-1.0], &device),
            &[0.8],
            backend,
        );

        // One ratio for the completion, exp of the mean log-ratio -0.095894.
        let sequence = PolicyObjective {
            ratio_level: RatioLevel::Sequence,
            ..ppo.clone()
        };
        let (loss, gradient, _) = one_row(&sequence, &new, Some(&old), &advantages, &device);
        assert_close(loss, -0.605_71, 0.0, 2e-5, backend);
        assert_all(&gradient, &[-0.605_71 / 3.0; 3], backend);
    }
}

#[test]
fn a_runaway_token_with_negative_advantage_is_bounded_by_dual_clip_or_delta() {
    for (backend, device) in devices() {
        // Ratios 0.5, 1, 10.
        let (old, new) = ([-1.0, -1.0, -3.0], [-1.693_147, -1.0, -0.697_415]);
        let advantages = [1.0, -1.0, -4.0];
        let dual = |c| PpoClip {
            dual_clip: Some(c),
            ..PpoClip::default()
        };
        let bounded = clip(dual(3.0));
        let got = terms(&bounded, &new, &old, &advantages, &device);
        assert_all(&got, &[-0.5, 1.0, 12.0], backend);
        let (loss, gradient, _) = one_row(&bounded, &new, Some(&old), &advantages, &device);
        assert_close(loss, 12.5 / 3.0, 0.0, 2e-5, backend);
        assert_all(&gradient, &[-0.5 / 3.0, 1.0 / 3.0, 0.0], backend);
        let unbounded = terms(&PolicyObjective::ppo(), &new, &old, &advantages, &device);
        assert_close(unbounded[2], 40.0, 1e-5, 0.0, backend);

        // Ratios 2, 2, 0.5 with c = 1.5: positive advantages are as before.
        let (old, new) = ([-1.0; 3], [-0.306_853, -0.306_853, -1.693_147]);
        let got = terms(&clip(dual(1.5)), &new, &old, &[2.0, -2.0, 2.0], &device);
        assert_all(&got, &[-2.4, 3.0, -1.0], backend);

        let delta = clip(PpoClip {
            delta: Some(2.0),
            ..PpoClip::default()
        });
        let got = one_row(&delta, &[-0.697_415], Some(&[-3.0]), &[-1.0], &device);
        assert_close(got.0, 2.0, 0.0, 2e-5, backend);
        assert_eq!(got.1, [0.0], "{backend}");
        let got = one_row(&delta, &[-0.697_415], Some(&[-3.0]), &[1.0], &device);
        assert_close(got.0, -1.2, 0.0, 2e-5, backend);
    }
}

#[test]
fn the_first_update_after_sampling_is_reinforce() {
    let (log_probs, advantages) = ([-0.5, -1.0, -1.5], [1.0, -1.0, 2.0]);
    let aggregations = [
        (Aggregation::TokenMean, 3.0),
        (Aggregation::SequenceMeanTokenMean, 3.0),
        (Aggregation::SequenceMeanTokenSum, 1.0),
        (Aggregation::TokenSum, 1.0),
        (Aggregation::Constant { length: 10 }, 10.0),
    ];
    for (backend, device) in devices() {
        for (aggregation, denominator) in aggregations {
            let ppo = PolicyObjective {
                aggregation,
                ..PolicyObjective::ppo()
            };
            let (loss, gradient, metrics) = one_row(&ppo, &log_probs, None, &advantages, &device);
            assert_close(loss, -2.0 / denominator, 1e-6, 0.0, backend);
            assert_eq!(metrics.sum("clip_low"), Some(0.0), "{backend}");
            assert_eq!(metrics.sum("clip_high"), Some(0.0), "{backend}");
            let plain = reinforce(aggregation);
            let (loss, want, _) = one_row(&plain, &log_probs, None, &advantages, &device);
            assert_close(loss, 2.5 / denominator, 1e-6, 0.0, backend);
            assert_all(&want, &advantages.map(|a| -a / denominator), backend);
            assert_all(&gradient, &want, backend);
        }
    }
}

fn plain(surrogate: Surrogate) -> PolicyObjective {
    PolicyObjective::new(surrogate, Aggregation::TokenMean)
}

fn cispo(band: CispoBand) -> PolicyObjective {
    plain(Surrogate::Cispo(Cispo { band }))
}

#[test]
fn cispo_bounds_the_weight_and_keeps_the_gradient() {
    let around = |low, high| cispo(CispoBand::AroundOne { low, high });
    for (backend, device) in devices() {
        // Ratios 0.5, 1, 10.
        let (old, new) = ([-1.0, -1.0, -3.0], [-1.693_147, -1.0, -0.697_415]);
        let advantages = [1.0, -1.0, -4.0];
        let got = terms(&around(0.2, 0.2), &new, &old, &advantages, &device);
        assert_all(&got, &[1.354_52, -1.0, -3.347_59], backend);
        let (loss, gradient, _) =
            one_row(&around(0.2, 0.2), &new, Some(&old), &advantages, &device);
        assert_close(loss, -2.993_07 / 3.0, 0.0, 2e-5, backend);
        assert_all(&gradient, &[-0.8 / 3.0, 1.0 / 3.0, 4.8 / 3.0], backend);

        // The weight is the gradient, per advantage.
        let weights = |objective: &PolicyObjective, ratios: [f64; 4]| -> Vec<f64> {
            let (new, advantages) = ([-0.7, -1.2, -0.4, -2.1], [1.0, -0.5, 2.0, -1.0]);
            let old: Vec<f64> = new
                .iter()
                .zip(ratios)
                .map(|(new, r)| new - f64::ln(r))
                .collect();
            let (_, gradient, _) = one_row(objective, &new, Some(&old), &advantages, &device);
            let each = gradient.iter().zip(advantages);
            each.map(|(gradient, a)| -4.0 * gradient / a).collect()
        };
        let ratios = [1.0, 1.14, 1.56, 0.4];
        assert_all(
            &weights(&around(0.2, 0.28), ratios),
            &[1.0, 1.14, 1.28, 0.8],
            backend,
        );
        let cap = cispo(CispoBand::Cap(1.28));
        assert_all(&weights(&cap, ratios), &[1.0, 1.14, 1.28, 0.4], backend);
        let wide = weights(&PolicyObjective::cispo(), [1.0, 3.0, 9.0, 0.4]);
        assert_all(&wide, &[1.0, 3.0, 5.0, 0.4], backend);
    }
}

#[test]
fn the_gate_of_sapo_is_soft() {
    for (backend, device) in devices() {
        let loss = |objective: &PolicyObjective, ratio: f64, advantage: f64| {
            let old = -1.0 - ratio.ln();
            one_row(objective, &[-1.0], Some(&[old]), &[advantage], &device)
        };
        let sapo = PolicyObjective::sapo();
        let (at_one, gradient, _) = loss(&sapo, 1.0, 1.0);
        assert_close(at_one, -2.0, 1e-5, 0.0, backend);
        assert_close(gradient[0], -1.0, 1e-5, 0.0, backend);
        assert_close(loss(&sapo, 1.5, 1.0).0, -2.489_837, 1e-5, 0.0, backend);
        assert_close(loss(&sapo, 0.5, -1.0).0, 1.415_94, 1e-5, 0.0, backend);
        // A different temperature for each sign.
        let far = plain(Surrogate::Sapo(Sapo {
            tau_pos: 1.0,
            tau_neg: 2.0,
        }));
        let (new, advantages) = ([-1.5, -0.8, -1.1], [1.0, -1.0, 0.5]);
        let got = terms(&far, &new, &[-1.0; 3], &advantages, &device);
        let gate = |tau: f64, d: f64| 4.0 / tau / (1.0 + (-tau * (d.exp() - 1.0)).exp());
        let want = [-gate(1.0, -0.5), gate(2.0, 0.2), -0.5 * gate(1.0, -0.1)];
        assert_all(&got, &want, backend);
    }
}

#[test]
fn the_vespo_weight_decreases_on_both_sides_of_one() {
    let vespo = PolicyObjective::vespo();
    for (backend, device) in devices() {
        for (ratio, advantage, phi) in [
            (1f64, 1.0, 1.0),
            (1.0, -1.0, 1.0),
            (2.0, 1.0, 0.199_148),
            (0.5, -1.0, 0.339_785),
        ] {
            let old = -1.0 - ratio.ln();
            let (loss, gradient, metrics) =
                one_row(&vespo, &[-1.0], Some(&[old]), &[advantage], &device);
            assert_close(loss, phi * advantage, 1e-5, 0.0, backend);
            assert_close(gradient[0], -phi * advantage, 1e-5, 0.0, backend);
            assert_close(metrics.mean("phi").unwrap(), phi, 1e-5, 0.0, backend);
        }
    }
}

#[test]
fn gmpo_clips_each_token_before_the_geometric_mean() {
    let gmpo = PolicyObjective::gmpo();
    // Ratios 0.5, 1, 1.5.
    let (old, new) = ([-1.0; 3], [-1.693_147, -1.0, -0.594_535]);
    for (backend, device) in devices() {
        let (loss, gradient, metrics) = one_row(&gmpo, &new, Some(&old), &[1.0; 3], &device);
        assert_close(loss, -0.906_907, 2e-5, 0.0, backend);
        let third = -0.906_907 / 3.0;
        assert_all(&gradient, &[third, third, 0.0], backend);
        assert_eq!(metrics.sum("clip_high"), Some(2.0), "{backend}");
        let (loss, gradient, _) = one_row(&gmpo, &new, Some(&old), &[-1.0; 3], &device);
        assert_close(loss, 1.001_823, 2e-5, 0.0, backend);
        assert_all(&gradient, &[0.0, 1.001_823 / 3.0, 1.001_823 / 3.0], backend);
    }
}

#[test]
fn dppo_masks_tokens_that_moved_too_far_in_the_direction_of_their_advantage() {
    let dppo = |divergence, bound| {
        plain(Surrogate::Dppo(Dppo {
            divergence,
            low: bound,
            high: bound,
            ratio_cap: 20.0,
        }))
    };
    let tv = dppo(BinaryDivergence::Tv, 0.2);
    let kl = dppo(BinaryDivergence::Kl, 0.5);
    for (backend, device) in devices() {
        let moves = |objective: &PolicyObjective, new: &[f64], advantages: &[f64]| -> Vec<bool> {
            let old = vec![-1.0; new.len()];
            let (_, gradient, _) = one_row(objective, new, Some(&old), advantages, &device);
            gradient
                .into_iter()
                .map(|gradient| gradient != 0.0)
                .collect()
        };
        let got = moves(&tv, &[-0.3, -2.0, -0.9], &[1.0, -1.0, 1.0]);
        assert_eq!(got, [false, false, true], "{backend}");
        // Too far, but not where the advantage points.
        assert_eq!(
            moves(&tv, &[-2.0, -0.3], &[1.0, -1.0]),
            [true, true],
            "{backend}"
        );
        assert_eq!(
            moves(&kl, &[-1.01, -0.99], &[-1.0, 1.0]),
            [true, true],
            "{backend}"
        );
        assert_eq!(
            moves(&kl, &[-0.05, -6.0], &[1.0, -1.0]),
            [false, false],
            "{backend}"
        );
    }
}

#[test]
fn dro_penalises_the_squared_log_ratio() {
    let beta = 0.5;
    let dro = plain(Surrogate::Dro(Dro { beta }));
    for (backend, device) in devices() {
        let (old, new, advantages) = ([-1.0, -0.7], [-0.8, -0.9], [2.0, -1.5]);
        let got = terms(&dro, &new, &old, &advantages, &device);
        assert_all(&got, &[1.6 + 0.02 * beta, -1.35 + 0.02 * beta], backend);
        let (loss, gradient, _) = one_row(&dro, &new, Some(&old), &advantages, &device);
        assert_close(loss, 0.135, 2e-5, 0.0, backend);
        assert_all(
            &gradient,
            &[(-2.0 + 0.2 * beta) / 2.0, (1.5 - 0.2 * beta) / 2.0],
            backend,
        );
    }
    let message = PolicyObjective::dro(0.0)
        .validate()
        .unwrap_err()
        .to_string();
    assert!(message.contains("`dro.beta`: 0"), "{message}");
}

#[test]
fn gspo_uses_one_ratio_per_completion_and_gspo_token_only_its_value() {
    // Mean log-ratio 0.2 of three, sum 0.6; advantages differ within the completion.
    let (old, new) = ([-1.0; 3], [-0.5, -1.25, -0.65]);
    let advantages = [1.0, -0.5, 0.25];
    let level = |ratio_level| PolicyObjective {
        ratio_level,
        ..clip(PpoClip::range(10.0, 10.0))
    };
    let whole: f64 = advantages.iter().sum();
    for (backend, device) in devices() {
        let of = |ratio_level| one_row(&level(ratio_level), &new, Some(&old), &advantages, &device);
        let r = 0.2f64.exp();
        let (loss, gradient, _) = of(RatioLevel::Sequence);
        assert_close(loss, -r * whole / 3.0, 1e-5, 0.0, backend);
        assert_all(&gradient, &[-r * whole / 9.0; 3], backend);
        let (same, gradient, _) = of(RatioLevel::SequenceToken);
        assert_close(same, loss, 1e-6, 0.0, backend);
        assert_all(&gradient, &advantages.map(|a| -r * a / 3.0), backend);
        let r = 0.6f64.exp();
        let (loss, gradient, _) = of(RatioLevel::SequenceSum);
        assert_close(loss, -r * whole / 3.0, 1e-5, 0.0, backend);
        assert_all(&gradient, &[-r * whole / 3.0; 3], backend);
    }
}

#[test]
fn ranks_share_one_denominator() {
    let log_probs = [[-0.2, -0.4, -0.1], [-0.7, -0.3, -0.2], [-0.6, -0.1, -0.5]];
    let moved = [[0.03, -0.04, 0.01], [0.02, 0.05, -0.03], [0.04, 0.0, -0.02]];
    let advantages = [[1.0, -0.5, 0.0], [0.3, -1.2, 0.5], [1.5, 0.0, -0.7]];
    let mask = [[1.0, 1.0, 0.0], [1.0; 3], [1.0, 0.0, 1.0]];
    let mut want = 0.0;
    for b in 0..3 {
        for t in 0..3 {
            want -= mask[b][t] * advantages[b][t] * f64::exp(moved[b][t]) / 7.0;
        }
    }
    let ppo = PolicyObjective::ppo();
    for (backend, device) in devices() {
        let loss = |own: std::ops::Range<usize>, counts| {
            let pick = |rows: [[f64; 3]; 3]| {
                let rows: Vec<_> = rows[own.clone()].iter().map(|row| row.to_vec()).collect();
                matrix(&rows, &device)
            };
            let input = LossInput {
                old_log_probs: Some(pick(log_probs) - pick(moved)),
                ..LossInput::new(pick(log_probs), pick(advantages), pick(mask))
            };
            floats(ppo.loss(&input, counts).unwrap().loss)[0]
        };
        let counts = StepCounts::of(&[2, 3, 2]);
        assert_close(loss(0..3, counts), want, 1e-5, 0.0, backend);
        let ranks = loss(0..2, counts) + loss(2..3, counts);
        assert_close(ranks, want, 1e-5, 0.0, backend);
        // Twice the items in the step: half of the loss.
        let twice = StepCounts {
            tokens: 14,
            sequences: 6,
        };
        assert_close(loss(0..3, twice), want / 2.0, 1e-5, 0.0, backend);
    }
}
