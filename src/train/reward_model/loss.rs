//! The losses of a reward model, one number per example.

use burn::tensor::Tensor;
use burn::tensor::activation::log_sigmoid;

/// `-log sigmoid(chosen - rejected - margin)`, `[N]` each.
pub(super) fn pairwise(chosen: Tensor<1>, rejected: Tensor<1>, margin: Tensor<1>) -> Tensor<1> {
    -log_sigmoid(chosen - rejected - margin)
}

/// `(chosen + rejected)^2`, `[N]` each.
pub(super) fn centering(chosen: Tensor<1>, rejected: Tensor<1>) -> Tensor<1> {
    (chosen + rejected).square()
}

/// `-label log sigmoid(score) - (1 - label) log sigmoid(-score)`, `[N]` each.
///
/// As `log sigmoid(-x) = log sigmoid(x) - x`, it is `(1 - label) score - log sigmoid(score)`.
pub(super) fn pointwise(score: Tensor<1>, label: Tensor<1>) -> Tensor<1> {
    score.clone() * (-label).add_scalar(1.0) - log_sigmoid(score)
}
