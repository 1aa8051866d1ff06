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

impl RatioLevel {
    /// The log-ratio `[B, T]` of every token; `difference` is zero at padding.
    pub(super) fn log_ratio(&self, difference: Tensor<2>, mask: &Tensor<2>) -> Tensor<2> {
        match self {
            Self::Token => difference,
            Self::Sequence => {
                let shape = difference.dims();
                let lengths = mask.clone().sum_dim(1).clamp_min(1.0);
                (difference.sum_dim(1) / lengths).expand(shape)
            }
        }
    }
}
