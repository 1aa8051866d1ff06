//! Linear maps with a weight that is stored in fewer bytes, for generation.

use burn::tensor::Tensor;

use super::WeightFormat;

/// A copy of a weight `[inputs, outputs]` for products off the gradient tape.
#[derive(Clone, Debug)]
pub(crate) struct PackedWeight {
    #[cfg(feature = "flex")]
    matrix: std::sync::Arc<rlvr_kernels::PackedMatrix>,
    #[cfg(not(feature = "flex"))]
    never: std::convert::Infallible,
}

impl PackedWeight {
    /// `None` for [`WeightFormat::Trained`], and if there is no kernel for the weight: it is not
    /// f32, or not on the `flex` device.
    pub fn new(weight: &Tensor<2>, format: WeightFormat) -> Option<Self> {
        #[cfg(feature = "flex")]
        {
            let format = match format {
                WeightFormat::Trained => return None,
                WeightFormat::Bf16 => rlvr_kernels::PackedFormat::Bf16,
                WeightFormat::Int8 => rlvr_kernels::PackedFormat::Int8,
            };
            let weight = super::flex::plain(weight)?;
            let matrix = super::flex::matrix(&weight);
            let matrix = std::sync::Arc::new(rlvr_kernels::PackedMatrix::new(matrix, format));
            Some(Self { matrix })
        }
        #[cfg(not(feature = "flex"))]
        {
            let _ = (weight, format);
            None
        }
    }

    /// `x W + b` on the last dimension of `x`, which is on the weight's device and in f32.
    pub fn linear<const D: usize>(&self, x: Tensor<D>, bias: Option<Tensor<1>>) -> Tensor<D> {
        #[cfg(feature = "flex")]
        {
            let mut shape = x.dims();
            shape[D - 1] = self.matrix.shape()[1];
            let x = super::flex::plain(&x).expect("an f32 tensor on the `flex` device");
            let x = super::flex::contiguous(x);
            let y = self.matrix.left_product(super::flex::rows(&x));
            let y: Tensor<D> = super::flex::off_tape(super::flex::tensor(y, shape));
            match bias {
                Some(bias) => y + bias.unsqueeze(),
                None => y,
            }
        }
        #[cfg(not(feature = "flex"))]
        {
            let _ = (x, bias);
            match self.never {}
        }
    }
}
