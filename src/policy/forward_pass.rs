//! A training pass: hidden states, and the way back from them to the parameters.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::tokens::TokenBatch;
use crate::Result;

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

/// Takes the gradient at the hidden states to the parameters.
type Back = Box<dyn FnOnce(Tensor<3>) -> Result<GradientsParams> + Send>;

/// Hidden states `[N, T, D]` of a policy in training, and the way back.
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

    /// The gradients of the parameters of `model`, given that at the hidden states and, where the unembedding is trained, that
    /// at the `unembedding`, which is on the tape.
    pub(super) fn backward<M: Module>(
        self,
        to_hidden: Tensor<3>,
        unembedding: Option<(Tensor<2>, Tensor<2>)>,
        model: &M,
    ) -> Result<GradientsParams> {
        // The gradients stay off the tape: plain constants go with any checkpointing strategy of the model's device.
        let unembedding = unembedding.map(|(matrix, gradient)| (matrix * gradient).sum());
        let Some(back) = self.back else {
            let mut pulled = (self.hidden * to_hidden).sum();
            if let Some(unembedding) = unembedding {
                pulled = pulled + unembedding;
            }
            return Ok(GradientsParams::from_grads(pulled.backward(), model));
        };
        let mut sum = burn::optim::GradientsAccumulator::<M>::new();
        sum.accumulate(model, back(to_hidden)?);
        if let Some(unembedding) = unembedding {
            let gradients = unembedding.backward();
            sum.accumulate(model, GradientsParams::from_grads(gradients, model));
        }
        Ok(sum.grads())
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
