//! The forward pass in training, with its backward pass.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::gradients::GradientSum;
use super::log_probs::{as_dtype, is_half};
use super::tokens::TokenBatch;
use crate::Result;
use crate::fused::pull;

/// A batch of rows that may share prefixes.
///
/// A prefix that several rows continue, such as a prompt, is read once, and its cache is repeated
/// ([`PolicyModel::hidden_states`](super::PolicyModel::hidden_states)).
#[derive(Clone, Debug)]
pub struct PrefixedBatch {
    /// The distinct prefixes, if there are any.
    pub prefixes: Option<TokenBatch>,
    /// The index of the prefix of each row; empty without prefixes.
    pub prefix_of: Vec<usize>,
    /// The rows, without their prefixes.
    pub rows: TokenBatch,
}

impl From<TokenBatch> for PrefixedBatch {
    /// Creates a batch of rows without prefixes.
    fn from(rows: TokenBatch) -> Self {
        Self {
            prefixes: None,
            prefix_of: Vec::new(),
            rows,
        }
    }
}

/// The backward pass from the gradient of the hidden states to those of the parameters.
type Back = Box<dyn FnOnce(Tensor<3>) -> Result<GradientsParams> + Send>;

/// Hidden states `[N, T, D]` of a policy in training, with their backward pass.
///
/// The hidden states are on the gradient tape (`ForwardPass::from(hidden)`), or the model
/// recomputes activations in the backward pass ([`recomputed`](Self::recomputed)).
pub struct ForwardPass {
    /// The hidden states `[N, T, D]`; on the gradient tape unless they are recomputed.
    pub hidden: Tensor<3>,
    back: Option<Back>,
}

impl From<Tensor<3>> for ForwardPass {
    fn from(hidden: Tensor<3>) -> Self {
        Self { hidden, back: None }
    }
}

impl ForwardPass {
    /// Wraps `hidden` off the gradient tape. `back` maps their gradient, `[N, T, D]` and off the
    /// tape, to those of the parameters.
    pub fn recomputed(hidden: Tensor<3>, back: Back) -> Self {
        let back = Some(back);
        Self { hidden, back }
    }

    /// Returns the gradients of the parameters of `model` in f32, given that of the hidden states
    /// and, if the unembedding is trained, the matrix on the tape and its gradient.
    pub(super) fn backward<M: Module>(
        self,
        to_hidden: Tensor<3>,
        unembedding: Option<(Tensor<2>, Tensor<2>)>,
        model: &M,
    ) -> Result<GradientsParams> {
        // The gradients stay off the tape: constants can be combined with any checkpointing
        // strategy.
        let half = is_half(to_hidden.dtype());
        let mut unembedding = unembedding.map(|(matrix, gradient)| {
            let gradient = as_dtype(gradient, matrix.dtype());
            pull(matrix, gradient)
        });
        let mut sum = GradientSum::default();
        match self.back {
            Some(back) => sum.add(model, back(to_hidden)?),
            None => {
                let mut pulled = pull(self.hidden, to_hidden);
                // In half precision the two gradients of a tied embedding are added in f32 below
                // rather than on the tape.
                if !half && let Some(unembedding) = unembedding.take() {
                    pulled = pulled + unembedding;
                }
                if pulled.is_tracked() {
                    sum.add(model, GradientsParams::from_grads(pulled.backward(), model));
                }
            }
        }
        if let Some(unembedding) = unembedding {
            let gradients = unembedding.backward();
            sum.add(model, GradientsParams::from_grads(gradients, model));
        }
        Ok(sum.finish())
    }
}

impl std::fmt::Debug for ForwardPass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForwardPass")
            .field("hidden", &self.hidden.dims())
            .field("recomputed", &self.back.is_some())
            .finish()
    }
}
