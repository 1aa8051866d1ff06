//! The transformer as a policy.

use burn::tensor::{Device, Tensor};

use super::checkpointing;
use super::model::CausalModel;
use crate::Result;
use crate::policy::{ForwardPass, KvCache, PolicyModel, PrefixedBatch, TokenBatch};

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

    fn forward_pass(&self, batch: &PrefixedBatch) -> Result<ForwardPass> {
        match self.gradient_checkpointing {
            true => checkpointing::forward_pass(self, batch),
            false => Ok(self.hidden_states(batch)?.into()),
        }
    }
}
