//! The trait of policies.

use std::path::Path;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};

use super::cache::PolicyCache;
use super::causal::CausalModel;
use super::forward_pass::{ForwardPass, PrefixedBatch};
use super::tokens::TokenBatch;
use crate::fused::{WeightFormat, linear};
use crate::{Error, Result, host};

/// A language model as a policy.
///
/// # Contract
///
/// - **One forward pass for everything.** [`forward`](Self::forward) reads new tokens after those
///   in the cache. A whole sequence with an empty cache is training, a prompt is prefill, one token
///   is decoding, and a cache with repeated rows is a shared prefix.
/// - **Causal.** The hidden state of a token depends only on the token and those before it in its
///   row: not on other rows, not on padding, not on how the sequence is split into calls.
/// - **Ragged.** A row may have fewer tokens than the batch is wide, or none: a prompt of one token
///   has nothing to read before the completion.
/// - **Differentiable.** If parameters require gradients, every result is differentiable, the cache
///   included. Generation and evaluation use [`Module::valid`], which records nothing.
///
/// [`check_model`](super::check_model) tests whether a model satisfies the contract.
/// `examples/bring_your_own` has a recurrent policy.
///
/// ```text
/// right:  model.forward(&prompt, &mut cache)?;
///         model.forward(&next, &mut cache)?;
/// wrong:  model.forward(&prompt, &mut cache)?;
///         model.forward(&prompt_and_next, &mut cache)?;
///         // the cache already holds the prompt: it is read twice, at shifted positions
/// ```
pub trait PolicyModel: Module + ModuleDisplay {
    /// The state of the model after the tokens it has read.
    type Cache: PolicyCache;

    /// Creates an empty cache for `rows` sequences.
    fn empty_cache(&self, rows: usize) -> Self::Cache;

    /// Returns the hidden states `[B, T, D]` of `tokens` `[B, T]`, read after those in `cache`.
    /// Hidden states at padding (index `lengths[b]` and up) are unspecified and may be NaN.
    ///
    /// # Errors
    /// Returns an error if the batch and the cache have different numbers of rows, or a row would
    /// have more than [`max_positions`](Self::max_positions) tokens.
    fn forward(&self, tokens: &TokenBatch, cache: &mut Self::Cache) -> Result<Tensor<3>>;

    /// The unembedding `[D, V]`: `logits = hidden x unembedding`.
    fn unembedding(&self) -> Tensor<2>;

    /// The logits `[N, V]` of hidden states `[N, D]` in generation. Provided:
    /// `hidden x unembedding`.
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        linear(hidden, self.unembedding(), None)
    }

    /// This model with its matrices stored in `format`, to generate with and not to train. With
    /// [`WeightFormat::Trained`] it is the model as it was. Provided: every other format is an
    /// error.
    ///
    /// # Errors
    /// If the model has no such format, on its device or at all.
    fn with_weight_format(self, format: WeightFormat) -> Result<Self> {
        match format {
            WeightFormat::Trained => Ok(self),
            _ => {
                let expected =
                    "trained: this model generates with the weights that it is trained with";
                Err(Error::config("generation.weights", format.name(), expected))
            }
        }
    }

    /// The number of tokens in the vocabulary, `V`.
    fn vocab_size(&self) -> usize;

    /// The most tokens of a row, prompt and completion together.
    fn max_positions(&self) -> usize;

    /// The device of the parameters.
    fn device(&self) -> Device;

    /// Returns the hidden states `[N, T, D]` of the batch's rows, reading each prefix once. They
    /// are on the gradient tape if the parameters are.
    ///
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward).
    fn hidden_states(&self, batch: &PrefixedBatch) -> Result<Tensor<3>> {
        let Some(prefixes) = &batch.prefixes else {
            return self.forward(&batch.rows, &mut self.empty_cache(batch.rows.rows()));
        };
        let mut cache = self.empty_cache(prefixes.rows());
        self.forward(prefixes, &mut cache)?;
        cache.select_rows(&batch.prefix_of);
        self.forward(&batch.rows, &mut cache)
    }

    /// Returns the hidden states of a batch in training, with their backward pass.
    ///
    /// The default implementation computes them on the gradient tape. A model that recomputes
    /// activations in the backward pass overrides it; see [`ForwardPass::recomputed`].
    ///
    /// # Errors
    /// Returns the errors of [`forward`](Self::forward).
    fn forward_pass(&self, batch: &PrefixedBatch) -> Result<ForwardPass> {
        Ok(self.hidden_states(batch)?.into())
    }

    /// Writes the weights into the new folder `to` in a format that other programs read, and
    /// returns whether it did. A checkpoint then has this folder in place of Burn's record.
    ///
    /// The default implementation writes nothing and returns false.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    fn export(&self, to: &Path) -> Result<bool> {
        let _ = to;
        Ok(false)
    }

    /// Writes only the adapters into the new folder `to`, in the format that PEFT's
    /// `PeftModel.from_pretrained` and inference servers read, and returns whether it did.
    ///
    /// The default implementation writes nothing and returns false.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    fn export_adapters(&self, to: &Path) -> Result<bool> {
        let _ = to;
        Ok(false)
    }

    /// Returns this model with the weights that [`export`](Self::export) wrote to the folder
    /// `from`.
    ///
    /// # Errors
    /// Returns an error if the weights are missing, broken or of another shape. The default
    /// implementation always returns an error.
    fn import(self, from: &Path) -> Result<Self> {
        let reason =
            "this build does not read such weights; those of the transformer need the feature `hf`";
        Err(Error::checkpoint(from, reason))
    }

    /// Returns the [`CausalModel`] that the model is or wraps. FLOPs and memory are computed from
    /// its configuration.
    ///
    /// The default implementation returns `None`.
    fn as_causal(&self) -> Option<&CausalModel> {
        None
    }

    /// Returns a description of the model that is equal for all models to which a checkpoint of its
    /// trained parameters belongs.
    ///
    /// The default implementation returns hashes of the names and shapes of all parameters and of
    /// the values of those that are not trained. It reads the latter from the device, so it should
    /// be called once.
    ///
    /// # Errors
    /// Returns an error if a parameter cannot be read from the device.
    fn describe(&self) -> Result<serde_json::Value> {
        super::description::describe(self)
    }
}

/// Returns whether a step of the model is too little work to share among threads, so that it is
/// faster to give each thread its own rows.
pub(crate) fn is_small<M: PolicyModel>(model: &M) -> bool {
    const PARAMETERS: usize = 4 << 20;
    host::is_cpu(&model.device()) && Module::num_params(model) <= PARAMETERS
}
