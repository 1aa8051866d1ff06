use burn::tensor::Tensor;

/// Returns a scalar `[1]` whose backward pass gives `x` the gradient `gradient`, which is off the
/// gradient tape. Its value is unspecified.
pub(crate) fn pull<const D: usize>(x: Tensor<D>, gradient: Tensor<D>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if let Some(pulled) = fused::pull(&x, &gradient) {
        return pulled;
    }
    (x * gradient).sum()
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;

    use crate::fused::flex::{Input, Operation, apply, floats, plain, tensor};

    pub(super) fn pull<const D: usize>(x: &Tensor<D>, gradient: &Tensor<D>) -> Option<Tensor<1>> {
        let gradient = plain(gradient)?;
        apply(Pull { gradient }, [Input::new(x)])
    }

    #[derive(Clone, Debug)]
    struct Pull {
        gradient: FlexTensor,
    }

    impl Operation<1> for Pull {
        type Saved = Self;

        fn forward(self, _: [FlexTensor; 1]) -> (FlexTensor, Self) {
            (tensor(vec![0.0], [1]), self)
        }

        fn backward(saved: Self, upstream: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            // Only sums of such scalars are differentiated: the gradient of each is 1.
            debug_assert_eq!(floats(&upstream), [1.0]);
            [Some(saved.gradient)]
        }
    }
}
