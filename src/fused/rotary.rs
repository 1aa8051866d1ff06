use burn::tensor::{Tensor, s};

/// Rotates the pairs `(x_i, x_{i + Dh/2})` of the heads `[B, T, H, Dh]` by angles given by their
/// cosines and sines `[R, T, Dh/2]`, where R is 1 or B (arXiv 2104.09864, in the half-rotation
/// layout of Hugging Face models).
pub(crate) fn rotate(heads: Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(rotated) = fused::rotate(&heads, cos, sin) {
        return rotated;
    }
    let half = heads.dims()[3] / 2;
    let first = heads.clone().slice(s![.., .., .., ..half]);
    let second = heads.slice(s![.., .., .., half..]);
    let (cos, sin) = (cos.clone().unsqueeze_dim(2), sin.clone().unsqueeze_dim(2));
    Tensor::cat(
        vec![
            first.clone() * cos.clone() - second.clone() * sin.clone(),
            second * cos + first * sin,
        ],
        3,
    )
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rlvr_kernels::RotaryTable;

    use crate::fused::flex::{Input, Operation, apply, contiguous, floats, plain, tensor};

    pub(super) fn rotate(heads: &Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Option<Tensor<4>> {
        let [cos, sin] = [contiguous(plain(cos)?), contiguous(plain(sin)?)];
        apply(Rotary { cos, sin }, [Input::new(heads)])
    }

    #[derive(Clone, Debug)]
    struct Rotary {
        cos: FlexTensor,
        sin: FlexTensor,
    }

    impl Rotary {
        fn rotate(&self, heads: FlexTensor, back: bool) -> FlexTensor {
            let heads = contiguous(heads);
            let [_, _, count, size] = heads.layout().shape().dims();
            let (cos, sin) = (floats(&self.cos), floats(&self.sin));
            let table = RotaryTable { cos, sin };
            let rotated = rlvr_kernels::rotate(floats(&heads), count, size / 2, table, back);
            tensor(rotated, heads.layout().shape().clone())
        }
    }

    impl Operation<1> for Rotary {
        type Saved = Self;

        fn forward(self, [heads]: [FlexTensor; 1]) -> (FlexTensor, Self) {
            (self.rotate(heads, false), self)
        }

        fn backward(saved: Self, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            [Some(saved.rotate(gradient, true))]
        }
    }
}
