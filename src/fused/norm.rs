use burn::nn::RmsNorm;
use burn::tensor::Tensor;

/// Computes `x / sqrt(mean(x^2) + epsilon) * gamma` on the last dimension (arXiv 1910.07467).
pub(crate) fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(y) = fused::rms_norm(norm, &x) {
        return y;
    }
    norm.forward(x)
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::backend::flex::FlexTensor;
    use burn::nn::RmsNorm;
    use burn::tensor::Tensor;

    use crate::fused::flex::{Input, Operation, apply, contiguous, floats, tensor};

    pub(super) fn rms_norm<const D: usize>(norm: &RmsNorm, x: &Tensor<D>) -> Option<Tensor<D>> {
        let epsilon = norm.epsilon as f32;
        let gain = Input::new(&norm.gamma.val());
        apply(Norm { epsilon }, [Input::new(x), gain])
    }

    #[derive(Debug)]
    struct Norm {
        epsilon: f32,
    }

    impl Operation<2> for Norm {
        /// The input, the gain and the factor of each row.
        type Saved = (FlexTensor, FlexTensor, Arc<Vec<f32>>);

        fn forward(self, [x, gain]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
            let (x, gain) = (contiguous(x), contiguous(gain));
            let (y, factors) = rlvr_kernels::rms_norm(floats(&x), floats(&gain), self.epsilon);
            let y = tensor(y, x.layout().shape().clone());
            (y, (x, gain, Arc::new(factors)))
        }

        fn backward(
            (x, gain, factors): Self::Saved,
            gradient: FlexTensor,
            wanted: [bool; 2],
        ) -> [Option<FlexTensor>; 2] {
            let gradient = contiguous(gradient);
            let (to_y, x_floats, gains) = (floats(&gradient), floats(&x), floats(&gain));
            let to_x = wanted[0].then(|| {
                let to_x = rlvr_kernels::rms_norm_backward(x_floats, gains, &factors, to_y);
                tensor(to_x, x.layout().shape().clone())
            });
            let to_gain = wanted[1].then(|| {
                let width = gains.len();
                let sums = rlvr_kernels::rms_norm_gain_gradient(x_floats, width, &factors, to_y);
                tensor(sums, [width])
            });
            [to_x, to_gain]
        }
    }
}
