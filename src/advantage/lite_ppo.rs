//! Group mean and batch standard deviation: the advantage of Lite PPO.

use serde::{Deserialize, Serialize};

use super::moments::{Moments, check_epsilon, check_floor, check_rewards, per_group};
use super::{AdvantageEstimator, AdvantageInput, Advantages};
use crate::Result;

/// The advantage of Lite PPO: rewards minus the mean of their group, divided by the standard
/// deviation of the batch.
///
/// ```text
/// A_i = (r_i - mean_g) / (max(std, floor) + epsilon)
/// ```
///
/// with the mean of the scored rewards of the group `g` of rollout `i`, and the unbiased standard
/// deviation (divisor `n - 1`) of *all* scored rewards around their overall mean. Lite PPO (arXiv
/// 2508.08221). The defaults are TRL's `scale_rewards="batch"`.
///
/// Exactly 0 for `None`, for a group whose scored rewards are all equal, and for a group with one
/// scored rollout. The batch is the input: estimate over all rollouts of an optimizer step, not
/// over a micro-batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LitePpo {
    /// Added to the standard deviation, 0 or more. Default 1e-4.
    pub epsilon: f64,
    /// The smallest divisor before `epsilon` is added, above 0. Default 1e-6.
    pub floor: f64,
}

impl Default for LitePpo {
    fn default() -> Self {
        Self {
            epsilon: 1e-4,
            floor: 1e-6,
        }
    }
}

impl AdvantageEstimator for LitePpo {
    fn name(&self) -> &str {
        "lite_ppo"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        Advantages::per_rollout(input, |scores, groups| {
            batch_normalized(scores, groups, self.epsilon, self.floor)
        })
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("lite_ppo.epsilon", self.epsilon)?;
        check_floor("lite_ppo.floor", self.floor)
    }
}

/// The formula of [`LitePpo`]; `rewards`, `groups` and the result are `[N]`.
pub(super) fn batch_normalized(
    rewards: &[Option<f64>],
    groups: &[usize],
    epsilon: f64,
    floor: f64,
) -> Result<Vec<f64>> {
    check_epsilon("epsilon", epsilon)?;
    check_floor("floor", floor)?;
    check_rewards(rewards, groups)?;
    let scored: Vec<f64> = rewards.iter().flatten().copied().collect();
    let std = Moments::of(&scored, || "rewards".into())?.map_or(0.0, |batch| batch.std);
    per_group(rewards, groups, |group, reward| {
        group.centered(reward) / (std.max(floor) + epsilon)
    })
}
