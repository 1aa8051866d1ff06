//! The source of the weights of a new model.

use burn::nn::{Embedding, RmsNorm};

use super::projection::Projection;

/// Returns the parameters of a model. Each is requested once, in a fixed order. Names are those of
/// Hugging Face checkpoints, without the last part (`weight`, `bias`).
pub(crate) trait WeightSource {
    /// Returns a projection `[inputs, outputs]`.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Projection;

    /// Returns an embedding `[tokens, size]`.
    fn embedding(&mut self, name: &str, tokens: usize, size: usize) -> Embedding;

    /// Returns an RMSNorm over `size` channels.
    fn norm(&mut self, name: &str, size: usize) -> RmsNorm;
}
