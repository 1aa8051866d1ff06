//! AdamW against values computed in f64.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use rlvr::train::{Optimizer, OptimizerConfig, Schedule, global_norm};

use crate::common::toy;
use crate::common::{assert_close, devices, floats};

/// A matrix, which decays, and a vector, which does not.
#[derive(Module, Debug)]
struct Small {
    matrix: Param<Tensor<2>>,
    vector: Param<Tensor<1>>,
}

const MATRIX: [[f64; 2]; 2] = [[1.0, -2.0], [0.5, 4.0]];
const VECTOR: [f64; 2] = [3.0, -1.0];
/// Two gradients; the second has another sign, another size and a zero.
const FIRST: ([[f64; 2]; 2], [f64; 2]) = ([[0.3, -0.1], [0.0, 0.2]], [0.4, -0.05]);
const SECOND: ([[f64; 2]; 2], [f64; 2]) = ([[-0.6, -0.2], [0.1, 0.0]], [0.02, 0.7]);

fn small(device: &Device) -> Small {
    let device = device.clone().autodiff();
    Small {
        matrix: Param::from_tensor(Tensor::from_data(MATRIX, &device)),
        vector: Param::from_tensor(Tensor::from_data(VECTOR, &device)),
    }
}

fn gradients(model: &Small, of: ([[f64; 2]; 2], [f64; 2]), device: &Device) -> GradientsParams {
    let mut gradients = GradientsParams::new();
    gradients.register(model.matrix.id, Tensor::<2>::from_data(of.0, device));
    gradients.register(model.vector.id, Tensor::<1>::from_data(of.1, device));
    gradients
}

fn config() -> OptimizerConfig {
    OptimizerConfig {
        beta_1: 0.8,
        beta_2: 0.9,
        epsilon: 0.01,
        max_grad_norm: None,
        ..OptimizerConfig::new(Schedule::constant(0.1))
    }
}

/// The paper's update in f64, of one number with its moments.
struct Scalar {
    weight: f64,
    m: f64,
    v: f64,
    t: i32,
}

impl Scalar {
    fn new(weight: f64) -> Self {
        let (m, v, t) = (0.0, 0.0, 0);
        Self { weight, m, v, t }
    }

    fn step(&mut self, gradient: f64, decay: f64) {
        self.t += 1;
        self.m = 0.8 * self.m + 0.2 * gradient;
        self.v = 0.9 * self.v + 0.1 * gradient * gradient;
        let m = self.m / (1.0 - 0.8f64.powi(self.t));
        let v = self.v / (1.0 - 0.9f64.powi(self.t));
        self.weight -= 0.1 * (m / (v.sqrt() + 0.01) + decay * self.weight);
    }
}

fn flat(of: ([[f64; 2]; 2], [f64; 2])) -> Vec<f64> {
    [of.0.concat(), of.1.to_vec()].concat()
}

fn assert_weights(model: &Small, want: &[f64], what: &str) {
    let got = toy::weights(model);
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_close(*got, *want, 1e-5, 1e-6, what);
    }
}

#[test]
fn the_first_step_by_hand() {
    // With zero moments and the corrections the direction is g / (|g| + eps), whatever the decays.
    for (backend, device) in devices() {
        let mut model = small(&device);
        let mut optimizer = Optimizer::new(config()).unwrap();
        let grads = gradients(&model, FIRST, &device);
        let report = optimizer.step(&mut model, grads).unwrap();
        let by_hand = [
            1.0 - 0.1 * (0.3 / 0.31),
            -2.0 + 0.1 * (0.1 / 0.11),
            0.5,
            4.0 - 0.1 * (0.2 / 0.21),
            3.0 - 0.1 * (0.4 / 0.41),
            -1.0 + 0.1 * (0.05 / 0.06),
        ];
        assert_weights(&model, &by_hand, backend);
        let norm = (0.09f64 + 0.01 + 0.04 + 0.16 + 0.0025).sqrt();
        assert_close(report.grad_norm, norm, 1e-6, 0.0, "norm");
        assert_eq!(report.learning_rate, 0.1);
        assert_eq!(optimizer.updates(), 1);
    }
}

#[test]
fn further_steps_remember_both_moments_and_only_matrices_decay() {
    for (backend, device) in devices() {
        for decay in [0.0, 0.5] {
            let config = OptimizerConfig {
                weight_decay: decay,
                ..config()
            };
            let mut model = small(&device);
            let mut optimizer = Optimizer::new(config).unwrap();
            let mut want: Vec<Scalar> = flat((MATRIX, VECTOR))
                .into_iter()
                .map(Scalar::new)
                .collect();
            for (step, gradient) in [FIRST, SECOND, FIRST].into_iter().enumerate() {
                let grads = gradients(&model, gradient, &device);
                optimizer.step(&mut model, grads).unwrap();
                for (at, (scalar, g)) in want.iter_mut().zip(flat(gradient)).enumerate() {
                    scalar.step(g, if at < 4 { decay } else { 0.0 });
                }
                let weights: Vec<f64> = want.iter().map(|scalar| scalar.weight).collect();
                let what = format!("{backend} decay {decay} step {step}");
                assert_weights(&model, &weights, &what);
            }
        }
    }
}

#[test]
fn gradients_are_clipped_by_their_global_norm() {
    let (_, device) = devices().remove(0);
    // |g| = 5 over both tensors; neither alone is longer than 4.
    let long = ([[3.0, 0.0], [0.0, 0.0]], [0.0, 4.0]);
    let step = |max_grad_norm, gradient| {
        let config = OptimizerConfig {
            max_grad_norm,
            ..config()
        };
        let mut model = small(&device);
        let grads = gradients(&model, gradient, &device);
        let norm = global_norm(&grads, &model).unwrap();
        let mut optimizer = Optimizer::new(config).unwrap();
        let report = optimizer.step(&mut model, grads).unwrap();
        assert_eq!(report.grad_norm, norm);
        (norm, toy::weights(&model))
    };
    let (norm, clipped) = step(Some(0.05), long);
    assert_close(norm, 5.0, 1e-6, 0.0, "norm");
    let hundredth = ([[0.03, 0.0], [0.0, 0.0]], [0.0, 0.04]);
    let (_, scaled) = step(None, hundredth);
    assert!(toy::distance(&clipped, &scaled) < 1e-6);
    // 0.03 / (0.03 + eps), by hand.
    assert_close(clipped[0], 1.0 - 0.1 * 0.75, 1e-6, 0.0, "matrix");
    assert_close(clipped[5], -1.0 - 0.1 * 0.8, 1e-6, 0.0, "vector");
    let (_, free) = step(None, long);
    assert!(toy::distance(&clipped, &free) > 1e-2);
    // A gradient within the bound is left as it is, not stretched to it.
    assert_eq!(step(Some(5.5), long).1, free);
}

#[test]
fn a_gradient_that_is_not_finite_is_an_error_and_changes_nothing() {
    for (backend, device) in devices() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut model = small(&device);
            let mut disturbed = Optimizer::new(config()).unwrap();
            let grads = gradients(&model, FIRST, &device);
            disturbed.step(&mut model, grads).unwrap();
            let before = toy::weights(&model);
            let broken = (SECOND.0, [0.1, bad]);
            let grads = gradients(&model, broken, &device);
            let error = disturbed.step(&mut model, grads).unwrap_err();
            assert!(matches!(error, rlvr::Error::NonFinite { step: 1, .. }));
            assert_eq!(toy::weights(&model), before, "{backend} {bad}");
            assert_eq!(disturbed.updates(), 1);

            // Later updates are as if the invalid gradient had not occurred.
            let grads = gradients(&model, SECOND, &device);
            disturbed.step(&mut model, grads).unwrap();
            let mut other = small(&device);
            let mut straight = Optimizer::new(config()).unwrap();
            for gradient in [FIRST, SECOND] {
                let grads = gradients(&other, gradient, &device);
                straight.step(&mut other, grads).unwrap();
            }
            assert_eq!(toy::weights(&model), toy::weights(&other));
        }
    }
}

#[test]
fn a_parameter_without_a_gradient_is_unchanged() {
    let (_, device) = devices().remove(0);
    let mut model = small(&device);
    let config = OptimizerConfig {
        weight_decay: 0.5,
        ..config()
    };
    let mut optimizer = Optimizer::new(config).unwrap();
    let mut grads = GradientsParams::new();
    grads.register(model.vector.id, Tensor::<1>::from_data(FIRST.1, &device));
    optimizer.step(&mut model, grads).unwrap();
    assert_eq!(floats(model.matrix.val()), MATRIX.concat());
    assert!((floats(model.vector.val())[0] - 3.0).abs() > 0.01);
    assert!(model.vector.val().is_require_grad() && model.matrix.val().is_require_grad());
}

#[test]
fn moments_are_restored_for_other_parameter_ids() {
    for (backend, device) in devices() {
        let folder = tempfile::tempdir().unwrap();
        let mut model = small(&device);
        let mut optimizer = Optimizer::new(config()).unwrap();
        let grads = gradients(&model, FIRST, &device);
        optimizer.step(&mut model, grads).unwrap();
        optimizer.save(&model, folder.path(), "small").unwrap();

        let mut other = small(&device);
        other.matrix = other
            .matrix
            .map(|_| model.matrix.val().detach().require_grad());
        other.vector = other
            .vector
            .map(|_| model.vector.val().detach().require_grad());
        assert_ne!(other.matrix.id, model.matrix.id);
        let mut resumed = Optimizer::new(config()).unwrap();
        resumed.load(&other, folder.path(), "small", 1).unwrap();
        assert_eq!(resumed.updates(), 1);
        for (optimizer, model) in [(&mut optimizer, &mut model), (&mut resumed, &mut other)] {
            let grads = gradients(model, SECOND, &device);
            optimizer.step(model, grads).unwrap();
        }
        assert_eq!(toy::weights(&other), toy::weights(&model), "{backend}");
        assert!(resumed.load(&other, folder.path(), "absent", 1).is_err());
    }
}

#[test]
fn an_update_without_a_gradient_changes_nothing_and_is_not_counted() {
    for (backend, device) in devices() {
        let config = OptimizerConfig {
            weight_decay: 0.1,
            ..OptimizerConfig::new(Schedule::constant(0.1).with_warmup(4))
        };
        let run = |empty: usize, zeros: bool| {
            let mut model = small(&device);
            let mut optimizer = Optimizer::new(config).unwrap();
            for _ in 0..empty {
                let none = match zeros {
                    true => gradients(&model, ([[0.0; 2]; 2], [0.0; 2]), &device),
                    false => GradientsParams::new(),
                };
                let report = optimizer.step(&mut model, none).unwrap();
                assert_eq!(report.grad_norm, 0.0);
                assert_eq!(optimizer.updates(), 0);
            }
            let gradients = gradients(&model, FIRST, &device);
            let report = optimizer.step(&mut model, gradients).unwrap();
            assert_eq!(optimizer.updates(), 1);
            (report, floats(model.matrix.val().inner()))
        };
        let want = run(0, false);
        assert_eq!(run(1000, false), want, "{backend}");
        assert_eq!(run(10, true), want, "{backend}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    for (backend, device) in devices() {
        let run = |broken: bool| {
            let mut model = small(&device);
            let mut optimizer = Optimizer::new(config()).unwrap();
            for of in [FIRST, SECOND] {
                if broken {
                    let before = floats(model.matrix.val().inner());
                    for value in [f64::NAN, f64::INFINITY] {
                        let wrong = gradients(&model, ([[value, 0.0]; 2], [1.0; 2]), &device);
                        let error = optimizer.step(&mut model, wrong).unwrap_err();
                        assert!(error.to_string().contains("gradient norm"), "{error}");
                    }
                    assert_eq!(floats(model.matrix.val().inner()), before);
                }
                let gradients = gradients(&model, of, &device);
                optimizer.step(&mut model, gradients).unwrap();
            }
            (optimizer.updates(), floats(model.matrix.val().inner()))
        };
        assert_eq!(run(true), run(false), "{backend}");
    }
}
