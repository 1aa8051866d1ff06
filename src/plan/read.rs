//! Reads a `config.json` as a [`ModelShape`].

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::shape::{AttentionShape, Experts, ModelShape};
use crate::{Error, Result};

/// The fields of a `config.json` that the cost depends on.
#[derive(Deserialize)]
struct File {
    model_type: Option<String>,
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: Option<u64>,
    num_hidden_layers: u64,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    use_qk_norm: Option<bool>,
    // Mixtures of experts.
    #[serde(alias = "num_local_experts", alias = "n_routed_experts")]
    num_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    moe_intermediate_size: Option<u64>,
    n_shared_experts: Option<u64>,
    first_k_dense_replace: Option<u64>,
    decoder_sparse_step: Option<u64>,
    mlp_only_layers: Option<Vec<u64>>,
    // Latent attention.
    q_lora_rank: Option<u64>,
    kv_lora_rank: Option<u64>,
    qk_nope_head_dim: Option<u64>,
    qk_rope_head_dim: Option<u64>,
    v_head_dim: Option<u64>,
}

/// The known architectures, by `model_type`.
const TYPES: [&str; 10] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "smollm3",
    "mixtral",
    "qwen3_moe",
    "glm4_moe",
    "deepseek_v2",
    "deepseek_v3",
];

impl ModelShape {
    /// Reads the shape of a model from its `config.json`, or from the folder that contains it.
    ///
    /// Supports Llama, Mistral, Qwen2, Qwen3 and SmolLM3, which the crate can load, and for
    /// planning also Mixtral, Qwen3-MoE, GLM-4-MoE, DeepSeek-V2 and -V3.
    ///
    /// # Errors
    /// Returns an error if the file is missing or malformed, a field is missing or invalid, or the
    /// architecture is not supported.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file: PathBuf = match path.is_dir() {
            true => path.join("config.json"),
            false => path.to_path_buf(),
        };
        let text = fs::read_to_string(&file).map_err(|source| Error::io(&file, source))?;
        Self::from_json(&text).map_err(|reason| Error::model_file(&file, reason))
    }

    /// Parses the text of a `config.json`.
    fn from_json(text: &str) -> Result<Self> {
        let parsed: Result<File, _> = serde_json::from_str(text);
        let expected = "an object with the fields of Hugging Face's config.json";
        let file = parsed.map_err(|reason| Error::config("config.json", reason, expected))?;
        file.shape()
    }
}

/// The largest number of layers.
const MOST_LAYERS: u64 = 10_000;

/// Rejects sizes whose products overflow.
fn check_size(shape: &ModelShape) -> Result<()> {
    let sizes = match shape.attention {
        AttentionShape::Grouped { kv_heads, head_dim } => [kv_heads, head_dim, 0, 0, 0],
        AttentionShape::Latent {
            q_rank,
            kv_rank,
            nope,
            rope,
            value,
        } => [q_rank.unwrap_or(0), kv_rank, nope, rope, value],
    };
    let attention = sizes.iter().map(|&size| size as f64).sum::<f64>().powi(2);
    let experts = shape.experts.map_or(0.0, |experts| {
        (experts.count as f64 + experts.shared as f64) * (experts.width as f64 + 1.0)
    });
    let hidden = shape.hidden_size as f64;
    let inner = shape.heads as f64 * attention.max(hidden)
        + shape.intermediate_size as f64
        + experts
        + shape.vocab_size as f64;
    // An upper bound on every product of the shape.
    let bound = 8.0 * hidden * inner * shape.layers as f64;
    match bound < u64::MAX as f64 {
        true => Ok(()),
        false => Err(Error::config(
            "config.json",
            format!("sizes of about {bound:.0e} parameters"),
            "those of a model that exists",
        )),
    }
}

/// Returns the value of a required field.
fn needed(field: &str, value: Option<u64>) -> Result<u64> {
    value.ok_or_else(|| Error::config(field, "missing", "a whole number"))
}

impl File {
    fn shape(&self) -> Result<ModelShape> {
        let kind = self.model_type.as_deref().unwrap_or("not named");
        if !TYPES.contains(&kind) {
            let expected = format!("one of {}", TYPES.join(", "));
            return Err(Error::config("model_type", kind, expected));
        }
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if self.num_hidden_layers > MOST_LAYERS {
            let expected = format!("at most {MOST_LAYERS}");
            return Err(Error::config(
                "num_hidden_layers",
                self.num_hidden_layers,
                expected,
            ));
        }
        let experts = self.experts(kind)?;
        let mixed = experts.map_or(0, |experts| experts.layers);
        // Mixtral gives the width of its experts as that of the MLP and has no dense layer.
        let intermediate_size = match mixed == self.num_hidden_layers {
            true => self.intermediate_size.unwrap_or(0),
            false => needed("intermediate_size", self.intermediate_size)?,
        };
        let shape = ModelShape {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            attention: self.attention(kind)?,
            experts,
            tied: self.tie_word_embeddings.unwrap_or(kind == "smollm3"),
            vectors_per_layer: 0,
        };
        check_size(&shape)?;
        Ok(ModelShape {
            vectors_per_layer: self.vectors(kind, &shape),
            ..shape
        })
    }

    fn attention(&self, kind: &str) -> Result<AttentionShape> {
        if kind.starts_with("deepseek") {
            return Ok(AttentionShape::Latent {
                q_rank: self.q_lora_rank,
                kv_rank: needed("kv_lora_rank", self.kv_lora_rank)?,
                nope: needed("qk_nope_head_dim", self.qk_nope_head_dim)?,
                rope: needed("qk_rope_head_dim", self.qk_rope_head_dim)?,
                value: needed("v_head_dim", self.v_head_dim)?,
            });
        }
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads = {heads}");
            return Err(Error::config("num_key_value_heads", kv_heads, expected));
        }
        let usual = match kind {
            "qwen3" | "qwen3_moe" => 128,
            _ => self.hidden_size / heads,
        };
        let head_dim = self.head_dim.unwrap_or(usual);
        Ok(AttentionShape::Grouped { kv_heads, head_dim })
    }

    fn experts(&self, kind: &str) -> Result<Option<Experts>> {
        let width = match kind {
            "mixtral" => self.intermediate_size,
            "qwen3_moe" | "glm4_moe" | "deepseek_v2" | "deepseek_v3" => self.moe_intermediate_size,
            _ => return Ok(None),
        };
        let count = needed("num_experts", self.num_experts)?;
        let per_token = needed("num_experts_per_tok", self.num_experts_per_tok)?;
        if per_token == 0 || per_token > count {
            let expected = format!("1 to the number of experts, {count}");
            return Err(Error::config("num_experts_per_tok", per_token, expected));
        }
        let every = self.decoder_sparse_step.unwrap_or(1).max(1);
        let first = self.first_k_dense_replace.unwrap_or(0);
        let dense = self.mlp_only_layers.as_deref().unwrap_or_default();
        let mixed = |layer: &u64| {
            *layer >= first && (layer + 1).is_multiple_of(every) && !dense.contains(layer)
        };
        Ok(Some(Experts {
            count,
            per_token,
            shared: self.n_shared_experts.unwrap_or(0),
            width: needed("moe_intermediate_size", width)?,
            layers: (0..self.num_hidden_layers).filter(mixed).count() as u64,
        }))
    }

    /// Returns the parameters of the norms and biases of a block.
    fn vectors(&self, kind: &str, shape: &ModelShape) -> u64 {
        let given = |is: bool, parameters: u64| u64::from(is) * parameters;
        let hidden = self.hidden_size;
        let bias = self.attention_bias.unwrap_or(false);
        let (inner_bias, outer_bias) = match kind {
            "qwen2" => (true, false),
            "llama" | "qwen3" | "smollm3" | "qwen3_moe" => (bias, bias),
            "glm4_moe" => (bias, false),
            _ => (false, false),
        };
        let mlp_bias = matches!(kind, "llama" | "smollm3") && self.mlp_bias.unwrap_or(false);
        let qk_norm = match kind {
            "qwen3" | "qwen3_moe" => true,
            "glm4_moe" => self.use_qk_norm.unwrap_or(false),
            _ => false,
        };
        let own = match shape.attention {
            AttentionShape::Grouped { kv_heads, head_dim } => {
                given(inner_bias, head_dim * (shape.heads + 2 * kv_heads))
                    + given(qk_norm, 2 * head_dim)
            }
            AttentionShape::Latent {
                q_rank, kv_rank, ..
            } => q_rank.unwrap_or(0) + kv_rank,
        };
        2 * hidden
            + own
            + given(outer_bias, hidden)
            + given(mlp_bias, 2 * shape.intermediate_size + hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_json_gives_the_shape_of_the_named_model() {
        for (name, text) in [
            (
                "qwen2.5-0.5b",
                r#"{"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                    "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": true, "torch_dtype": "bfloat16"}"#,
            ),
            (
                "qwen3-30b-a3b",
                r#"{"model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "head_dim": 128,
                    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "num_experts": 128,
                    "num_experts_per_tok": 8, "moe_intermediate_size": 768, "decoder_sparse_step": 1, "mlp_only_layers": []}"#,
            ),
            (
                "glm-4.5-air",
                r#"{"model_type": "glm4_moe", "vocab_size": 151552, "hidden_size": 4096, "intermediate_size": 10944, "head_dim": 128,
                    "num_hidden_layers": 46, "num_attention_heads": 96, "num_key_value_heads": 8, "n_routed_experts": 128,
                    "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
                    "attention_bias": true, "use_qk_norm": false}"#,
            ),
            (
                "deepseek-v3",
                r#"{"model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
                    "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
                    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
                    "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "moe_intermediate_size": 2048,
                    "first_k_dense_replace": 3}"#,
            ),
        ] {
            let read = ModelShape::from_json(text).unwrap();
            assert_eq!(read, ModelShape::named(name).unwrap(), "{name}");
        }
    }

    #[test]
    fn errors_name_missing_and_unknown_fields() {
        let error = |text: &str| ModelShape::from_json(text).unwrap_err().to_string();
        let missing = error(r#"{"model_type": "llama", "vocab_size": 9}"#);
        assert!(missing.contains("hidden_size"), "{missing}");
        let sizes = r#""vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2"#;
        let inner = error(&format!(r#"{{"model_type": "llama", {sizes}}}"#));
        assert!(inner.contains("intermediate_size"), "{inner}");
        for (field, value) in [
            ("hidden_size", u64::MAX),
            ("num_hidden_layers", 1 << 60),
            ("vocab_size", u64::MAX / 2),
            ("num_experts", u64::MAX),
        ] {
            let mut fields: serde_json::Value = serde_json::from_str(
                r#"{"model_type": "qwen3_moe", "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 4}"#,
            )
            .unwrap();
            ModelShape::from_json(&fields.to_string()).unwrap();
            fields[field] = value.into();
            assert!(
                ModelShape::from_json(&fields.to_string()).is_err(),
                "{field}"
            );
        }
        let unknown = error(&format!(r#"{{"model_type": "mamba", {sizes}}}"#));
        assert!(unknown.contains("mamba") && unknown.contains("qwen3_moe"));
        let ranks = error(&format!(
            r#"{{"model_type": "deepseek_v3", "intermediate_size": 4, "num_experts": 4, "num_experts_per_tok": 2,
                "moe_intermediate_size": 4, {sizes}}}"#
        ));
        assert!(ranks.contains("kv_lora_rank"), "{ranks}");
    }
}
