//! Where the weights of a new model come from.

use burn::nn::{Embedding, RmsNorm};
#[cfg(feature = "hf")]
use burn::{module::Param, tensor::Tensor};

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

/// A parameter of a model as files name and lay it out.
#[cfg(feature = "hf")]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weight<'a> {
    /// A projection's matrix, `[inputs, outputs]` here and `[outputs, inputs]` in files.
    Projection(&'a Param<Tensor<2>>),
    /// An embedding, `[tokens, size]` in both.
    Embedding(&'a Param<Tensor<2>>),
    /// A bias or a gain.
    Vector(&'a Param<Tensor<1>>),
}
