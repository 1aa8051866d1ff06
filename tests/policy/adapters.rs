//! Low-rank adapters and gradient checkpointing of the causal transformer.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Tensor};
use rlvr::policy::causal::{CausalConfig, CausalModel, LoraConfig, LoraTarget, RopeScaling};
use rlvr::policy::{
    LogProbConfig, PolicyModel, PrefixedBatch, ReferencePolicy, ReferenceSync, ScoredTokens,
    TokenBatch,
};
use rlvr::train::{Optimizer, OptimizerConfig, Schedule};

use crate::common;
use crate::common::{assert_close, devices, floats, ids};

const VOCABULARY: usize = 20;

/// A configuration with every optional part of a layer.
fn config(tied: bool) -> CausalConfig {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 32,
        qk_norm: true,
        attention_bias: true,
        attention_output_bias: true,
        mlp_bias: true,
        tie_word_embeddings: tied,
        sliding_window: Some(3),
        windowed_layers: vec![1],
        unrotated_layers: vec![2],
        rope_scaling: RopeScaling::Linear { factor: 2.0 },
        ..CausalConfig::new(VOCABULARY)
    }
}

fn model(tied: bool, device: &Device) -> CausalModel {
    config(tied).init(5, device).unwrap()
}

/// Adapters with a nonzero `B`.
fn adapted(model: CausalModel, config: &LoraConfig) -> CausalModel {
    let mut model = model.with_lora(config).unwrap();
    for block in &mut model.layers {
        for projection in [&mut block.self_attn.q_proj, &mut block.mlp.down_proj] {
            if let Some(lora) = &mut projection.lora {
                lora.b = lora.b.clone().map(|b| {
                    let noise =
                        Tensor::random(b.dims(), Distribution::Normal(0.0, 0.3), &b.device());
                    let tracked = b.is_require_grad();
                    noise.set_require_grad(tracked)
                });
            }
        }
    }
    model
}

/// Five rows that continue two prompts, all ragged.
fn batch(prefixed: bool, device: &Device) -> PrefixedBatch {
    let prompts: [&[u32]; 2] = [&[3, 4, 5, 6, 7], &[8, 9]];
    let rows: [&[u32]; 5] = [&[1, 2, 3], &[4], &[5, 6, 7, 8], &[9, 10], &[11, 12, 13, 14]];
    PrefixedBatch {
        prefixes: prefixed.then(|| TokenBatch::from_rows(&prompts, device).unwrap()),
        prefix_of: vec![0, 0, 0, 1, 1],
        rows: TokenBatch::from_rows(&rows, device).unwrap(),
    }
}

/// The loss of a batch, its log-probs, and the gradients of the model.
fn gradients(model: &CausalModel, prefixed: bool) -> (Vec<f64>, GradientsParams) {
    let device = model.device();
    let batch = batch(prefixed, &device);
    let targets = ids(
        &(0..5)
            .map(|r| (0..4).map(|c| (3 * r + c) % 20).collect())
            .collect::<Vec<_>>(),
        &device,
    );
    let config = LogProbConfig {
        chunk: 7,
        ..LogProbConfig::default()
    };
    let pass = model.forward_pass(&batch).unwrap();
    let scored = ScoredTokens::new(pass, model.unembedding(), targets, &config).unwrap();
    // Padding must not matter: only real tokens are summed.
    let weights: Vec<Vec<f64>> = batch
        .rows
        .lengths
        .iter()
        .map(|&length| {
            (0..4)
                .map(|c| if c < length { 1.0 + c as f64 } else { 0.0 })
                .collect()
        })
        .collect();
    let weights = common::matrix(&weights, &device.inner());
    let log_probs = floats(scored.log_probs.clone() * weights.clone());
    let loss = (scored.log_probs.clone() * weights.clone()).sum()
        + (scored.entropies.clone() * weights).sum();
    (log_probs, scored.backward(loss, model).unwrap())
}

/// The gradient of every parameter, in the order of the module; `None` if it has none.
struct Collect<'a>(&'a GradientsParams, Vec<Option<Vec<f64>>>);

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.push(self.0.get::<D>(param.id).map(floats));
    }
}

fn in_order(model: &CausalModel, gradients: &GradientsParams) -> Vec<Option<Vec<f64>>> {
    let mut collect = Collect(gradients, Vec::new());
    model.visit(&mut collect);
    collect.1
}

fn hidden(model: &CausalModel) -> Vec<f64> {
    let model = model.valid();
    floats(model.hidden_states(&batch(true, &model.device())).unwrap())
}

#[test]
fn gradient_checkpointing_gives_the_same_gradient() {
    for (backend, device) in devices() {
        for (tied, prefixed, lora) in [
            (true, true, false),
            (false, true, false),
            (true, false, false),
            (false, true, true),
            (true, false, true),
        ] {
            let what = format!("{backend}, tied {tied}, prefixed {prefixed}, lora {lora}");
            let mut model = model(tied, &device.clone().autodiff());
            if lora {
                model = adapted(model, &LoraConfig::default());
            }
            let (log_probs, kept) = gradients(&model, prefixed);
            let again = model.clone().with_gradient_checkpointing(true);
            let (log_probs_again, computed_again) = gradients(&again, prefixed);
            assert_eq!(log_probs, log_probs_again, "{what}");
            let (kept, again) = (in_order(&model, &kept), in_order(&again, &computed_again));
            assert_eq!(kept.len(), again.len());
            let mut with_gradient = 0;
            for (index, (kept, again)) in kept.iter().zip(&again).enumerate() {
                match (kept, again) {
                    (Some(kept), Some(again)) => {
                        with_gradient += 1;
                        for (kept, again) in kept.iter().zip(again) {
                            assert_close(*again, *kept, 1e-5, 1e-5, &format!("{what} {index}"));
                        }
                    }
                    (None, None) => {}
                    _ => panic!("{what}: only one way has a gradient of parameter {index}"),
                }
            }
            // Every parameter is trained: 3 blocks of 18 and two or three around them; or the 7
            // adapters of each block.
            let expected = if lora {
                42
            } else {
                3 * 18 + 2 + usize::from(!tied)
            };
            assert_eq!(with_gradient, expected, "{what}");
        }
    }
}

#[test]
fn fresh_adapters_change_no_output_and_only_they_are_trained() {
    for (_, device) in devices() {
        let device = device.autodiff();
        let plain = model(true, &device);
        let config = LoraConfig {
            rank: 3,
            alpha: 6.0,
            targets: vec![LoraTarget::QProj, LoraTarget::DownProj],
            ..LoraConfig::default()
        };
        let mut model = plain.clone().with_lora(&config).unwrap();
        assert_eq!(hidden(&model), hidden(&plain));
        assert_eq!(model.adapters().count(), 6);
        let (_, gradients) = gradients(&model, true);
        assert_eq!(gradients.len(), 12);
        let before = floats(model.layers[0].self_attn.k_proj.weight.val().inner());
        let mut optimizer = Optimizer::new(OptimizerConfig::new(Schedule::constant(0.1))).unwrap();
        optimizer.step(&mut model, gradients).unwrap();
        assert_ne!(hidden(&model), hidden(&plain), "the adapters have moved");
        let after = floats(model.layers[0].self_attn.k_proj.weight.val().inner());
        assert_eq!(before, after, "the weights have not");
        // Without adapters it is the original model.
        assert_eq!(hidden(&model.clone().with_adapters_off()), hidden(&plain));
    }
}

#[test]
fn merged_weights_compute_the_adapted_model() {
    for (backend, device) in devices() {
        let device = device.autodiff();
        for rank_stabilized in [false, true] {
            let config = LoraConfig {
                rank: 4,
                alpha: 2.0,
                rank_stabilized,
                ..LoraConfig::default()
            };
            let model = adapted(model(false, &device), &config);
            let merged = model.clone().merge_lora();
            assert!(!merged.has_adapters());
            let (adapted, merged_hidden) = (hidden(&model), hidden(&merged));
            assert_ne!(adapted, hidden(&model.clone().with_adapters_off()));
            for (got, want) in merged_hidden.iter().zip(&adapted) {
                assert_close(*got, *want, 1e-5, 1e-5, backend);
            }
            // The frozen weights are trained again.
            assert_eq!(gradients(&merged, true).1.len(), 3 * 18 + 3);
        }
    }
}

#[test]
fn invalid_adapter_settings_are_errors_that_name_them() {
    let (_, device) = devices().remove(0);
    let refused = |config: LoraConfig| {
        let model = model(true, &device);
        model.with_lora(&config).unwrap_err().to_string()
    };
    let usual = LoraConfig::default;
    assert!(refused(LoraConfig { rank: 0, ..usual() }).contains("lora.rank"));
    let alpha = f64::NAN;
    assert!(refused(LoraConfig { alpha, ..usual() }).contains("lora.alpha"));
    let targets = Vec::new();
    assert!(refused(LoraConfig { targets, ..usual() }).contains("lora.targets"));
    let twice = model(true, &device)
        .with_lora(&usual())
        .unwrap()
        .with_lora(&usual());
    assert!(twice.unwrap_err().to_string().contains("merge_lora"));
}

#[test]
fn the_reference_is_the_policy_as_given_with_its_adapters() {
    for (_, device) in devices() {
        let device = device.autodiff();
        let plain = model(true, &device);
        let fresh = plain.clone().with_lora(&LoraConfig::default()).unwrap();
        let reference = ReferencePolicy::new(&fresh, ReferenceSync::Never).unwrap();
        assert_eq!(hidden(reference.model()), hidden(&plain));
        let trained = adapted(plain.clone(), &LoraConfig::default());
        assert_ne!(hidden(&trained), hidden(&plain));
        let reference = ReferencePolicy::new(&trained, ReferenceSync::Never).unwrap();
        assert_eq!(hidden(reference.model()), hidden(&trained));
    }
}

/// Every parameter's values, in the order of the module.
struct Values(Vec<Vec<f64>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(floats(param.val().inner()));
    }
}

fn values(model: &CausalModel) -> Vec<Vec<f64>> {
    let mut values = Values(Vec::new());
    model.visit(&mut values);
    values.0
}

#[test]
fn a_moving_average_leaves_frozen_weights_unchanged() {
    for (backend, device) in devices() {
        let policy = adapted(model(true, &device.autodiff()), &LoraConfig::default());
        let sync = ReferenceSync::MovingAverage {
            steps: 1,
            alpha: 0.6,
        };
        let mut reference = ReferencePolicy::new(&policy, sync).unwrap();
        let moved = adapted(policy.clone().merge_lora(), &LoraConfig::default());
        // The frozen weights of `policy` with other adapters.
        let mut target = policy.clone();
        for (mine, other) in target.layers.iter_mut().zip(&moved.layers) {
            mine.self_attn.q_proj.lora = other.self_attn.q_proj.lora.clone();
        }
        for step in 1..=20 {
            reference.after_step(step, &target);
        }
        assert_eq!(
            values(&reference.model().clone().with_adapters_off()),
            values(&policy.clone().with_adapters_off()),
            "{backend}"
        );
        let adapter = |model: &CausalModel| {
            let lora = model.layers[0].self_attn.q_proj.lora.as_ref().unwrap();
            floats(lora.b.val().inner())
        };
        for (got, want) in adapter(reference.model()).iter().zip(adapter(&target)) {
            assert_close(*got, want, 1e-5, 1e-5, backend);
        }
    }
}

#[test]
fn updates_keep_the_checkpointing_strategy_of_the_device() {
    let (_, device) = devices().remove(0);
    let device = device.autodiff().gradient_checkpointing();
    let strategy = device.gradient_checkpointing_strategy();
    for (lora, blockwise) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut model = model(true, &device).with_gradient_checkpointing(blockwise);
        if lora {
            model = model.with_lora(&LoraConfig::default()).unwrap();
        }
        let mut optimizer = Optimizer::new(OptimizerConfig::new(Schedule::constant(0.1))).unwrap();
        for _ in 0..2 {
            let (_, gradients) = gradients(&model, true);
            optimizer.step(&mut model, gradients).unwrap();
        }
        let projection = &model.layers[0].self_attn.q_proj;
        let weight = match &projection.lora {
            Some(lora) => lora.b.val(),
            None => projection.weight.val(),
        };
        assert_eq!(weight.gradient_checkpointing_strategy(), strategy, "{lora}");
        let merged = model.merge_lora();
        let weight = merged.layers[0].self_attn.q_proj.weight.val();
        assert_eq!(weight.gradient_checkpointing_strategy(), strategy, "{lora}");
    }
}

#[test]
fn a_description_distinguishes_frozen_weights_and_adapters() {
    let all = devices();
    let described = |seed, rank, alpha, device: &Device| {
        let config_of = LoraConfig {
            rank,
            alpha,
            ..LoraConfig::default()
        };
        let model = config(true).init(seed, &device.clone().autodiff()).unwrap();
        model.with_lora(&config_of).unwrap().describe().unwrap()
    };
    let want = described(5, 2, 4.0, &all[0].1);
    for (backend, device) in &all {
        assert_eq!(described(5, 2, 4.0, device), want, "{backend}");
    }
    let device = &all[0].1;
    assert_ne!(described(6, 2, 4.0, device), want, "other frozen weights");
    assert_ne!(described(5, 2, 64.0, device), want, "another alpha");
    assert_ne!(described(5, 4, 8.0, device), want, "another rank");
    // Trained weights may have any values.
    let whole = |seed| {
        let model = config(true).init(seed, &device.clone().autodiff()).unwrap();
        model.describe().unwrap()
    };
    assert_eq!(whole(5), whole(6));
}
