//! The transformer: embedding, pre-norm blocks, final norm.

use burn::module::Module;
use burn::nn::{Embedding, RmsNorm};
use burn::tensor::Tensor;

use super::attention::Attention;
use super::config::CausalConfig;
use super::pass::Pass;
use super::projection::Projection;
use super::rotary::{Frequencies, Rotary};
use super::weights::WeightSource;
use crate::Result;
use crate::fused::{PackedWeight, rms_norm, swiglu};
use crate::policy::{KvCache, TokenBatch, WeightFormat};

/// The feed-forward layer of a [`Block`]: SwiGLU (arXiv 2002.05202),
/// `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// The gate projection, `[D, F]`.
    pub gate_proj: Projection,
    /// The up projection, `[D, F]`.
    pub up_proj: Projection,
    /// The down projection, `[F, D]`.
    pub down_proj: Projection,
}

impl Mlp {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.gate_proj.forward(x.clone());
        self.down_proj
            .forward(swiglu(gate, self.up_proj.forward(x)))
    }
}

/// A pre-norm block of a [`CausalModel`]: `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm before the attention.
    pub input_layernorm: RmsNorm,
    /// The attention.
    pub self_attn: Attention,
    /// The norm before the feed-forward layer.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward layer.
    pub mlp: Mlp,
}

impl Block {
    fn build(config: &CausalConfig, layer: usize, weights: &mut dyn WeightSource) -> Self {
        let (hidden, inner, bias) = (
            config.hidden_size,
            config.intermediate_size,
            config.mlp_bias,
        );
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        Self {
            input_layernorm: weights.norm(&name("input_layernorm"), hidden),
            self_attn: Attention::build(config, layer, &name("self_attn"), weights),
            post_attention_layernorm: weights.norm(&name("post_attention_layernorm"), hidden),
            mlp: Mlp {
                gate_proj: weights.linear(&name("mlp.gate_proj"), hidden, inner, bias),
                up_proj: weights.linear(&name("mlp.up_proj"), hidden, inner, bias),
                down_proj: weights.linear(&name("mlp.down_proj"), inner, hidden, bias),
            },
        }
    }

    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        pass: &Pass,
        layer: usize,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let normed = rms_norm(&self.input_layernorm, x.clone());
        let x = x + self.self_attn.forward(normed, pass, layer, cache);
        let normed = rms_norm(&self.post_attention_layernorm, x.clone());
        x + self.mlp.forward(normed)
    }

    /// The projections with their names within the block.
    fn projections(&self) -> [(&'static str, &Projection); 7] {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        [
            ("self_attn.q_proj", &attention.q_proj),
            ("self_attn.k_proj", &attention.k_proj),
            ("self_attn.v_proj", &attention.v_proj),
            ("self_attn.o_proj", &attention.o_proj),
            ("mlp.gate_proj", &mlp.gate_proj),
            ("mlp.up_proj", &mlp.up_proj),
            ("mlp.down_proj", &mlp.down_proj),
        ]
    }

    /// The projections, mutably, with their names within the block.
    fn projections_mut(&mut self) -> [(&'static str, &mut Projection); 7] {
        let (attention, mlp) = (&mut self.self_attn, &mut self.mlp);
        [
            ("self_attn.q_proj", &mut attention.q_proj),
            ("self_attn.k_proj", &mut attention.k_proj),
            ("self_attn.v_proj", &mut attention.v_proj),
            ("self_attn.o_proj", &mut attention.o_proj),
            ("mlp.gate_proj", &mut mlp.gate_proj),
            ("mlp.up_proj", &mut mlp.up_proj),
            ("mlp.down_proj", &mut mlp.down_proj),
        ]
    }
}

/// A decoder-only transformer policy, from [`CausalConfig::init`] or `policy::hf::load`.
#[derive(Module, Debug)]
pub struct CausalModel {
    /// The token embedding, `[V, D]`; also the unembedding if the embeddings are tied.
    pub embed_tokens: Embedding,
    /// The blocks.
    pub layers: Vec<Block>,
    /// The final norm.
    pub norm: RmsNorm,
    /// The unembedding, `[D, V]`; `None` if the embeddings are tied.
    pub lm_head: Option<Projection>,
    #[module(skip)]
    pub(super) frequencies: Frequencies,
    #[module(skip)]
    pub(super) config: CausalConfig,
    pub(super) gradient_checkpointing: bool,
    #[module(skip)]
    pub(super) weight_format: WeightFormat,
    /// The copy of the unembedding that generation reads.
    #[module(skip)]
    pub(super) packed_unembedding: Option<PackedWeight>,
}

impl CausalModel {
    /// Builds the model of a valid `config` with the given weights.
    pub(crate) fn build(config: &CausalConfig, weights: &mut dyn WeightSource) -> Self {
        let (hidden, tokens) = (config.hidden_size, config.vocab_size);
        let embed_tokens = weights.embedding("model.embed_tokens", tokens, hidden);
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Block::build(config, layer, weights))
            .collect();
        let norm = weights.norm("model.norm", hidden);
        let head = || weights.linear("lm_head", hidden, tokens, false);
        let scaling = &config.rope_scaling;
        Self {
            embed_tokens,
            layers,
            norm,
            lm_head: (!config.tie_word_embeddings).then(head),
            frequencies: scaling.frequencies(config.head_size(), config.rope_theta),
            config: config.clone(),
            gradient_checkpointing: false,
            weight_format: WeightFormat::Trained,
            packed_unembedding: None,
        }
    }

    /// The configuration of the model.
    pub fn config(&self) -> &CausalConfig {
        &self.config
    }

    /// Turns gradient checkpointing on or off; the default is off.
    ///
    /// With gradient checkpointing, the forward pass keeps only the inputs of the blocks, and the
    /// backward pass recomputes each block (arXiv 1604.06174). It needs the memory of the
    /// activations of one block instead of all, and the time of one more forward pass. The gradient
    /// is the same.
    #[must_use]
    pub fn with_gradient_checkpointing(mut self, on: bool) -> Self {
        self.gradient_checkpointing = on;
        self
    }

    /// Returns whether gradient checkpointing is on.
    pub fn gradient_checkpointing(&self) -> bool {
        self.gradient_checkpointing
    }

    /// Makes room in `cache` for `tokens` and returns the inputs that all blocks share.
    pub(super) fn begin(&self, tokens: &TokenBatch, cache: &mut KvCache) -> Result<Pass> {
        let (starts, mask) = cache.begin(tokens, self.config.max_position_embeddings)?;
        let device = tokens.ids.device();
        let windowed = self
            .config
            .sliding_window
            .filter(|_| !self.config.windowed_layers.is_empty())
            .and_then(|window| mask.windowed(window));
        let dtype = self.embed_tokens.weight.dtype();
        Ok(Pass {
            rotary: Rotary::new(&starts, tokens.width(), &self.frequencies, &device, dtype),
            mask,
            windowed,
            cuts: None,
        })
    }

    /// All projections of the blocks with their full names.
    pub(crate) fn projections(&self) -> impl Iterator<Item = (String, &Projection)> {
        self.layers.iter().enumerate().flat_map(|(layer, block)| {
            let full =
                move |(part, projection)| (format!("model.layers.{layer}.{part}"), projection);
            block.projections().into_iter().map(full)
        })
    }

    /// All projections of the blocks, mutably, with their full names.
    pub(super) fn projections_mut(&mut self) -> impl Iterator<Item = (String, &mut Projection)> {
        let layers = self.layers.iter_mut().enumerate();
        layers.flat_map(|(layer, block)| {
            let full =
                move |(part, projection)| (format!("model.layers.{layer}.{part}"), projection);
            block.projections_mut().into_iter().map(full)
        })
    }
}
