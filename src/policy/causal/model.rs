//! The transformer: embedding, pre-norm blocks, final norm.

use burn::module::Module;
use burn::nn::{Embedding, Linear, RmsNorm};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};

use super::attention::Attention;
use super::config::CausalConfig;
use super::init::Initializer;
use super::rotary::Rotary;
use crate::Result;

use crate::policy::{AttentionMask, KvCache, PolicyModel, TokenBatch};

/// SwiGLU (arXiv 2002.05202): `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// The gate, `[D, F]`.
    pub gate_proj: Linear,
    /// What is gated, `[D, F]`.
    pub up_proj: Linear,
    /// Back to the residual stream, `[F, D]`.
    pub down_proj: Linear,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = silu(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

/// One pre-norm block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub input_layernorm: RmsNorm,
    /// The attention.
    pub self_attn: Attention,
    /// Before the SwiGLU.
    pub post_attention_layernorm: RmsNorm,
    /// The SwiGLU.
    pub mlp: Mlp,
}

impl Block {
    fn init(config: &CausalConfig, init: &mut Initializer) -> Self {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Self {
            input_layernorm: init.norm(hidden),
            self_attn: Attention::init(config, init),
            post_attention_layernorm: init.norm(hidden),
            mlp: Mlp {
                gate_proj: init.linear(hidden, inner, false),
                up_proj: init.linear(hidden, inner, false),
                down_proj: init.linear(inner, hidden, false),
            },
        }
    }

    fn forward(
        &self,
        x: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        layer: usize,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let normed = self.input_layernorm.forward(x.clone());
        let x = x + self.self_attn.forward(normed, rotary, mask, layer, cache);
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

/// A decoder-only transformer policy. Build one with [`CausalConfig::init`].
#[derive(Module, Debug)]
pub struct CausalModel {
    /// Token embedding, `[V, D]`; also the unembedding if tied.
    pub embed_tokens: Embedding,
    /// The blocks.
    pub layers: Vec<Block>,
    /// The last norm.
    pub norm: RmsNorm,
    /// The unembedding `[D, V]`, unless tied.
    pub lm_head: Option<Linear>,
    head_size: usize,
    rope_theta: f64,
    max_positions: usize,
}

impl CausalModel {
    pub(super) fn init(config: &CausalConfig, seed: u64, device: &Device) -> Self {
        let mut init =
            Initializer::new(seed, config.initializer_range, config.rms_norm_eps, device);
        let hidden = config.hidden_size;
        Self {
            embed_tokens: init.embedding(config.vocab_size, hidden),
            layers: (0..config.num_hidden_layers)
                .map(|_| Block::init(config, &mut init))
                .collect(),
            norm: init.norm(hidden),
            lm_head: (!config.tie_word_embeddings)
                .then(|| init.linear(hidden, config.vocab_size, false)),
            head_size: config.head_size(),
            rope_theta: config.rope_theta,
            max_positions: config.max_position_embeddings,
        }
    }
}

impl PolicyModel for CausalModel {
    type Cache = KvCache;

    fn empty_cache(&self, rows: usize) -> KvCache {
        KvCache::new(self.layers.len(), rows)
    }

    fn forward(&self, tokens: &TokenBatch, cache: &mut KvCache) -> Result<Tensor<3>> {
        let (starts, mask) = cache.begin(tokens, self.max_positions)?;
        let rotary = Rotary::new(
            &starts,
            tokens.width(),
            self.head_size,
            self.rope_theta,
            &tokens.ids.device(),
        );
        let mut x = self.embed_tokens.forward(tokens.ids.clone());
        for (layer, block) in self.layers.iter().enumerate() {
            x = block.forward(x, &rotary, &mask, layer, cache);
        }
        Ok(self.norm.forward(x))
    }

    fn unembedding(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.embed_tokens.weight.val().transpose(),
        }
    }

    fn vocab_size(&self) -> usize {
        self.embed_tokens.weight.dims()[0]
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }
}
