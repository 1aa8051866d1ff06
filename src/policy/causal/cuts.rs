//! Attention that is cut out of the gradient tape, so that its scores are not kept.
//!
//! The tape would keep `[B, Hq, T, S]` scores for the backward pass. With a cut, attention is
//! computed off the tape and its result is a leaf. The gradients of the leaves give those of
//! queries, keys and values, block by block, which a second backward pass takes to the parameters.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Gradients, Tensor};

use crate::fused::{attention, attention_gradients, pull};
use crate::policy::{AttentionMask, on_tape_of};

/// The cuts of a forward pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts(Arc<Mutex<Vec<Cut>>>);

#[derive(Debug)]
struct Cut {
    /// Queries, keys and values on the tape.
    inputs: [Tensor<4>; 3],
    mask: AttentionMask,
    /// The result of attention, a leaf.
    context: Tensor<4>,
}

impl Cuts {
    /// Computes attention; see [`attention`].
    pub fn attention(&self, inputs: [Tensor<4>; 3], mask: &AttentionMask) -> Tensor<4> {
        let [queries, keys, values] = inputs.clone().map(Tensor::inner);
        let context = on_tape_of(attention(queries, keys, values, mask), &inputs[0]).require_grad();
        let cut = Cut {
            inputs,
            mask: mask.clone(),
            context: context.clone(),
        };
        let mut cuts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cuts.push(cut);
        context
    }

    /// Returns a scalar whose backward pass continues that of `gradients` behind the cuts; `None` if
    /// no gradient has reached a cut.
    pub fn pull(self, gradients: &mut Gradients) -> Option<Tensor<1>> {
        let mut cuts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pulled = Vec::new();
        for cut in cuts.drain(..) {
            // The result for the prompts of the last block is not used.
            let Some(gradient) = cut.context.grad_remove(gradients) else {
                continue;
            };
            let inner = cut.inputs.clone().map(Tensor::inner);
            let to_inputs = attention_gradients(inner, &cut.mask, gradient);
            let pairs = cut.inputs.into_iter().zip(to_inputs);
            pulled.extend(pairs.map(|(input, gradient)| pull(input, gradient)));
        }
        pulled.into_iter().reduce(|a, b| a + b)
    }
}
