//! Rewards of an environment for the reward set.

use crate::reward::{Reward, RewardError, RewardInput, TokenReward};
use crate::types::{EpisodeEnd, EpisodeRecord};

/// A [`Reward`] that returns the sum of an episode's rewards.
///
/// It abstains if the environment gave no reward, and fails if the environment failed, which
/// excludes the rollout from training. If [`TurnRewards`] is used as well, give it the weight 0, so
/// that the reward is recorded but not counted twice.
#[derive(Clone, Debug)]
pub struct EpisodeReward {
    name: String,
}

impl EpisodeReward {
    /// Creates the reward. `name` appears in records; it is usually the environment's name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl Reward for EpisodeReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        Ok(episode(input)?.reward())
    }
}

/// A [`TokenReward`] that assigns the reward of each turn to the last token of its reply, for
/// estimators that discount over time.
///
/// A turn without a reward counts as 0. The reward fails if the environment failed.
#[derive(Clone, Debug)]
pub struct TurnRewards {
    name: String,
}

impl TurnRewards {
    /// Creates the reward. `name` appears in records.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

impl TokenReward for TurnRewards {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Vec<f64>, RewardError> {
        let mut rewards = Vec::with_capacity(input.length());
        for turn in &episode(input)?.turns {
            rewards.resize(rewards.len() + turn.tokens, 0.0);
            if let (Some(last), Some(reward)) = (rewards.last_mut(), turn.reward) {
                *last = reward;
            }
        }
        Ok(rewards)
    }
}

fn episode(input: &RewardInput) -> Result<&EpisodeRecord, RewardError> {
    let episode = input.rollout.episode.as_ref();
    let episode = episode.ok_or("the rollout has no episode; give the trainer an agent loop")?;
    match &episode.end {
        EpisodeEnd::Failed(reason) => Err(format!("the environment failed: {reason}").into()),
        _ => Ok(episode),
    }
}
