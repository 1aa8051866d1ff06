//! The shape of a transformer: parameters, FLOPs and cache size.

use serde::{Deserialize, Serialize};

use super::tokens::Tokens;
use crate::policy::causal::CausalConfig;

/// The shape of a decoder-only transformer, dense or a mixture of experts, with grouped-query or
/// latent attention.
///
/// Created from a `config.json` ([`read`](Self::read)), by name ([`named`](Self::named)) or from a
/// [`CausalConfig`]. Models that the crate cannot load are supported as well.
///
/// ```
/// use rlvr::plan::ModelShape;
///
/// let shape = ModelShape::named("qwen2.5-0.5b")?;
/// assert_eq!(shape.parameters(), 494_032_768);
/// assert_eq!(2 * shape.cache_per_token(), 12 * 1024); // bytes in bf16
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Tokens in the vocabulary, `V`.
    pub vocab_size: u64,
    /// Width of the residual stream, `D`.
    pub hidden_size: u64,
    /// Inner width of the SwiGLU of a dense layer, `I`.
    pub intermediate_size: u64,
    /// Blocks, `L`.
    pub layers: u64,
    /// Query heads, `H`.
    pub heads: u64,
    /// The form of attention.
    pub attention: AttentionShape,
    /// The experts, in a mixture of experts.
    pub experts: Option<Experts>,
    /// Whether the unembedding is the embedding, transposed.
    pub tied: bool,
    /// Parameters of a block outside matrix products: biases and norms.
    pub vectors_per_layer: u64,
}

/// The form of keys and values, and so of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AttentionShape {
    /// Key/value heads shared by query heads (GQA, arXiv 2305.13245).
    Grouped {
        /// Key/value heads.
        kv_heads: u64,
        /// Size of a head.
        head_dim: u64,
    },
    /// A compressed vector per token (MLA, arXiv 2405.04434).
    Latent {
        /// Rank of the compressed queries; `None` if they are not compressed.
        q_rank: Option<u64>,
        /// Rank of the compressed keys and values.
        kv_rank: u64,
        /// Size of the part of a key without rotary embedding.
        nope: u64,
        /// Size of the part of a key with rotary embedding, shared by all heads.
        rope: u64,
        /// Size of a value.
        value: u64,
    },
}

/// The experts of a mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Routed experts per layer, `E`.
    pub count: u64,
    /// Routed experts per token, `k`.
    pub per_token: u64,
    /// Shared experts, used by every token.
    pub shared: u64,
    /// Width of an expert.
    pub width: u64,
    /// Layers that have experts; the others are dense.
    pub layers: u64,
}

impl ModelShape {
    /// Returns the sizes of a query or key head and of a value head.
    fn head_sizes(&self) -> (u64, u64) {
        match self.attention {
            AttentionShape::Grouped { head_dim, .. } => (head_dim, head_dim),
            AttentionShape::Latent {
                nope, rope, value, ..
            } => (nope + rope, value),
        }
    }

    /// Returns the parameters of the projections of one attention layer.
    fn attention_parameters(&self) -> u64 {
        let (hidden, heads) = (self.hidden_size, self.heads);
        let (query, value) = self.head_sizes();
        let inward = match self.attention {
            AttentionShape::Grouped { kv_heads, head_dim } => {
                hidden * head_dim * (heads + 2 * kv_heads)
            }
            AttentionShape::Latent {
                q_rank,
                kv_rank,
                nope,
                rope,
                ..
            } => {
                let queries = match q_rank {
                    Some(rank) => hidden * rank + rank * heads * query,
                    None => hidden * heads * query,
                };
                queries + hidden * (kv_rank + rope) + kv_rank * heads * (nope + value)
            }
        };
        inward + heads * value * hidden
    }

    /// Returns the parameters of the matrices that every token is multiplied by, including the
    /// unembedding.
    fn common_parameters(&self) -> u64 {
        let mlp = |width: u64| 3 * self.hidden_size * width;
        let mixed = self.experts.map_or(0, |experts| {
            let router = self.hidden_size * experts.count;
            experts.layers * (mlp(experts.width * experts.shared) + router)
        });
        let dense = self.layers - self.experts.map_or(0, |experts| experts.layers);
        self.layers * self.attention_parameters()
            + dense * mlp(self.intermediate_size)
            + mixed
            + self.vocab_size * self.hidden_size
    }

    /// Returns the parameters of one routed expert, summed over layers.
    fn expert_parameters(&self) -> u64 {
        self.experts.map_or(0, |experts| {
            3 * self.hidden_size * experts.width * experts.layers
        })
    }

    /// Returns the parameters of all routed experts.
    pub(super) fn routed_parameters(&self) -> u64 {
        self.expert_parameters() * self.experts.map_or(0, |experts| experts.count)
    }

    /// Returns the number of parameters, `N`.
    pub fn parameters(&self) -> u64 {
        let embedding = match self.tied {
            true => 0,
            false => self.vocab_size * self.hidden_size,
        };
        let vectors = self.layers * self.vectors_per_layer + self.hidden_size;
        self.common_parameters() + self.routed_parameters() + embedding + vectors
    }

    /// Returns the number of parameters that a token is multiplied by, `N_a`: including the
    /// unembedding, excluding the embedding lookup.
    pub fn active_parameters(&self) -> u64 {
        let chosen = self.experts.map_or(0, |experts| experts.per_token);
        self.common_parameters() + chosen * self.expert_parameters()
    }

    /// Returns the parameters of adapters of this rank on every projection of every block except
    /// experts: `rank (inputs + outputs)` each.
    pub fn adapter_parameters(&self, rank: u64) -> u64 {
        let (hidden, heads) = (self.hidden_size, self.heads);
        let (query, value) = self.head_sizes();
        let keys = match self.attention {
            AttentionShape::Grouped { kv_heads, head_dim } => 2 * (hidden + kv_heads * head_dim),
            AttentionShape::Latent { kv_rank, rope, .. } => hidden + kv_rank + rope,
        };
        let attention = hidden + heads * query + keys + heads * value + hidden;
        let dense = self.layers - self.experts.map_or(0, |experts| experts.layers);
        let mlp = 3 * (hidden + self.intermediate_size);
        rank * (self.layers * attention + dense * mlp)
    }

    /// Returns the FLOPs of a forward pass: `2 N_a T + (h_qk + h_v) H L Q`.
    ///
    /// The second term is causal attention, half of what reports count by convention. Sliding
    /// windows are counted as full causal attention.
    pub(super) fn forward_flops(&self, tokens: Tokens) -> f64 {
        2.0 * self.active_parameters() as f64 * tokens.count
            + self.attention_flops() * tokens.squares
    }

    /// Returns the FLOPs of attention per unit of [`Tokens::squares`].
    pub(super) fn attention_flops(&self) -> f64 {
        let (query, value) = self.head_sizes();
        ((query + value) * self.heads * self.layers) as f64
    }

    /// Returns the numbers in the cache per token: `2 H_kv h L`, or `(kv_rank + rope) L` for latent
    /// attention.
    pub fn cache_per_token(&self) -> u64 {
        self.layers
            * match self.attention {
                AttentionShape::Grouped { kv_heads, head_dim } => 2 * kv_heads * head_dim,
                AttentionShape::Latent { kv_rank, rope, .. } => kv_rank + rope,
            }
    }

    /// Returns the parameters that a device reads in a decoding step of `rows` sequences with
    /// experts spread over `devices`: the common ones, and its part of the routed experts in use,
    /// `E (1 - (1 - k/E)^rows)`.
    pub(super) fn decoded_parameters(&self, rows: f64, devices: f64) -> f64 {
        let routed = self.experts.map_or(0.0, |experts| {
            let share = experts.per_token as f64 / experts.count as f64;
            let hit = 1.0 - (1.0 - share).powf(rows);
            hit * self.routed_parameters() as f64 / devices
        });
        self.common_parameters() as f64 + routed
    }

    /// Returns the inner MLP width that one token uses, averaged over layers.
    fn active_width(&self) -> f64 {
        let dense = self.intermediate_size as f64;
        self.experts.map_or(dense, |experts| {
            let mixed = (experts.per_token + experts.shared) * experts.width;
            let share = experts.layers as f64 / self.layers as f64;
            share * mixed as f64 + (1.0 - share) * dense
        })
    }

    /// Returns the widths of a block's activations.
    pub(super) fn widths(&self) -> Widths {
        let (query, value) = self.head_sizes();
        let heads = self.heads as f64;
        let (keys, values) = match self.attention {
            AttentionShape::Grouped { kv_heads, .. } => {
                ((kv_heads * query) as f64, (kv_heads * value) as f64)
            }
            AttentionShape::Latent { .. } => (heads * query as f64, heads * value as f64),
        };
        Widths {
            hidden: self.hidden_size as f64,
            queries: heads * query as f64,
            keys_and_values: keys + values,
            context: heads * value as f64,
            inner: self.active_width(),
        }
    }
}

/// Widths of a block's activations per token.
pub(super) struct Widths {
    pub hidden: f64,
    pub queries: f64,
    pub keys_and_values: f64,
    pub context: f64,
    pub inner: f64,
}

impl From<&CausalConfig> for ModelShape {
    /// Returns the shape of a valid configuration.
    fn from(config: &CausalConfig) -> Self {
        let size = |number: usize| number as u64;
        let (hidden, inner) = (size(config.hidden_size), size(config.intermediate_size));
        let head_dim = size(config.head_size());
        let (heads, kv_heads) = (
            size(config.num_attention_heads),
            size(config.num_key_value_heads),
        );
        let given = |is: bool, parameters: u64| u64::from(is) * parameters;
        Self {
            vocab_size: size(config.vocab_size),
            hidden_size: hidden,
            intermediate_size: inner,
            layers: size(config.num_hidden_layers),
            heads,
            attention: AttentionShape::Grouped { kv_heads, head_dim },
            experts: None,
            tied: config.tie_word_embeddings,
            vectors_per_layer: 2 * hidden
                + given(config.attention_bias, head_dim * (heads + 2 * kv_heads))
                + given(config.attention_output_bias, hidden)
                + given(config.qk_norm, 2 * head_dim)
                + given(config.mlp_bias, 2 * inner + hidden),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_flops_add_products_and_attention() {
        let shape = ModelShape::named("llama-3.1-8b").unwrap();
        let linear = shape.forward_flops(Tokens {
            count: 1.0,
            squares: 0.0,
        });
        assert_eq!(linear, 2.0 * 7_504_658_432.0);
        // (128 + 128) for each of 32 heads in 32 layers.
        let quadratic = shape.forward_flops(Tokens {
            count: 0.0,
            squares: 1.0,
        });
        assert_eq!(quadratic, 262_144.0);
        // The micro-batches sum to the step.
        let lengths = [3.0, 700.0, 12_345.0];
        let whole = shape.forward_flops(lengths.into_iter().map(Tokens::sequence).sum());
        let parts = lengths.map(|length| shape.forward_flops(Tokens::sequence(length)));
        assert_eq!(whole, parts.iter().sum::<f64>());
    }

    #[test]
    fn a_larger_batch_reads_more_experts_up_to_all_of_them() {
        let shape = ModelShape::named("qwen3-30b-a3b").unwrap();
        let read = |rows| shape.decoded_parameters(rows, 1.0);
        assert!((read(1.0) / shape.active_parameters() as f64 - 1.0).abs() < 1e-9);
        assert!(read(8.0) > 4.0 * read(1.0));
        let all = shape.parameters() - shape.vocab_size * shape.hidden_size;
        assert!((read(1e4) / all as f64 - 1.0).abs() < 1e-4);
    }

    #[test]
    fn cache_sizes_of_known_models() {
        for (name, kibibytes) in [
            ("qwen2.5-0.5b", 12.0),
            ("qwen2.5-1.5b", 28.0),
            ("qwen2.5-7b", 56.0),
            ("llama-3.1-8b", 128.0),
            ("qwen3-32b", 256.0),
            ("deepseek-v3", 68.625),
        ] {
            let shape = ModelShape::named(name).unwrap();
            assert_eq!(2.0 * shape.cache_per_token() as f64 / 1024.0, kibibytes);
        }
    }
}
