//! Attention over keys and values that are held in segments, for generation: sequences differ in
//! length, and sequences with the same prompt share its segment.

use std::ops::Range;

use rayon::prelude::*;

use crate::attention::softmax;
use crate::parallel::Shared;
use crate::simd::{add_scaled, dot, vectorised};

/// Attentions of fewer multiplications than this use one thread.
const SERIAL: usize = 1 << 17;

/// Keys and values of consecutive tokens of a sequence.
///
/// `padding` determines the order in which attention weights are summed, and so the rounding: with
/// the padding of a padded batch, the results for single queries are those of
/// [`attention`](crate::attention()) on that batch, bit for bit. Multiples of 16 can be left out.
#[derive(Clone, Copy, Debug)]
pub struct KvSegment<'a> {
    /// `[tokens, key_heads, size]`.
    pub keys: &'a [f32],
    /// `[tokens, key_heads, size]`.
    pub values: &'a [f32],
    /// The number of hidden columns after the tokens.
    pub padding: usize,
}

/// The shape of a [`segmented_attention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentedShape {
    /// The number of query heads, a multiple of `key_heads`.
    pub query_heads: usize,
    /// The number of heads of keys and values. Query head `h` uses head
    /// `h / (query_heads / key_heads)` (GQA, arXiv 2305.13245).
    pub key_heads: usize,
    /// The number of queries of a sequence, padding included.
    pub queries: usize,
    /// The size of a head.
    pub size: usize,
}

/// The tokens of a segment that a query sees, and the column of the first of them.
#[derive(Clone, Debug)]
struct Piece {
    segment: usize,
    tokens: Range<usize>,
    column: usize,
}

/// Computes the causal attention `softmax(scale Q K^T) V` of every head over the segments of each
/// row, `[rows, queries, query_heads, size]`.
///
/// `queries` has the same shape. The first `new[r]` queries of row `r` belong to the last tokens of
/// its segments; the rest are padding, for which the result is zero. A query sees its own token and
/// those before it, or the last `window` of these.
///
/// # Panics
/// Panics if `query_heads` is not a multiple of `key_heads`, the lengths of `queries` or `new` do
/// not match, a segment has fewer values than keys, or a row has fewer tokens than queries.
pub fn segmented_attention(
    shape: SegmentedShape,
    queries: &[f32],
    rows: &[Vec<KvSegment<'_>>],
    new: &[usize],
    window: Option<usize>,
    scale: f32,
) -> Vec<f32> {
    let SegmentedShape {
        query_heads,
        key_heads,
        queries: width,
        size,
    } = shape;
    assert!(
        key_heads > 0 && query_heads.is_multiple_of(key_heads),
        "{query_heads} query heads cannot share {key_heads} key heads"
    );
    assert_eq!(new.len(), rows.len(), "number of rows");
    let len = rows.len() * width * query_heads * size;
    assert_eq!(queries.len(), len, "length of the queries");
    let (group, token) = (query_heads / key_heads, key_heads * size);
    let total = |row: usize| -> usize {
        let numbers = rows[row].iter().map(|segment| segment.keys.len());
        numbers.sum::<usize>() / token
    };
    let mut out: Vec<f32> = Vec::with_capacity(len);
    let to = Shared::new(&mut out, len);
    let work = |(pieces, scores): &mut (Vec<Piece>, Vec<f32>), task: usize| {
        let (row, head) = (task / key_heads, task % key_heads);
        let (segments, tokens) = (&rows[row], total(row));
        assert!(new[row] <= width.min(tokens), "queries of row {row}");
        for query in 0..width {
            let at = ((row * width + query) * query_heads + head * group) * size;
            // SAFETY: these heads of this query belong to this task and are written before they are
            // read.
            let out = unsafe {
                std::ptr::write_bytes(to.at(at), 0, group * size);
                std::slice::from_raw_parts_mut(to.at(at), group * size)
            };
            if query >= new[row] {
                continue;
            }
            let end = tokens - new[row] + query + 1;
            let start = window.map_or(0, |window| end.saturating_sub(window));
            let columns = cut(segments, token, start..end, pieces);
            scores.clear();
            scores.resize(group * columns, f32::NEG_INFINITY);
            attend(
                &queries[at..at + group * size],
                segments,
                pieces,
                [head * size, token, size],
                scale,
                scores,
                out,
            );
        }
    };
    let tasks = rows.len() * key_heads;
    let multiplications = (0..rows.len())
        .map(|row| total(row) * new[row] * query_heads * size)
        .sum::<usize>();
    match multiplications < SERIAL {
        true => {
            let mut scratch = Default::default();
            (0..tasks).for_each(|task| work(&mut scratch, task));
        }
        false => (0..tasks)
            .into_par_iter()
            .for_each_init(Default::default, work),
    }
    // SAFETY: every task has written its heads of every query, and the tasks cover all rows and key
    // heads.
    unsafe { out.set_len(len) };
    out
}

/// Fills `pieces` with the places of the tokens `seen` in the segments, and returns the number of
/// columns from the first to the last.
fn cut(
    segments: &[KvSegment<'_>],
    token: usize,
    seen: Range<usize>,
    pieces: &mut Vec<Piece>,
) -> usize {
    pieces.clear();
    let (mut before, mut columns) = (0, 0);
    for (index, segment) in segments.iter().enumerate() {
        let own = before..before + segment.keys.len() / token;
        before = own.end;
        let tokens = own.start.max(seen.start)..own.end.min(seen.end);
        if !tokens.is_empty() {
            pieces.push(Piece {
                segment: index,
                tokens: tokens.start - own.start..tokens.end - own.start,
                column: columns,
            });
            columns += tokens.len();
        }
        if own.end >= seen.start && own.end < seen.end {
            columns += segment.padding;
        }
    }
    columns
}

/// Computes one query of each head that shares a key head. `scores` has a row of columns for each
/// of them, filled with negative infinity.
fn attend(
    queries: &[f32],
    segments: &[KvSegment<'_>],
    pieces: &[Piece],
    [first, token, size]: [usize; 3],
    scale: f32,
    scores: &mut [f32],
    out: &mut [f32],
) {
    let columns = scores.len() * size / queries.len();
    vectorised(
        #[inline(always)]
        || {
            for piece in pieces {
                let keys = segments[piece.segment].keys;
                for (column, at) in (piece.column..).zip(piece.tokens.clone()) {
                    let key = &keys[at * token + first..][..size];
                    let mut score = column;
                    for query in queries.chunks_exact(size) {
                        scores[score] = scale * dot(query, key);
                        score += columns;
                    }
                }
            }
            for scores in scores.chunks_exact_mut(columns) {
                softmax(scores);
            }
            for piece in pieces {
                let values = segments[piece.segment].values;
                for (column, at) in (piece.column..).zip(piece.tokens.clone()) {
                    let value = &values[at * token + first..][..size];
                    let mut weight = column;
                    for out in out.chunks_exact_mut(size) {
                        add_scaled(out, scores[weight], value);
                        weight += columns;
                    }
                }
            }
        },
    );
}
