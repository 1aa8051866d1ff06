//! What an environment paid, as rewards.

use crate::reward::{Reward, RewardError, RewardInput, TokenReward};
use crate::types::{EpisodeEnd, EpisodeRecord};

/// The sum of an episode's rewards as the outcome of its rollout: a [`Reward`] for a reward set.
///
/// It abstains if the environment gave no reward, and fails if the environment failed, so that the rollout is not learned from.
/// With [`TurnRewards`] beside it, give it the weight 0: it is then recorded and not counted twice.
#[derive(Clone, Debug)]
pub struct EpisodeReward {
    name: String,
}

impl EpisodeReward {
    /// The reward, recorded under this name; usually that of the environment.
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

/// The reward of each turn at the last token of its reply: a [`TokenReward`] for estimators that discount over time.
///
/// A turn without a reward is worth 0. It fails if the environment failed.
#[derive(Clone, Debug)]
pub struct TurnRewards {
    name: String,
}

impl TurnRewards {
    /// The rewards, recorded under this name.
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
    let episode = episode.ok_or("the rollout is of no episode; give the trainer an agent loop")?;
    match &episode.end {
        EpisodeEnd::Failed(reason) => Err(format!("the environment failed: {reason}").into()),
        _ => Ok(episode),
    }
}
