//! The shape of a transformer, and what follows from it: parameters, FLOPs, bytes.

use serde::{Deserialize, Serialize};

use super::tokens::Tokens;
use crate::policy::causal::CausalConfig;

/// The shape of a decoder-only transformer, as far as cost depends on it: dense or with experts, with grouped-query or latent
/// attention.
///
/// From a `config.json` ([`read`](Self::read)), by name ([`named`](Self::named)) or from a [`CausalConfig`]. Models that
/// the crate cannot load can be planned for as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelShape {
    /// Tokens in the vocabulary, `V`.
    pub vocab_size: u64,
    /// Width of the residual stream, `D`.
    pub hidden_size: u64,
    /// Width inside the SwiGLU of a dense layer, `I`.
    pub intermediate_size: u64,
    /// Blocks, `L`.
    pub layers: u64,
    /// Query heads, `H`.
    pub heads: u64,
    /// How keys and values are made.
    pub attention: AttentionShape,
    /// The experts, if it has any.
    pub experts: Option<Experts>,
    /// Whether the unembedding is the embedding, transposed.
    pub tied: bool,
    /// Parameters of a block that are in no matrix product: biases and norms.
    pub vectors_per_layer: u64,
}

/// How keys and values are made, and what the cache holds of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AttentionShape {
    /// Key/value heads that query heads share (GQA, arXiv 2305.13245).
    Grouped {
        /// Key/value heads.
        kv_heads: u64,
        /// Size of a head.
        head_dim: u64,
    },
    /// A compressed vector a token (MLA, arXiv 2405.04434).
    Latent {
        /// Rank of the compressed queries; none if they are not compressed.
        q_rank: Option<u64>,
        /// Rank of the compressed keys and values.
        kv_rank: u64,
        /// Size of a key without rotation.
        nope: u64,
        /// Size of the rotated part of a key, which all heads share.
        rope: u64,
        /// Size of a value.
        value: u64,
    },
}

/// The experts of a mixture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experts {
    /// Routed experts of a layer, `E`.
    pub count: u64,
    /// Of these, how many a token goes to, `k`.
    pub per_token: u64,
    /// Experts that every token goes to.
    pub shared: u64,
    /// Width of an expert.
    pub width: u64,
    /// Layers that have experts; the others are dense.
    pub layers: u64,
}

impl ModelShape {
    /// Sizes of a query or key head and of a value head.
    fn head_sizes(&self) -> (u64, u64) {
        match self.attention {
            AttentionShape::Grouped { head_dim, .. } => (head_dim, head_dim),
            AttentionShape::Latent {
                nope, rope, value, ..
            } => (nope + rope, value),
        }
    }

    /// Parameters of the projections of one attention.
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

    /// Parameters of the matrices that every token goes through, the unembedding among them.
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

    /// Parameters of one routed expert, in all layers together.
    fn expert_parameters(&self) -> u64 {
        self.experts.map_or(0, |experts| {
            3 * self.hidden_size * experts.width * experts.layers
        })
    }

    /// Parameters of all routed experts.
    pub(super) fn routed_parameters(&self) -> u64 {
        self.expert_parameters() * self.experts.map_or(0, |experts| experts.count)
    }

    /// All parameters, `N`.
    pub fn parameters(&self) -> u64 {
        let embedding = match self.tied {
            true => 0,
            false => self.vocab_size * self.hidden_size,
        };
        let vectors = self.layers * self.vectors_per_layer + self.hidden_size;
        self.common_parameters() + self.routed_parameters() + embedding + vectors
    }

    /// Parameters that one token is multiplied with, `N_a`: the unembedding counts, looking an embedding up does not.
    pub fn active_parameters(&self) -> u64 {
        let chosen = self.experts.map_or(0, |experts| experts.per_token);
        self.common_parameters() + chosen * self.expert_parameters()
    }

    /// Parameters of adapters of this rank on every projection of every block: `rank (inputs + outputs)` each. Experts get none.
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

    /// FLOPs of a forward pass: `2 N_a T + (h_qk + h_v) H L Q`.
    ///
    /// The second term is attention by kernels that skip the future, half of what reports by convention count. Sliding windows are counted as
    /// attention to everything before.
    pub fn forward_flops(&self, tokens: Tokens) -> f64 {
        2.0 * self.active_parameters() as f64 * tokens.count
            + self.attention_flops() * tokens.squares
    }

    /// FLOPs of attention for a unit of [`Tokens::squares`].
    pub(super) fn attention_flops(&self) -> f64 {
        let (query, value) = self.head_sizes();
        ((query + value) * self.heads * self.layers) as f64
    }

    /// Numbers that the cache holds for a token: `2 H_kv h L`, or `(kv_rank + rope) L` for latent attention.
    pub fn cache_per_token(&self) -> u64 {
        self.layers
            * match self.attention {
                AttentionShape::Grouped { kv_heads, head_dim } => 2 * kv_heads * head_dim,
                AttentionShape::Latent { kv_rank, rope, .. } => kv_rank + rope,
            }
    }

    /// Parameters that a device reads in a decoding step of `rows` sequences whose experts are spread over `devices`: those that all tokens share, and
    /// its part of the routed experts that are hit, `E (1 - (1 - k/E)^rows)`.
    pub(super) fn decoded_parameters(&self, rows: f64, devices: f64) -> f64 {
        let routed = self.experts.map_or(0.0, |experts| {
            let share = experts.per_token as f64 / experts.count as f64;
            let hit = 1.0 - (1.0 - share).powf(rows);
            hit * self.routed_parameters() as f64 / devices
        });
        self.common_parameters() as f64 + routed
    }

    /// Width inside the MLP that one token passes through.
    fn active_width(&self) -> f64 {
        let dense = self.intermediate_size as f64;
        self.experts.map_or(dense, |experts| {
            let mixed = (experts.per_token + experts.shared) * experts.width;
            let share = experts.layers as f64 / self.layers as f64;
            share * mixed as f64 + (1.0 - share) * dense
        })
    }

    /// Widths of a block that its activations are made of.
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

/// Widths of what a block computes for a token.
pub(super) struct Widths {
    pub hidden: f64,
    pub queries: f64,
    pub keys_and_values: f64,
    pub context: f64,
    pub inner: f64,
}

impl From<&CausalConfig> for ModelShape {
    /// The shape of a valid configuration.
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
    fn attention_and_products_are_counted_apart() {
        let shape = ModelShape::named("llama-3.1-8b").unwrap();
        let linear = shape.forward_flops(Tokens {
            count: 1.0,
            squares: 0.0,
        });
        assert_eq!(linear, 2.0 * 7_504_658_432.0);
        // (128 + 128) of 32 heads in 32 layers.
        let quadratic = shape.forward_flops(Tokens {
            count: 0.0,
            squares: 1.0,
        });
        assert_eq!(quadratic, 262_144.0);
        // The sum over micro-batches is that of the step.
        let lengths = [3.0, 700.0, 12_345.0];
        let whole = shape.forward_flops(lengths.into_iter().map(Tokens::sequence).sum());
        let parts = lengths.map(|length| shape.forward_flops(Tokens::sequence(length)));
        assert_eq!(whole, parts.iter().sum::<f64>());
    }

    #[test]
    fn a_larger_batch_reads_more_experts_and_no_more_than_all() {
        let shape = ModelShape::named("qwen3-30b-a3b").unwrap();
        let read = |rows| shape.decoded_parameters(rows, 1.0);
        assert!((read(1.0) / shape.active_parameters() as f64 - 1.0).abs() < 1e-9);
        assert!(read(8.0) > 4.0 * read(1.0));
        let all = shape.parameters() - shape.vocab_size * shape.hidden_size;
        assert!((read(1e4) / all as f64 - 1.0).abs() < 1e-4);
    }

    #[test]
    fn the_cache_has_its_known_size() {
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
