//! The advantage of the only scored rollout of a group.

use serde::{Deserialize, Serialize};

use super::moments::scored_groups;
use crate::Result;

/// The advantage of a rollout that is the only scored one of its group.
///
/// Frameworks differ: TRL raises an error for groups of one; NeMo-RL, prime-rl, SkyRL's RLOO and
/// verl's `rloo_vectorized` give 0; verl's `grpo`, `rloo`, `opo`, `gpg` and
/// `reinforce_plus_plus_baseline` take the mean as 0 and the standard deviation as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SingletonGroup {
    /// The advantage is 0. The default.
    #[default]
    Zero,
    /// The baseline is 0 and the advantage the raw score, as in verl. Reinforces every rollout with
    /// a positive reward.
    Score,
}

impl SingletonGroup {
    /// With [`Score`](Self::Score), sets the advantage of single scored rollouts to
    /// `scale * reward`.
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
