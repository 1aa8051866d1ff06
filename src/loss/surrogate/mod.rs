//! The term that is minimised at each token. A new one is one file here and one line in [`Surrogate`].

mod ppo_clip;
mod reinforce;

use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

pub use ppo_clip::PpoClip;
pub use reinforce::Reinforce;

use super::RatioLevel;
use crate::Result;

/// What a surrogate sees; every tensor `[B, T]` and zero at padding.
#[derive(Clone, Debug)]
pub struct SurrogateInput {
    /// `ln pi(y_t)`, carries the gradient.
    pub log_probs: Tensor<2>,
    /// `ln r_t` at the objective's [`RatioLevel`], carries the gradient.
    pub log_ratio: Tensor<2>,
    /// `A_t`, constant.
    pub advantages: Tensor<2>,
}

/// What a surrogate gives.
#[derive(Clone, Debug)]
pub struct SurrogateTerm {
    /// The loss of every token, to be minimised, `[B, T]`.
    pub loss: Tensor<2>,
    /// Tokens held back from falling further (A < 0), if the surrogate clips.
    pub clipped_low: Option<Tensor<2, Bool>>,
    /// Tokens held back from rising further (A > 0), if the surrogate clips.
    pub clipped_high: Option<Tensor<2, Bool>>,
}

/// The published surrogates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surrogate {
    /// The clipped ratio of PPO, GRPO and most of their relatives.
    PpoClip(PpoClip),
    /// The plain policy gradient.
    Reinforce(Reinforce),
}

impl Surrogate {
    /// Refuses settings that make no sense by themselves or with the ratio level.
    pub(super) fn validate(&self, level: RatioLevel) -> Result<()> {
        match self {
            Self::PpoClip(surrogate) => surrogate.validate(),
            Self::Reinforce(surrogate) => surrogate.validate(level),
        }
    }

    /// The term of every token.
    pub(super) fn term(&self, input: &SurrogateInput) -> SurrogateTerm {
        match self {
            Self::PpoClip(surrogate) => surrogate.term(input),
            Self::Reinforce(surrogate) => surrogate.term(input),
        }
    }
}
