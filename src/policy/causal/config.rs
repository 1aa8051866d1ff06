//! The configuration of the transformer, with the names of Hugging Face's `config.json`.

use serde::{Deserialize, Serialize};

use super::rope_scaling::RopeScaling;
use crate::{Error, Result};

/// The configuration of a [`CausalModel`](super::CausalModel), with the names of Hugging Face's
/// `config.json`.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let config = CausalConfig {
///     hidden_size: 64,
///     intermediate_size: 172,
///     num_key_value_heads: 2,
///     ..CausalConfig::new(100)
/// };
/// // Seed 0, to be trained.
/// let model = config.init(0, &burn::tensor::Device::flex().autodiff())?;
/// assert_eq!(model.config().head_size(), 16);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CausalConfig {
    /// The number of tokens in the vocabulary, `V`. Required: the default, 0, is invalid.
    pub vocab_size: usize,
    /// The width of the residual stream, `D`. Default 128.
    pub hidden_size: usize,
    /// The width inside the SwiGLU. Default 344, about 8/3 of the hidden size.
    pub intermediate_size: usize,
    /// The number of transformer blocks. Default 2.
    pub num_hidden_layers: usize,
    /// The number of query heads. Default 4.
    pub num_attention_heads: usize,
    /// The number of key/value heads, a divisor of the number of query heads (grouped-query
    /// attention). Default 4.
    pub num_key_value_heads: usize,
    /// The size of one head; even. Default: `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// The most tokens in a row. Default 256.
    pub max_position_embeddings: usize,
    /// The base of the rotary frequencies. Default 10000.
    pub rope_theta: f64,
    /// The scaling of the rotary frequencies for contexts longer than those of pre-training.
    /// Default: none.
    pub rope_scaling: RopeScaling,
    /// Layers, counted from 0, whose queries and keys are not rotated, such as every fourth of
    /// SmolLM3. Default: none.
    pub unrotated_layers: Vec<usize>,
    /// The length of the sliding window of the windowed layers: a token sees itself and the
    /// `sliding_window - 1` tokens before it. Default: no window.
    pub sliding_window: Option<usize>,
    /// The layers with the sliding window, counted from 0. Default: none.
    pub windowed_layers: Vec<usize>,
    /// Added to the mean square inside RMSNorm. Default 1e-6.
    pub rms_norm_eps: f64,
    /// Bias on the query, key and value projections, as in Qwen2. Default false.
    pub attention_bias: bool,
    /// Bias on the attention's output projection, as in Llama with `attention_bias`. Default false.
    pub attention_output_bias: bool,
    /// Bias on the projections of the SwiGLU. Default false.
    pub mlp_bias: bool,
    /// RMSNorm on each query and key head before the rotation, as in Qwen3. Default false.
    pub qk_norm: bool,
    /// Whether the unembedding is the transposed embedding. Default true.
    pub tie_word_embeddings: bool,
    /// The standard deviation of the initial weights. Default: `1 / sqrt(inputs)` of each
    /// projection.
    pub initializer_range: Option<f64>,
}

impl Default for CausalConfig {
    fn default() -> Self {
        Self {
            vocab_size: 0,
            hidden_size: 128,
            intermediate_size: 344,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: None,
            max_position_embeddings: 256,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::Unscaled,
            unrotated_layers: Vec::new(),
            sliding_window: None,
            windowed_layers: Vec::new(),
            rms_norm_eps: 1e-6,
            attention_bias: false,
            attention_output_bias: false,
            mlp_bias: false,
            qk_norm: false,
            tie_word_embeddings: true,
            initializer_range: None,
        }
    }
}

impl CausalConfig {
    /// Returns the default configuration for `vocab_size` tokens.
    pub fn new(vocab_size: usize) -> Self {
        Self {
            vocab_size,
            ..Self::default()
        }
    }

    /// Returns the size of one head: `head_dim` or its default.
    pub fn head_size(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the field, its value and the allowed range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        let heads = self.num_attention_heads;
        if !heads.is_multiple_of(self.num_key_value_heads) {
            return Err(Error::config(
                "num_key_value_heads",
                self.num_key_value_heads,
                format!("a divisor of num_attention_heads = {heads}"),
            ));
        }
        if self.head_dim.is_none() && !self.hidden_size.is_multiple_of(heads) {
            return Err(Error::config(
                "hidden_size",
                self.hidden_size,
                format!("a multiple of num_attention_heads = {heads}, or an explicit head_dim"),
            ));
        }
        if self.head_size() == 0 || !self.head_size().is_multiple_of(2) {
            return Err(Error::config(
                "head_dim",
                self.head_size(),
                "an even number of at least 2: rotary positions turn pairs",
            ));
        }
        for (field, value) in [
            ("rope_theta", self.rope_theta),
            ("rms_norm_eps", self.rms_norm_eps),
            ("initializer_range", self.initializer_range.unwrap_or(1.0)),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(field, value, "a finite number above 0"));
            }
        }
        self.rope_scaling.validate()?;
        for (field, layers) in [
            ("unrotated_layers", &self.unrotated_layers),
            ("windowed_layers", &self.windowed_layers),
        ] {
            if let Some(layer) = layers.iter().find(|&&l| l >= self.num_hidden_layers) {
                let below = format!(
                    "layers below num_hidden_layers = {}",
                    self.num_hidden_layers
                );
                return Err(Error::config(field, layer, below));
            }
        }
        match self.sliding_window {
            Some(0) => Err(Error::config(
                "sliding_window",
                0,
                "at least 1 token, or none",
            )),
            None if !self.windowed_layers.is_empty() => Err(Error::config(
                "windowed_layers",
                format!("{:?}", self.windowed_layers),
                "none without a sliding_window",
            )),
            _ => Ok(()),
        }
    }
}
