use burn::tensor::Tensor;

#[cfg(feature = "flex")]
pub(crate) use rlvr_kernels::KvSegment;

/// Keys and values of consecutive tokens of a sequence, `[tokens, heads, size]` each, and the
/// number of hidden columns after them.
#[cfg(not(feature = "flex"))]
pub(crate) struct KvSegment<'a> {
    pub keys: &'a [f32],
    pub values: &'a [f32],
    pub padding: usize,
}

/// The number of partial sums of attention weights: leaving out a multiple of this many hidden
/// columns does not change the rounding.
pub(crate) const REDUCTION_LANES: usize = 16;

/// Calls `read` with the numbers of the tensors and returns its result; `None` if there is no
/// kernel for one of them or it is on the gradient tape.
pub(crate) fn with_floats<R, const N: usize>(
    tensors: [&Tensor<4>; N],
    read: impl FnOnce([&[f32]; N]) -> R,
) -> Option<R> {
    #[cfg(feature = "flex")]
    return fused::with_floats(tensors, read);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (tensors, read);
        None
    }
}

/// Computes attention `softmax(Q K^T / sqrt(Dh)) V` of queries `[B, T, Hq, Dh]` over the segments
/// of each row, with `heads` key heads.
///
/// The first `new[b]` queries of row `b` belong to its last tokens; the rest are padding. A query
/// sees the tokens up to its own, or the last `window` of them. Returns `None` as [`with_floats`]
/// does.
pub(crate) fn segmented_attention(
    queries: &Tensor<4>,
    heads: usize,
    rows: &[Vec<KvSegment<'_>>],
    new: &[usize],
    window: Option<usize>,
) -> Option<Tensor<4>> {
    #[cfg(feature = "flex")]
    return fused::segmented_attention(queries, heads, rows, new, window);
    #[cfg(not(feature = "flex"))]
    {
        let _ = (queries, heads, new, window);
        let _ = rows.iter().flatten().map(|s| (s.keys, s.values, s.padding));
        None
    }
}

#[cfg(feature = "flex")]
mod fused {
    use burn::backend::flex::FlexTensor;
    use burn::tensor::Tensor;
    use rlvr_kernels::SegmentedShape;

    use super::KvSegment;
    use crate::fused::flex::{contiguous, floats, off_tape, plain, tensor};

    pub(super) fn with_floats<R, const N: usize>(
        tensors: [&Tensor<4>; N],
        read: impl FnOnce([&[f32]; N]) -> R,
    ) -> Option<R> {
        if tensors.iter().any(|tensor| tensor.is_autodiff()) {
            return None;
        }
        let held: Vec<FlexTensor> = tensors
            .iter()
            .map(|tensor| plain(tensor).map(contiguous))
            .collect::<Option<_>>()?;
        Some(read(std::array::from_fn(|index| floats(&held[index]))))
    }

    pub(super) fn segmented_attention(
        queries: &Tensor<4>,
        heads: usize,
        rows: &[Vec<KvSegment<'_>>],
        new: &[usize],
        window: Option<usize>,
    ) -> Option<Tensor<4>> {
        let [_, width, query_heads, size] = queries.dims();
        let shape = SegmentedShape {
            query_heads,
            key_heads: heads,
            queries: width,
            size,
        };
        let scale = (1.0 / (size as f64).sqrt()) as f32;
        let context = with_floats([queries], |[queries]| {
            rlvr_kernels::segmented_attention(shape, queries, rows, new, window, scale)
        })?;
        Some(off_tape(tensor(context, queries.dims())))
    }
}
