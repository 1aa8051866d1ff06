//! Only the best of a group is reinforced: an advantage for pass@k.

use serde::{Deserialize, Serialize};

use super::estimator::reject_kl_with_group_std;
use super::moments::{check_epsilon, check_floor, scored_groups};
use super::{AdvantageEstimator, AdvantageInput, Advantages};
use crate::Result;

/// An advantage for pass@k: only the best rollout of a group is reinforced, by its margin over the
/// second best.
///
/// ```text
/// A_i = (r_i - max_{j in g, j != i} r_j) / (max(std_g, floor) + epsilon)
///       for the best rollout of a group, 0 for the others
/// ```
///
/// This is the marginal contribution of the best rollout to the maximum of the group. Exactly 0 for
/// `None`, if several rollouts tie for the best, and for a group with one scored rollout (verl
/// raises an error).
///
/// *Optimizing Language Models for Inference Time Objectives using Reinforcement Learning* (arXiv
/// 2503.19595), with `k` the size of the group; verl's `grpo_passk`. With rewards of 0 and 1, only
/// groups with exactly one correct answer have a gradient.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PassAtK {
    /// Whether the margin is divided by the standard deviation of the group. Default true, as in
    /// verl.
    pub normalize: bool,
    /// Added to the standard deviation, 0 or more. Default 1e-6, as in verl.
    pub epsilon: f64,
    /// The smallest divisor before `epsilon` is added, above 0. Default 1e-6.
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
        Advantages::per_rollout(input, |scores, groups| self.advantages(scores, groups))
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        match self.normalize {
            true => reject_kl_with_group_std(self.name()),
            false => Ok(()),
        }
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("pass_at_k.epsilon", self.epsilon)?;
        check_floor("pass_at_k.floor", self.floor)
    }
}

impl PassAtK {
    fn advantages(&self, scores: &[Option<f64>], groups: &[usize]) -> Result<Vec<f64>> {
        let mut advantages = vec![0.0; scores.len()];
        for group in scored_groups(scores, groups)? {
            if let Some((winner, lead)) = max_minus_second(group.rollouts) {
                let scale = match self.normalize {
                    true => group.moments.std.max(self.floor) + self.epsilon,
                    false => 1.0,
                };
                advantages[winner] = lead / scale;
            }
        }
        Ok(advantages)
    }
}

/// Returns the best rollout of a group and its margin over the second best; `None` for a single
/// rollout.
fn max_minus_second(mut rollouts: Vec<(usize, f64)>) -> Option<(usize, f64)> {
    rollouts.sort_by(|a, b| b.1.total_cmp(&a.1));
    match rollouts[..] {
        [(winner, best), (_, second), ..] => Some((winner, best - second)),
        _ => None,
    }
}
