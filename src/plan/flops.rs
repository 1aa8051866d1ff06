//! FLOPs of forward and backward passes.

use serde::{Deserialize, Serialize};

use super::shape::ModelShape;
use super::tokens::Tokens;

/// FLOPs of forward and backward passes of a model, as a linear function of [`Tokens`].
/// Recomputation in the backward pass is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFlops {
    /// Of a forward pass, per token.
    pub forward_token: f64,
    /// Of a forward pass, per unit of [`Tokens::squares`].
    pub forward_square: f64,
    /// Of a backward pass, per token.
    pub backward_token: f64,
    /// Of a backward pass, per unit of [`Tokens::squares`].
    pub backward_square: f64,
}

impl ModelFlops {
    /// Computes the FLOPs of a model whose weights are trained, or only adapters with this many
    /// parameters in total.
    ///
    /// The backward pass of trained weights costs two forward passes. With adapters, only the
    /// gradients of the adapters are computed, not those of the frozen matrices:
    /// `4 N_a + 6 N_adapter` per token for both passes, plus attention as before.
    pub fn new(shape: &ModelShape, adapters: Option<u64>) -> Self {
        let forward_token = 2.0 * shape.active_parameters() as f64;
        let forward_square = shape.attention_flops();
        let backward_token = match adapters {
            None => 2.0 * forward_token,
            Some(adapters) => forward_token + 6.0 * adapters as f64,
        };
        Self {
            forward_token,
            forward_square,
            backward_token,
            backward_square: 2.0 * forward_square,
        }
    }

    /// Estimates the FLOPs of a model from its number of parameters alone: `2 N` per token in a
    /// forward pass, without attention.
    pub fn of_parameters(parameters: u64) -> Self {
        let forward_token = 2.0 * parameters as f64;
        Self {
            forward_token,
            forward_square: 0.0,
            backward_token: 2.0 * forward_token,
            backward_square: 0.0,
        }
    }

    /// Returns the FLOPs of a forward pass over `tokens`.
    pub fn forward(&self, tokens: Tokens) -> f64 {
        self.forward_token * tokens.count + self.forward_square * tokens.squares
    }

    /// Returns the FLOPs of a forward and a backward pass over `tokens`.
    pub fn update(&self, tokens: Tokens) -> f64 {
        self.forward(tokens)
            + self.backward_token * tokens.count
            + self.backward_square * tokens.squares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backward_pass_costs_two_forward_passes_unless_weights_are_frozen() {
        let shape = ModelShape::named("qwen2.5-0.5b").unwrap();
        let tokens = Tokens::sequence(1000.0);
        let whole = ModelFlops::new(&shape, None);
        assert_eq!(whole.forward(tokens), shape.forward_flops(tokens));
        assert_eq!(whole.update(tokens), 3.0 * whole.forward(tokens));
        let rank_8 = shape.adapter_parameters(8);
        let adapters = ModelFlops::new(&shape, Some(rank_8)).update(tokens);
        let own = 6.0 * rank_8 as f64 * tokens.count;
        let attention = shape.attention_flops() * tokens.squares;
        let expected =
            4.0 * shape.active_parameters() as f64 * tokens.count + own + 3.0 * attention;
        assert_eq!(adapters, expected);
    }
}
