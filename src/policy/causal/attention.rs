//! Grouped-query self-attention with rotary positions.

use burn::module::Module;
use burn::nn::{Linear, RmsNorm};
use burn::tensor::Tensor;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

use super::config::CausalConfig;
use super::init::Initializer;
use super::rotary::Rotary;
use crate::policy::{AttentionMask, KvCache};

/// Self-attention with `Hq` query heads that share `Hkv` key/value heads (GQA, arXiv 2305.13245).
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, `[D, Hq Dh]`.
    pub q_proj: Linear,
    /// Keys, `[D, Hkv Dh]`.
    pub k_proj: Linear,
    /// Values, `[D, Hkv Dh]`.
    pub v_proj: Linear,
    /// Output, `[Hq Dh, D]`.
    pub o_proj: Linear,
    /// Per-head norm of the queries, if any.
    pub q_norm: Option<RmsNorm>,
    /// Per-head norm of the keys, if any.
    pub k_norm: Option<RmsNorm>,
    head_size: usize,
}

impl Attention {
    pub(super) fn init(config: &CausalConfig, init: &mut Initializer) -> Self {
        let (hidden, head) = (config.hidden_size, config.head_size());
        let queries = config.num_attention_heads * head;
        let keys = config.num_key_value_heads * head;
        let bias = config.attention_bias;
        Self {
            q_proj: init.linear(hidden, queries, bias),
            k_proj: init.linear(hidden, keys, bias),
            v_proj: init.linear(hidden, keys, bias),
            o_proj: init.linear(queries, hidden, false),
            q_norm: config.qk_norm.then(|| init.norm(head)),
            k_norm: config.qk_norm.then(|| init.norm(head)),
            head_size: head,
        }
    }

    /// `[B, T, D]` in, `[B, T, D]` out; keys and values go into `layer` of the cache.
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        rotary: &Rotary,
        mask: &AttentionMask,
        layer: usize,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let [rows, width, _] = x.dims();
        let mut queries = self.heads(self.q_proj.forward(x.clone()));
        let mut keys = self.heads(self.k_proj.forward(x.clone()));
        if let (Some(q_norm), Some(k_norm)) = (&self.q_norm, &self.k_norm) {
            queries = q_norm.forward(queries);
            keys = k_norm.forward(keys);
        }
        let queries = rotary.turn(queries);
        let values = self.heads(self.v_proj.forward(x));
        let (keys, values) = cache.append(layer, rotary.turn(keys), values);

        let group = queries.dims()[1] / keys.dims()[1];
        let mut options = AttentionModuleOptions::default();
        let hidden = match mask {
            AttentionMask::Full => None,
            AttentionMask::Causal => {
                options.is_causal = true;
                None
            }
            AttentionMask::Hidden(hidden) => Some(hidden.clone()),
        };
        let context = attention(
            queries,
            repeat_heads(keys, group),
            repeat_heads(values, group),
            hidden,
            None,
            options,
        );
        let context = context
            .swap_dims(1, 2)
            .reshape([rows as i64, width as i64, -1]);
        self.o_proj.forward(context)
    }

    /// `[B, T, H Dh]` to `[B, H, T, Dh]`.
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [rows, width, size] = x.dims();
        x.reshape([rows, width, size / self.head_size, self.head_size])
            .swap_dims(1, 2)
    }
}

/// Each key/value head `group` times in a row: `[B, Hkv, S, Dh]` to `[B, Hkv group, S, Dh]`.
fn repeat_heads(heads: Tensor<4>, group: usize) -> Tensor<4> {
    if group == 1 {
        return heads;
    }
    let [rows, count, width, size] = heads.dims();
    heads
        .unsqueeze_dim::<5>(2)
        .expand([rows, count, group, width, size])
        .reshape([rows, count * group, width, size])
}
