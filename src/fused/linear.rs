use burn::tensor::Tensor;
use burn::tensor::module;

/// Computes `x W + b` on the last dimension of `x`, for `W` `[inputs, outputs]` and `b`
/// `[outputs]`.
pub(crate) fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = fused::linear(&x, &weight, bias.as_ref()) {
        return y;
    }
    module::linear(x, weight, bias)
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::{Shape, Tensor};
    use rlvr_kernels::{Matrix, product, sum_of_rows};

    use crate::fused::flex::{Input, Operation, apply, contiguous, floats, matrix, rows, tensor};

    pub(super) fn linear<const D: usize>(
        x: &Tensor<D>,
        weight: &Tensor<2>,
        bias: Option<&Tensor<1>>,
    ) -> Option<Tensor<D>> {
        let (x, weight) = (Input::new(x), Input::new(weight));
        match bias {
            None => apply(Linear, [x, weight]),
            Some(bias) => apply(Linear, [x, weight, Input::new(bias)]),
        }
    }

    #[derive(Debug)]
    struct Linear;

    fn map(x: &FlexTensor, weight: &FlexTensor, bias: Option<&[f32]>) -> FlexTensor {
        let weight = matrix(weight);
        let y = rlvr_kernels::linear(rows(x), weight, bias);
        tensor(y, with_last(x.layout().shape(), weight.shape()[1]))
    }

    /// Returns `shape` with the last dimension replaced.
    fn with_last(shape: &Shape, last: usize) -> Shape {
        let mut dims = shape.to_vec();
        dims.pop();
        dims.push(last);
        Shape::from(dims)
    }

    /// Returns the gradients of `x` and of the weight.
    fn gradients(
        x: &FlexTensor,
        weight: &FlexTensor,
        gradient: &FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let (weight, to_y): (Matrix<'_>, Matrix<'_>) = (matrix(weight), rows(gradient));
        let to_x = wanted[0].then(|| {
            let to_x = product(to_y, weight.transposed());
            tensor(to_x, x.layout().shape().clone())
        });
        let to_weight = wanted[1].then(|| {
            let to_weight = product(rows(x).transposed(), to_y);
            tensor(to_weight, weight.shape())
        });
        [to_x, to_weight]
    }

    impl Operation<2> for Linear {
        type Saved = [FlexTensor; 2];

        fn forward(self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
            let x = contiguous(x);
            (map(&x, &weight, None), [x, weight])
        }

        fn backward(
            [x, weight]: Self::Saved,
            gradient: FlexTensor,
            wanted: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            gradients(&x, &weight, &contiguous(gradient), wanted)
        }
    }

    impl Operation<3> for Linear {
        type Saved = [FlexTensor; 2];

        fn forward(self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
            let (x, bias) = (contiguous(x), contiguous(bias));
            (map(&x, &weight, Some(floats(&bias))), [x, weight])
        }

        fn backward(
            [x, weight]: Self::Saved,
            gradient: FlexTensor,
            wanted: [bool; 3],
        ) -> [Option<FlexTensor>; 3] {
            let gradient = contiguous(gradient);
            let [to_x, to_weight] = gradients(&x, &weight, &gradient, [wanted[0], wanted[1]]);
            let to_bias = wanted[2].then(|| {
                let width = matrix(&weight).shape()[1];
                tensor(sum_of_rows(floats(&gradient), width), [width])
            });
            [to_x, to_weight, to_bias]
        }
    }
}
