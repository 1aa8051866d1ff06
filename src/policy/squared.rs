//! How concentrated a distribution is: the sum of its squared probabilities.

use burn::tensor::activation::softmax;
use burn::tensor::{Tensor, s};

use super::log_probs::{LogProbConfig, chunks, in_f32};
use crate::{Error, Result};

/// `sum_v pi_v^2` of `pi = softmax(logits / temperature)` at every token, without a gradient.
///
/// `hidden` `[B, T, D]`, `unembedding` `[D, V]`, result `[B, T]`, between `1 / V` and 1. With the probability `pi_t` of the
/// token it gives the squared norm of the gradient of its log-prob in the logits, `1 - 2 pi_t + sum_v pi_v^2`, which the optimal
/// token baseline weighs by. In chunks, like [`token_log_probs`](super::token_log_probs).
///
/// # Errors
/// If the configuration is refused or the shapes do not fit.
pub fn squared_probabilities(
    hidden: Tensor<3>,
    unembedding: Tensor<2>,
    config: &LogProbConfig,
) -> Result<Tensor<2>> {
    config.validate()?;
    let [rows, width, size] = hidden.dims();
    if unembedding.dims()[0] != size {
        return Err(Error::shape(
            "unembedding",
            format!("{:?}", unembedding.dims()),
            format!("[{size}, V], as the hidden states are {size} wide"),
        ));
    }
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
