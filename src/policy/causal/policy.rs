//! `PolicyModel` for the transformer.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use serde_json::{Value, json};

use super::checkpointing;
use super::model::CausalModel;
use crate::fused::{PackedWeight, linear, rms_norm};
use crate::policy::description::describe;
use crate::policy::{ForwardPass, KvCache, PolicyModel, PrefixedBatch, TokenBatch, WeightFormat};
use crate::{Error, Result};

impl PolicyModel for CausalModel {
    type Cache = KvCache;

    fn empty_cache(&self, rows: usize) -> KvCache {
        KvCache::new(self.layers.len(), rows)
    }

    fn forward(&self, tokens: &TokenBatch, cache: &mut KvCache) -> Result<Tensor<3>> {
        let pass = self.begin(tokens, cache)?;
        let mut x = self.embed_tokens.forward(tokens.ids.clone());
        for (layer, block) in self.layers.iter().enumerate() {
            x = block.forward(x, &pass, layer, cache);
        }
        Ok(rms_norm(&self.norm, x))
    }

    fn unembedding(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.embed_tokens.weight.val().transpose(),
        }
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.packed_unembedding {
            Some(packed) => packed.linear(hidden, None),
            None => linear(hidden, self.unembedding(), None),
        }
    }

    fn with_weight_format(mut self, format: WeightFormat) -> Result<Self> {
        if format == self.weight_format {
            return Ok(self);
        }
        let unembedding = self.unembedding();
        self.packed_unembedding = PackedWeight::new(&unembedding, format);
        let stored = self.projections_mut().all(|(_, p)| p.store(format));
        let on_tape = self.device().is_autodiff();
        if format != WeightFormat::Trained && (!stored || on_tape) {
            let expected = "trained, or f32 weights on the `flex` device without autodiff";
            return Err(Error::config("generation.weights", format.name(), expected));
        }
        self.weight_format = format;
        Ok(self)
    }

    fn vocab_size(&self) -> usize {
        self.embed_tokens.weight.dims()[0]
    }

    fn max_positions(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn device(&self) -> Device {
        self.embed_tokens.weight.device()
    }

    fn forward_pass(&self, batch: &PrefixedBatch) -> Result<ForwardPass> {
        match self.gradient_checkpointing {
            true => checkpointing::forward_pass(self, batch),
            false => Ok(self.hidden_states(batch)?.into()),
        }
    }

    fn as_causal(&self) -> Option<&CausalModel> {
        Some(self)
    }

    /// Writes a Hugging Face folder, unless the model has adapters or no supported architecture has
    /// its shape.
    #[cfg(feature = "hf")]
    fn export(&self, to: &std::path::Path) -> Result<bool> {
        crate::policy::hf::export(self, to)
    }

    #[cfg(feature = "hf")]
    fn export_adapters(&self, to: &std::path::Path) -> Result<bool> {
        crate::policy::hf::export_adapters(self, to)
    }

    #[cfg(feature = "hf")]
    fn import(self, from: &std::path::Path) -> Result<Self> {
        crate::policy::hf::import(self, from)
    }

    /// Adds the rank and the scale of the adapters of each target.
    fn describe(&self) -> Result<Value> {
        let mut description = describe(self)?;
        let adapters: BTreeMap<String, Value> = self
            .adapters()
            .map(|(name, lora)| {
                let kind = name.rsplit('.').next().unwrap_or_default().to_string();
                let rank = lora.a.dims()[1];
                (kind, json!({"rank": rank, "scale": lora.scale()}))
            })
            .collect();
        description["adapters"] = json!(adapters);
        Ok(description)
    }
}
