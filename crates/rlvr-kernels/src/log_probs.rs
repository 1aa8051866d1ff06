//! Log-probs and entropies of tokens from hidden states; the logits of a block of tokens exist at a time.

use rayon::prelude::*;

use crate::matrix::{Matrix, add_product, product};
use crate::simd::{LANES, exp, largest, total, vectorised};

/// Logits that exist at a time.
const LOGITS: usize = 8 << 20;

/// What a softmax over the vocabulary says of one token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TokenScore {
    /// `ln p[target]`.
    pub log_prob: f32,
    /// `-sum p ln p`; 0 unless it was asked for.
    pub entropy: f32,
    /// `ln sum exp(logit / temperature)`.
    pub log_sum: f32,
}

/// Scores of the tokens `targets` with `p = softmax(hidden unembedding / temperature)`.
///
/// `hidden` is `[N, D]`, `unembedding` `[D, V]`; entropies are computed if `entropy` says so. A word with a logit of negative
/// infinity has probability 0 and adds nothing to the entropy. At most `chunk` rows of logits exist at a time.
///
/// # Panics
/// If the shapes do not fit, `chunk` is 0, or a target is not below `V`.
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
    // A NaN among the logits is not the largest of them, but it is in the sum.
    let log = sum.ln();
    TokenScore {
        log_prob: (logits[target as usize] - top) * factor - log,
        entropy: if entropy { log - weighted / sum } else { 0.0 },
        log_sum: top * factor + log,
    }
}

/// Adds `e^x` and, if `entropy` is asked for, `x e^x`.
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

/// The gradients at `hidden`, `[N, D]`, and, unless it is `None`, `to_unembedding`, to which that at the unembedding is added.
///
/// `pulls` are the gradients at the log-probs and entropies of each token, `scores` what [`token_scores`] gave, with
/// entropies if any gradient at one is not zero. `to_unembedding` is `[V, D]`: transposed. Rows without a gradient are left out, whatever
/// stands in them.
///
/// # Panics
/// As [`token_scores`], and if lengths differ.
#[allow(
    clippy::too_many_arguments,
    reason = "the inputs of `token_scores`, and what it gave"
)]
pub fn token_scores_backward(
    hidden: Matrix<'_>,
    unembedding: Matrix<'_>,
    targets: &[u32],
    temperature: f32,
    chunk: usize,
    scores: &[TokenScore],
    pulls: &[[f32; 2]],
    mut to_unembedding: Option<&mut [f32]>,
) -> Vec<f32> {
    assert_eq!(
        [scores.len(), pulls.len()],
        [targets.len(); 2],
        "scores and gradients"
    );
    let ([_, vocabulary], size) = (unembedding.shape(), hidden.shape()[1]);
    let block = check(hidden, unembedding, targets, chunk);
    let mut to_hidden = vec![0f32; targets.len() * size];
    let moving: Vec<usize> = (0..targets.len())
        .filter(|&row| pulls[row] != [0.0; 2])
        .collect();
    for rows in moving.chunks(block) {
        // Rows that move nothing are not computed, so the others are moved together.
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
                let (score, pull, target) = (scores[row], pulls[row], targets[row]);
                vectorised(
                    #[inline(always)]
                    || pull_logits(logits, target, 1.0 / temperature, score, pull),
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

/// Logits become their gradients: `pull` times those of log-prob and entropy.
#[inline(always)]
fn pull_logits(logits: &mut [f32], target: u32, factor: f32, score: TokenScore, pull: [f32; 2]) {
    let [to_log_prob, to_entropy] = [pull[0] * factor, pull[1] * factor];
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

/// Rows that are computed together.
fn check(hidden: Matrix<'_>, unembedding: Matrix<'_>, targets: &[u32], chunk: usize) -> usize {
    let ([rows, size], [inputs, vocabulary]) = (hidden.shape(), unembedding.shape());
    assert_eq!(size, inputs, "hidden states and unembedding");
    assert_eq!(rows, targets.len(), "a target for each token");
    assert!(chunk > 0, "chunks of 0 tokens");
    let known = targets.iter().all(|&target| (target as usize) < vocabulary);
    assert!(known, "a target is not below {vocabulary}");
    (LOGITS / vocabulary.max(1)).clamp(1, chunk)
}
