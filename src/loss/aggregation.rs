//! How per-token losses become one number.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What one optimizer step consists of, over all of its micro-batches: the denominators of its loss.
///
/// Counted once and handed to every micro-batch, they make the sum of the micro-batch losses the loss of
/// the whole, however it is split, padded or ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepCounts {
    /// Tokens that are learned from.
    pub tokens: usize,
    /// Completions. Whether one without a token counts is decided by who counts: TRL counts it, verl
    /// does not.
    pub sequences: usize,
}

impl StepCounts {
    /// The counts of completions with the given numbers of tokens.
    pub fn of(lengths: &[usize]) -> Self {
        Self {
            tokens: lengths.iter().sum(),
            sequences: lengths.len(),
        }
    }
}

/// How per-token terms `x[b,t]` with mask `m` become a scalar; `n_b` is the row's number of tokens, N and S are
/// the tokens and sequences of the whole optimizer step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Aggregation {
    /// `sum x m / N`: every token weighs the same (DAPO, arXiv 2503.14476).
    TokenMean,
    /// `sum_b (sum_t x m / n_b) / S`: every completion weighs the same (GRPO, arXiv 2402.03300).
    SequenceMeanTokenMean,
    /// `sum_b (sum_t x m) / S`: long completions weigh more.
    SequenceMeanTokenSum,
    /// `sum x m / (S length)`: a constant, so that length changes no weight (Dr. GRPO, arXiv 2503.20783).
    Constant {
        /// The constant, in tokens; usually the completion limit.
        length: usize,
    },
}

impl Aggregation {
    /// Refuses a constant of zero.
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Constant { length: 0 } => Err(Error::config(
                "aggregation.constant.length",
                0,
                "at least 1 token, usually max_new_tokens",
            )),
            _ => Ok(()),
        }
    }

    /// The weight `[B, T]` of every token; 0 at padding. The scalar is the sum of terms times weights.
    pub(super) fn weights(&self, mask: &Tensor<2>, counts: StepCounts) -> Tensor<2> {
        // A step without tokens has a loss of 0, not 0/0.
        let tokens = counts.tokens.max(1) as f64;
        let sequences = counts.sequences.max(1) as f64;
        match *self {
            Self::TokenMean => mask.clone().div_scalar(tokens),
            Self::SequenceMeanTokenMean => {
                let lengths = mask.clone().sum_dim(1).clamp_min(1.0);
                (mask.clone() / lengths).div_scalar(sequences)
            }
            Self::SequenceMeanTokenSum => mask.clone().div_scalar(sequences),
            Self::Constant { length } => mask.clone().div_scalar(sequences * length as f64),
        }
    }
}
