//! Only the best counts: an advantage for pass@k.

use serde::{Deserialize, Serialize};

use super::estimator::refuse_kl_beside_group_std;
use super::moments::{check_epsilon, check_floor, check_rewards, group_moments, members};
use super::{AdvantageEstimator, AdvantageInput, Advantages};
use crate::Result;

/// An advantage for the best of a group: only the best rollout is reinforced, by its lead over the second, see [`lead`].
///
/// *Optimizing Language Models for Inference Time Objectives using Reinforcement Learning* (arXiv 2503.19595), with `k` the size of the group;
/// verl's `grpo_passk`. With a reward of 0 and 1 it teaches only from groups with exactly one right answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassAtK {
    /// Whether the lead is divided by the standard deviation of the group. Default true, as in verl.
    pub normalize: bool,
    /// Added to the standard deviation, 0 or more. Default 1e-6, as in verl.
    pub epsilon: f64,
    /// The smallest standard deviation that is divided by, above 0. Default 1e-6.
    pub floor: f64,
}

impl Default for PassAtK {
    fn default() -> Self {
        Self {
            normalize: true,
            epsilon: 1e-6,
            floor: 1e-6,
        }
    }
}

impl AdvantageEstimator for PassAtK {
    fn name(&self) -> &str {
        "pass_at_k"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        Advantages::per_rollout(input, |scores, groups| {
            let mut advantages = lead(scores, groups)?;
            if self.normalize {
                for (group, rollouts) in members(groups) {
                    let std = group_moments(scores, group, &rollouts)?.map_or(0.0, |m| m.std);
                    for rollout in rollouts {
                        advantages[rollout] /= std.max(self.floor) + self.epsilon;
                    }
                }
            }
            Ok(advantages)
        })
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        match self.normalize {
            true => refuse_kl_beside_group_std(self.name()),
            false => Ok(()),
        }
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("pass_at_k.epsilon", self.epsilon)?;
        check_floor("pass_at_k.floor", self.floor)
    }
}

/// `A_i = r_i - max_{j in g, j != i} r_j` for the best rollout of each group, 0 for the others.
///
/// `rewards`, `groups` and the result are `[N]`. The marginal contribution to the maximum over the group (arXiv 2503.19595):
/// without the best rollout the group would have had its second best. Exactly 0 for `None`, where several are the best, and for a
/// group with one scored rollout (verl raises an error there).
///
/// # Errors
///
/// Slices of different lengths, rewards that are not finite or too far apart.
///
/// ```
/// use rlvr::advantage::lead;
///
/// let advantages = lead(&[Some(3.0), Some(1.0), Some(2.0), Some(5.0)], &[0, 0, 0, 1])?;
/// assert_eq!(advantages, [1.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn lead(rewards: &[Option<f64>], groups: &[usize]) -> Result<Vec<f64>> {
    check_rewards(rewards, groups)?;
    let mut advantages = vec![0.0; rewards.len()];
    for (group, rollouts) in members(groups) {
        // Also refuses a spread that overflows.
        group_moments(rewards, group, &rollouts)?;
        let mut scored: Vec<(f64, usize)> = rollouts
            .iter()
            .filter_map(|i| Some((rewards[*i]?, *i)))
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        if let [(best, winner), (second, _), ..] = scored[..] {
            advantages[winner] = best - second;
        }
    }
    Ok(advantages)
}
