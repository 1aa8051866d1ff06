//! FLOPs of forward and backward passes.

use serde::{Deserialize, Serialize};

use super::shape::ModelShape;
use super::tokens::Tokens;

/// FLOPs of a model's passes, as a linear function of [`Tokens`]. What is computed again in a backward pass is not counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFlops {
    /// Of a forward pass, for a token.
    pub forward_token: f64,
    /// Of a forward pass, for a unit of [`Tokens::squares`].
    pub forward_square: f64,
    /// Of a backward pass, for a token.
    pub backward_token: f64,
    /// Of a backward pass, for a unit of [`Tokens::squares`].
    pub backward_square: f64,
}

impl ModelFlops {
    /// Those of a model whose weights are trained, or adapters with this many parameters in all.
    ///
    /// The backward pass of trained weights is two forward passes. With adapters no gradient of the frozen matrices is computed, and
    /// one of the adapters' own is: `4 N_a + 6 N_adapter` a token for both passes, and attention as ever.
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

    /// Those of a model of which only the number of parameters is known: `2 N` a token and nothing for attention.
    pub fn of_parameters(parameters: u64) -> Self {
        let forward_token = 2.0 * parameters as f64;
        Self {
            forward_token,
            forward_square: 0.0,
            backward_token: 2.0 * forward_token,
            backward_square: 0.0,
        }
    }

    /// FLOPs of a forward pass over `tokens`.
    pub fn forward(&self, tokens: Tokens) -> f64 {
        self.forward_token * tokens.count + self.forward_square * tokens.squares
    }

    /// FLOPs of a forward and a backward pass over `tokens`.
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
    fn a_backward_pass_is_two_forward_passes_unless_weights_are_frozen() {
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
