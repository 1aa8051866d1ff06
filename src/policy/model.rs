//! What a policy must do.

use std::path::Path;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use super::cache::PolicyCache;
use super::causal::CausalModel;
use super::forward_pass::{ForwardPass, PrefixedBatch};
use super::tokens::TokenBatch;
use crate::{Error, Result, host};

/// A language model as a policy.
///
/// # Contract
///
/// - **One forward.** [`forward`](Self::forward) reads new tokens after whatever the cache holds.
///   An empty cache and a whole sequence is training; a prompt is prefill; one token is decoding;
///   a cache whose rows were repeated is a shared prefix.
/// - **Causal.** The hidden state of a token depends on the tokens before it in its row, itself, and
///   nothing else: not on other rows, not on padding, not on how the sequence was cut into calls.
/// - **Ragged.** A row may have fewer tokens than the batch is wide, and none at all: the prompt of one token, of which nothing is left to
///   be read before the completion.
/// - **Differentiable.** With parameters that require gradients, everything is, the cache included.
///   Generation and evaluation run on [`Module::valid`], where nothing is recorded.
///
/// [`check_model`](super::check_model) says whether a model keeps it. `examples/bring_your_own` has a recurrent one.
///
/// ```text
/// right:  model.forward(&prompt, &mut cache)?; model.forward(&next, &mut cache)?;
/// wrong:  model.forward(&prompt, &mut cache)?; model.forward(&prompt_and_next, &mut cache)?;
///         // the cache already holds the prompt: it is read twice, at shifted positions
/// ```
pub trait PolicyModel: Module + ModuleDisplay {
    /// What the model remembers of the tokens that it has read.
    type Cache: PolicyCache;

    /// An empty cache for `rows` sequences.
    fn empty_cache(&self, rows: usize) -> Self::Cache;

    /// Hidden states `[B, T, D]` of `tokens` `[B, T]`, read after what `cache` holds. What stands at a
    /// row's padding (index `lengths[b]` and up) is unspecified, NaN included.
    ///
    /// # Errors
    /// If the batch and the cache have different numbers of rows, or a row outgrows
    /// [`max_positions`](Self::max_positions).
    fn forward(&self, tokens: &TokenBatch, cache: &mut Self::Cache) -> Result<Tensor<3>>;

    /// The unembedding `[D, V]`: `logits = hidden x unembedding`.
    fn unembedding(&self) -> Tensor<2>;

    /// The number of tokens in the vocabulary, `V`.
    fn vocab_size(&self) -> usize;

    /// The most tokens that one row may hold, prompt and completion together.
    fn max_positions(&self) -> usize;

    /// The device that the parameters live on.
    fn device(&self) -> Device;

    /// The hidden states `[N, T, D]` of the batch's rows, each prefix read once; on the gradient tape if the parameters are.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn hidden_states(&self, batch: &PrefixedBatch) -> Result<Tensor<3>> {
        let Some(prefixes) = &batch.prefixes else {
            return self.forward(&batch.rows, &mut self.empty_cache(batch.rows.rows()));
        };
        let mut cache = self.empty_cache(prefixes.rows());
        self.forward(prefixes, &mut cache)?;
        cache.select_rows(&batch.prefix_of);
        self.forward(&batch.rows, &mut cache)
    }

    /// The hidden states of a batch in training, with their backward pass. Provided: they are computed on the
    /// gradient tape. A model that keeps less than a tape and computes it again says so here.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn forward_pass(&self, batch: &PrefixedBatch) -> Result<ForwardPass> {
        Ok(self.hidden_states(batch)?.into())
    }

    /// Writes the weights into the new folder `to` in a format that other programs read, and returns whether it did. A checkpoint then
    /// holds them in place of Burn's record. Provided: there is no such format.
    ///
    /// # Errors
    /// If the folder cannot be written.
    fn export(&self, to: &Path) -> Result<bool> {
        let _ = to;
        Ok(false)
    }

    /// Writes the adapters alone into the new folder `to`, as PEFT's `PeftModel.from_pretrained` and inference servers read them, and
    /// returns whether it did. Provided: there are none.
    ///
    /// # Errors
    /// If the folder cannot be written.
    fn export_adapters(&self, to: &Path) -> Result<bool> {
        let _ = to;
        Ok(false)
    }

    /// This model with the weights that [`export`](Self::export) wrote to the folder `from`.
    ///
    /// # Errors
    /// If they are missing, broken or of another shape; as provided, always.
    fn import(self, from: &Path) -> Result<Self> {
        let reason =
            "this build does not read such weights; those of the transformer need the feature `hf`";
        Err(Error::checkpoint(from, reason))
    }

    /// The transformer of this crate that the model is, or is made around: FLOPs and memory are computed from its configuration. Provided:
    /// none.
    fn as_causal(&self) -> Option<&CausalModel> {
        None
    }

    /// What distinguishes this model from others that a checkpoint of its trained parameters does not belong to. Provided: hashes
    /// of the names and shapes of all parameters and of the values of those that are not trained. Reads the latter from the
    /// device: to be computed once.
    ///
    /// # Errors
    /// If a parameter cannot be read from the device.
    fn describe(&self) -> Result<serde_json::Value> {
        super::description::describe(self)
    }
}

/// Whether a step of the model is too little work for several threads, so that each is better given rows of its own.
pub(crate) fn is_small<M: PolicyModel>(model: &M) -> bool {
    const PARAMETERS: usize = 4 << 20;
    host::is_cpu(&model.device()) && Module::num_params(model) <= PARAMETERS
}
