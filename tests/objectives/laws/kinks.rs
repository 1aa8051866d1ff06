//! Gradients on both sides of every kink: computed by hand for one token, and by finite differences
//! of the formula for every ratio level.

use burn::tensor::Device;
use rlvr::loss::{
    Aggregation, BinaryDivergence, Cispo, CispoBand, ClipCov, Dppo, Dro, Gmpo, KlCov, KlEstimator,
    KlPenalty, LogRatioClamp, PolicyObjective, PpoClip, RatioLevel, Reinforce, Sapo, Surrogate,
    Vespo,
};

use super::batch::{Cell, NOTHING, Outcome, Row};
use super::formula::Formula;
use crate::common::{assert_close, devices};

/// The distance at which a point is close to a kink.
const NEAR: f64 = 0.01;

fn cell(log_prob: f64, moved: f64, advantage: f64) -> Cell {
    Cell {
        mask: true,
        log_prob,
        old: log_prob - moved,
        advantage,
        ..NOTHING
    }
}

fn objective(surrogate: Surrogate) -> PolicyObjective {
    let level = match surrogate {
        Surrogate::Gmpo(_) => RatioLevel::Sequence,
        _ => RatioLevel::Token,
    };
    PolicyObjective {
        ratio_level: level,
        ..PolicyObjective::new(surrogate, Aggregation::TokenSum)
    }
}

/// Value and gradient are those of the formula.
fn assert_formula(objective: &PolicyObjective, rows: &[Row], device: &Device, what: &str) {
    let got = Outcome::whole(objective, rows, device);
    let formula = Formula::new(objective, rows);
    assert_close(got.loss, formula.loss(rows), 1e-5, 1e-5, what);
    for (b, row) in rows.iter().enumerate() {
        for (t, _) in row.tokens() {
            let want = formula.slope(b, t, |cell, by| cell.log_prob += by);
            assert_close(got.log_probs[b][t], want, 1e-4, 1e-5, what);
        }
    }
}

/// One token next to a kink: its log-prob, log-ratio and advantage, and the gradient that the paper
/// gives it.
type Point = (f64, f64, f64, f64);

/// `[below, above]` the kink at the log-ratio `at`.
fn around(at: f64, advantage: f64, gradient: [fn(f64) -> f64; 2]) -> [Point; 2] {
    let point = |d: f64, gradient: fn(f64) -> f64| (-1.0, d, advantage, gradient(d.exp()));
    [point(at - NEAR, gradient[0]), point(at + NEAR, gradient[1])]
}

/// `-r A` for an advantage of 1, and for one of -1.
fn up(r: f64) -> f64 {
    -r
}
fn down(r: f64) -> f64 {
    r
}
fn still(_: f64) -> f64 {
    0.0
}

fn ppo_points() -> Vec<(PpoClip, Vec<[Point; 2]>)> {
    let (low, high) = (0.8f64.ln(), 1.2f64.ln());
    let bounded = |delta, dual_clip| PpoClip {
        delta,
        dual_clip,
        ..PpoClip::default()
    };
    let cap = 1.5f64.ln();
    // Up only above 1 + high, down only below 1 - low.
    let mut plain = vec![
        around(low, 1.0, [up, up]),
        around(high, 1.0, [up, still]),
        around(low, -1.0, [still, down]),
        around(high, -1.0, [down, down]),
        around(cap, -1.0, [down, down]),
    ];
    let all = plain.clone();
    plain.pop();
    // The cap of an unbounded loss.
    plain.extend([
        around(cap, -1.0, [down, still]),
        around(cap, 1.0, [still, still]),
    ]);
    let higher = vec![
        around(1.28f64.ln(), 1.0, [up, still]),
        around(high, 1.0, [up, up]),
        around(1.28f64.ln(), -1.0, [down, down]),
        around(low, -1.0, [still, down]),
    ];
    vec![
        (PpoClip::default(), all),
        (PpoClip::range(0.2, 0.28), higher),
        (bounded(Some(1.5), None), plain.clone()),
        (bounded(None, Some(1.5)), plain),
    ]
}

fn cispo_points() -> Vec<(CispoBand, Vec<[Point; 2]>)> {
    let band = CispoBand::AroundOne {
        low: 0.2,
        high: 0.28,
    };
    let (low, high, cap) = (0.8f64.ln(), 1.28f64.ln(), 1.5f64.ln());
    vec![
        (
            CispoBand::Cap(1.5),
            vec![
                around(cap, 1.0, [up, |_| -1.5]),
                around(cap, -1.0, [down, |_| 1.5]),
                around(low, 1.0, [up, up]),
                around(low, -1.0, [down, down]),
            ],
        ),
        (
            band,
            vec![
                around(low, 1.0, [|_| -0.8, up]),
                around(low, -1.0, [|_| 0.8, down]),
                around(high, 1.0, [up, |_| -1.28]),
                around(high, -1.0, [down, |_| 1.28]),
            ],
        ),
    ]
}

/// The log-ratio on the given side of 0 at which old and new are `bound` apart.
fn where_apart(distance: impl Fn(f64) -> f64, bound: f64, side: f64) -> f64 {
    let (mut near, mut far) = (0.0, 0.99 * side);
    for _ in 0..60 {
        let middle = (near + far) / 2.0;
        if distance(middle) > bound {
            far = middle
        } else {
            near = middle
        }
    }
    near
}

fn dppo_points() -> Vec<(Dppo, Vec<[Point; 2]>)> {
    // The new probability is 1/e; a log-ratio of d makes the old one e^(-1 - d).
    let p = (-1f64).exp();
    let tv = |d: f64| (p - p * (-d).exp()).abs();
    let kl = |d: f64| {
        let q = p * (-d).exp();
        q * (q / p).ln() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).ln()
    };
    let (low, high) = (0.12, 0.13);
    let of = |divergence, distance: &dyn Fn(f64) -> f64| {
        let config = Dppo {
            divergence,
            low,
            high,
            ratio_cap: 2.75,
        };
        let far_up = where_apart(distance, high, 1.0);
        let far_down = where_apart(distance, low, -1.0);
        let capped = |advantage: f64, gradient: f64| {
            let point = |d: f64, gradient| (-6.0, d, advantage, gradient);
            let cap = 2.75f64.ln();
            let below = (cap - NEAR).exp() * gradient.signum();
            [point(cap - NEAR, below), point(cap + NEAR, gradient)]
        };
        let points = vec![
            around(far_up, 1.0, [up, still]),
            around(far_up, -1.0, [down, down]),
            around(far_down, 1.0, [up, up]),
            around(far_down, -1.0, [still, down]),
            capped(1.0, -2.75),
            capped(-1.0, 2.75),
        ];
        (config, points)
    };
    vec![of(BinaryDivergence::Tv, &tv), of(BinaryDivergence::Kl, &kl)]
}

/// Every surrogate with the points around its kinks.
fn points() -> Vec<(Surrogate, Vec<[Point; 2]>)> {
    let mut all = Vec::new();
    all.extend(
        ppo_points()
            .into_iter()
            .map(|(c, points)| (Surrogate::PpoClip(c), points)),
    );
    let cispo = cispo_points().into_iter();
    all.extend(cispo.map(|(band, points)| (Surrogate::Cispo(Cispo { band }), points)));
    all.extend(
        dppo_points()
            .into_iter()
            .map(|(c, points)| (Surrogate::Dppo(c), points)),
    );
    // The temperature changes with the sign of the advantage.
    let gate = |tau: f64, r: f64| {
        let sigmoid = 1.0 / (1.0 + (-tau * (r - 1.0)).exp());
        4.0 * sigmoid * (1.0 - sigmoid) * r
    };
    let (d, a) = (0.75f64, 0.01);
    let switch = [
        (-1.0, d, -a, a * gate(1.5, d.exp())),
        (-1.0, d, a, -a * gate(1.0, d.exp())),
    ];
    let sapo = Sapo {
        tau_neg: 1.5,
        ..Sapo::default()
    };
    all.push((Surrogate::Sapo(sapo), vec![switch]));
    // So do the exponents of the weight, which has no gradient.
    let phi = |k: f64, lambda: f64, s: f64| (lambda + k * s - lambda * s.exp()).exp();
    let switch = [
        (-1.0, d, -a, a * phi(3.0, 2.0, d)),
        (-1.0, d, a, -a * phi(2.0, 3.0, d)),
    ];
    all.push((Surrogate::Vespo(Vespo::default()), vec![switch]));
    // The ratio of the completion is no smaller than 1e-8; with a small k that can be seen.
    let slow = Vespo {
        k_pos: 0.1,
        lambda_pos: 1.0,
        ..Vespo::default()
    };
    let least = 1e-8f64.ln();
    let held = [
        (-19.0, least - 0.5, 1.0, -phi(0.1, 1.0, least)),
        (-19.0, least + 0.5, 1.0, -phi(0.1, 1.0, least + 0.5)),
    ];
    all.push((Surrogate::Vespo(slow), vec![held]));
    let gmpo = vec![
        around(0.4, 1.0, [up, still]),
        around(-0.3, 1.0, [up, up]),
        around(0.4, -1.0, [down, down]),
        around(-0.3, -1.0, [still, down]),
    ];
    let config = Gmpo {
        low: 0.3,
        high: 0.4,
    };
    all.push((Surrogate::Gmpo(config), gmpo));
    // A parabola around the old policy: no kink.
    let dro = [
        (-1.0, -NEAR, 1.0, -1.0 - 2.0 * NEAR),
        (-1.0, NEAR, 1.0, -1.0 + 2.0 * NEAR),
    ];
    all.push((Surrogate::Dro(Dro { beta: 2.0 }), vec![dro]));
    // The only token is first in every ranking; its penalty changes sign where the policy has not
    // moved.
    let kl_cov = KlCov {
        ratio: 1.0,
        coef: 0.25,
    };
    all.push((
        Surrogate::KlCov(kl_cov),
        vec![around(0.0, 1.0, [|r| -r - 0.25, |r| -r + 0.25])],
    ));
    // A single token has no covariance, and is clipped as in PPO.
    let plain = ppo_points().remove(0).1;
    all.push((Surrogate::ClipCov(ClipCov::default()), plain));
    let reinforce = around(0.0, 2.0, [|_| -2.0, |_| -2.0]);
    all.push((Surrogate::Reinforce(Reinforce {}), vec![reinforce]));
    all
}

#[test]
fn each_side_of_a_kink_has_the_gradient_of_the_paper() {
    let mut checked = 0;
    for (surrogate, points) in points() {
        let objective = objective(surrogate.clone());
        for (log_prob, moved, advantage, want) in points.into_iter().flatten() {
            let what = format!("{surrogate:?} at {moved}, advantage {advantage}");
            let rows = [Row::alone(vec![cell(log_prob, moved, advantage)])];
            for (backend, device) in devices() {
                let got = Outcome::whole(&objective, &rows, &device);
                assert_close(
                    got.log_probs[0][0],
                    want,
                    2e-5,
                    1e-6,
                    &format!("{backend} {what}"),
                );
                assert_formula(&objective, &rows, &device, &what);
                checked += 1;
            }
        }
    }
    assert_eq!(
        checked,
        2 * devices().len() * (5 + 4 + 6 + 6 + 4 + 4 + 6 + 6 + 1 + 1 + 1 + 4 + 1 + 1 + 5 + 1)
    );
}

#[test]
fn each_side_of_a_kink_agrees_with_finite_differences_at_every_ratio_level() {
    let levels = [
        RatioLevel::Token,
        RatioLevel::Sequence,
        RatioLevel::SequenceSum,
        RatioLevel::SequenceToken,
    ];
    for (surrogate, points) in points() {
        for ratio_level in levels {
            let objective = PolicyObjective {
                ratio_level,
                ..objective(surrogate.clone())
            };
            if objective.validate().is_err() {
                continue;
            }
            for (log_prob, moved, advantage, _) in points.iter().copied().flatten() {
                // Two tokens whose ratio is that of the point, the second with another advantage.
                let [first, second] = match ratio_level {
                    RatioLevel::SequenceSum => [moved - 0.25, 0.25],
                    _ => [moved + 0.25, moved - 0.25],
                };
                let rows = [
                    Row::alone(vec![
                        cell(log_prob, first, advantage),
                        cell(log_prob - 0.5, second, -0.5 * advantage),
                    ]),
                    Row::alone(vec![cell(log_prob, moved, advantage)]),
                ];
                let what = format!("{surrogate:?} {ratio_level:?} at {moved}, {advantage}");
                for (_, device) in devices() {
                    assert_formula(&objective, &rows, &device, &what);
                }
            }
        }
    }
}

#[test]
fn a_covariance_inside_the_band_loses_its_gradient() {
    let config = ClipCov {
        ratio: 1.0,
        lower: 0.5,
        upper: 2.0,
        ..ClipCov::default()
    };
    let objective = objective(Surrogate::ClipCov(config));
    for (covariance, flows) in [(0.49, true), (0.51, false), (1.99, false), (2.01, true)] {
        // Log-probs and advantages are both 1 and `covariance` around their means.
        let rows = [Row::alone(vec![
            cell(-3.0 + covariance, 0.125, 1.0),
            cell(-3.0 - covariance, 0.125, -1.0),
        ])];
        for (_, device) in devices() {
            let got = Outcome::whole(&objective, &rows, &device);
            let r = f64::from(flows) * 0.125f64.exp();
            assert_close(got.log_probs[0][0], -r, 1e-5, 0.0, "up");
            assert_close(got.log_probs[0][1], r, 1e-5, 0.0, "down");
            assert_formula(&objective, &rows, &device, "clip_cov");
            let picked = if flows { 0.0 } else { 2.0 };
            assert_eq!(got.metrics.sum("clip"), Some(picked));
        }
    }
}

#[test]
fn the_bound_on_a_single_token_of_vespo_is_within_the_sum() {
    // -25 counts as -20: the sum is 0 and phi is 1.
    let objective = objective(Surrogate::Vespo(Vespo::default()));
    let rows = [Row::alone(vec![
        cell(-26.0, -25.0, 1.0),
        cell(-1.0, 20.0, -2.0),
    ])];
    for (_, device) in devices() {
        let got = Outcome::whole(&objective, &rows, &device);
        assert_close(got.log_probs[0][0], -1.0, 1e-5, 0.0, "up");
        assert_close(got.log_probs[0][1], 2.0, 1e-5, 0.0, "down");
        assert_formula(&objective, &rows, &device, "vespo");
    }
}

#[test]
fn a_clamped_log_ratio_has_no_gradient_outside() {
    let clip = Surrogate::PpoClip(PpoClip::range(10.0, 10.0));
    let objective = PolicyObjective {
        log_ratio_clamp: Some(LogRatioClamp {
            min: Some(-0.5),
            max: Some(0.75),
        }),
        ..objective(clip)
    };
    let corrected = objective.clone().with_kl(Some(KlPenalty {
        importance_corrected: true,
        ..KlPenalty::new(0.5, KlEstimator::K3)
    }));
    for (at, sides) in [(-0.5, [still as fn(f64) -> f64, up]), (0.75, [up, still])] {
        for (log_prob, moved, advantage, want) in around(at, 1.0, sides) {
            let token = Cell {
                reference: log_prob + 0.5,
                ..cell(log_prob, moved, advantage)
            };
            let rows = [Row::alone(vec![token])];
            for (backend, device) in devices() {
                let got = Outcome::whole(&objective, &rows, &device).log_probs[0][0];
                assert_close(got, want, 1e-5, 0.0, backend);
                assert_formula(&objective, &rows, &device, "clamp");
                // The ratio in the KL is clamped too: its own gradient is 0 there, that of the
                // estimate is not.
                assert_formula(&corrected, &rows, &device, "clamp in the KL");
            }
        }
    }
}

/// The gradient of a KL penalty alone at `x = ln ref - ln pi`.
fn kl_gradient(penalty: KlPenalty, x: f64, moved: f64, device: &Device) -> (f64, f64) {
    let objective = objective(Surrogate::Reinforce(Reinforce {})).with_kl(Some(penalty));
    let token = Cell {
        reference: -1.0 + x,
        ..cell(-1.0, moved, 0.0)
    };
    let rows = [Row::alone(vec![token])];
    assert_formula(&objective, &rows, device, &format!("{penalty:?} at {x}"));
    let got = Outcome::whole(&objective, &rows, device);
    (got.loss, got.log_probs[0][0])
}

#[test]
fn kl_penalties_have_the_gradient_of_their_estimator_on_both_sides_of_a_clamp() {
    use KlEstimator::{Abs, K1, K2, K3};
    let plain = |estimator| KlPenalty::new(1.0, estimator);
    let held = |estimator| KlPenalty {
        log_ratio_clamp: Some(1.0),
        ..plain(estimator)
    };
    let capped = |estimator| KlPenalty {
        value_clamp: Some(0.5),
        ..plain(estimator)
    };
    let through = |penalty| KlPenalty {
        straight_through: true,
        ..penalty
    };
    // K3 is 0.5 at these log-ratios.
    let (low, high) = (-1.198_257, 0.857_646);
    let cases: Vec<(KlPenalty, f64, f64)> = vec![
        (plain(K1), -0.5, 1.0),
        (plain(K1), 0.5, 1.0),
        (plain(K2), -0.5, 0.5),
        (plain(K2), 0.5, -0.5),
        (plain(K3), -0.5, 1.0 - (-0.5f64).exp()),
        (plain(K3), 0.5, 1.0 - 0.5f64.exp()),
        (plain(Abs), -NEAR, 1.0),
        (plain(Abs), NEAR, -1.0),
        (held(K1), -1.0 - NEAR, 0.0),
        (held(K1), -1.0 + NEAR, 1.0),
        (held(K2), 1.0 - NEAR, -1.0 + NEAR),
        (held(K2), 1.0 + NEAR, 0.0),
        (held(K3), 1.0 - NEAR, 1.0 - (1.0 - NEAR).exp()),
        (held(K3), 1.0 + NEAR, 0.0),
        (held(Abs), -1.0 - NEAR, 0.0),
        (held(Abs), -1.0 + NEAR, 1.0),
        (capped(K1), 0.5 - NEAR, 1.0),
        (capped(K1), 0.5 + NEAR, 0.0),
        (capped(K1), -0.5 - NEAR, 0.0),
        (capped(K2), 1.0 - NEAR, -1.0 + NEAR),
        (capped(K2), 1.0 + NEAR, 0.0),
        (capped(K3), low - NEAR, 0.0),
        (capped(K3), low + NEAR, 1.0 - (low + NEAR).exp()),
        (capped(K3), high - NEAR, 1.0 - (high - NEAR).exp()),
        (capped(K3), high + NEAR, 0.0),
        (capped(Abs), 0.5 - NEAR, -1.0),
        (capped(Abs), 0.5 + NEAR, 0.0),
        // The gradient of k2, clamped or not.
        (through(plain(K1)), 0.75, -0.75),
        (through(plain(K3)), -0.75, 0.75),
        (through(plain(Abs)), 0.75, -0.75),
        (through(held(K3)), 1.5, -1.5),
        (through(capped(K3)), -1.5, 1.5),
    ];
    for (backend, device) in devices() {
        for &(penalty, x, want) in &cases {
            let (loss, gradient) = kl_gradient(penalty, x, 0.0, &device);
            let what = format!("{backend} {penalty:?} at {x}");
            assert_close(gradient, want, 1e-5, 1e-6, &what);
            assert_close(loss, penalty.value(-1.0, -1.0 + x), 1e-5, 1e-6, &what);
        }
        // (1 - e^x) r from the estimate, k3 r from the ratio.
        let corrected = KlPenalty {
            importance_corrected: true,
            ..plain(K3)
        };
        for (x, moved) in [(0.5f64, 0.0f64), (-0.5, 0.25), (0.5, -0.75)] {
            let (k3, r) = (x.exp() - 1.0 - x, moved.exp());
            let (loss, gradient) = kl_gradient(corrected, x, moved, &device);
            assert_close(loss, k3 * r, 1e-5, 1e-6, backend);
            assert_close(gradient, (1.0 - x.exp() + k3) * r, 1e-5, 1e-6, backend);
        }
    }
}
