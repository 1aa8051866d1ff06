use burn::tensor::{Tensor, s};

/// Turns the pairs `(x_i, x_{i + Dh/2})` of the heads `[B, T, H, Dh]` by the angles whose cosines and sines, `[R, T, Dh/2]`, are given; R
/// is 1 or B (arXiv 2104.09864, in the layout of Hugging Face's models).
pub(crate) fn rotate(heads: Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(turned) = fused::rotate(&heads, cos, sin) {
        return turned;
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

    use crate::fused::flex::{Input, Operation, apply, floats, in_order, plain, tensor};

    pub(super) fn rotate(heads: &Tensor<4>, cos: &Tensor<3>, sin: &Tensor<3>) -> Option<Tensor<4>> {
        let [cos, sin] = [in_order(plain(cos)?), in_order(plain(sin)?)];
        apply(Rotary { cos, sin }, [Input::new(heads)])
    }

    #[derive(Clone, Debug)]
    struct Rotary {
        cos: FlexTensor,
        sin: FlexTensor,
    }

    impl Rotary {
        fn turn(&self, heads: FlexTensor, back: bool) -> FlexTensor {
            let heads = in_order(heads);
            let [_, _, count, size] = heads.layout().shape().dims();
            let (cos, sin) = (floats(&self.cos), floats(&self.sin));
            let table = RotaryTable { cos, sin };
            let turned = rlvr_kernels::rotate(floats(&heads), count, size / 2, table, back);
            tensor(turned, heads.layout().shape().clone())
        }
    }

    impl Operation<1> for Rotary {
        type Saved = Self;

        fn forward(self, [heads]: [FlexTensor; 1]) -> (FlexTensor, Self) {
            (self.turn(heads, false), self)
        }

        fn backward(saved: Self, gradient: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
            [Some(saved.turn(gradient, true))]
        }
    }
}
