//! Where the weights of a new model come from.

use burn::nn::{Embedding, RmsNorm};

use super::projection::Projection;

/// Gives the parameters of a model, asked for once each and in a fixed order. Names are those of Hugging Face's checkpoints,
/// without the last part (`weight`, `bias`).
pub(crate) trait WeightSource {
    /// A projection `[inputs, outputs]`.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize, bias: bool) -> Projection;

    /// An embedding `[tokens, size]`.
    fn embedding(&mut self, name: &str, tokens: usize, size: usize) -> Embedding;

    /// A root-mean-square norm over `size` channels.
    fn norm(&mut self, name: &str, size: usize) -> RmsNorm;
}
