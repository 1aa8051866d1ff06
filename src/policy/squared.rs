//! The sum of squared probabilities.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, s};

use super::log_probs::{LogProbConfig, check_unembedding, chunks, in_f32};
use crate::Result;

/// Computes `sum_v pi_v^2` of `pi = softmax(logits / temperature)` at every token, without a
/// gradient, in chunks as [`token_log_probs`](super::token_log_probs) does.
///
/// `hidden` is `[B, T, D]` and `unembedding` `[D, V]`. The result is `[B, T]`, with values in
/// `[1 / V, 1]`. With the probability `pi_t` of the token it gives the squared norm of the gradient
/// of its log-prob in the logits, `1 - 2 pi_t + sum_v pi_v^2`, the weight in the optimal token
/// baseline.
///
/// # Errors
/// Returns an error if the configuration is invalid or the shapes do not match.
pub fn squared_probabilities(
    hidden: Tensor<3>,
    unembedding: Tensor<2>,
    config: &LogProbConfig,
) -> Result<Tensor<2>> {
    config.validate()?;
    let [rows, width, size] = hidden.dims();
    check_unembedding(&unembedding, size)?;
    let hidden = hidden.inner().reshape([rows * width, size]);
    let unembedding = unembedding.inner();
    let sums: Vec<Tensor<1>> = chunks(rows * width, config.chunk)
        .map(|(from, to)| {
            let logits = hidden
                .clone()
                .slice(s![from..to, ..])
                .matmul(unembedding.clone());
            let p = softmax(in_f32(logits).div_scalar(config.temperature), 1);
            (p.clone() * p).sum_dim(1).squeeze_dim(1)
        })
        .collect();
    Ok(Tensor::cat(sums, 0).reshape([rows, width]))
}
