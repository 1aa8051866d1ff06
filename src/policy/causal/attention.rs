//! Grouped-query self-attention with rotary positions.

use burn::module::Module;
use burn::nn::RmsNorm;
use burn::tensor::Tensor;

use super::config::CausalConfig;
use super::pass::Pass;
use super::projection::Projection;
use super::weights::WeightSource;
use crate::fused::rms_norm;
use crate::policy::KvCache;

/// The self-attention of a [`Block`](super::Block), with `Hq` query heads that share `Hkv`
/// key/value heads (GQA, arXiv 2305.13245).
#[derive(Module, Debug)]
pub struct Attention {
    /// The query projection, `[D, Hq Dh]`.
    pub q_proj: Projection,
    /// The key projection, `[D, Hkv Dh]`.
    pub k_proj: Projection,
    /// The value projection, `[D, Hkv Dh]`.
    pub v_proj: Projection,
    /// The output projection, `[Hq Dh, D]`.
    pub o_proj: Projection,
    /// The norm of each query head, if any.
    pub q_norm: Option<RmsNorm>,
    /// The norm of each key head, if any.
    pub k_norm: Option<RmsNorm>,
    head_size: usize,
    /// Whether queries and keys are rotated by their positions.
    rotates: bool,
    /// Whether the model's sliding window applies.
    windowed: bool,
}

impl Attention {
    /// Builds the attention of layer `layer`; the names of its weights begin with `name`.
    pub(super) fn build(
        config: &CausalConfig,
        layer: usize,
        name: &str,
        weights: &mut dyn WeightSource,
    ) -> Self {
        let (hidden, head) = (config.hidden_size, config.head_size());
        let queries = config.num_attention_heads * head;
        let keys = config.num_key_value_heads * head;
        let bias = config.attention_bias;
        let mut linear = |part: &str, inputs, outputs, bias| {
            weights.linear(&format!("{name}.{part}"), inputs, outputs, bias)
        };
        let q_proj = linear("q_proj", hidden, queries, bias);
        let k_proj = linear("k_proj", hidden, keys, bias);
        let v_proj = linear("v_proj", hidden, keys, bias);
        let o_proj = linear("o_proj", queries, hidden, config.attention_output_bias);
        let mut norm = |part: &str| {
            let name = format!("{name}.{part}");
            config.qk_norm.then(|| weights.norm(&name, head))
        };
        Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            q_norm: norm("q_norm"),
            k_norm: norm("k_norm"),
            head_size: head,
            rotates: !config.unrotated_layers.contains(&layer),
            windowed: config.windowed_layers.contains(&layer),
        }
    }

    /// Computes the attention of `x` `[B, T, D]`, `[B, T, D]`, and appends keys and values to layer
    /// `layer` of the cache.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        pass: &Pass,
        layer: usize,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let [rows, width, _] = x.dims();
        let mut queries = self.heads(self.q_proj.forward(x.clone()));
        let mut keys = self.heads(self.k_proj.forward(x.clone()));
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            queries = rms_norm(q_norm, queries);
            keys = rms_norm(k_norm, keys);
        }
        if self.rotates {
            queries = pass.rotary.rotate(queries);
            keys = pass.rotary.rotate(keys);
        }
        let values = self.heads(self.v_proj.forward(x));
        let mask = match &pass.windowed {
            Some(windowed) if self.windowed => windowed,
            _ => &pass.mask,
        };
        let context = match &pass.cuts {
            None => cache.attend(layer, queries, keys, values, mask),
            Some(cuts) => {
                let [keys, values] = cache.append(layer, keys, values);
                cuts.attention([queries, keys, values], mask)
            }
        };
        self.o_proj
            .forward(context.reshape([rows as i64, width as i64, -1]))
    }

    /// Reshapes `[B, T, H Dh]` to `[B, T, H, Dh]`.
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [rows, width, size] = x.dims();
        x.reshape([rows, width, size / self.head_size, self.head_size])
    }
}
