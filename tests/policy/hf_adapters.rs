//! Adapters in PEFT's format: loading, saving, errors, and training. Saved adapters are left in
//! `RLVR_SAVED_DIR`, if it is set, for peft to load (`tests/fixtures/peft/check.py`).

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rlvr::Error;
use rlvr::policy::causal::{CausalModel, LoraConfig, LoraTarget};
use rlvr::policy::hf::{LoadOptions, load, load_adapters, save_adapters};
use rlvr::policy::{PolicyModel, TokenBatch};
use rlvr::prompt::CharTokenizer;
use serde_json::{Value, json};

use crate::common::toy::Rl;
use crate::common::{self, toy};
use crate::common::{devices, floats};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn base(device: &Device) -> CausalModel {
    load(fixture("hf/llama"), &LoadOptions::f32(), device).unwrap()
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The largest difference between the model's logits and those of a file.
fn worst(model: &CausalModel, expected: &Value) -> f64 {
    let mut worst: f64 = 0.0;
    for case in expected["cases"].as_array().unwrap() {
        let tokens: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
        let positions: Vec<usize> = serde_json::from_value(case["positions"].clone()).unwrap();
        let want: Vec<Vec<f64>> = serde_json::from_value(case["logits"].clone()).unwrap();
        let batch = TokenBatch::from_rows(&[tokens], &model.device()).unwrap();
        let hidden = model.forward(&batch, &mut model.empty_cache(1)).unwrap();
        let logits = floats(hidden.squeeze_dim::<2>(0).matmul(model.unembedding()));
        for (position, want) in positions.iter().zip(want) {
            let got = &logits[position * want.len()..][..want.len()];
            for (got, want) in got.iter().zip(want) {
                worst = worst.max((got - want).abs());
            }
        }
    }
    worst
}

#[test]
fn adapters_compute_what_peft_computes() {
    for (backend, device) in devices() {
        for name in ["lora", "rslora_all_linear"] {
            let folder = fixture("peft").join(name);
            let (model, config) = load_adapters(base(&device), &folder).unwrap();
            assert_eq!(config.rank, 4);
            assert_eq!(config.rank_stabilized, name != "lora");
            let merged = json(folder.join("expected_merged.json"));
            let expected = json(folder.join("expected.json"));
            let plain = json(fixture("hf/llama/expected.json"));
            for (what, model, expected) in [
                ("on", model.clone(), &expected),
                ("merged", model.clone().merge_lora(), &merged),
                ("off", model.clone().with_adapters_off(), &plain),
            ] {
                let worst = worst(&model, expected);
                assert!(worst <= 1e-4, "{name} {what} on {backend}: {worst:e}");
            }
            assert!(worst(&model, &plain) > 1.0, "{name}: the adapters matter");
        }
    }
}

#[test]
fn saved_adapters_load_unchanged() {
    let (_, device) = devices().remove(0);
    let temporary = tempfile::tempdir().unwrap();
    let root = match std::env::var_os("RLVR_SAVED_DIR") {
        Some(kept) => PathBuf::from(kept),
        None => temporary.path().to_path_buf(),
    };
    fs::create_dir_all(&root).unwrap();
    for name in ["lora", "rslora_all_linear"] {
        let folder = fixture("peft").join(name);
        let (model, config) = load_adapters(base(&device), &folder).unwrap();
        let saved = root.join(name);
        save_adapters(&model, &config, "the/base", &saved, true).unwrap();
        let (theirs, ours) = (
            json(folder.join("adapter_config.json")),
            json(saved.join("adapter_config.json")),
        );
        for field in [
            "peft_type",
            "task_type",
            "r",
            "use_rslora",
            "bias",
            "fan_in_fan_out",
        ] {
            assert_eq!(theirs[field], ours[field], "{field}");
        }
        assert_eq!(theirs["lora_alpha"].as_f64(), ours["lora_alpha"].as_f64());
        assert_eq!(ours["base_model_name_or_path"], "the/base");
        let tensors = |folder: &Path| {
            let bytes = fs::read(folder.join("adapter_model.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut all: Vec<_> = file
                .tensors()
                .into_iter()
                .map(|(name, t)| (name, t.shape().to_vec(), t.data().to_vec()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(tensors(&folder), tensors(&saved), "{name}");
        let refused = save_adapters(&model, &config, "the/base", &saved, false).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
    }
}

#[test]
fn adapters_of_another_model_are_errors_that_name_the_mismatch() {
    let (_, device) = devices().remove(0);
    let root = tempfile::tempdir().unwrap();
    let folder = root.path();
    let original = fixture("peft/lora");
    let tensors = "adapter_model.safetensors";
    fs::copy(original.join(tensors), folder.join(tensors)).unwrap();
    let refused = |field: &str, value: Value| {
        let mut config = json(original.join("adapter_config.json"));
        config[field] = value;
        fs::write(folder.join("adapter_config.json"), config.to_string()).unwrap();
        load_adapters(base(&device), folder).unwrap_err()
    };
    for (field, value) in [
        ("peft_type", json!("IA3")),
        ("bias", json!("all")),
        ("use_dora", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("rank_pattern", json!({"q_proj": 8})),
        ("layers_to_transform", json!([0])),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!(".*q_proj")),
        ("r", json!(null)),
        ("lora_alpha", json!(-1)),
    ] {
        let message = refused(field, value).to_string();
        assert!(
            message.contains("adapter_config.json"),
            "{field}: {message}"
        );
        let known = [field, field.trim_start_matches("lora_")];
        assert!(
            known.iter().any(|name| message.contains(name)),
            "{field}: {message}"
        );
    }
    match refused("target_modules", json!(["q_proj", "o_proj"])) {
        Error::Weights {
            missing,
            unexpected,
            ..
        } => {
            assert_eq!(missing.len(), 4, "o_proj's two matrices in two layers");
            assert_eq!(unexpected.len(), 8, "those of v_proj and down_proj");
        }
        other => panic!("{other}"),
    }
    match refused("r", json!(5)) {
        Error::Weights { mismatched, .. } => {
            assert!(
                mismatched[0].contains("instead of floats [5, 48]"),
                "{mismatched:?}"
            );
        }
        other => panic!("{other}"),
    }
}

fn build(config: rlvr::train::TrainerConfig, policy: CausalModel, tokenizer: CharTokenizer) -> Rl {
    let builder = Rl::builder(policy, tokenizer)
        .config(config)
        .rewards(toy::rewards())
        .problems(toy::problems());
    builder.build().unwrap()
}

/// A trainer of the toy task that trains adapters only.
fn trainer(seed: u64) -> Rl {
    let mut config = toy::config();
    config.measure_kl = true;
    let lora = LoraConfig {
        rank: 2,
        targets: vec![LoraTarget::QProj, LoraTarget::UpProj, LoraTarget::DownProj],
        seed,
        ..LoraConfig::default()
    };
    // The weights are the same for every seed, as if loaded from a folder.
    let policy = toy::policy(0, &toy::device()).with_lora(&lora).unwrap();
    build(config, policy, toy::tokenizer())
}

#[test]
fn a_trainer_trains_and_saves_only_adapters_and_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let mut straight = trainer(0);
    let frozen = floats(
        straight.policy().layers[0]
            .self_attn
            .k_proj
            .weight
            .val()
            .inner(),
    );
    let first = toy::steps(&mut straight, 3);
    assert!(
        toy::metric(&first[0], "kl").abs() < 1e-6,
        "it starts as the reference"
    );
    assert!(
        toy::metric(&first[2], "kl") > 1e-4,
        "and moves away from it"
    );
    let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
    // Three adapters of rank 2 on 16 and 24 channels, in four files; the model has about 3000
    // parameters.
    let adapters = 2 * ((16 + 16) + (16 + 24) + (24 + 16));
    for name in ["policy", "policy.m", "policy.v", "reference"] {
        let size = fs::metadata(saved.join(format!("{name}.bpk")))
            .unwrap()
            .len();
        assert!(size < 4 * adapters + 3000, "{name}: {size} bytes");
    }

    let mut resumed = trainer(9);
    resumed.load_checkpoint(&saved).unwrap();
    for _ in 0..3 {
        let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
        for name in ["reward", "kl", "grad_norm", "loss"] {
            assert_eq!(
                toy::metric(&a, name).to_bits(),
                toy::metric(&b, name).to_bits(),
                "{name}"
            );
        }
    }
    assert_eq!(
        toy::weights(straight.policy()),
        toy::weights(resumed.policy())
    );
    let after = floats(
        resumed.policy().layers[0]
            .self_attn
            .k_proj
            .weight
            .val()
            .inner(),
    );
    assert_eq!(frozen, after);

    // A trainer of all weights is another run.
    let mut config = toy::config();
    config.measure_kl = true;
    let mut whole = toy::trainer(&config, 0, &toy::device());
    let refused = whole.load_checkpoint(&saved).unwrap_err().to_string();
    assert!(refused.contains("policy's adapters"), "{refused}");
    assert_eq!(whole.steps_done(), 0);
}

#[test]
fn a_checkpoint_of_adapters_records_its_base_model_and_scale() {
    let folder = tempfile::tempdir().unwrap();
    let mut saved = trainer(3);
    toy::steps(&mut saved, 1);
    let saved = saved.save_checkpoint(folder.path(), 1).unwrap();
    let lora = LoraConfig {
        rank: 2,
        targets: vec![LoraTarget::QProj, LoraTarget::UpProj, LoraTarget::DownProj],
        seed: 3,
        ..LoraConfig::default()
    };
    let mut config = toy::config();
    config.measure_kl = true;
    for (base, alpha, word) in [
        (1, lora.alpha, "frozen weights"),
        (0, 4.0 * lora.alpha, "adapters"),
    ] {
        let lora = LoraConfig {
            alpha,
            ..lora.clone()
        };
        let policy = toy::policy(base, &toy::device()).with_lora(&lora).unwrap();
        let mut other = build(config.clone(), policy, toy::tokenizer());
        let refused = other.load_checkpoint(&saved).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
    }
}

#[test]
fn gradient_checkpointing_trains_the_same_policy() {
    let train = |again: bool| {
        let policy = toy::policy(0, &toy::device()).with_gradient_checkpointing(again);
        let mut trainer = build(toy::config(), policy, toy::tokenizer());
        toy::steps(&mut trainer, 4);
        toy::weights(trainer.policy())
    };
    let (kept, again) = (train(false), train(true));
    assert!(toy::distance(&kept, &again) < 1e-4);
}

#[test]
fn a_policy_in_half_precision_is_trained_like_any_other() {
    let folder = fixture("hf/r1_distill_qwen");
    let device = toy::device().autodiff();
    let dtype = Some(burn::tensor::FloatDType::BF16);
    let train = |options: &LoadOptions, again: bool| {
        let policy = load(&folder, options, &device).unwrap();
        let policy = policy.with_gradient_checkpointing(again);
        // As many characters as the model has tokens, beside padding and end.
        let alphabet: String = ('!'..).take(94).collect();
        let tokenizer = CharTokenizer::new(&alphabet, &[]).unwrap();
        let mut config = toy::config();
        config.measure_kl = true;
        config.optimizer = toy::optimizer(1e-3);
        // The first step is compared on the same tokens.
        config.generation.sampling.temperature = 0.05;
        let mut trainer = build(config, policy, tokenizer);
        let steps = toy::steps(&mut trainer, 2);
        steps
            .iter()
            .for_each(|step| assert!(toy::metric(step, "grad_norm").is_finite()));
        (
            toy::metric(&steps[0], "entropy"),
            toy::metric(&steps[1], "kl"),
        )
    };
    let exact = train(&LoadOptions::f32(), false);
    let half = train(&LoadOptions { dtype }, false);
    let half_again = train(&LoadOptions { dtype }, true);
    for (name, got) in [("kept", half), ("again", half_again)] {
        common::assert_close(got.0, exact.0, 0.1, 0.05, &format!("entropy, {name}"));
        assert!(got.1.abs() < 1.0, "kl, {name}: {}", got.1);
    }
}
