use std::ops::Range;

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{FloatDType, Tensor, module, s};

use super::mask::AttentionMask;
use super::pull::pull;

/// Computes attention `softmax(Q K^T / sqrt(Dh)) V` over the keys that are visible in `mask`.
///
/// Queries are `[B, T, Hq, Dh]`, as a projection returns them; keys and values are
/// `[B, Hkv, S, Dh]`, as a cache holds them. Query head `h` reads key head `h / (Hq / Hkv)` (GQA,
/// arXiv 2305.13245). The result is `[B, T, Hq, Dh]`; its values at padding are unspecified.
///
/// For f32 on the `flex` device, only the scores of a block of queries are in memory at a time, in
/// the backward pass as well, so that memory is linear in `S`. Elsewhere that is so off the gradient
/// tape only: on the tape, the backward pass keeps `[B, Hq, T, S]`. See [`attention_gradients`].
pub(crate) fn attention(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    mask: &AttentionMask,
) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if let Some(context) = fused::attention(&queries, &keys, &values, mask) {
        return context;
    }
    let on_tape = [&queries, &keys, &values]
        .iter()
        .any(|tensor| tensor.is_autodiff());
    match on_tape {
        true => composed(queries, keys, values, mask),
        false => in_blocks(queries, keys, values, mask, SCORES),
    }
}

/// The number of scores in memory at a time where there is no kernel and no gradient tape.
const SCORES: usize = 1 << 25;

/// Computes the gradients of [`attention`] in queries, keys and values, given that of its result.
/// Everything is off the gradient tape. The scores of a block of queries are in memory at a time.
pub(crate) fn attention_gradients(
    inputs: [Tensor<4>; 3],
    mask: &AttentionMask,
    gradient: Tensor<4>,
) -> [Tensor<4>; 3] {
    gradients_in_blocks(inputs, mask, gradient, SCORES)
}

/// The composed form for blocks of queries with at most `scores` scores.
fn in_blocks(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    mask: &AttentionMask,
    scores: usize,
) -> Tensor<4> {
    let blocks = blocks(&queries, &keys, scores);
    if blocks.len() == 1 {
        return composed(queries, keys, values, mask);
    }
    let context = blocks.map(|block| {
        let (mask, seen) = mask.block(block.clone());
        let part = |tensor: &Tensor<4>| tensor.clone().slice(s![.., .., ..seen, ..]);
        let queries = queries.clone().slice(s![.., block, .., ..]);
        composed(queries, part(&keys), part(&values), &mask)
    });
    Tensor::cat(context.collect(), 1)
}

fn gradients_in_blocks(
    [queries, keys, values]: [Tensor<4>; 3],
    mask: &AttentionMask,
    gradient: Tensor<4>,
    scores: usize,
) -> [Tensor<4>; 3] {
    let leaf = |tensor: Tensor<4>| tensor.autodiff().require_grad();
    let in_f32 = |tensor: Tensor<4>| tensor.cast(FloatDType::F32);
    let mut to_queries = Vec::new();
    let mut to_keys = in_f32(keys.zeros_like());
    let mut to_values = in_f32(values.zeros_like());
    for block in blocks(&queries, &keys, scores) {
        let (mask, seen) = mask.block(block.clone());
        let q = leaf(queries.clone().slice(s![.., block.clone(), .., ..]));
        let k = leaf(keys.clone().slice(s![.., .., ..seen, ..]));
        let v = leaf(values.clone().slice(s![.., .., ..seen, ..]));
        let context = composed(q.clone(), k.clone(), v.clone(), &mask);
        let gradient = gradient.clone().slice(s![.., block, .., ..]);
        let mut gradients = pull(context, gradient).backward();
        to_queries.extend(q.grad_remove(&mut gradients));
        for (sum, leaf) in [(&mut to_keys, k), (&mut to_values, v)] {
            if let Some(new) = leaf.grad_remove(&mut gradients) {
                sum.inplace(|sum| {
                    let old = sum.clone().slice(s![.., .., ..seen, ..]);
                    sum.slice_assign(s![.., .., ..seen, ..], old + in_f32(new))
                });
            }
        }
    }
    let dtype = keys.dtype();
    [
        Tensor::cat(to_queries, 1),
        to_keys.cast(dtype),
        to_values.cast(dtype),
    ]
}

/// Divides the queries `[B, T, Hq, Dh]` into blocks with at most `scores` scores each, but at least
/// one query.
fn blocks(
    queries: &Tensor<4>,
    keys: &Tensor<4>,
    scores: usize,
) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
    let [rows, width, heads, _] = queries.dims();
    let per_query = rows * heads * keys.dims()[2];
    let size = (scores / per_query.max(1)).max(1);
    (0..width)
        .step_by(size)
        .map(move |start| start..(start + size).min(width))
}

/// The composed form.
fn composed(
    queries: Tensor<4>,
    keys: Tensor<4>,
    values: Tensor<4>,
    mask: &AttentionMask,
) -> Tensor<4> {
    let queries = queries.swap_dims(1, 2);
    let [rows, heads, width, size] = queries.dims();
    let [_, shared, columns, _] = keys.dims();
    let group = heads / shared;
    let hidden = mask.hidden(&queries.device());
    let options = AttentionModuleOptions {
        is_causal: width > 1 && hidden.is_none(),
        ..Default::default()
    };
    if width == 1 && group > 1 {
        // With one query per row, the query heads that share a key head are treated as queries of
        // one head, so that no key is copied.
        let queries = queries.reshape([rows, shared, group, size]);
        let hidden = hidden.map(|hidden| hidden.expand([rows, 1, group, columns]));
        let context = module::attention(queries, keys, values, hidden, None, options);
        return context.reshape([rows, heads, 1, size]).swap_dims(1, 2);
    }
    let (keys, values) = (repeat_heads(keys, group), repeat_heads(values, group));
    module::attention(queries, keys, values, hidden, None, options).swap_dims(1, 2)
}

/// Repeats each key/value head `group` times: `[B, Hkv, S, Dh]` to `[B, Hkv group, S, Dh]`.
fn repeat_heads(heads: Tensor<4>, group: usize) -> Tensor<4> {
    if group == 1 {
        return heads;
    }
    let [rows, count, width, size] = heads.dims();
    heads
        .unsqueeze_dim::<5>(2)
        .expand([rows, count, group, width, size])
        .reshape([rows, count * group, width, size])
}

#[cfg(feature = "flex")]
mod fused {
    use std::sync::Arc;

    use burn::backend::flex::{FlexTensor, Layout};
    use burn::tensor::Tensor;
    use rlvr_kernels::{AttentionShape, Heads, Mask, attention_backward};

    use super::AttentionMask;
    use crate::fused::flex::{Input, Operation, apply, contiguous, tensor};

    pub(super) fn attention(
        queries: &Tensor<4>,
        keys: &Tensor<4>,
        values: &Tensor<4>,
        mask: &AttentionMask,
    ) -> Option<Tensor<4>> {
        let attention = Attention {
            tokens: mask.tokens().cloned(),
            window: mask.window(),
        };
        apply(
            attention,
            [Input::new(queries), Input::new(keys), Input::new(values)],
        )
    }

    #[derive(Clone, Debug)]
    struct Attention {
        tokens: Option<Arc<Vec<Vec<bool>>>>,
        window: Option<usize>,
    }

    impl Attention {
        fn mask(&self) -> Mask<'_> {
            Mask {
                tokens: self.tokens.as_ref().map(|tokens| tokens.as_slice()),
                window: self.window,
            }
        }
    }

    fn shape_of(queries: &FlexTensor, keys: &FlexTensor) -> AttentionShape {
        let [rows, width, query_heads, size] = queries.layout().shape().dims();
        let [_, key_heads, columns, _] = keys.layout().shape().dims();
        AttentionShape {
            rows,
            query_heads,
            key_heads,
            queries: width,
            keys: columns,
            size,
        }
    }

    fn scale(shape: AttentionShape) -> f32 {
        (1.0 / (shape.size as f64).sqrt()) as f32
    }

    /// Returns the tensor with the numbers of each head at each position contiguous; the order of
    /// rows, heads and positions is free.
    fn with_contiguous_heads(tensor: FlexTensor) -> FlexTensor {
        match tensor.layout().strides() {
            [.., 1] if tensor.layout().has_positive_strides() => tensor,
            _ => tensor.to_contiguous(),
        }
    }

    /// Returns a view of a tensor whose rows, heads and positions are the given dimensions.
    fn heads(tensor: &FlexTensor, dimensions: [usize; 3]) -> Heads<'_> {
        let layout = tensor.layout();
        Heads {
            data: &tensor.storage::<f32>()[layout.start_offset()..],
            strides: dimensions.map(|dimension| layout.strides()[dimension] as usize),
        }
    }

    /// `[B, T, H, Dh]`.
    const BY_POSITION: [usize; 3] = [0, 2, 1];
    /// `[B, H, S, Dh]`.
    const BY_HEAD: [usize; 3] = [0, 1, 2];

    #[derive(Clone, Debug)]
    pub(super) struct Saved {
        attention: Attention,
        inputs: [FlexTensor; 3],
        sums: Arc<Vec<f32>>,
    }

    impl Operation<3> for Attention {
        type Saved = Saved;

        fn forward(self, inputs: [FlexTensor; 3]) -> (FlexTensor, Saved) {
            let inputs = inputs.map(with_contiguous_heads);
            let [queries, keys, values] = &inputs;
            let shape = shape_of(queries, keys);
            let (context, sums) = rlvr_kernels::attention(
                shape,
                heads(queries, BY_POSITION),
                heads(keys, BY_HEAD),
                heads(values, BY_HEAD),
                self.mask(),
                scale(shape),
            );
            let context = tensor(context, queries.layout().shape().clone());
            let saved = Saved {
                attention: self,
                inputs,
                sums: Arc::new(sums),
            };
            (context, saved)
        }

        fn backward(saved: Saved, gradient: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
            let gradient = contiguous(gradient);
            let [queries, keys, values] = &saved.inputs;
            let shape = shape_of(queries, keys);
            let new = attention_backward(
                shape,
                heads(queries, BY_POSITION),
                heads(keys, BY_HEAD),
                heads(values, BY_HEAD),
                saved.attention.mask(),
                scale(shape),
                &saved.sums,
                heads(&gradient, BY_POSITION),
            );
            // The gradients are stored as `[B, S, H, Dh]`, as the projections need them, and viewed
            // as `[B, H, S, Dh]`.
            let by_head = |numbers: Vec<f32>| {
                let dims = [shape.rows, shape.keys, shape.key_heads, shape.size];
                let stored = tensor(numbers, dims);
                let layout: Layout = stored.layout().transpose(1, 2);
                Some(stored.with_layout(layout))
            };
            let to_queries = tensor(new.queries, queries.layout().shape().clone());
            [Some(to_queries), by_head(new.keys), by_head(new.values)]
        }
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // Device::ndarray
#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn blocks_of_queries_give_the_same_attention_and_gradients() {
        let device = Device::ndarray();
        let padded = vec![
            vec![true, true, false, true, true, true, true, true],
            vec![true; 8],
        ];
        for (tokens, queries, window) in [
            (vec![vec![true; 8]; 2], 8, None),
            (vec![vec![true; 8]; 2], 5, None),
            (padded.clone(), 5, None),
            (padded, 5, Some(3)),
        ] {
            let mut mask = AttentionMask::new(tokens, queries);
            if let Some(window) = window {
                mask = mask.windowed(window).unwrap();
            }
            let random =
                |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, &device);
            let q = random([2, queries, 4, 6]);
            let [k, v] = [random([2, 2, 8, 6]), random([2, 2, 8, 6])];
            let gradient = random([2, queries, 4, 6]);
            let run = |scores: usize| {
                let context = in_blocks(q.clone(), k.clone(), v.clone(), &mask, scores);
                let inputs = [q.clone(), k.clone(), v.clone()];
                let gradients = gradients_in_blocks(inputs, &mask, gradient.clone(), scores);
                let all = [vec![context], gradients.to_vec()].concat();
                all.into_iter().map(|x| x.into_data()).collect::<Vec<_>>()
            };
            let whole = run(usize::MAX);
            // Two queries at a time, and one.
            for scores in [2 * 2 * 4 * 8, 1] {
                for (got, want) in run(scores).iter().zip(&whole) {
                    got.assert_approx_eq::<f32>(want, Default::default());
                }
            }
        }
    }
}
