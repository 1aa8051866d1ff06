//! Folders of open weights: errors for invalid ones, data types, and saving.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::optim::GradientsParams;
use burn::tensor::{DType, Device, FloatDType};
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::policy::hf::{LoadOptions, SaveOptions, load, read_config, save};
use rlvr::policy::{PolicyModel, TokenBatch};
use rlvr::train::{Optimizer, OptimizerConfig, Schedule};
use rlvr::{Error, Result};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{devices, floats};

fn fixture(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hf");
    root.join(family)
}

/// A copy of a family's folder, to be damaged.
fn copy(family: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(family)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

fn device() -> Device {
    devices().remove(0).1
}

fn open(folder: &Path) -> Result<CausalModel> {
    load(folder, &LoadOptions::f32(), &device())
}

/// The error for the folder; it must name the folder.
fn refusal(folder: &TempDir) -> String {
    let message = open(folder.path()).unwrap_err().to_string();
    assert!(
        message.contains(folder.path().to_str().unwrap()),
        "{message}"
    );
    message
}

fn edit_config(folder: &TempDir, edit: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let path = folder.path().join("config.json");
    let mut fields = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut fields);
    fs::write(path, Value::Object(fields).to_string()).unwrap();
}

/// The named tensors of a file: type, shape, bytes.
type Tensors = HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn edit_tensors(folder: &TempDir, edit: impl FnOnce(&mut Tensors)) {
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut tensors: Tensors = SafeTensors::deserialize(&bytes)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views: HashMap<&String, TensorView> = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        })
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn logits(model: &CausalModel) -> Vec<f64> {
    let tokens: [&[u32]; 2] = [&[5, 9, 33, 70, 8, 12], &[90, 3]];
    let batch = TokenBatch::from_rows(&tokens, &model.device()).unwrap();
    let hidden = model.forward(&batch, &mut model.empty_cache(2)).unwrap();
    let [rows, width, size] = hidden.dims();
    let all = floats(
        hidden
            .reshape([rows * width, size])
            .matmul(model.unembedding()),
    );
    // The padding of the second row is unspecified.
    let vocabulary = model.vocab_size();
    all[..(width + 2) * vocabulary].to_vec()
}

#[test]
fn all_mismatched_tensors_are_listed() {
    let folder = copy("llama");
    edit_tensors(&folder, |tensors| {
        tensors.remove("model.norm.weight");
        let moved = tensors.remove("model.layers.1.mlp.up_proj.weight").unwrap();
        tensors.insert("model.layers.1.mlp.up.weight".into(), moved);
        let q_proj = tensors
            .get_mut("model.layers.0.self_attn.q_proj.weight")
            .unwrap();
        q_proj.1 = vec![24, 96];
        let k_proj = tensors
            .get_mut("model.layers.0.self_attn.k_proj.weight")
            .unwrap();
        k_proj.0 = Dtype::I32;
    });
    match open(folder.path()).unwrap_err() {
        Error::Weights {
            path,
            missing,
            unexpected,
            mismatched,
        } => {
            assert_eq!(path, folder.path());
            assert_eq!(
                missing,
                ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"]
            );
            assert_eq!(unexpected, ["model.layers.1.mlp.up.weight"]);
            assert_eq!(
                mismatched,
                [
                    "model.layers.0.self_attn.q_proj.weight is F32 [24, 96] instead of floats [48, 48]",
                    "model.layers.0.self_attn.k_proj.weight is I32 [24, 48] instead of floats [24, 48]",
                ]
            );
        }
        other => panic!("{other}"),
    }
    let message = refusal(&folder);
    assert!(
        message.contains(
            "2 missing: model.layers.1.mlp.up_proj.weight, model.norm.weight; 1 unexpected"
        ),
        "{message}"
    );
}

#[test]
fn copies_of_tied_weights_and_position_tables_are_ignored() {
    let folder = copy("qwen2");
    let before = logits(&open(folder.path()).unwrap());
    edit_tensors(&folder, |tensors| {
        let embedding = tensors["model.embed_tokens.weight"].clone();
        tensors.insert("lm_head.weight".into(), embedding);
        let table = (Dtype::F32, vec![1], vec![0; 4]);
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), table);
    });
    assert_eq!(logits(&open(folder.path()).unwrap()), before);
}

#[test]
fn unsupported_configurations_are_named() {
    let refused = |field: &str, value: Value| {
        let folder = copy("llama");
        edit_config(&folder, |fields| {
            fields.insert(field.into(), value);
        });
        let message = refusal(&folder);
        assert!(message.contains("config.json"), "{message}");
        message
    };
    let message = refused("architectures", json!(["GemmaForCausalLM"]));
    assert!(
        message.contains("GemmaForCausalLM") && message.contains("Qwen3ForCausalLM"),
        "{message}"
    );
    let message = refused("model_type", json!("gpt2"));
    assert!(
        message.contains("gpt2") && message.contains("LlamaForCausalLM"),
        "{message}"
    );
    for (field, value, named) in [
        ("hidden_act", json!("gelu"), "expected silu"),
        (
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "\"gptq\"",
        ),
        ("rope_parameters", json!({"rope_type": "longrope"}), "yarn"),
        (
            "rope_parameters",
            json!({"rope_type": "linear"}),
            "`factor` is missing",
        ),
        ("partial_rotary_factor", json!(0.5), "whole heads"),
        ("vocab_size", json!(null), "`vocab_size` is missing"),
        ("num_hidden_layers", json!(-1), "whole number"),
        ("num_key_value_heads", json!(3), "num_key_value_heads"),
        ("attention_bias", json!("yes"), "true or false"),
        ("rms_norm_eps", json!(0.0), "rms_norm_eps"),
    ] {
        let message = refused(field, value);
        assert!(message.contains(named), "{field}: {message}");
    }
}

#[test]
fn corrupt_files_are_errors_with_file_and_reason() {
    let damaged = |family: &str, damage: &dyn Fn(&Path)| {
        let folder = copy(family);
        damage(folder.path());
        refusal(&folder)
    };
    let write = |name: &'static str, bytes: &'static [u8]| {
        move |folder: &Path| fs::write(folder.join(name), bytes).unwrap()
    };
    let cut = |folder: &Path| {
        let path = folder.join("model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 10]).unwrap();
    };
    let remove = |folder: &Path| fs::remove_file(folder.join("model.safetensors")).unwrap();
    let pickled = |folder: &Path| {
        remove(folder);
        fs::write(folder.join("pytorch_model.bin"), b"x").unwrap();
    };
    let second = "model-00002-of-00002.safetensors";
    let swap = |folder: &Path| {
        let first = folder.join("model-00001-of-00002.safetensors");
        fs::copy(first, folder.join(second)).unwrap();
    };
    let lost = |folder: &Path| fs::remove_file(folder.join(second)).unwrap();
    let outside =
        json!({"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}).to_string();
    let escape = |folder: &Path| {
        fs::write(folder.join("model.safetensors.index.json"), &outside).unwrap();
    };
    for (what, message, named) in [
        (
            "config",
            damaged("llama", &write("config.json", b"{")),
            "config.json",
        ),
        (
            "short",
            damaged("llama", &write("model.safetensors", b"abc")),
            "3 bytes",
        ),
        (
            "junk",
            damaged("llama", &write("model.safetensors", &[7; 64])),
            "header",
        ),
        (
            "header",
            damaged(
                "llama",
                &write("model.safetensors", b"\x02\0\0\0\0\0\0\0[]"),
            ),
            "header is broken",
        ),
        ("cut", damaged("llama", &cut), "truncated"),
        (
            "none",
            damaged("llama", &remove),
            "neither model.safetensors nor",
        ),
        (
            "pickle",
            damaged("llama", &pickled),
            "convert pytorch_model.bin",
        ),
        ("twice", damaged("qwen2_untied", &swap), "has the tensor"),
        ("lost", damaged("qwen2_untied", &lost), second),
        (
            "escape",
            damaged("qwen2_untied", &escape),
            "inside the folder",
        ),
    ] {
        assert!(message.contains(named), "{what}: {message}");
    }
}

#[test]
fn a_header_with_wrong_sizes_is_an_error() {
    let header = br#"{"model.norm.weight":{"dtype":"F32","shape":[48],"data_offsets":[0,8]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend([0; 8]);
    let folder = copy("llama");
    fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    let message = refusal(&folder);
    assert!(message.contains("header is broken"), "{message}");
}

#[test]
fn weights_keep_their_type_or_are_converted_on_loading() {
    let stored = fixture("r1_distill_qwen");
    let kept = load(&stored, &LoadOptions::default(), &device()).unwrap();
    let dtypes = |model: &CausalModel| {
        let block = &model.layers[0];
        [
            model.embed_tokens.weight.dtype(),
            block.self_attn.q_proj.weight.dtype(),
            block.self_attn.q_proj.bias.as_ref().unwrap().dtype(),
            block.input_layernorm.gamma.dtype(),
        ]
    };
    assert_eq!(dtypes(&kept), [DType::BF16; 4]);
    let cast = open(&stored).unwrap();
    assert_eq!(dtypes(&cast), [DType::F32; 4]);
    let dtype = Some(FloatDType::F16);
    let half = load(&stored, &LoadOptions { dtype }, &device()).unwrap();
    assert_eq!(dtypes(&half), [DType::F16; 4]);
    // Half precision computes the same but for its rounding; logits here go up to about 20.
    let exact = logits(&cast);
    for (what, model, tolerance) in [("bf16", kept, 0.5), ("f16", half, 0.06)] {
        let worst = logits(&model)
            .iter()
            .zip(&exact)
            .map(|(got, want)| (got - want).abs())
            .fold(0.0, f64::max);
        assert!(worst > 0.0 && worst < tolerance, "{what}: {worst}");
    }
}

#[test]
fn weights_are_converted_on_saving_and_the_configuration_names_the_type() {
    let model = open(&fixture("llama")).unwrap();
    let root = tempfile::tempdir().unwrap();
    for (dtype, name, tolerance) in [
        (None, "float32", 0.0),
        (Some(FloatDType::BF16), "bfloat16", 1.0),
        (Some(FloatDType::F16), "float16", 0.1),
    ] {
        let folder = root.path().join(name);
        let options = SaveOptions {
            dtype,
            ..SaveOptions::from_folder(fixture("llama"))
        };
        save(&model, &folder, &options).unwrap();
        let config: Value =
            serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        assert_eq!(config["dtype"], name);
        let again = open(&folder).unwrap();
        let pairs = logits(&again).into_iter().zip(logits(&model));
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= tolerance, "{name}: {worst}");
        assert_eq!(worst == 0.0, dtype.is_none(), "{name}: {worst}");
    }
}

#[test]
fn weights_in_half_precision_train_like_f32_and_resume() {
    let stored = fixture("r1_distill_qwen");
    let device = device().autodiff();
    let load = |dtype| load(&stored, &LoadOptions { dtype: Some(dtype) }, &device).unwrap();
    // Steps far below the resolution of bf16 at 1: they add up only in the f32 copies. The gradient
    // is the same every time.
    let config = OptimizerConfig::new(Schedule::constant(3e-5));
    let gain = |model: &CausalModel| floats(model.norm.gamma.val().inner());
    let gradients = |model: &CausalModel| {
        let loss = model.norm.gamma.val().cast(FloatDType::F32).sum();
        GradientsParams::from_grads(loss.backward(), model)
    };
    let train = |model: &mut CausalModel, optimizer: &mut Optimizer, steps: usize| {
        for _ in 0..steps {
            optimizer.step(model, gradients(model)).unwrap();
        }
    };
    let (mut exact, mut half) = (load(FloatDType::F32), load(FloatDType::BF16));
    let before = gain(&exact);
    let mut of_exact = Optimizer::new(config).unwrap();
    let mut of_half = Optimizer::new(config).unwrap();
    train(&mut exact, &mut of_exact, 400);
    train(&mut half, &mut of_half, 200);
    let folder = tempfile::tempdir().unwrap();
    of_half.save(&half, folder.path(), "policy").unwrap();
    let mut resumed = Optimizer::new(config).unwrap();
    resumed
        .load(&half, folder.path(), "policy", of_half.updates())
        .unwrap();
    let mut other = half.clone();
    train(&mut half, &mut of_half, 200);
    train(&mut other, &mut resumed, 200);
    assert_eq!(gain(&half), gain(&other));
    assert_eq!(half.norm.gamma.dtype(), DType::BF16);
    for ((half, exact), before) in gain(&half).iter().zip(gain(&exact)).zip(before) {
        assert!(
            (before - exact - 400.0 * 3e-5).abs() < 5e-5,
            "{before} -> {exact}"
        );
        assert!(
            (half - exact).abs() <= exact.abs() / 256.0,
            "{half} {exact}"
        );
    }
}

#[test]
fn only_files_of_the_model_are_copied() {
    let from = copy("llama");
    for (name, text) in [
        ("tokenizer.json", "{}"),
        ("chat_template.jinja", "hello"),
        ("LICENSE", "free"),
        ("model.safetensors.index.json", "{}"),
        ("pytorch_model.bin", "old weights"),
        ("notes.md", "private"),
    ] {
        fs::write(from.path().join(name), text).unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    let to = root.path().join("saved");
    let model = open(from.path()).unwrap();
    save(&model, &to, &SaveOptions::from_folder(from.path())).unwrap();
    let mut names: Vec<String> = fs::read_dir(&to)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "LICENSE",
            "chat_template.jinja",
            "config.json",
            "expected.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json"
        ]
    );
    // The file permissions of the weights are those of the other files.
    let permissions = |name: &str| fs::metadata(to.join(name)).unwrap().permissions();
    assert_eq!(permissions("model.safetensors"), permissions("config.json"));
    // Apart from the type of the weights, which that of the fixture leaves out, the configuration
    // is what it was.
    let read = |folder: &Path| read_config(folder).unwrap();
    assert_eq!(read(&to), read(from.path()));
}

#[test]
fn a_folder_is_written_atomically() {
    let model = open(&fixture("llama")).unwrap();
    let root = tempfile::tempdir().unwrap();
    let entries = || fs::read_dir(root.path()).unwrap().count();
    let to = root.path().join("saved");
    let refused = |model: &CausalModel, from: &Path, options: &SaveOptions| {
        let options = SaveOptions {
            from: Some(from.into()),
            ..options.clone()
        };
        save(model, &to, &options).unwrap_err().to_string()
    };
    // The wrong configuration, adapters, an empty shard: nothing is written.
    let usual = SaveOptions::default();
    assert!(refused(&model, &fixture("smollm3"), &usual).contains("describes another model"));
    let adapted = model.clone().with_lora(&LoraConfig::default()).unwrap();
    assert!(refused(&adapted, &fixture("llama"), &usual).contains("merge_lora"));
    let nothing = SaveOptions {
        max_shard_size: 0,
        ..usual.clone()
    };
    assert!(refused(&model, &fixture("llama"), &nothing).contains("max_shard_size"));
    assert_eq!(entries(), 0);
    // A source that cannot be copied: the partial folder is removed.
    let from = copy("llama");
    std::os::unix::fs::symlink("/nowhere", from.path().join("tokenizer.json")).unwrap();
    fs::create_dir(from.path().join("vocab.json")).unwrap();
    save(&model, &to, &SaveOptions::from_folder(from.path())).unwrap();
    assert!(!to.join("tokenizer.json").exists() && !to.join("vocab.json").exists());
    // An existing folder is kept, or replaced atomically.
    assert!(refused(&model, &fixture("llama"), &usual).contains("not empty"));
    let replace = SaveOptions {
        replace: true,
        ..SaveOptions::from_folder(fixture("llama"))
    };
    save(&model, &to, &replace).unwrap();
    assert_eq!(logits(&open(&to).unwrap()), logits(&model));
    assert_eq!(entries(), 1);
}

#[test]
fn a_model_can_be_saved_without_its_original_folder() {
    let root = tempfile::tempdir().unwrap();
    for name in ["llama", "smollm3"] {
        let model = open(&fixture(name)).unwrap();
        let to = root.path().join(name);
        save(&model, &to, &SaveOptions::default()).unwrap();
        assert_eq!(logits(&open(&to).unwrap()), logits(&model), "{name}");
    }
    // Other heads: the same sizes, another function.
    let model = open(&fixture("llama")).unwrap();
    let from = copy("llama");
    let path = from.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["rope_parameters"] = serde_json::json!({"rope_type": "default", "rope_theta": 123.0});
    fs::write(&path, config.to_string()).unwrap();
    let options = SaveOptions::from_folder(from.path());
    let refused = save(&model, root.path().join("other"), &options).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("rope_theta") && refused.contains("123"),
        "{refused}"
    );
}

#[test]
fn the_policy_of_a_checkpoint_is_a_hugging_face_folder() {
    use rlvr::prelude::*;
    let tokenizer = CharTokenizer::new("abcd", &[]).unwrap();
    let config = CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        ..CausalConfig::new(tokenizer.vocab_size())
    };
    let policy = config.init(3, &device().autodiff()).unwrap();
    let builder = Trainer::builder(policy, tokenizer)
        .config(TrainerConfig {
            optimizer: OptimizerConfig::new(Schedule::constant(0.01)),
            ..TrainerConfig::default()
        })
        .rewards(
            RewardSet::builder()
                .add(
                    1.0,
                    FnReward::plain("length", |input| input.length() as f64),
                )
                .build()
                .unwrap(),
        )
        .problems([Problem::new("a", "b")]);
    let mut trainer = builder.build().unwrap();
    trainer.train(2).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    assert!(saved.join("policy/model.safetensors").exists());
    let read = open(&saved.join("policy")).unwrap();
    let weights = |model: &CausalModel| -> Vec<f32> {
        let weight = model.embed_tokens.weight.val().inner();
        weight.try_into_vec_as::<f32>().unwrap()
    };
    assert_eq!(weights(&read), weights(trainer.policy()));
}
