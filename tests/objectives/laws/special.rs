//! Special points: on-policy, zero advantages, ratios beyond f32, inputs that are only measured.

use std::fmt::Arguments;

use burn::tensor::Device;
use rlvr::loss::{
    Aggregation, ClipCov, ImportanceWeights, KlEstimator, KlPenalty, LossInput, PolicyObjective,
    PpoClip, RatioLevel, SamplerCorrection, StepCounts, Surrogate, WeightAction, WeightLevel,
};

use super::batch::{Cell, NOTHING, Outcome, Row, input, small_batch};
use super::invariance::{hold, rows};
use super::parts::{Parts, levels, surrogates};
use crate::common::{assert_close, devices, floats, matrix};

/// Every surrogate at every level it allows, token mean.
fn at_every_level() -> Vec<PolicyObjective> {
    let mut all = Vec::new();
    for (_, surrogate) in surrogates() {
        for (_, ratio_level) in levels() {
            let objective = PolicyObjective {
                ratio_level,
                ..PolicyObjective::new(surrogate.clone(), Aggregation::TokenMean)
            };
            all.extend(Some(objective).filter(|objective| objective.validate().is_ok()));
        }
    }
    assert_eq!(all.len(), 4 * 4 + 2 * 4 + 4 + 1 + 2 + 2 + 1 + 1 + 1 + 1);
    all
}

#[test]
fn objectives_report_whether_zero_advantages_have_a_gradient() {
    hold(rows, |objective, device, rows| {
        if !objective.ignores_zero_advantages() {
            return;
        }
        let mut flat = rows.clone();
        for cell in flat.iter_mut().flat_map(|row| &mut row.cells) {
            cell.advantage = 0.0;
        }
        let got = Outcome::whole(objective, &flat, device);
        assert_eq!((got.steepest(), got.loss), (0.0, 0.0));
    });
    // The others have a gradient on a batch without masks.
    let parts = Parts::all();
    let mut flat = small_batch();
    for cell in flat.iter_mut().flat_map(|row| &mut row.cells) {
        cell.advantage = 0.0;
    }
    for (_, device) in devices() {
        for places in parts.one_by_one() {
            let objective = parts.objective(places);
            // Covariances are with the mean of the step, so a single token does not decide whether
            // they are 0.
            let compares = matches!(objective.surrogate, Surrogate::ClipCov(_));
            if !objective.ignores_zero_advantages() && !compares {
                let got = Outcome::whole(&objective, &flat, &device);
                assert!(got.steepest() > 1e-5, "{objective:?}");
            }
        }
    }
}

impl Outcome {
    fn steepest(&self) -> f64 {
        let gradients = self.log_probs.iter().chain(&self.entropies).flatten();
        gradients.fold(0f64, |most, gradient| most.max(gradient.abs()))
    }
}

#[test]
fn on_policy_every_surrogate_is_the_policy_gradient() {
    for (backend, device) in devices() {
        let mut rows = small_batch();
        for row in &mut rows {
            // One advantage per completion: with several, a sequence ratio gives each token their
            // mean.
            let shared = row.cells[0].advantage;
            for cell in row.cells.iter_mut().filter(|cell| cell.mask) {
                cell.advantage = shared;
                cell.old = cell.log_prob;
            }
        }
        let equal = input(&rows, &device);
        let none = LossInput {
            old_log_probs: None,
            ..input(&rows, &device)
        };
        let reinforce = PolicyObjective::reinforce();
        let step = reinforce.statistics(std::slice::from_ref(&none)).unwrap();
        let reinforce = Outcome::of(&reinforce, &none, &step);
        for objective in at_every_level() {
            let what = format!("{backend} {objective:?}");
            let step = objective.statistics(std::slice::from_ref(&none)).unwrap();
            let fresh = Outcome::of(&objective, &input_again(&none), &step);
            let same = Outcome::of(&objective, &input_again(&equal), &step);
            assert_eq!(fresh.loss, same.loss, "{what}");
            assert_eq!(fresh.log_probs, same.log_probs, "{what}");
            assert_eq!(fresh.metrics, same.metrics, "{what}");
            assert_eq!(fresh.metrics.mean("ratio"), Some(1.0), "{what}");
            for name in ["approx_kl", "ppo_kl", "clip_low", "clip_high", "bounded"] {
                let count = fresh.metrics.sum(name);
                assert!(count.is_none_or(|count| count == 0.0), "{name} {what}");
            }
            // Their selected tokens have none, or are at the kink of |d|.
            if matches!(
                objective.surrogate,
                Surrogate::ClipCov(_) | Surrogate::KlCov(_)
            ) {
                continue;
            }
            // The sum of a sequence ratio has the gradient of each of its tokens at each of them.
            for (b, row) in rows.iter().enumerate() {
                let whole = match objective.ratio_level {
                    RatioLevel::SequenceSum if reads_level(&objective) => row.tokens().count(),
                    _ => 1,
                };
                for (t, _) in row.tokens() {
                    let want = reinforce.log_probs[b][t] * whole as f64;
                    assert_close(fresh.log_probs[b][t], want, 1e-5, 1e-7, &what);
                }
            }
        }
    }
}

/// Whether the gradient runs through the ratio at the objective's level.
fn reads_level(objective: &PolicyObjective) -> bool {
    !matches!(objective.surrogate, Surrogate::Cispo(_))
}

/// The same values as separate leaves.
fn input_again(input: &LossInput) -> LossInput {
    let leaf = |tensor: &burn::tensor::Tensor<2>| tensor.clone().inner().autodiff().require_grad();
    LossInput {
        log_probs: leaf(&input.log_probs),
        entropies: input.entropies.as_ref().map(leaf),
        ..input.clone()
    }
}

#[test]
fn a_clip_range_of_zero_has_the_policy_gradient_on_policy() {
    // The ratio is exactly at both bounds: neither removes the gradient.
    let cell = |log_prob: f64, advantage: f64| Cell {
        mask: true,
        log_prob,
        old: log_prob,
        advantage,
        ..NOTHING
    };
    let rows = [Row::alone(vec![cell(-1.0, 2.0), cell(-0.5, -3.0)])];
    for (backend, device) in devices() {
        for low in [0.0, 0.2] {
            let objective = PolicyObjective {
                surrogate: Surrogate::PpoClip(PpoClip::range(low, 0.0)),
                ..PolicyObjective::ppo()
            };
            let got = Outcome::whole(&objective, &rows, &device);
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
            sampler: -1.2,
            entropy: 0.75,
            advantage: 2.0,
        };
        let rows = [Row::alone(vec![cell])];
        let objective = PolicyObjective::dapo();
        let measured = Outcome::whole(&objective, &rows, &device);
        let leaf = matrix(&[vec![-1.0]], &device).autodiff().require_grad();
        let bare = LossInput {
            old_log_probs: Some(matrix(&[vec![-1.1]], &device)),
            ..LossInput::new(
                leaf.clone(),
                matrix(&[vec![2.0]], &device),
                matrix(&[vec![1.0]], &device),
            )
        };
        let loss = objective.loss(&bare, StepCounts::of(&[1])).unwrap();
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

/// Two tokens that moved by `moved`, next to one that did not; all are `away` from the reference.
fn far(moved: f64, away: f64, advantage: f64) -> Vec<Row> {
    let cell = |moved: f64| Cell {
        mask: true,
        log_prob: if moved < 0.0 { -0.5 + moved } else { -0.5 },
        old: if moved < 0.0 { -0.5 } else { -0.5 - moved },
        reference: if moved < 0.0 { -0.5 + moved } else { -0.5 } + away,
        sampler: -0.75,
        entropy: 0.5,
        advantage,
    };
    let row = |cells| Row { prompt: 0, cells };
    vec![row(vec![cell(moved), cell(0.0)]), row(vec![cell(moved)])]
}

fn assert_finite(objective: &PolicyObjective, rows: &[Row], device: &Device, what: Arguments) {
    let got = Outcome::whole(objective, rows, device);
    assert!(got.loss.is_finite(), "{what}: loss {}", got.loss);
    let finite = got.log_probs.iter().flatten().all(|g| g.is_finite());
    assert!(finite, "{what}: gradient {:?}", got.log_probs);
}

#[test]
fn a_sampler_weight_too_large_for_f32_has_a_finite_loss_and_gradient() {
    for (backend, device) in devices() {
        for (level, advantage) in [
            (WeightLevel::Token, 1.0),
            (WeightLevel::Token, 0.0),
            (WeightLevel::Sequence, 1.0),
            (WeightLevel::Sequence, 0.0),
        ] {
            let weights = ImportanceWeights::new(level, WeightAction::Truncate);
            let correction = SamplerCorrection {
                weights: Some(weights),
                ..SamplerCorrection::default()
            };
            let objective = PolicyObjective::dapo().with_sampler_correction(Some(correction));
            let mut rows = far(0.0, 0.0, advantage);
            rows[0].cells[0].sampler = rows[0].cells[0].old - 99.9;
            assert_finite(
                &objective,
                &rows,
                &device,
                format_args!("{backend} {level:?} {advantage}"),
            );
            let got = Outcome::whole(&objective, &rows, &device);
            assert!(advantage != 0.0 || got.loss == 0.0, "{}", got.loss);
            let squares: f64 = got.log_probs.iter().flatten().map(|g| g * g).sum();
            assert!(squares < f64::from(f32::MAX), "{squares:e}");
        }
    }
}

#[test]
fn a_ratio_too_large_for_f32_has_a_finite_loss_and_gradient() {
    let kls = [
        None,
        Some(KlPenalty::new(0.1, KlEstimator::K3)),
        Some(KlPenalty {
            importance_corrected: true,
            ..KlPenalty::new(0.1, KlEstimator::K3)
        }),
    ];
    for (at, (backend, device)) in devices().into_iter().enumerate() {
        // The second backend needs no second survey of distances.
        let sizes: &[f64] = if at == 0 {
            &[1000.0, 119.0, 60.0]
        } else {
            &[119.0]
        };
        let moves: Vec<f64> = sizes.iter().flat_map(|&size| [-size, size]).collect();
        for objective in at_every_level() {
            for kl in kls {
                let objective = objective.clone().with_kl(kl);
                for advantage in [1.0, 0.0, -1.0] {
                    for &moved in &moves {
                        // Only a KL reads the reference.
                        let aways = [moved, -moved];
                        for &away in &aways[..if kl.is_some() { 2 } else { 1 }] {
                            let rows = far(moved, away, advantage);
                            let what =
                                format_args!("{backend} {objective:?} {advantage} {moved} {away}");
                            assert_finite(&objective, &rows, &device, what);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_samplers_weights_multiply_the_policy_term_only() {
    let parts = Parts::all();
    let weighted = parts.corrections[1].1.clone();
    let rows = small_batch();
    for (backend, device) in devices() {
        let gap = |kl| {
            let plain = PolicyObjective::dapo().with_kl(kl);
            let with = plain.clone().with_sampler_correction(weighted.clone());
            let [with, plain] = [with, plain].map(|o| Outcome::whole(&o, &rows, &device).loss);
            with - plain
        };
        let without = gap(None);
        assert!(without.abs() > 0.01, "{without}");
        for beta in [0.1, 0.7] {
            let with = gap(Some(KlPenalty::new(beta, KlEstimator::K3)));
            assert_close(with, without, 0.0, 1e-6, backend);
        }
    }
}

#[test]
fn clip_cov_selects_the_same_tokens_in_any_order() {
    let config = ClipCov {
        ratio: 0.25,
        lower: 0.0,
        ..ClipCov::default()
    };
    let objective = PolicyObjective::dapo().with_surrogate(Surrogate::ClipCov(config));
    // Log-probs rise with advantages: most tokens are candidates.
    let rows: Vec<Row> = (0..6)
        .map(|b| {
            let cell = |t: usize| {
                let x = (b * 4 + t) as f64 / 8.0 - 1.5;
                Cell {
                    mask: true,
                    log_prob: -3.0 + x,
                    old: -3.0 + x - 1.0 / 16.0,
                    advantage: x + 1.0 / 16.0,
                    ..NOTHING
                }
            };
            Row::alone((0..4).map(cell).collect())
        })
        .collect();
    for (backend, device) in devices() {
        let got = Outcome::whole(&objective, &rows, &device);
        let picked: Vec<bool> = got.log_probs.iter().flatten().map(|&g| g == 0.0).collect();
        let count = picked.iter().filter(|&&picked| picked).count();
        assert_eq!(count, 24 / 4, "{backend} {:?}", got.log_probs);
        assert_eq!(got.metrics.sum("clip"), Some(6.0), "{backend}");
        // Not just the first or the last of them.
        assert!(
            picked[..12].contains(&true) && picked[12..].contains(&true),
            "{picked:?}"
        );
        let reversed: Vec<Row> = rows.iter().rev().cloned().collect();
        let back = Outcome::whole(&objective, &reversed, &device);
        for b in 0..6 {
            let places = |row: &Vec<f64>| row.iter().map(|&g| g == 0.0).collect::<Vec<_>>();
            assert_eq!(
                places(&back.log_probs[5 - b]),
                places(&got.log_probs[b]),
                "{backend}"
            );
        }
    }
}
