//! KL estimators, on numbers computed by hand and as expectations.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use rlvr::loss::{
    AdaptiveKl, Aggregation, KlEstimator, KlPenalty, LossInput, PolicyObjective, StepCounts,
};

use super::one_row::{assert_all, reinforce};
use crate::common::{assert_close, devices, floats, matrix};

/// The loss and gradient of a KL penalty alone: REINFORCE without advantage, token sum.
fn alone(
    penalty: KlPenalty,
    log_probs: &[f64],
    reference: &[f64],
    old: &[f64],
) -> Vec<(f64, Vec<f64>)> {
    let objective = reinforce(Aggregation::TokenSum).with_kl(Some(penalty));
    let mut all = Vec::new();
    for (_, device) in devices() {
        let row = |numbers: &[f64]| matrix(&[numbers.to_vec()], &device);
        let leaf = row(log_probs).autodiff().require_grad();
        let zeros = vec![0.0; log_probs.len()];
        let input = LossInput {
            ref_log_probs: Some(row(reference)),
            old_log_probs: Some(row(old)),
            ..LossInput::new(leaf.clone(), row(&zeros), row(&zeros).ones_like())
        };
        let loss = objective
            .loss(&input, StepCounts::of(&[log_probs.len()]))
            .unwrap();
        let gradient = floats(leaf.grad(&loss.loss.backward()).unwrap());
        all.push((floats(loss.loss)[0], gradient));
    }
    all
}

#[test]
fn estimators_have_the_values_of_their_formulas() {
    let plain = |estimator| KlPenalty::new(1.0, estimator);
    let capped = |estimator| KlPenalty {
        value_clamp: Some(10.0),
        ..plain(estimator)
    };
    let verl = KlPenalty {
        log_ratio_clamp: Some(20.0),
        ..capped(KlEstimator::K3)
    };
    let reference = [0.0, -15.0, -30.0];
    for (penalty, want) in [
        (plain(KlEstimator::K1), [-1.0, 14.0, 29.0]),
        (plain(KlEstimator::K2), [0.5, 98.0, 420.5]),
        (plain(KlEstimator::K3), [0.718_281_8, 13.000_000_8, 28.0]),
        (plain(KlEstimator::Abs), [1.0, 14.0, 29.0]),
        (capped(KlEstimator::K1), [-1.0, 10.0, 10.0]),
        (verl, [0.718_281_8, 10.0, 10.0]),
    ] {
        for (reference, want) in reference.into_iter().zip(want) {
            let what = format!("{penalty:?}");
            assert_close(penalty.value(-1.0, reference), want, 1e-7, 0.0, &what);
            for (_, device) in devices() {
                let one = |x: f64| matrix(&[vec![x]], &device);
                let got = floats(penalty.per_token(one(-1.0), one(reference)))[0];
                assert_close(got, want, 1e-6, 0.0, &what);
            }
        }
    }
    // 0.1 times the mean of k3.
    let tenth = KlPenalty::new(0.1, KlEstimator::K3);
    let log_probs = [0.0, -1.0, -2.0];
    for (loss, _) in alone(tenth, &log_probs, &[-1.0; 3], &log_probs) {
        assert_close(loss / 3.0, 0.036_205, 0.0, 1e-6, "mean");
    }
}

#[test]
fn clamps_corrections_and_straight_through_gradients() {
    // x = 2 is on neither side of a clamp of 1.9, x = 1 within.
    let k3 = KlPenalty::new(1.0, KlEstimator::K3);
    let held = KlPenalty {
        log_ratio_clamp: Some(1.9),
        ..k3
    };
    for (loss, gradient) in alone(held, &[-3.0, -2.0], &[-1.0; 2], &[-3.0, -2.0]) {
        let want = 1.9f64.exp() - 2.9 + 0.718_281_8;
        assert_close(loss, want, 1e-6, 0.0, "clamped");
        assert_all(&gradient, &[0.0, -1.718_281_8], "clamped");
    }
    let through = KlPenalty {
        straight_through: true,
        ..k3
    };
    for (loss, gradient) in alone(through, &[-3.0, -2.0], &[-1.0; 2], &[-3.0, -2.0]) {
        assert_close(loss, 4.389_056 + 0.718_281_8, 1e-6, 0.0, "value of k3");
        assert_all(&gradient, &[-2.0, -1.0], "gradient of k2: ln pi - ln ref");
    }
    // With the correction the ratio has a gradient too: k3' + k3 where it is 1, twice that where it
    // is 2.
    let corrected = KlPenalty {
        importance_corrected: true,
        ..k3
    };
    let old = [-2.0, -2.0 - std::f64::consts::LN_2];
    for (loss, gradient) in alone(corrected, &[-2.0; 2], &[-1.0; 2], &old) {
        let (k3, slope) = (0.718_281_8, -1.718_281_8);
        assert_close(loss, 3.0 * k3, 1e-6, 0.0, "corrected");
        assert_all(&gradient, &[slope + k3, 2.0 * (slope + k3)], "corrected");
    }
}

#[test]
fn expectations_over_the_vocabulary_are_the_kl_and_its_gradient() {
    let reference: [f64; 3] = [0.2, 0.5, 0.3].map(f64::ln);
    for (backend, device) in devices() {
        let logits = matrix(&[vec![0.5, -0.25, 1.0]], &device);
        let reference = matrix(&[reference.to_vec()], &device);
        let expected = |f: &dyn Fn(Tensor<2>) -> Tensor<2>, through_pi: bool| {
            let leaf = logits.clone().autodiff().require_grad();
            let log_probs = log_softmax(leaf.clone(), 1);
            let pi = log_probs.clone().exp();
            let pi = if through_pi { pi } else { pi.inner() };
            let sum = (pi * f(log_probs)).sum();
            let gradient = floats(leaf.grad(&sum.backward()).unwrap());
            (floats(sum)[0], gradient)
        };
        let (kl, slope) = expected(&|log_probs| log_probs - reference.clone(), true);
        let estimate = |estimator: KlEstimator| {
            let of = |log_probs| estimator.per_token(log_probs, reference.clone());
            expected(&of, false)
        };
        // Unbiased values; on-policy, only k2 has the gradient of the KL, and that of k1 vanishes.
        assert_close(estimate(KlEstimator::K1).0, kl, 1e-5, 0.0, backend);
        assert_close(estimate(KlEstimator::K3).0, kl, 1e-5, 0.0, backend);
        assert_all(&estimate(KlEstimator::K2).1, &slope, backend);
        assert_all(&estimate(KlEstimator::K1).1, &[0.0; 3], backend);
        let through = KlPenalty {
            straight_through: true,
            ..KlPenalty::new(1.0, KlEstimator::K3)
        };
        let of = |log_probs| through.per_token(log_probs, reference.clone());
        let (value, gradient) = expected(&of, false);
        assert_close(value, kl, 1e-5, 0.0, backend);
        assert_all(&gradient, &slope, backend);
        // The ratio pi / pi_old, whose value is 1 here, makes the gradient of k3 that of the KL.
        let of = |log_probs: Tensor<2>| {
            let ratio = (log_probs.clone() - log_probs.clone().inner()).exp();
            ratio * KlEstimator::K3.per_token(log_probs, reference.clone())
        };
        assert_all(&expected(&of, false).1, &slope, backend);
    }
}

#[test]
fn the_adaptive_coefficient_moves_by_at_most_a_fifth_a_horizon() {
    let start = AdaptiveKl {
        coef: 0.2,
        target: 0.1,
        horizon: 100.0,
    };
    for (kl, want) in [(0.2, 0.204), (0.0, 0.196), (0.1, 0.2), (0.105, 0.201)] {
        let mut adaptive = start;
        adaptive.update(kl, 10);
        assert_close(adaptive.coef, want, 1e-12, 0.0, "coef");
    }
}

#[test]
fn a_horizon_below_the_samples_of_an_update_never_changes_the_sign_of_the_coefficient() {
    let start = AdaptiveKl {
        coef: 0.1,
        target: 0.1,
        horizon: 10.0,
    };
    for (kl, want) in [(0.0, 0.02), (10.0, 0.18)] {
        let mut adaptive = start;
        adaptive.update(kl, 64);
        assert_close(adaptive.coef, want, 1e-12, 0.0, "coef");
    }
}

#[test]
fn the_kl_can_have_its_own_aggregation() {
    // Two completions of one and two tokens: k1 is 1, 1 and 2; the surrogate's own term is 0.
    let objective = PolicyObjective {
        kl: Some(KlPenalty {
            aggregation: Some(Aggregation::SequenceMeanTokenMean),
            ..KlPenalty::new(1.0, KlEstimator::K1)
        }),
        ..reinforce(Aggregation::TokenMean)
    };
    for (backend, device) in devices() {
        let rows = |rows: [[f64; 2]; 2]| matrix(&rows.map(Vec::from), &device);
        let input = LossInput {
            ref_log_probs: Some(rows([[-2.0, 9.0], [-2.0, -3.0]])),
            ..LossInput::new(
                rows([[-1.0; 2]; 2]),
                rows([[0.0; 2]; 2]),
                rows([[1.0, 0.0], [1.0; 2]]),
            )
        };
        let loss = |objective: &PolicyObjective| {
            floats(
                objective
                    .loss(&input, StepCounts::of(&[1, 2]))
                    .unwrap()
                    .loss,
            )[0]
        };
        assert_close(loss(&objective), (1.0 + 1.5) / 2.0, 1e-6, 0.0, backend);
        let same = objective
            .clone()
            .with_kl(Some(KlPenalty::new(1.0, KlEstimator::K1)));
        assert_close(loss(&same), 4.0 / 3.0, 1e-6, 0.0, backend);
    }
}
