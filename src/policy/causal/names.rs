//! The names of parameters in Hugging Face checkpoints.

use burn::module::Param;
use burn::tensor::Tensor;

use super::model::CausalModel;

/// A parameter of a model, by its layout in files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight<'a> {
    /// A projection's matrix, `[inputs, outputs]` here and `[outputs, inputs]` in files.
    Projection(&'a Param<Tensor<2>>),
    /// An embedding, `[tokens, size]` in both.
    Embedding(&'a Param<Tensor<2>>),
    /// A bias or a gain.
    Vector(&'a Param<Tensor<1>>),
}

impl CausalModel {
    /// All parameters except those of adapters, with their names in Hugging Face checkpoints.
    pub(crate) fn named_weights(&self) -> Vec<(String, Weight<'_>)> {
        let mut all = vec![(
            "model.embed_tokens.weight".to_string(),
            Weight::Embedding(&self.embed_tokens.weight),
        )];
        let heads = self.lm_head.iter().map(|head| ("lm_head".into(), head));
        for (name, projection) in self.projections().chain(heads) {
            all.push((
                format!("{name}.weight"),
                Weight::Projection(&projection.weight),
            ));
            if let Some(bias) = &projection.bias {
                all.push((format!("{name}.bias"), Weight::Vector(bias)));
            }
        }
        let mut norms = vec![("model.norm".to_string(), &self.norm)];
        for (layer, block) in self.layers.iter().enumerate() {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            norms.push((name("input_layernorm"), &block.input_layernorm));
            norms.push((
                name("post_attention_layernorm"),
                &block.post_attention_layernorm,
            ));
            let (q_norm, k_norm) = (&block.self_attn.q_norm, &block.self_attn.k_norm);
            norms.extend(q_norm.iter().map(|norm| (name("self_attn.q_norm"), norm)));
            norms.extend(k_norm.iter().map(|norm| (name("self_attn.k_norm"), norm)));
        }
        let gains = norms
            .into_iter()
            .map(|(name, norm)| (format!("{name}.weight"), Weight::Vector(&norm.gamma)));
        all.extend(gains);
        all
    }
}
