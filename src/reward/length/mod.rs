//! Takes a completion's length, and whether it is right; says whether it is too long.

mod cosine;
mod kimi;
mod overlong;

pub use cosine::CosineLengthReward;
pub use kimi::KimiLengthReward;
pub use overlong::SoftOverlongReward;

use super::{GroupInput, RewardError, RewardInput};

/// What a length is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LengthUnit {
    /// Tokens as sampled, the stop token included. The default.
    #[default]
    Tokens,
    /// Characters of the text.
    Characters,
}

impl LengthUnit {
    fn of(self, input: &RewardInput) -> usize {
        match self {
            Self::Tokens => input.tokens,
            Self::Characters => input.completion.chars().count(),
        }
    }
}

/// Whose word it is that an answer is right.
#[derive(Clone, Debug)]
struct Verdict {
    reward: String,
    at_least: f64,
}

impl Default for Verdict {
    fn default() -> Self {
        Self {
            reward: "accuracy".into(),
            at_least: 1.0,
        }
    }
}

impl Verdict {
    /// Whether each answer of a group is right; `None` where the reward gave no number.
    fn of(&self, group: &GroupInput) -> Result<Vec<Option<bool>>, RewardError> {
        let scores = group.scores(&self.reward)?.iter();
        let right = |score: &Option<f64>| score.map(|score| score >= self.at_least);
        Ok(scores.map(right).collect())
    }
}
