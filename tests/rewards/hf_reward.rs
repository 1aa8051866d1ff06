//! Reward models in Hugging Face folders: scores match transformers, and transformers can load
//! saved ones.
//!
//! Saved models are left in `RLVR_SAVED_DIR`, if it is set (`tests/fixtures/hf_reward/make.py
//! --check`).

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::policy::hf::{
    LoadOptions, SaveOptions, load, load_reward_model, read_config, save_reward_model,
};
use rlvr::policy::{TokenBatch, ValueHead, ValueModel};
use serde::Deserialize;
use serde_json::Value;

use crate::common::{assert_close, devices, floats};

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    tokens: Vec<u32>,
    alone: f64,
    padded: f64,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The reward models, by name, with their expected scores.
fn models() -> Vec<(String, PathBuf, Vec<Case>)> {
    let read = ["llama", "qwen2", "qwen3"].map(|name| {
        let path = fixtures().join("hf_reward").join(name);
        let text = fs::read_to_string(path.join("expected.json")).unwrap();
        let expected: Expected = serde_json::from_str(&text).unwrap();
        assert_eq!(expected.cases.len(), 4);
        (name.to_string(), path, expected.cases)
    });
    read.into()
}

fn open(path: &Path, device: &Device) -> ValueHead<CausalModel> {
    load_reward_model(path, &LoadOptions::f32(), device).unwrap_or_else(|e| panic!("{e}"))
}

/// The value after the last token of each row.
fn scores(model: &ValueHead<CausalModel>, rows: &[&[u32]]) -> Vec<f64> {
    let batch = TokenBatch::from_rows(rows, &model.device()).unwrap();
    let width = batch.width();
    let values = floats(model.values(&batch.into()).unwrap());
    let last = |(values, row): (&[f64], &&[u32])| values[row.len() - 1];
    values.chunks_exact(width).zip(rows).map(last).collect()
}

#[test]
fn scores_match_transformers() {
    for (name, path, cases) in models() {
        for (backend, device) in devices() {
            let model = open(&path, &device);
            let rows: Vec<&[u32]> = cases.iter().map(|case| &case.tokens[..]).collect();
            let together = scores(&model, &rows);
            for ((case, row), together) in cases.iter().zip(&rows).zip(together) {
                let what = format!("{name} on {backend}, {} tokens", row.len());
                assert_close(scores(&model, &[row])[0], case.alone, 0.0, 1e-4, &what);
                assert_close(together, case.padded, 0.0, 1e-4, &what);
            }
        }
    }
}

/// The folder for saved models: `RLVR_SAVED_DIR`, or `temporary`.
fn saved(temporary: &Path) -> PathBuf {
    match std::env::var_os("RLVR_SAVED_DIR") {
        Some(kept) => kept.into(),
        None => temporary.into(),
    }
}

#[test]
fn a_saved_reward_model_is_the_same_model() {
    for (name, path, cases) in models() {
        let device = devices().remove(0).1;
        let model = open(&path, &device);
        let temporary = tempfile::tempdir().unwrap();
        let root = saved(temporary.path()).join(&name);
        let rows: Vec<&[u32]> = cases.iter().map(|case| &case.tokens[..]).collect();
        let before = scores(&model, &rows);
        for kind in ["whole", "sharded", "own"] {
            let folder = root.join(kind);
            let options = SaveOptions {
                // The last one is written from the model's own configuration.
                from: (kind != "own").then(|| path.clone()),
                max_shard_size: if kind == "sharded" { 8_000 } else { u64::MAX },
                replace: true,
                ..SaveOptions::default()
            };
            let pad_token = (kind == "own").then_some(0);
            save_reward_model(&model, &folder, pad_token, &options).unwrap();
            let sharded = folder.join("model.safetensors.index.json").exists();
            assert_eq!(sharded, kind == "sharded", "{name}");
            assert_eq!(
                scores(&open(&folder, &device), &rows),
                before,
                "{name}, {kind}"
            );
            let config = config(&folder);
            assert_eq!(config["pad_token_id"], 0);
            assert_eq!(config["id2label"].as_object().unwrap().len(), 1);
        }
    }
}

fn config(folder: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
}

/// A reward model on a language model, with a head that is not zero.
fn on_language_model(folder: &str, device: &Device) -> (ValueHead<CausalModel>, PathBuf) {
    let folder = fixtures().join("hf").join(folder);
    let trunk = load(&folder, &LoadOptions::f32(), device).unwrap();
    let mut model = ValueHead::new(trunk);
    model.head.weight = model.head.weight.map(|zero| zero.add_scalar(0.125));
    (model, folder)
}

#[test]
fn a_language_model_with_a_head_becomes_a_reward_model_of_its_architecture() {
    let device = devices().remove(0).1;
    let temporary = tempfile::tempdir().unwrap();
    let root = saved(temporary.path());
    // One names no class and has an unembedding of its own, which is not written; one has a
    // tokenizer, which is.
    for (name, class) in [
        ("mistral", "MistralForSequenceClassification"),
        ("chat", "LlamaForSequenceClassification"),
    ] {
        let (model, from) = on_language_model(name, &device);
        let to = root.join(format!("on_{name}"));
        let options = SaveOptions {
            replace: true,
            ..SaveOptions::from_folder(&from)
        };
        save_reward_model(&model, &to, None, &options).unwrap();
        let config = config(&to);
        assert_eq!(config["architectures"], serde_json::json!([class]));
        let tokenizer = |folder: &Path| folder.join("tokenizer.json").exists();
        assert_eq!(tokenizer(&to), tokenizer(&from), "{name}");
        let again = open(&to, &device);
        assert!(again.head.bias.is_none() && again.trunk.lm_head.is_none());
        let rows: [&[u32]; 2] = [&[5, 9, 40], &[7; 12]];
        assert_eq!(scores(&again, &rows), scores(&model, &rows), "{name}");
        // It is not a language model; the error names the architecture.
        let message = load(&to, &LoadOptions::f32(), &device)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(class) && message.contains("ForCausalLM"),
            "{message}"
        );
        let message = load_reward_model(&from, &LoadOptions::f32(), &device);
        let message = message.unwrap_err().to_string();
        let reason = match name {
            "mistral" => "1 missing: score.weight; 1 unexpected: lm_head.weight",
            _ => "expected one of LlamaForSequenceClassification",
        };
        assert!(message.contains(reason), "{message}");
        assert!(read_config(&to).is_err());
    }
}

#[test]
fn reward_models_without_a_folder_format_are_errors() {
    let device = devices().remove(0).1;
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join("model");
    let (model, from) = on_language_model("qwen2", &device);
    let save = |model: &ValueHead<CausalModel>, pad_token, options: &SaveOptions| {
        let result = save_reward_model(model, &to, pad_token, options);
        let message = result.unwrap_err().to_string();
        assert!(!to.exists(), "{message}");
        message
    };
    let mut biased = model.clone();
    let half = |bias: Tensor<1>| bias.add_scalar(0.5);
    biased.head.bias = biased.head.bias.map(|bias| bias.map(half));
    let message = save(&biased, Some(0), &SaveOptions::default());
    assert!(
        message.starts_with("invalid `model.head.bias`: 0.5; expected 0"),
        "{message}"
    );
    let mut adapted = model.clone();
    adapted.trunk = adapted.trunk.with_lora(&LoraConfig::default()).unwrap();
    let message = save(&adapted, Some(0), &SaveOptions::default());
    assert!(message.contains("merge_lora"), "{message}");
    let message = save(&model, None, &SaveOptions::default());
    assert!(
        message.starts_with("invalid `pad_token`: none"),
        "{message}"
    );
    let message = save(&model, Some(96), &SaveOptions::from_folder(&from));
    assert!(
        message.contains("96; expected the id of the padding token, below 96"),
        "{message}"
    );
    let other = fixtures().join("hf_reward/qwen2");
    let message = save(&model, None, &SaveOptions::from_folder(other));
    assert!(
        message.contains("`hidden_size` is 16, but that of the model is 48"),
        "{message}"
    );
}

#[test]
fn all_mismatches_are_listed() {
    let device = devices().remove(0).1;
    let root = tempfile::tempdir().unwrap();
    let copy = |edit: fn(&mut Value)| {
        let from = fixtures().join("hf_reward/llama");
        fs::copy(
            from.join("model.safetensors"),
            root.path().join("model.safetensors"),
        )
        .unwrap();
        let mut config = config(&from);
        edit(&mut config);
        fs::write(root.path().join("config.json"), config.to_string()).unwrap();
        let result = load_reward_model(root.path(), &LoadOptions::f32(), &device);
        result.unwrap_err().to_string()
    };
    // A trunk that does not match the weights: one layer fewer, with biases.
    let message = copy(|config| {
        config["num_hidden_layers"] = 1.into();
        config["attention_bias"] = true.into();
    });
    assert!(
        message.contains("4 missing: model.layers.0.self_attn.q_proj.bias"),
        "{message}"
    );
    assert!(
        message.contains("9 unexpected: model.layers.1."),
        "{message}"
    );
    let message = copy(|config| {
        config["id2label"] = serde_json::json!({"0": "no", "1": "yes"});
    });
    assert!(
        message.contains("`id2label` has 2 labels; expected one"),
        "{message}"
    );

    // A language model's folder that claims to be a reward model's.
    let from = fixtures().join("hf/mistral");
    let mut config = config(&from);
    config["architectures"] = serde_json::json!(["MistralForSequenceClassification"]);
    fs::copy(
        from.join("model.safetensors"),
        root.path().join("model.safetensors"),
    )
    .unwrap();
    fs::write(root.path().join("config.json"), config.to_string()).unwrap();
    let result = load_reward_model(root.path(), &LoadOptions::f32(), &device);
    let message = result.unwrap_err().to_string();
    let expected = "1 missing: score.weight; 1 unexpected: lm_head.weight";
    assert!(message.ends_with(expected), "{message}");
}
