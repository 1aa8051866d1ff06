//! An accelerator computes what the CPU computes: forward, backward, generation and a training run.
//!
//! Needs the feature `cuda` or `wgpu`, which is why it is a binary of its own. A software Vulkan
//! device will do for `wgpu`:
//!
//! `CUBECL_AUTOTUNE_LEVEL=minimal cargo test --release --features wgpu --test accelerator`

#![cfg(all(feature = "flex", any(feature = "cuda", feature = "wgpu")))]

mod common;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use common::{floats, ids, matrix, toy};
use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{
    LogProbConfig, PolicyCache, PolicyModel, PrefixedBatch, ScoredTokens, TokenBatch,
    token_log_probs,
};
use rlvr::rollout::{GenerationConfig, GenerationRequest, SamplingConfig, generate};

fn accelerator() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(not(feature = "cuda"))]
    Device::wgpu(burn::tensor::DeviceKind::DefaultDevice)
}

/// Grouped-query heads, and a window in the second block if `windowed`.
fn model(windowed: bool, device: &Device) -> CausalModel {
    let config = CausalConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 128,
        sliding_window: windowed.then_some(4),
        windowed_layers: if windowed { vec![1] } else { Vec::new() },
        ..CausalConfig::new(40)
    };
    config.init(5, device).unwrap()
}

fn assert_near(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (index, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(
            off <= tolerance * (1.0 + want.abs()),
            "{what} {index}: {got}, not {want}"
        );
    }
}

/// The log-probs and entropies of tokens that are read one by one after ragged prompts, some of
/// them repeated.
fn decoded(windowed: bool, device: &Device) -> Vec<f64> {
    let model = model(windowed, device);
    let prompts = TokenBatch::from_rows(&[vec![1, 2, 3, 4, 5, 6], vec![7]], device).unwrap();
    let mut cache = model.empty_cache(2);
    model.forward(&prompts, &mut cache).unwrap();
    cache.select_rows(&[0, 1, 1]);
    let mut all = Vec::new();
    for step in 0..3 {
        let new = TokenBatch::from_rows(&[[step], [step + 9], [step + 20]], device).unwrap();
        let targets = ids(&[vec![1], vec![2], vec![3]], device);
        let hidden = model.forward(&new, &mut cache).unwrap();
        let config = LogProbConfig::default();
        let scores = token_log_probs(hidden, model.unembedding(), targets, &config).unwrap();
        all.extend(floats(scores.log_probs));
        all.extend(floats(scores.entropies));
    }
    all
}

#[test]
fn tokens_are_read_one_by_one_as_on_the_cpu() {
    for windowed in [false, true] {
        let got = decoded(windowed, &accelerator());
        assert_near(&got, &decoded(windowed, &Device::flex()), 1e-4, "score");
    }
}

/// The gradients of all parameters, in order.
struct All<'a>(&'a GradientsParams, Vec<f64>);

impl ModuleVisitor for All<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1
            .extend(self.0.get::<D>(param.id).map(floats).unwrap());
    }
}

/// The loss of a clipped objective on ragged rows with shared prompts, and its gradients; with or
/// without gradient checkpointing.
fn gradients(objective: &PolicyObjective, recompute: bool, device: &Device) -> (f64, Vec<f64>) {
    let device = device.clone().autodiff();
    let model = model(false, &device).with_gradient_checkpointing(recompute);
    let batch = PrefixedBatch {
        prefixes: Some(TokenBatch::from_rows(&[vec![1, 2, 3], vec![4]], &device).unwrap()),
        prefix_of: vec![0, 0, 1],
        rows: TokenBatch::from_rows(&[vec![5, 6, 7], vec![8], vec![9, 10]], &device).unwrap(),
    };
    let targets = ids(&[vec![6, 7, 8], vec![9, 0, 0], vec![10, 11, 0]], &device);
    let pass = model.forward_pass(&batch).unwrap();
    let config = LogProbConfig::default();
    let scored = ScoredTokens::new(pass, model.unembedding(), targets, &config).unwrap();
    let plain = device.clone().inner();
    let mask = matrix(
        &[vec![1.0; 3], vec![1.0, 0.0, 0.0], vec![1.0, 1.0, 0.0]],
        &plain,
    );
    let advantages = matrix(&[vec![1.0; 3], vec![-0.5; 3], vec![0.3; 3]], &plain);
    let mut input = LossInput::new(scored.log_probs.clone(), advantages, mask);
    // Ratios away from 1, and one of them clipped.
    let moved = [vec![-3.5, -3.7, -3.9], vec![-3.6; 3], vec![-3.7, -3.8, 0.0]];
    input.old_log_probs = Some(matrix(&moved, &plain));
    input.ref_log_probs = Some(matrix(&moved, &plain));
    let counts = StepCounts::of(&[3, 1, 2]);
    let loss = objective.loss(&input, counts).unwrap().loss;
    let value = floats(loss.clone().inner())[0];
    let gradients = scored.backward(loss, &model).unwrap();
    let mut all = All(&gradients, Vec::new());
    model.visit(&mut all);
    (value, all.1)
}

#[test]
fn losses_and_gradients_are_those_of_the_cpu() {
    for (objective, recompute) in [
        (PolicyObjective::grpo(), false),
        (PolicyObjective::dapo(), true),
    ] {
        let (loss, got) = gradients(&objective, recompute, &accelerator());
        let (expected, want) = gradients(&objective, recompute, &Device::flex());
        assert_near(&[loss], &[expected], 1e-4, "loss");
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let off: Vec<f64> = got
            .iter()
            .zip(&want)
            .map(|(got, want)| got - want)
            .collect();
        assert!(
            norm(&off) < 1e-3 * norm(&want),
            "{} of {}",
            norm(&off),
            norm(&want)
        );
        assert!(norm(&want) > 0.0);
    }
}

#[test]
fn completions_are_sampled_as_on_the_cpu() {
    let requests = [
        GenerationRequest::new(vec![1, 2, 3], 3, [0]),
        GenerationRequest::new(vec![4], 2, [1]),
    ];
    for sampling in [SamplingConfig::default(), SamplingConfig::greedy()] {
        let config = GenerationConfig::new(12, vec![5]).with_sampling(sampling);
        let on = |device: &Device| generate(&model(false, device), &requests, &config).unwrap();
        let (got, want) = (on(&accelerator()), on(&Device::flex()));
        for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
            assert_eq!(got.tokens, want.tokens);
            for (a, b) in got.log_probs.iter().zip(&want.log_probs) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            let [a, b] = [got, want].map(|one| one.entropy.unwrap());
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
    }
}

#[test]
fn a_training_run_is_that_of_the_cpu() {
    let steps = |device: &Device| {
        let mut trainer = toy::trainer(&toy::config(), 0, device);
        (0..6).map(|_| trainer.step().unwrap()).collect::<Vec<_>>()
    };
    for (got, want) in steps(&accelerator()).iter().zip(&steps(&Device::flex())) {
        for name in [
            "reward",
            "loss",
            "grad_norm",
            "entropy",
            "completions/mean_length",
        ] {
            let [got, want] = [got, want].map(|step| step.get(name).unwrap());
            let off = (got - want).abs();
            assert!(off < 1e-3 * (1.0 + want.abs()), "{name}: {got}, not {want}");
        }
    }
}
