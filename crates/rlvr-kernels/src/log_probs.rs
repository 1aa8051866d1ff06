//! Log-probs and entropies of tokens from hidden states, computed for blocks of tokens so that the
//! logits of all tokens are never in memory together.

use rayon::prelude::*;

use crate::matrix::{Matrix, add_product, product};
use crate::simd::{LANES, exp, largest, total, vectorised};

/// The most logits in memory at a time.
const LOGITS: usize = 8 << 20;

/// Log-prob and entropy of one token, from [`token_scores`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// `ln p[target]`, in nats.
    pub log_prob: f32,
    /// `-sum p ln p`, in nats; 0 if entropies were not requested.
    pub entropy: f32,
    /// `ln sum exp(logit / temperature)`.
    pub log_sum: f32,
}

/// Returns the scores of the tokens `targets` `[N]` under
/// `p = softmax(hidden unembedding / temperature)`.
///
/// `hidden` is `[N, D]` and `unembedding` `[D, V]`. Entropies are computed if `entropy` is true. A
/// vocabulary entry with a logit of negative infinity has probability 0 and adds nothing to the
/// entropy. At most `chunk` rows of logits are in memory at a time.
///
/// # Panics
/// Panics if the shapes do not match, `chunk` is 0, or a target is not below `V`.
pub fn token_scores(
    hidden: Matrix<'_>,
    unembedding: Matrix<'_>,
    targets: &[u32],
    temperature: f32,
    entropy: bool,
    chunk: usize,
) -> Vec<TokenScore> {
    let mut scores = vec![TokenScore::default(); targets.len()];
    let vocabulary = unembedding.shape()[1];
    let block = check(hidden, unembedding, targets, chunk);
    for (part, scores) in scores.chunks_mut(block).enumerate() {
        let rows = part * block..part * block + scores.len();
        let logits = product(hidden.rows(rows.clone()), unembedding);
        let rows = logits.par_chunks_exact(vocabulary).zip(&targets[rows]);
        scores
            .par_iter_mut()
            .zip(rows)
            .for_each(|(score, (logits, &target))| {
                *score = vectorised(
                    #[inline(always)]
                    || score_of(logits, target, 1.0 / temperature, entropy),
                );
            });
    }
    scores
}

#[inline(always)]
fn score_of(logits: &[f32], target: u32, factor: f32, entropy: bool) -> TokenScore {
    let top = largest(logits);
    // sum e^(x - top) and sum (x - top) e^(x - top), with x = logit / temperature.
    let (mut sums, mut weighted) = ([0f32; LANES], [0f32; LANES]);
    let (chunks, rest) = logits.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            add(
                (chunk[lane] - top) * factor,
                entropy,
                &mut sums[lane],
                &mut weighted[lane],
            );
        }
    }
    for (lane, &logit) in rest.iter().enumerate() {
        add(
            (logit - top) * factor,
            entropy,
            &mut sums[lane],
            &mut weighted[lane],
        );
    }
    let (sum, weighted) = (total(sums), total(weighted));
    // `largest` ignores NaN, but the sum does not.
    let log = sum.ln();
    TokenScore {
        log_prob: (logits[target as usize] - top) * factor - log,
        entropy: if entropy { log - weighted / sum } else { 0.0 },
        log_sum: top * factor + log,
    }
}

/// Adds `e^x` to `sum` and, if `entropy`, `x e^x` to `weighted`.
#[inline(always)]
fn add(x: f32, entropy: bool, sum: &mut f32, weighted: &mut f32) {
    // Below -1e4 the exponential is 0 anyway, and 0 * -inf would be NaN.
    let x = x.max(-1e4);
    let e = exp(x);
    *sum += e;
    if entropy {
        *weighted = x.mul_add(e, *weighted);
    }
}

/// Returns the gradient of `hidden`, `[N, D]`, in [`token_scores`], and adds the gradient of the
/// unembedding to `to_unembedding` if it is given.
///
/// `scores` is the result of [`token_scores`]; it must have entropies if any gradient of an entropy
/// is not zero. `to_scores` has the gradients of log-prob and entropy of each token.
/// `to_unembedding` is transposed, `[V, D]`. Tokens with two zero gradients are skipped, even if
/// their hidden states are NaN.
///
/// # Panics
/// Panics as [`token_scores`] does, and if the lengths differ.
#[allow(
    clippy::too_many_arguments,
    reason = "the inputs of `token_scores`, its result and the gradients"
)]
pub fn token_scores_backward(
    hidden: Matrix<'_>,
    unembedding: Matrix<'_>,
    targets: &[u32],
    temperature: f32,
    chunk: usize,
    scores: &[TokenScore],
    to_scores: &[[f32; 2]],
    mut to_unembedding: Option<&mut [f32]>,
) -> Vec<f32> {
    assert_eq!(
        [scores.len(), to_scores.len()],
        [targets.len(); 2],
        "numbers of scores and gradients"
    );
    let ([_, vocabulary], size) = (unembedding.shape(), hidden.shape()[1]);
    let block = check(hidden, unembedding, targets, chunk);
    let mut to_hidden = vec![0f32; targets.len() * size];
    let active: Vec<usize> = (0..targets.len())
        .filter(|&row| to_scores[row] != [0.0; 2])
        .collect();
    for rows in active.chunks(block) {
        // The active rows are gathered, since the others are not computed.
        let hidden: Vec<f32> = rows
            .iter()
            .flat_map(|&row| hidden.row(row))
            .copied()
            .collect();
        let hidden = Matrix::new(&hidden, rows.len(), size);
        let mut logits = product(hidden, unembedding);
        logits
            .par_chunks_exact_mut(vocabulary)
            .zip(rows)
            .for_each(|(logits, &row)| {
                let (score, to_score, target) = (scores[row], to_scores[row], targets[row]);
                vectorised(
                    #[inline(always)]
                    || logits_backward(logits, target, 1.0 / temperature, score, to_score),
                );
            });
        let logits = Matrix::new(&logits, rows.len(), vocabulary);
        let new = product(logits, unembedding.transposed());
        for (&row, new) in rows.iter().zip(new.chunks_exact(size)) {
            to_hidden[row * size..(row + 1) * size].copy_from_slice(new);
        }
        if let Some(sum) = &mut to_unembedding {
            add_product(sum, logits.transposed(), hidden);
        }
    }
    to_hidden
}

/// Replaces the logits of a token by their gradients, given those of its log-prob and entropy.
#[inline(always)]
fn logits_backward(
    logits: &mut [f32],
    target: u32,
    factor: f32,
    score: TokenScore,
    to_score: [f32; 2],
) {
    let [to_log_prob, to_entropy] = to_score.map(|gradient| gradient * factor);
    if to_entropy == 0.0 {
        for logit in logits.iter_mut() {
            let p = exp(logit.mul_add(factor, -score.log_sum));
            *logit = -to_log_prob * p;
        }
    } else {
        for logit in logits.iter_mut() {
            let log_p = logit.mul_add(factor, -score.log_sum).max(-1e4);
            let p = exp(log_p);
            *logit = -p * (to_log_prob + to_entropy * (log_p + score.entropy));
        }
    }
    logits[target as usize] += to_log_prob;
}

/// Checks the shapes and returns the number of rows per block.
fn check(hidden: Matrix<'_>, unembedding: Matrix<'_>, targets: &[u32], chunk: usize) -> usize {
    let ([rows, size], [inputs, vocabulary]) = (hidden.shape(), unembedding.shape());
    assert_eq!(size, inputs, "widths of hidden states and unembedding");
    assert_eq!(rows, targets.len(), "numbers of tokens and targets");
    assert!(chunk > 0, "chunk must be at least 1");
    let known = targets.iter().all(|&target| (target as usize) < vocabulary);
    assert!(known, "a target is not below {vocabulary}");
    (LOGITS / vocabulary.max(1)).clamp(1, chunk)
}
