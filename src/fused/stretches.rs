use burn::tensor::Tensor;

#[cfg(feature = "flex")]
pub(crate) use rlvr_kernels::Stretch;

/// Keys and values of consecutive tokens of a sequence, `[tokens, heads, size]` each, and the hidden columns behind them.
#[cfg(not(feature = "flex"))]
pub(crate) struct Stretch<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub gap: usize,
}

/// The sum of attention weights has the same rounding wherever a multiple of so many hidden columns is left out.
pub(crate) const COLUMNS_ADDED_TOGETHER: usize = 16;

/// What `read` makes of the numbers of tensors; `None` if there are no kernels for one of them or it is on the gradient tape.
pub(crate) fn with_numbers<R, const N: usize>(
    tensors: [&Tensor<4>; N],
    read: impl FnOnce([&[f32]; N]) -> R,
) -> Option<R> {
    #[cfg(feature = "flex")]
    return fused::with_numbers(tensors, read);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (tensors, read);
        None
    }
}

/// Attention `softmax(Q K^T / sqrt(Dh)) V` of queries `[B, T, Hq, Dh]` to the stretches of each row, with `heads` heads of keys.
///
/// The queries of a row that are no padding, `new` of them, are those of its last tokens. Each sees the tokens up to its own, or the last
/// `window` of them. `None` as in [`with_numbers`].
pub(crate) fn stretched_attention(
    queries: &Tensor<4>,
    heads: usize,
    rows: &[Vec<Stretch<'_>>],
    new: &[usize],
    window: Option<usize>,
) -> Option<Tensor<4>> {
    #[cfg(feature = "flex")]
    return fused::stretched_attention(queries, heads, rows, new, window);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (queries, heads, new, window);
        let _ = rows.iter().flatten().map(|s| (s.keys, s.values, s.gap));
        None
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rlvr_kernels::StretchShape;

    use super::Stretch;
    use crate::fused::flex::{floats, in_order, off_tape, plain, tensor};

    pub(super) fn with_numbers<R, const N: usize>(
        tensors: [&Tensor<4>; N],
        read: impl FnOnce([&[f32]; N]) -> R,
    ) -> Option<R> {
        if tensors.iter().any(|tensor| tensor.is_autodiff()) {
            return None;
        }
        let held: Vec<FlexTensor> = tensors
            .iter()
            .map(|tensor| plain(tensor).map(in_order))
            .collect::<Option<_>>()?;
        Some(read(std::array::from_fn(|index| floats(&held[index]))))
    }

    pub(super) fn stretched_attention(
        queries: &Tensor<4>,
        heads: usize,
        rows: &[Vec<Stretch<'_>>],
        new: &[usize],
        window: Option<usize>,
    ) -> Option<Tensor<4>> {
        let [_, width, query_heads, size] = queries.dims();
        let shape = StretchShape {
            query_heads,
            key_heads: heads,
            queries: width,
            size,
        };
        let scale = (1.0 / (size as f64).sqrt()) as f32;
        let context = with_numbers([queries], |[queries]| {
            rlvr_kernels::stretched_attention(shape, queries, rows, new, window, scale)
        })?;
        Some(off_tape(tensor(context, queries.dims())))
    }
}
