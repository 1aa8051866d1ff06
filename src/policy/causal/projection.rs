//! A linear map of the transformer, with room for an adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::lora::Lora;
use crate::fused::linear;

/// `y = x W + b`, plus the adapter's `s (x A) B` if there is one.
#[derive(Module, Debug)]
pub struct Projection {
    /// `W`, `[inputs, outputs]`.
    pub weight: Param<Tensor<2>>,
    /// `b`, `[outputs]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What is trained in place of `W`, see [`LoraConfig`](super::LoraConfig).
    pub lora: Option<Lora>,
}

impl Projection {
    /// Without an adapter.
    pub fn new(weight: Param<Tensor<2>>, bias: Option<Param<Tensor<1>>>) -> Self {
        Self {
            weight,
            bias,
            lora: None,
        }
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        let y = linear(x.clone(), self.weight.val(), bias);
        match &self.lora {
            Some(lora) => y + lora.forward(x),
            None => y,
        }
    }
}
