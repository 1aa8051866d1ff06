//! Aggregation of per-token terms to a scalar.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::input::{Cleaner, check_shape, missing};
use super::{Denominators, LossInput, StepCounts, StepStatistics};
use crate::{Error, Result, host};

/// The reduction of per-token terms `x[b,t]` with mask `m` to a scalar. `n_b` is the row's number
/// of tokens; N, S and P are the tokens, sequences and prompts of the whole optimizer step
/// ([`Denominators`]).
///
/// | | weight of a token | TRL `loss_type` | verl `loss_agg_mode` |
/// |---|---|---|---|
/// | `TokenMean` | `1 / N` | `dapo`, `cispo`, `vespo`; `bnpo` with N of the micro-batch | `token-mean` |
/// | `TokenSum` | 1 | - | `token-sum` |
/// | `SequenceMeanTokenMean` | `1 / (n_b S)` | `grpo`, `sapo` | `seq-mean-token-mean` |
/// | `SequenceMeanTokenSum` | `1 / S` | `luspo` | `seq-mean-token-sum` |
/// | `Constant` | `1 / (S length)` | `dr_grpo` | `seq-mean-token-sum-norm` |
/// | `PromptMean` | `1 / (N_p P)`, `N_p` the tokens of the prompt's whole group | - | - (SkyRL `prompt_mean`) |
#[doc(alias("loss_type", "loss_agg_mode"))]
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Aggregation {
    /// `sum x m / N`: equal weight per token (DAPO, arXiv 2503.14476).
    TokenMean,
    /// `sum x m`: not normalised; the learning rate sets the scale.
    TokenSum,
    /// `sum_b (sum_t x m / n_b) / S`: equal weight per completion (GRPO, arXiv 2402.03300).
    SequenceMeanTokenMean,
    /// `sum_b (sum_t x m) / S`: weight proportional to the length of the completion.
    SequenceMeanTokenSum,
    /// `sum x m / (S length)`: a constant denominator, so the length of a completion does not
    /// change the weight of its tokens (Dr. GRPO, arXiv 2503.20783).
    Constant {
        /// The constant, in tokens; usually the completion limit.
        length: usize,
    },
    /// `sum_p (sum_{b in p} sum_t x m / N_p) / P`: equal weight per prompt, and per token within a
    /// prompt.
    PromptMean,
}

impl Aggregation {
    /// Rejects a constant of zero.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
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

    /// Returns the share `[1]` of a micro-batch in the aggregate of `terms` `[B, T]` over a whole
    /// optimizer step of `counts`. The shares of all micro-batches sum to the aggregate, however
    /// the step is split. Values at padding are ignored, even NaN.
    ///
    /// # Errors
    /// Returns an error if the aggregation is invalid, if the shapes differ, or for the prompt
    /// mean, which needs the prompts.
    pub fn sum(&self, terms: Tensor<2>, mask: &Tensor<2>, counts: StepCounts) -> Result<Tensor<1>> {
        self.validate()?;
        check_shape("mask", Some(mask), terms.dims(), "as the terms")?;
        let mask = mask.clone().inner();
        let terms = Cleaner::new(&mask).clean(&terms);
        Ok((terms * self.weights(&mask, None, counts.into())?).sum())
    }

    /// Returns the weight `[B, T]` of every token, 0 at padding. The scalar is the sum of terms
    /// times weights.
    ///
    /// `prompt_tokens` `[B, 1]` is the number of tokens of each row's prompt in the step; for the
    /// prompt mean only.
    pub(super) fn weights(
        &self,
        mask: &Tensor<2>,
        prompt_tokens: Option<&Tensor<2>>,
        denominators: Denominators,
    ) -> Result<Tensor<2>> {
        // A step without tokens has a loss of 0, not 0/0.
        let or_one = |count: f64| if count > 0.0 { count } else { 1.0 };
        let tokens = or_one(denominators.tokens);
        let sequences = or_one(denominators.sequences);
        let mask = mask.clone();
        Ok(match *self {
            Self::TokenMean => mask.div_scalar(tokens),
            Self::TokenSum => mask,
            Self::SequenceMeanTokenMean => {
                let lengths = mask.clone().sum_dim(1).clamp_min(1.0);
                (mask / lengths).div_scalar(sequences)
            }
            Self::SequenceMeanTokenSum => mask.div_scalar(sequences),
            Self::Constant { length } => mask.div_scalar(sequences * length as f64),
            Self::PromptMean => {
                let lengths = prompt_tokens.ok_or_else(|| missing("prompts", PROMPT_MEAN))?;
                (mask / lengths.clone().clamp_min(1.0)).div_scalar(or_one(denominators.prompts))
            }
        })
    }
}

/// The name of the prompt mean in errors.
pub(super) const PROMPT_MEAN: &str = "the aggregation prompt_mean";

/// Returns the number of tokens `[B, 1]` of each row's prompt in the whole step.
pub(super) fn prompt_tokens(input: &LossInput, step: &StepStatistics) -> Result<Tensor<2>> {
    let Some(prompts) = &input.prompts else {
        return Err(missing("prompts", PROMPT_MEAN));
    };
    let Some(tokens) = &step.prompt_tokens else {
        return Err(super::evaluate::needs_statistics(
            "prompt_tokens",
            PROMPT_MEAN,
        ));
    };
    let count = |prompt| tokens.get(prompt).copied().unwrap_or(0) as f64;
    let counts: Vec<[f64; 1]> = prompts.iter().map(|prompt| [count(prompt)]).collect();
    Ok(host::float_rows(&counts, 1, &input.mask.device()))
}
