//! Linear maps of the transformer, with an optional adapter.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::lora::Lora;
use crate::fused::{PackedWeight, linear};
use crate::policy::WeightFormat;

/// A linear map `y = x W + b`, plus `s (x A) B` if it has an adapter.
#[derive(Module, Debug)]
pub struct Projection {
    /// `W`, `[inputs, outputs]`.
    pub weight: Param<Tensor<2>>,
    /// `b`, `[outputs]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter that is trained in place of `W`; see [`LoraConfig`](super::LoraConfig).
    pub lora: Option<Lora>,
    /// The copy of `W` that generation reads.
    #[module(skip)]
    packed: Option<PackedWeight>,
}

impl Projection {
    /// Creates a projection without an adapter.
    pub(crate) fn new(weight: Param<Tensor<2>>, bias: Option<Param<Tensor<1>>>) -> Self {
        Self {
            weight,
            bias,
            lora: None,
            packed: None,
        }
    }

    /// Makes or drops the copy of `W` that generation reads; whether it could be made.
    pub(super) fn store(&mut self, format: WeightFormat) -> bool {
        self.packed = PackedWeight::new(&self.weight.val(), format);
        self.packed.is_some() || format == WeightFormat::Trained
    }

    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let bias = self.bias.as_ref().map(|bias| bias.val());
        let y = match &self.packed {
            Some(packed) => packed.linear(x.clone(), bias),
            None => linear(x.clone(), self.weight.val(), bias),
        };
        match &self.lora {
            Some(lora) => y + lora.forward(x),
            None => y,
        }
    }
}
