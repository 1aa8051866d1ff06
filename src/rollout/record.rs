//! What was answered: one completion with everything that is known about it.

use serde::{Deserialize, Serialize};

/// Why a completion ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The policy sampled a stop token; the stop token is the last token of the completion.
    Stop,
    /// The completion reached the length limit and was cut off.
    Length,
}

/// What became of one reward on one rollout. A reward that gave no number is never a silent zero.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardOutcome {
    /// A finite number, before its weight.
    Score(f64),
    /// The reward does not apply to this rollout.
    Abstained,
    /// The reward reported an error, or a number that is not finite.
    Failed(String),
    /// The reward panicked, with its message.
    Panicked(String),
    /// The reward took longer than the limit, in seconds.
    TimedOut(f64),
}

impl RewardOutcome {
    /// The number, if one was given.
    pub fn score(&self) -> Option<f64> {
        match self {
            Self::Score(score) => Some(*score),
            _ => None,
        }
    }

    /// Whether the reward broke: an error, a panic or a time-out. Abstaining is not a failure.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Score(_) | Self::Abstained)
    }
}

/// One named reward of one rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRecord {
    /// The reward's name, unique in its set.
    pub name: String,
    /// Its weight in the total.
    pub weight: f64,
    /// What became of it.
    pub outcome: RewardOutcome,
}

/// One sampled completion, as it was when it was sampled.
///
/// The tokens are those that were sampled, never a re-tokenised text, and every one of them is
/// trained on: the completion mask of a batch comes from here, not from looking for padding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Completion tokens as sampled, the stop token included.
    pub tokens: Vec<u32>,
    /// Natural logarithm of each token's probability under the distribution that it was sampled
    /// from, temperature and truncation included; as long as `tokens`.
    pub log_probs: Vec<f32>,
    /// Sum over the tokens of the policy's entropy when each was drawn, in nats.
    pub entropy: f64,
    /// The completion as text, stop token excluded.
    pub text: String,
    /// Why it ended.
    pub finish: FinishReason,
    /// Which policy spoke: the number of optimizer updates before it.
    pub policy_version: u64,
    /// Which of the group's samples this is; part of the address of its randomness.
    pub sample: usize,
    /// Every reward by name; empty until scored.
    pub rewards: Vec<RewardRecord>,
    /// The weighted total; `None` if no reward could be given (such a rollout is not learned from).
    pub reward: Option<f64>,
    /// Rewards of the single tokens on top of `reward`, as long as `tokens`; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_rewards: Vec<f64>,
}

impl Rollout {
    /// The total and the rewards of the tokens together; `None` if no reward could be given.
    pub fn total_reward(&self) -> Option<f64> {
        self.reward
            .map(|reward| reward + self.token_rewards.iter().sum::<f64>())
    }

    /// The unweighted score of the reward called `name`, if it gave one.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.rewards
            .iter()
            .find(|record| record.name == name)
            .and_then(|record| record.outcome.score())
    }

    /// Whether the length limit cut the completion off.
    pub fn is_truncated(&self) -> bool {
        self.finish == FinishReason::Length
    }
}
