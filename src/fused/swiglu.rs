use burn::tensor::Tensor;
use burn::tensor::activation::silu;

/// Computes `silu(gate) * up` elementwise (arXiv 2002.05202).
pub(crate) fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = fused::swiglu(&gate, &up) {
        return y;
    }
    silu(gate) * up
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use crate::fused::flex::{Input, Operation, apply, contiguous, floats, tensor};

    pub(super) fn swiglu<const D: usize>(gate: &Tensor<D>, up: &Tensor<D>) -> Option<Tensor<D>> {
        apply(Gate, [Input::new(gate), Input::new(up)])
    }

    #[derive(Debug)]
    struct Gate;

    impl Operation<2> for Gate {
        type Saved = [FlexTensor; 2];

        fn forward(self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
            let [gate, up] = inputs.map(contiguous);
            let y = rlvr_kernels::swiglu(floats(&gate), floats(&up));
            (tensor(y, gate.layout().shape().clone()), [gate, up])
        }

        fn backward(
            [gate, up]: Self::Saved,
            gradient: FlexTensor,
            _: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            let gradient = contiguous(gradient);
            let (to_gate, to_up) =
                rlvr_kernels::swiglu_backward(floats(&gate), floats(&up), floats(&gradient));
            let shape = gate.layout().shape();
            [to_gate, to_up].map(|numbers| Some(tensor(numbers, shape.clone())))
        }
    }
}
