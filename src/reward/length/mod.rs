//! Rewards for the length of a completion, some of which depend on whether the answer is right.

mod cosine;
mod kimi;
mod overlong;

pub use cosine::CosineLengthReward;
pub use kimi::KimiLengthReward;
pub use overlong::SoftOverlongReward;

use super::{GroupInput, RewardError, RewardInput};

/// The unit in which the length of a completion is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LengthUnit {
    /// Tokens that the policy sampled, including the stop token. The default.
    #[default]
    Tokens,
    /// Characters (Unicode scalar values) of the text, without the stop token.
    Characters,
}

impl LengthUnit {
    fn of(self, input: &RewardInput) -> usize {
        match self {
            Self::Tokens => input.length(),
            Self::Characters => input.completion().chars().count(),
        }
    }
}

/// The reward that decides whether an answer is right.
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
    /// Whether each answer of a group is right; `None` if the reward gave no number.
    fn of(&self, group: &GroupInput) -> Result<Vec<Option<bool>>, RewardError> {
        let scores = group.scores(&self.reward)?.iter();
        let right = |score: &Option<f64>| score.map(|score| score >= self.at_least);
        Ok(scores.map(right).collect())
    }
}
