//! The causal transformer against tiny models of three families, computed by Hugging Face transformers:
//! `tests/golden/README.md` says with which version.

mod common;

use std::collections::BTreeMap;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, TensorData};
use common::{assert_close, devices, floats, number, rows};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{PolicyModel, TokenBatch};
use serde_json::Value;

fn path(family: &str, file: &str) -> String {
    format!(
        "{}/tests/golden/tiny/{family}/{file}",
        env!("CARGO_MANIFEST_DIR")
    )
}

fn json(family: &str, file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path(family, file)).unwrap()).unwrap()
}

/// The f32 tensors of a safetensors file: eight bytes of header length, a JSON header, raw numbers.
fn tensors(family: &str) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = std::fs::read(path(family, "model.safetensors")).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let mut tensors = BTreeMap::new();
    for (name, entry) in header.as_object().unwrap() {
        if name == "__metadata__" {
            continue;
        }
        let numbers = |key: &str| -> Vec<usize> {
            let values = entry[key].as_array().unwrap();
            values
                .iter()
                .map(|v| v.as_u64().unwrap() as usize)
                .collect()
        };
        let range = numbers("data_offsets");
        let raw = &data[range[0]..range[1]];
        let values = match entry["dtype"].as_str().unwrap() {
            "F32" => raw
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            // bfloat16 is the upper half of an f32.
            "BF16" => raw
                .chunks_exact(2)
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16))
                .collect(),
            other => panic!("{name} has dtype {other}"),
        };
        tensors.insert(name.clone(), (numbers("shape"), values));
    }
    tensors
}

struct Weights {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    device: Device,
}

impl Weights {
    fn take<const D: usize>(&mut self, name: &str) -> Tensor<D> {
        let (shape, values) = self
            .tensors
            .remove(name)
            .unwrap_or_else(|| panic!("no {name}"));
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn vector(&mut self, name: &str) -> Param<Tensor<1>> {
        Param::from_tensor(self.take(name))
    }

    /// The file has `[out, in]`.
    fn linear(&mut self, linear: &mut Linear, name: &str) {
        let weight: Tensor<2> = self.take(&format!("{name}.weight"));
        linear.weight = Param::from_tensor(weight.transpose());
        if linear.bias.is_some() {
            linear.bias = Some(self.vector(&format!("{name}.bias")));
        }
    }
}

/// The family's model with the file's weights; every tensor of the file must be used.
fn load(family: &str, device: &Device) -> CausalModel {
    let theirs = json(family, "config.json");
    let size = |key: &str| theirs[key].as_u64().unwrap() as usize;
    let config = CausalConfig {
        vocab_size: size("vocab_size"),
        hidden_size: size("hidden_size"),
        intermediate_size: size("intermediate_size"),
        num_hidden_layers: size("num_hidden_layers"),
        num_attention_heads: size("num_attention_heads"),
        num_key_value_heads: size("num_key_value_heads"),
        head_dim: theirs["head_dim"].as_u64().map(|d| d as usize),
        max_position_embeddings: size("max_position_embeddings"),
        rope_theta: number(&theirs["rope_parameters"]["rope_theta"]),
        rms_norm_eps: number(&theirs["rms_norm_eps"]),
        attention_bias: family == "qwen2",
        qk_norm: family == "qwen3",
        tie_word_embeddings: theirs["tie_word_embeddings"].as_bool().unwrap(),
        initializer_range: None,
    };
    let mut model = config.init(0, device).unwrap();
    let mut weights = Weights {
        tensors: tensors(family),
        device: device.clone(),
    };
    model.embed_tokens.weight = Param::from_tensor(weights.take("model.embed_tokens.weight"));
    for (i, block) in model.layers.iter_mut().enumerate() {
        let name = |part: &str| format!("model.layers.{i}.{part}");
        block.input_layernorm.gamma = weights.vector(&name("input_layernorm.weight"));
        block.post_attention_layernorm.gamma =
            weights.vector(&name("post_attention_layernorm.weight"));
        let attention = &mut block.self_attn;
        weights.linear(&mut attention.q_proj, &name("self_attn.q_proj"));
        weights.linear(&mut attention.k_proj, &name("self_attn.k_proj"));
        weights.linear(&mut attention.v_proj, &name("self_attn.v_proj"));
        weights.linear(&mut attention.o_proj, &name("self_attn.o_proj"));
        if let (Some(q_norm), Some(k_norm)) = (&mut attention.q_norm, &mut attention.k_norm) {
            q_norm.gamma = weights.vector(&name("self_attn.q_norm.weight"));
            k_norm.gamma = weights.vector(&name("self_attn.k_norm.weight"));
        }
        weights.linear(&mut block.mlp.gate_proj, &name("mlp.gate_proj"));
        weights.linear(&mut block.mlp.up_proj, &name("mlp.up_proj"));
        weights.linear(&mut block.mlp.down_proj, &name("mlp.down_proj"));
    }
    model.norm.gamma = weights.vector("model.norm.weight");
    if let Some(head) = &mut model.lm_head {
        weights.linear(head, "lm_head");
    }
    assert!(
        weights.tensors.is_empty(),
        "unused: {:?}",
        weights.tensors.keys()
    );
    model
}

#[test]
fn logits_are_those_of_the_family() {
    for family in ["llama", "qwen2", "qwen3"] {
        let expected = json(family, "expected.json");
        for (backend, device) in devices() {
            let model = load(family, &device);
            for case in expected["cases"].as_array().unwrap() {
                let integers = |key: &str| -> Vec<u32> {
                    let values = case[key].as_array().unwrap();
                    values.iter().map(|v| v.as_u64().unwrap() as u32).collect()
                };
                let tokens = integers("tokens");
                let batch = TokenBatch::from_rows(&[&tokens], &device).unwrap();
                let mut cache = model.empty_cache(1);
                let hidden = model.forward(&batch, &mut cache).unwrap();
                let [_, width, size] = hidden.dims();
                let logits = hidden.reshape([width, size]).matmul(model.unembedding());
                let got = floats(logits);
                let want = rows(&case["logits"]).unwrap();
                for (position, want) in integers("positions").iter().zip(&want) {
                    let got = &got[*position as usize * want.len()..][..want.len()];
                    for (got, want) in got.iter().zip(want) {
                        let what = format!("{family} {backend} position {position}");
                        assert_close(*got, *want, 2e-4, 2e-4, &what);
                    }
                }
                assert_eq!(
                    greedy(&model, &tokens, 12),
                    integers("greedy"),
                    "{family} {backend}"
                );
            }
        }
    }
}

/// Greedy continuation with the cache, as generation does it.
fn greedy(model: &CausalModel, prompt: &[u32], count: usize) -> Vec<u32> {
    use rlvr::rollout::{GenerationConfig, GenerationRequest, SamplingConfig, generate};
    let request = GenerationRequest {
        prompt: prompt.to_vec(),
        samples: 1,
        address: vec![],
    };
    let config = GenerationConfig {
        sampling: SamplingConfig::greedy(),
        max_new_tokens: count,
        ..GenerationConfig::default()
    };
    generate(model, &[request], &config).unwrap()[0][0]
        .tokens
        .clone()
}
