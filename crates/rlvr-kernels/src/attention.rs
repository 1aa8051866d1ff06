//! Attention with memory linear in the sequence length (arXiv 2205.14135).
//!
//! Queries are processed in blocks. Only the scores of one block are in memory at a time; the
//! backward pass recomputes them from the log-sum-exp of each query.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::matrix::{Matrix, multiply};
use crate::parallel::Shared;
use crate::simd::{add_scaled, dot, exp, largest, vectorised};

/// Queries per block.
const BLOCK: usize = 64;

/// Attentions of fewer multiplications than this use one thread.
const SERIAL: usize = 1 << 17;

/// Queries, keys or values: a strided view `[rows, heads, positions, size]` of a slice.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// The numbers, from the first of the view on.
    pub data: &'a [f32],
    /// The strides of rows, heads and positions, in elements. The `size` numbers of a head at a
    /// position are contiguous.
    pub strides: [usize; 3],
}

impl<'a> Heads<'a> {
    fn at(&self, row: usize, head: usize, position: usize) -> &'a [f32] {
        let [rows, heads, positions] = self.strides;
        &self.data[row * rows + head * heads + position * positions..]
    }

    /// The positions `range` of one head, `[range.len(), size]`.
    fn matrix(
        &self,
        row: usize,
        head: usize,
        range: std::ops::Range<usize>,
        size: usize,
    ) -> Matrix<'a> {
        let data = self.at(row, head, range.start);
        Matrix::strided(data, [range.len(), size], [self.strides[2], 1])
    }
}

/// The shape of an [`attention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// The number of sequences.
    pub rows: usize,
    /// The number of query heads, a multiple of `key_heads`.
    pub query_heads: usize,
    /// The number of heads of keys and values. Query head `h` uses head
    /// `h / (query_heads / key_heads)` (GQA, arXiv 2305.13245).
    pub key_heads: usize,
    /// The number of queries of a sequence. They belong to the last of its columns.
    pub queries: usize,
    /// The number of keys of a sequence, its columns.
    pub keys: usize,
    /// The size of a head.
    pub size: usize,
}

/// The mask of a causal [`attention`]: which of the columns up to its own a query sees.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mask<'a> {
    /// `[rows, keys]`: whether a column holds a token. Other columns are padding and hidden.
    /// `None` if every column holds a token.
    pub tokens: Option<&'a [Vec<bool>]>,
    /// The length of the sliding window in tokens, the query's own included. `None` for no limit.
    pub window: Option<usize>,
}

/// The columns that the queries of one sequence see.
struct Seen<'a> {
    tokens: Option<&'a [bool]>,
    /// The number of tokens before each column; empty if there is no padding or no window.
    positions: Vec<usize>,
    window: Option<usize>,
    /// The column of the first query.
    first: usize,
}

impl<'a> Seen<'a> {
    fn new(mask: &Mask<'a>, shape: &AttentionShape, row: usize) -> Self {
        let tokens = mask.tokens.map(|tokens| &tokens[row][..shape.keys]);
        let tokens = tokens.filter(|tokens| tokens.contains(&false));
        let mut positions = Vec::new();
        if let (Some(_), Some(tokens)) = (mask.window, tokens) {
            let mut position = 0;
            positions.extend(tokens.iter().map(|&token| {
                let before = position;
                position += usize::from(token);
                before
            }));
        }
        Self {
            tokens,
            positions,
            window: mask.window,
            first: shape.keys - shape.queries,
        }
    }

    /// The range of columns that query `query` sees, padding included.
    fn columns(&self, query: usize) -> std::ops::Range<usize> {
        let own = self.first + query;
        let start = match self.window {
            None => 0,
            Some(window) if self.positions.is_empty() => (own + 1).saturating_sub(window),
            Some(window) => {
                let oldest = (self.positions[own] + 1).saturating_sub(window);
                self.positions[..=own].partition_point(|&position| position < oldest)
            }
        };
        start..own + 1
    }

    /// Sets the scores of padding in `range` to negative infinity.
    #[inline(always)]
    fn hide(&self, scores: &mut [f32], range: std::ops::Range<usize>) {
        if let Some(tokens) = self.tokens {
            for (score, &token) in scores.iter_mut().zip(&tokens[range]) {
                if !token {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Computes the causal attention `softmax(scale Q K^T) V` of every head.
///
/// Returns the result, `[rows, queries, query_heads, size]`, and the log-sum-exp of the scores of
/// each query, `[rows, query_heads, queries]`, which the backward pass needs. A query that sees no
/// key gets zeros and negative infinity.
///
/// ```
/// use rlvr_kernels::{AttentionShape, Heads, Mask, attention};
///
/// // One sequence of two tokens, one head of size 1.
/// let (rows, query_heads, key_heads) = (1, 1, 1);
/// let (queries, keys, size) = (2, 2, 1);
/// let shape = AttentionShape {
///     rows,
///     query_heads,
///     key_heads,
///     queries,
///     keys,
///     size,
/// };
/// let heads = |data| Heads {
///     data,
///     strides: [2, 1, 1],
/// };
/// let (queries, keys, values) =
///     (heads(&[0.0, 0.0]), heads(&[1.0, 1.0]), heads(&[2.0, 4.0]));
/// let (context, _) = attention(shape, queries, keys, values, Mask::default(), 1.0);
/// assert_eq!(context, [2.0, 3.0]);
/// ```
///
/// # Panics
/// Panics if the slices are too short for the shape, `query_heads` is not a multiple of
/// `key_heads`, or there are more queries than keys.
pub fn attention(
    shape: AttentionShape,
    queries: Heads<'_>,
    keys: Heads<'_>,
    values: Heads<'_>,
    mask: Mask<'_>,
    scale: f32,
) -> (Vec<f32>, Vec<f32>) {
    let AttentionShape {
        rows,
        query_heads,
        key_heads,
        queries: width,
        size,
        ..
    } = shape;
    shape.check();
    let (len, sums_len) = (
        rows * width * query_heads * size,
        rows * query_heads * width,
    );
    let (mut out, mut sums) = (Vec::with_capacity(len), Vec::with_capacity(sums_len));
    let (to, to_sums) = (Shared::new(&mut out, len), Shared::new(&mut sums, sums_len));
    let group = query_heads / key_heads;
    let work = |scores: &mut Vec<f32>, task: usize| {
        let (row, head) = (task / query_heads, task % query_heads);
        let seen = Seen::new(&mask, &shape, row);
        // SAFETY: both offsets belong to this row and head, which no other task has.
        let sum_of =
            |query: usize| unsafe { to_sums.at((row * query_heads + head) * width + query) };
        let out_of = |query: usize| {
            // SAFETY: as above.
            unsafe { to.at(((row * width + query) * query_heads + head) * size) }
        };
        if width == 1 {
            let columns = seen.columns(0);
            scores.resize(columns.len().max(scores.len()), 0.0);
            let scores = &mut scores[..columns.len()];
            // SAFETY: `size` floats at this offset belong to this task and are written before they
            // are read.
            let out = unsafe {
                std::ptr::write_bytes(out_of(0), 0, size);
                std::slice::from_raw_parts_mut(out_of(0), size)
            };
            let query = &queries.at(row, head, 0)[..size];
            let sum = vectorised(
                #[inline(always)]
                || {
                    for (score, column) in scores.iter_mut().zip(columns.clone()) {
                        *score = scale * dot(query, &keys.at(row, head / group, column)[..size]);
                    }
                    seen.hide(scores, columns.clone());
                    let sum = softmax(scores);
                    for (&weight, column) in scores.iter().zip(columns.clone()) {
                        add_scaled(out, weight, &values.at(row, head / group, column)[..size]);
                    }
                    sum
                },
            );
            // SAFETY: as above.
            unsafe { sum_of(0).write(sum) };
            return;
        }
        for start in (0..width).step_by(BLOCK) {
            let block = start..width.min(start + BLOCK);
            let columns = seen.columns(start).start..seen.columns(block.end - 1).end;
            let needed = block.len() * columns.len();
            scores.resize(needed.max(scores.len()), 0.0);
            let scores = &mut scores[..needed];
            let q = queries.matrix(row, head, block.clone(), size);
            let k = keys.matrix(row, head / group, columns.clone(), size);
            let v = values.matrix(row, head / group, columns.clone(), size);
            // SAFETY: the scores belong to this thread.
            unsafe {
                let strides = [columns.len(), 1];
                multiply(
                    scores.as_mut_ptr(),
                    strides,
                    false,
                    q,
                    k.transposed(),
                    scale,
                    Parallelism::None,
                );
            }
            vectorised(
                #[inline(always)]
                || {
                    for (query, scores) in block.clone().zip(scores.chunks_exact_mut(columns.len()))
                    {
                        let own = seen.columns(query);
                        let (before, rest) = scores.split_at_mut(own.start - columns.start);
                        let (own_scores, after) = rest.split_at_mut(own.len());
                        seen.hide(own_scores, own);
                        let sum = softmax(own_scores);
                        before.fill(0.0);
                        after.fill(0.0);
                        // SAFETY: as above.
                        unsafe { sum_of(query).write(sum) };
                    }
                },
            );
            let weights = Matrix::new(scores, block.len(), columns.len());
            // SAFETY: the positions of this block of this head belong to this task.
            unsafe {
                let strides = [query_heads * size, 1];
                multiply(
                    out_of(start),
                    strides,
                    false,
                    weights,
                    v,
                    1.0,
                    Parallelism::None,
                );
            }
        }
    };
    let tasks = rows * query_heads;
    match tasks * width * shape.keys * size < SERIAL {
        true => {
            let mut scores = Vec::new();
            (0..tasks).for_each(|task| work(&mut scores, task));
        }
        false => (0..tasks).into_par_iter().for_each_init(Vec::new, work),
    }
    // SAFETY: every task has written its head, and the tasks cover all heads.
    unsafe {
        out.set_len(len);
        sums.set_len(sums_len);
    }
    (out, sums)
}

/// Replaces scores by weights that sum to 1, and returns the log-sum-exp of the scores.
#[inline(always)]
pub(crate) fn softmax(scores: &mut [f32]) -> f32 {
    let top = largest(scores);
    if top == f32::NEG_INFINITY {
        scores.fill(0.0);
        return top;
    }
    for score in scores.iter_mut() {
        *score = exp(*score - top);
    }
    let sum = sum_of(scores);
    let factor = 1.0 / sum;
    for score in scores {
        *score *= factor;
    }
    top + sum.ln()
}

#[inline(always)]
fn sum_of(values: &[f32]) -> f32 {
    crate::simd::sum2(
        values,
        values,
        #[inline(always)]
        |a, _, sum| sum + a,
    )
}

/// The gradients of the inputs of [`attention`], from [`attention_backward`].
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionGradients {
    /// `[rows, queries, query_heads, size]`.
    pub queries: Vec<f32>,
    /// `[rows, keys, key_heads, size]`.
    pub keys: Vec<f32>,
    /// `[rows, keys, key_heads, size]`.
    pub values: Vec<f32>,
}

/// Returns the gradients of queries, keys and values in [`attention`], given `sums`, its second
/// result, and the gradient `to_out` of its first.
///
/// # Panics
/// Panics as [`attention`] does, and if the length of `sums` does not match the shape.
#[allow(
    clippy::too_many_arguments,
    reason = "the inputs of `attention`, its result and the gradient"
)]
pub fn attention_backward(
    shape: AttentionShape,
    queries: Heads<'_>,
    keys: Heads<'_>,
    values: Heads<'_>,
    mask: Mask<'_>,
    scale: f32,
    sums: &[f32],
    to_out: Heads<'_>,
) -> AttentionGradients {
    let AttentionShape {
        rows,
        query_heads,
        key_heads,
        queries: width,
        keys: all,
        size,
    } = shape;
    shape.check();
    assert_eq!(sums.len(), rows * query_heads * width, "length of the sums");
    let (len, key_len) = (
        rows * width * query_heads * size,
        rows * all * key_heads * size,
    );
    let mut to_queries = Vec::with_capacity(len);
    let (mut to_keys, mut to_values) = (Vec::with_capacity(key_len), Vec::with_capacity(key_len));
    let dq = Shared::new(&mut to_queries, len);
    let (dk, dv) = (
        Shared::new(&mut to_keys, key_len),
        Shared::new(&mut to_values, key_len),
    );
    let group = query_heads / key_heads;
    // The scratch memory: scores or weights of a block, and their gradients.
    let work = |(weights, gradients): &mut (Vec<f32>, Vec<f32>), task: usize| {
        let (row, key_head) = (task / key_heads, task % key_heads);
        let seen = Seen::new(&mask, &shape, row);
        let key_at = |column: usize| ((row * all + column) * key_heads + key_head) * size;
        for column in 0..all {
            // SAFETY: the columns of this row and key head belong to this task.
            unsafe {
                std::ptr::write_bytes(dk.at(key_at(column)), 0, size);
                std::ptr::write_bytes(dv.at(key_at(column)), 0, size);
            }
        }
        for head in key_head * group..(key_head + 1) * group {
            for start in (0..width).step_by(BLOCK) {
                let block = start..width.min(start + BLOCK);
                let columns = seen.columns(start).start..seen.columns(block.end - 1).end;
                let needed = block.len() * columns.len();
                weights.resize(needed.max(weights.len()), 0.0);
                gradients.resize(needed.max(gradients.len()), 0.0);
                let (weights, gradients) = (&mut weights[..needed], &mut gradients[..needed]);
                let q = queries.matrix(row, head, block.clone(), size);
                let k = keys.matrix(row, key_head, columns.clone(), size);
                let v = values.matrix(row, key_head, columns.clone(), size);
                let to_out = to_out.matrix(row, head, block.clone(), size);
                let strides = [columns.len(), 1];
                // SAFETY: both belong to this thread.
                unsafe {
                    multiply(
                        weights.as_mut_ptr(),
                        strides,
                        false,
                        q,
                        k.transposed(),
                        scale,
                        Parallelism::None,
                    );
                    multiply(
                        gradients.as_mut_ptr(),
                        strides,
                        false,
                        to_out,
                        v.transposed(),
                        1.0,
                        Parallelism::None,
                    );
                }
                vectorised(
                    #[inline(always)]
                    || {
                        let rows = weights.chunks_exact_mut(columns.len());
                        let rows = rows.zip(gradients.chunks_exact_mut(columns.len()));
                        for (query, (weights, gradients)) in block.clone().zip(rows) {
                            let own = seen.columns(query);
                            let sum = sums[(row * query_heads + head) * width + query];
                            let cut = own.start - columns.start..own.end - columns.start;
                            for side in [0..cut.start, cut.end..columns.len()] {
                                weights[side.clone()].fill(0.0);
                                gradients[side].fill(0.0);
                            }
                            let (weights, gradients) =
                                (&mut weights[cut.clone()], &mut gradients[cut]);
                            seen.hide(weights, own);
                            if sum == f32::NEG_INFINITY {
                                weights.fill(0.0);
                                gradients.fill(0.0);
                                continue;
                            }
                            for weight in weights.iter_mut() {
                                *weight = exp(*weight - sum);
                            }
                            let mean = dot(weights, gradients);
                            for (&weight, gradient) in weights.iter().zip(gradients) {
                                *gradient = weight * (*gradient - mean);
                            }
                        }
                    },
                );
                let weights = Matrix::new(weights, block.len(), columns.len());
                let gradients = Matrix::new(gradients, block.len(), columns.len());
                let key_strides = [key_heads * size, 1];
                // SAFETY: the columns of this row and key head, and the block of this query head,
                // belong to this task; the gradients of keys and values were set to zero above.
                unsafe {
                    let to_key = dk.at(key_at(columns.start));
                    let to_value = dv.at(key_at(columns.start));
                    let to_query = dq.at(((row * width + start) * query_heads + head) * size);
                    multiply(
                        to_value,
                        key_strides,
                        true,
                        weights.transposed(),
                        to_out,
                        1.0,
                        Parallelism::None,
                    );
                    multiply(
                        to_key,
                        key_strides,
                        true,
                        gradients.transposed(),
                        q,
                        scale,
                        Parallelism::None,
                    );
                    multiply(
                        to_query,
                        [query_heads * size, 1],
                        false,
                        gradients,
                        k,
                        scale,
                        Parallelism::None,
                    );
                }
            }
        }
    };
    let tasks = rows * key_heads;
    (0..tasks)
        .into_par_iter()
        .for_each_init(Default::default, work);
    // SAFETY: every task has written its key head and the query heads that use it, and the tasks
    // cover all key heads.
    unsafe {
        to_queries.set_len(len);
        to_keys.set_len(key_len);
        to_values.set_len(key_len);
    }
    AttentionGradients {
        queries: to_queries,
        keys: to_keys,
        values: to_values,
    }
}

impl AttentionShape {
    fn check(&self) {
        assert!(
            self.key_heads > 0 && self.query_heads.is_multiple_of(self.key_heads),
            "{} query heads cannot share {} key heads",
            self.query_heads,
            self.key_heads
        );
        assert!(
            self.queries <= self.keys,
            "more queries ({}) than keys ({})",
            self.queries,
            self.keys
        );
    }
}
