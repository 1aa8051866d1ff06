//! A rollout that has nothing to be compared with.

use serde::{Deserialize, Serialize};

use super::moments::scored_groups;
use crate::Result;

/// What becomes of the only scored rollout of its group.
///
/// The frameworks disagree: TRL refuses groups of one, NeMo-RL, prime-rl, SkyRL's RLOO and verl's `rloo_vectorized` give 0, while verl's
/// `grpo`, `rloo`, `opo`, `gpg` and `reinforce_plus_plus_baseline` take the mean as 0 and the standard deviation as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SingletonGroup {
    /// Its advantage is 0: without a comparison there is no better and no worse. The default.
    #[default]
    Zero,
    /// Its baseline is 0: the advantage is its bare score, as in verl. Reinforces every rollout of positive reward.
    Score,
}

impl SingletonGroup {
    /// Puts `scale * reward` where the convention asks for the bare score; everything else stays.
    pub(super) fn apply(
        self,
        mut advantages: Vec<f64>,
        rewards: &[Option<f64>],
        groups: &[usize],
        scale: f64,
    ) -> Result<Vec<f64>> {
        if self == Self::Score {
            for group in scored_groups(rewards, groups)? {
                if let [(only, reward)] = group.rollouts[..] {
                    advantages[only] = scale * reward;
                }
            }
        }
        Ok(advantages)
    }
}
