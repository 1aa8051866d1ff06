//! Compares the fused forms on `flex` with the composed ones on `ndarray`, which has no kernels:
//! values and gradients.

use burn::nn::{RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;

use super::*;
use crate::policy::{LogProbConfig, ScoredTokens};
use crate::{Result, random};

/// Pseudorandom numbers between -1 and 1, the same on every device.
fn numbers<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut rng = random::generator(&[seed]);
    let count = shape.iter().product();
    let numbers: Vec<f32> = (0..count)
        .map(|_| (2.0 * rng.random::<f64>() - 1.0) as f32)
        .collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// Asserts that `run` has the same result on `flex` and `ndarray`, on the gradient tape, under both
/// checkpointing strategies.
fn same(run: impl Fn(&Device) -> Vec<f32>) {
    #[allow(deprecated, reason = "the other CPU backend, as long as Burn has it")]
    let others = Device::ndarray();
    let devices: [fn(Device) -> Device; 2] = [Device::autodiff, |device| {
        device.autodiff().gradient_checkpointing()
    }];
    for on in devices {
        let (got, expected) = (run(&on(Device::flex())), run(&on(others.clone())));
        assert_eq!(got.len(), expected.len());
        for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let off = (got - expected).abs();
            assert!(
                off < 2e-5 * (1.0 + expected.abs()),
                "{index}: {got}, not {expected}"
            );
        }
    }
}

/// Returns the values of `f` and its gradient with respect to each of `inputs`.
fn with_gradients<const D: usize, const E: usize, const N: usize>(
    inputs: [Tensor<D>; N],
    f: impl Fn([Tensor<D>; N]) -> Tensor<E>,
) -> Vec<f32> {
    let inputs = inputs.map(Tensor::require_grad);
    let y = f(inputs.clone());
    let weights = numbers(y.dims(), 99, &y.clone().inner().device());
    let mut all = floats(y.clone().inner());
    let mut gradients = (y * weights).sum().backward();
    for input in inputs {
        all.extend(floats(input.grad_remove(&mut gradients).unwrap()));
    }
    all
}

#[test]
fn fused_linear_matches_the_composed_form() {
    same(|device| {
        let (x, w) = (
            numbers([2, 3, 5], 1, device),
            numbers([5, 4], 2, device).require_grad(),
        );
        let bias = numbers([4], 3, device).require_grad();
        let y = linear(x.clone().require_grad(), w.clone(), Some(bias.clone()));
        let mut gradients = (y.clone() * y.clone()).sum().backward();
        let mut all = floats(y.inner());
        all.extend(floats(w.grad_remove(&mut gradients).unwrap()));
        all.extend(floats(bias.grad_remove(&mut gradients).unwrap()));
        all.extend(with_gradients([x], |[x]| {
            linear(x, w.clone().inner().transpose().reshape([5, 4]), None)
        }));
        // A transposed weight, and rows that are not contiguous.
        let transposed = numbers([4, 5], 4, device);
        let x = numbers([3, 2, 5], 5, device);
        all.extend(with_gradients([x], |[x]| {
            linear(x.swap_dims(0, 1), transposed.clone().transpose(), None)
        }));
        all
    });
}

#[test]
fn fused_rms_norm_matches_the_composed_form() {
    same(|device| {
        let norm: RmsNorm = RmsNormConfig::new(6).with_epsilon(1e-3).init(device);
        let norm = RmsNorm {
            gamma: norm
                .gamma
                .map(|gain| gain * numbers([6], 6, device).inner().autodiff().inner()),
            ..norm
        };
        let gain = numbers([6], 7, device);
        with_gradients([numbers([4, 6], 8, device)], |[x]| {
            rms_norm(&norm, x * gain.clone().unsqueeze())
        })
    });
}

#[test]
fn fused_swiglu_and_rotation_match_the_composed_forms() {
    same(|device| {
        let gate = [
            numbers([2, 3, 4], 9, device),
            numbers([2, 3, 4], 10, device),
        ];
        let mut all = with_gradients(gate, |[gate, up]| swiglu(gate.mul_scalar(5.0), up));
        for rows in [1, 2] {
            let angles = numbers([rows, 3, 2], 11, device).inner();
            let (cos, sin) = (angles.clone().cos(), angles.sin());
            let heads = numbers([2, 3, 2, 4], 12, device);
            all.extend(with_gradients([heads], |[heads]| rotate(heads, &cos, &sin)));
        }
        all
    });
}

#[test]
fn fused_attention_with_masks_and_shared_heads_matches_the_composed_form() {
    let padded = vec![
        vec![true, true, false, true, true, true, true],
        vec![true, true, true, true, true, true, false],
    ];
    same(|device| {
        let mut all = Vec::new();
        for (tokens, queries, window) in [
            (vec![vec![true; 7]; 2], 7, None),
            (vec![vec![true; 7]; 2], 1, None),
            (padded.clone(), 3, None),
            (padded.clone(), 1, None),
            (padded.clone(), 3, Some(2)),
        ] {
            let mut mask = AttentionMask::new(tokens, queries);
            if let Some(window) = window {
                mask = mask.windowed(window).unwrap();
            }
            let q = numbers([2, queries, 4, 6], 13, device);
            // The result of a query at padding is unspecified and masked out.
            let real = numbers([2, queries, 4, 6], 14, device)
                .inner()
                .zeros_like()
                .add_scalar(1.0);
            let real = match queries {
                1 => real,
                _ => real.slice_assign(
                    [1..2, queries - 1..queries, 0..4, 0..6],
                    Tensor::zeros([1, 1, 4, 6], &device.clone().inner()),
                ),
            };
            let (k, v) = (
                numbers([2, 2, 7, 6], 15, device),
                numbers([2, 2, 7, 6], 16, device),
            );
            let queries = q.clone();
            all.extend(with_gradients([k, v], |[k, v]| {
                attention(queries.clone(), k, v, &mask) * real.clone()
            }));
            let (k, v) = (
                numbers([2, 7, 2, 6], 17, device),
                numbers([2, 7, 2, 6], 18, device),
            );
            let (k, v) = (k.swap_dims(1, 2), v.swap_dims(1, 2));
            all.extend(with_gradients([q], |[q]| {
                attention(q, k.clone(), v.clone(), &mask) * real.clone()
            }));
        }
        all
    });
}

#[test]
fn fused_token_scores_match_the_composed_form() {
    same(|device| {
        let run = || -> Result<Vec<f32>> {
            let mut all = Vec::new();
            for entropy in [0.0, 0.5] {
                let hidden = numbers([2, 3, 4], 19, device).require_grad();
                let tied = numbers([9, 4], 20, device).require_grad();
                let targets = Tensor::<2, Int>::from_data([[0, 8, 3], [3, 3, 5]], device);
                let config = LogProbConfig {
                    temperature: 0.7,
                    chunk: 2,
                };
                let scored =
                    ScoredTokens::new(hidden.clone(), tied.clone().transpose(), targets, &config)?;
                all.extend(floats(scored.log_probs.clone().inner()));
                all.extend(floats(scored.entropies.clone().inner()));
                // The last token has no gradient.
                let weights = Tensor::<2>::from_data(
                    [[1.0, -2.0, 0.3], [0.5, 1.0, 0.0]],
                    &device.clone().inner(),
                );
                let sum = scored.log_probs.clone() + scored.entropies.clone().mul_scalar(entropy);
                let loss = (sum * weights).sum();
                let both = Both {
                    hidden: burn::module::Param::from_tensor(hidden),
                    tied: burn::module::Param::from_tensor(tied),
                };
                let gradients = scored.backward(loss, &both)?;
                all.extend(floats(gradients.get::<3>(both.hidden.id).unwrap()));
                all.extend(floats(gradients.get::<2>(both.tied.id).unwrap()));
            }
            Ok(all)
        };
        run().unwrap()
    });
}

#[derive(burn::module::Module, Debug)]
struct Both {
    hidden: burn::module::Param<Tensor<3>>,
    tied: burn::module::Param<Tensor<2>>,
}

#[test]
fn fused_optimizer_matches_the_composed_form() {
    same(|device| {
        let device = &device.clone().inner();
        let update = AdamW {
            beta_1: 0.9,
            beta_2: 0.99,
            epsilon: 1e-3,
            learning_rate: 0.1,
            scale: 0.5,
            corrections: [0.1, 0.01],
        };
        let (mut weight, gradient) = (numbers([3, 4], 21, device), numbers([3, 4], 22, device));
        let mut moments = [None, None];
        for decay in [0.0, 0.3] {
            let (moved, new) = update.step(weight, gradient.clone(), moments, decay);
            // A second owner of the moments: its copy must not change.
            let _held = new.clone();
            (weight, moments) = (moved, new.map(Some));
        }
        let [first, second] = moments.map(Option::unwrap);
        let sum = add_scaled(
            weight.clone(),
            -0.3,
            gradient.clone().transpose().reshape([3, 4]),
        );
        let squares = match sum_of_squares(gradient) {
            Ok(sum) => sum as f32,
            Err(sum) => sum.into_scalar(),
        };
        [
            floats(weight),
            floats(first),
            floats(second),
            floats(sum),
            vec![squares],
        ]
        .concat()
    });
}

#[test]
fn pull_gives_a_tensor_its_gradient() {
    same(|device| {
        let x = numbers([2, 3], 23, device).require_grad();
        let [a, b] = [24, 25].map(|seed| numbers([2, 3], seed, &device.clone().inner()));
        let pulled = pull(x.clone(), a) + pull(x.clone().mul_scalar(2.0), b);
        let mut gradients = pulled.backward();
        floats(x.grad_remove(&mut gradients).unwrap())
    });
}
