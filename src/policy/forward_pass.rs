//! A training pass: hidden states, and the backward pass from them to the parameters.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::gradients::GradientSum;
use super::log_probs::{as_dtype, is_half};
use super::tokens::TokenBatch;
use crate::Result;
use crate::fused::pull;

/// Rows of tokens that may share what they begin with.
///
/// A prompt that several rows continue is read once, and its cache repeated:
/// [`PolicyModel::hidden_states`](super::PolicyModel::hidden_states).
#[derive(Clone, Debug)]
pub struct PrefixedBatch {
    /// The distinct beginnings, if there are any.
    pub prefixes: Option<TokenBatch>,
    /// Which of them each row continues.
    pub prefix_of: Vec<usize>,
    /// What comes after them.
    pub rows: TokenBatch,
}

impl From<TokenBatch> for PrefixedBatch {
    /// Rows that share nothing.
    fn from(rows: TokenBatch) -> Self {
        Self {
            prefixes: None,
            prefix_of: Vec::new(),
            rows,
        }
    }
}

/// Takes the gradient at the hidden states to the parameters.
type Back = Box<dyn FnOnce(Tensor<3>) -> Result<GradientsParams> + Send>;

/// Hidden states `[N, T, D]` of a policy in training, with their backward pass.
///
/// Either they lie on the gradient tape (`ForwardPass::from(hidden)`), or the model has kept less than a tape and computes it
/// again ([`recomputed`](Self::recomputed)).
pub struct ForwardPass {
    /// The hidden states; on the tape unless they are recomputed.
    pub hidden: Tensor<3>,
    back: Option<Back>,
}

impl From<Tensor<3>> for ForwardPass {
    fn from(hidden: Tensor<3>) -> Self {
        Self { hidden, back: None }
    }
}

impl ForwardPass {
    /// `hidden` off the tape; `back` maps the gradient at them, `[N, T, D]` and off the tape, to those of the parameters.
    pub fn recomputed(hidden: Tensor<3>, back: Back) -> Self {
        let back = Some(back);
        Self { hidden, back }
    }

    /// The gradients of the parameters of `model` in f32, given that at the hidden states and, where the unembedding is trained, the
    /// matrix on the tape and the gradient at it.
    pub(super) fn backward<M: Module>(
        self,
        to_hidden: Tensor<3>,
        unembedding: Option<(Tensor<2>, Tensor<2>)>,
        model: &M,
    ) -> Result<GradientsParams> {
        // The gradients stay off the tape: plain constants go with any checkpointing strategy of the model's device.
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
                // In half precision the two gradients of a tied embedding are added in f32 below, not on the tape.
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
