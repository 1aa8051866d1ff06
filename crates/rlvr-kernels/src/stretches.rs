//! Attention to keys and values that each sequence keeps in pieces of its own, as in generation: some pieces belong to several
//! sequences that share a prompt, and sequences differ in length.

use std::ops::Range;

use rayon::prelude::*;

use crate::attention::softmax;
use crate::parallel::Shared;
use crate::simd::{add_scaled, dot, vectorised};

/// Multiplications below which one thread does all.
const SERIAL: usize = 1 << 17;

/// Keys and values of consecutive tokens of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// `[tokens, key_heads, size]`.
    pub keys: &'a [f32],
    /// `[tokens, key_heads, size]`.
    pub values: &'a [f32],
    /// Hidden columns behind the tokens, as padding has them. They determine the order in which weights are added up, and so the
    /// rounding: with the gaps of a padded batch, results are those of [`attention`](crate::attention) on that batch, bit for bit. Multiples
    /// of 16 can be left out.
    pub gap: usize,
}

/// The shape of an attention to stretches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StretchShape {
    /// Heads of queries; a multiple of the next.
    pub query_heads: usize,
    /// Heads of keys and values; query head `h` uses head `h / (query_heads / key_heads)` (GQA, arXiv 2305.13245).
    pub key_heads: usize,
    /// Queries of a sequence, padding included.
    pub queries: usize,
    /// Numbers of a head.
    pub size: usize,
}

/// Tokens of a stretch that a query sees, and the column of the first of them.
#[derive(Clone, Debug)]
struct Piece {
    stretch: usize,
    tokens: Range<usize>,
    column: usize,
}

/// `softmax(scale Q K^T) V` of every head, `[rows, queries, query_heads, size]`.
///
/// `queries` has that shape as well. Row `r` has `new[r]` queries that are no padding, the last tokens of its stretches. Each sees its own token
/// and those before it, or the last `window` of these. The result at padding is zero.
///
/// # Panics
/// If the slices are too short for the shape, or a row has fewer tokens than queries.
pub fn stretched_attention(
    shape: StretchShape,
    queries: &[f32],
    rows: &[Vec<Stretch<'_>>],
    new: &[usize],
    window: Option<usize>,
    scale: f32,
) -> Vec<f32> {
    let StretchShape {
        query_heads,
        key_heads,
        queries: width,
        size,
    } = shape;
    assert!(
        key_heads > 0 && query_heads.is_multiple_of(key_heads),
        "{query_heads} heads of queries share {key_heads} heads of keys"
    );
    assert_eq!(new.len(), rows.len(), "queries of each row");
    let len = rows.len() * width * query_heads * size;
    assert_eq!(queries.len(), len, "numbers of the queries");
    let (group, token) = (query_heads / key_heads, key_heads * size);
    let total = |row: usize| -> usize {
        let numbers = rows[row].iter().map(|stretch| stretch.keys.len());
        numbers.sum::<usize>() / token
    };
    let mut out: Vec<f32> = Vec::with_capacity(len);
    let to = Shared::new(&mut out, len);
    let work = |(pieces, scores): &mut (Vec<Piece>, Vec<f32>), task: usize| {
        let (row, head) = (task / key_heads, task % key_heads);
        let (stretches, tokens) = (&rows[row], total(row));
        assert!(new[row] <= width.min(tokens), "queries of row {row}");
        for query in 0..width {
            let at = ((row * width + query) * query_heads + head * group) * size;
            // SAFETY: these heads of this query belong to this task; they are written before they are read.
            let out = unsafe {
                std::ptr::write_bytes(to.at(at), 0, group * size);
                std::slice::from_raw_parts_mut(to.at(at), group * size)
            };
            if query >= new[row] {
                continue;
            }
            let end = tokens - new[row] + query + 1;
            let start = window.map_or(0, |window| end.saturating_sub(window));
            let columns = cut(stretches, token, start..end, pieces);
            scores.clear();
            scores.resize(group * columns, f32::NEG_INFINITY);
            attend(
                &queries[at..at + group * size],
                stretches,
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
    // SAFETY: every task has written its heads of every query, and there is one for each head of keys and row.
    unsafe { out.set_len(len) };
    out
}

/// Fills `pieces` with where tokens `seen` of the stretches are, and returns the number of columns from the first to the last.
fn cut(
    stretches: &[Stretch<'_>],
    token: usize,
    seen: Range<usize>,
    pieces: &mut Vec<Piece>,
) -> usize {
    pieces.clear();
    let (mut before, mut columns) = (0, 0);
    for (index, stretch) in stretches.iter().enumerate() {
        let own = before..before + stretch.keys.len() / token;
        before = own.end;
        let tokens = own.start.max(seen.start)..own.end.min(seen.end);
        if !tokens.is_empty() {
            pieces.push(Piece {
                stretch: index,
                tokens: tokens.start - own.start..tokens.end - own.start,
                column: columns,
            });
            columns += tokens.len();
        }
        if own.end >= seen.start && own.end < seen.end {
            columns += stretch.gap;
        }
    }
    columns
}

/// One query of each head that shares a head of keys. `scores` has a row of columns for each of them, of negative infinity.
fn attend(
    queries: &[f32],
    stretches: &[Stretch<'_>],
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
                let keys = stretches[piece.stretch].keys;
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
                let values = stretches[piece.stretch].values;
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
