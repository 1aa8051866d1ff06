//! The importance ratio between the policy and the one that spoke.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What the ratio `r = pi / pi_old` is taken over, with `d_t = ln pi(y_t) - ln pi_old(y_t)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RatioLevel {
    /// `r_t = exp(d_t)`, each token its own.
    #[default]
    Token,
    /// `r = exp(mean_t d_t)`, one for the completion, its gradient through the mean (GSPO, arXiv 2507.18071).
    Sequence,
}

/// Beyond `e^80` a ratio overflows f32, and a clipped infinity has a gradient of `0 * inf`. Ratios are held there, far
/// outside anything that a clip range means.
pub(super) const LARGEST_EXPONENT: f64 = 80.0;

impl RatioLevel {
    /// The log-ratio `[B, T]` of every token; `difference` is zero at padding.
    pub(super) fn log_ratio(&self, difference: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
        let log_ratio = match self {
            Self::Token => difference,
            Self::Sequence => {
                let shape = difference.dims();
                let lengths = mask.clone().sum_dim(1).clamp_min(1.0);
                (difference.sum_dim(1) / lengths).expand(shape)
            }
        };
        log_ratio.clamp_max(LARGEST_EXPONENT)
    }
}
