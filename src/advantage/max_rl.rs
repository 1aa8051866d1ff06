//! Group mean as baseline and as scale: the advantage of MaxRL.

use serde::{Deserialize, Serialize};

use super::estimator::kl_error;
use super::moments::{check_epsilon, per_group};
use super::{AdvantageEstimator, AdvantageInput, Advantages};
use crate::{Error, Result};

/// The advantage of MaxRL: centred rewards, divided by the mean of the group.
///
/// ```text
/// A_i = (r_i - mean_g) / (mean_g + epsilon)
/// ```
///
/// with the mean of the scored rewards of the group `g` of rollout `i`. Exactly 0 for `None`, for a
/// group whose scored rewards are all equal, and for a group with one scored rollout.
///
/// MaxRL (arXiv 2602.02710), as in SkyRL and prime-rl. With rewards of 0 and 1, dividing by the
/// share of correct answers turns the gradient of the success probability into that of its
/// logarithm, which weights hard problems up.
///
/// Token rewards are added to the outcome; a total below 0 is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaxRl {
    /// Added to the mean, 0 or more. Default 1e-6, as in SkyRL.
    pub epsilon: f64,
}

impl Default for MaxRl {
    fn default() -> Self {
        Self { epsilon: 1e-6 }
    }
}

impl AdvantageEstimator for MaxRl {
    fn name(&self) -> &str {
        "max_rl"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        Advantages::per_rollout(input, |scores, groups| {
            mean_normalized(scores, groups, self.epsilon)
        })
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        let reason =
            "it divides by the mean of the group, and a reward minus a penalty may be negative";
        Err(kl_error(self.name(), reason))
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("max_rl.epsilon", self.epsilon)
    }
}

/// The formula of [`MaxRl`]; `rewards`, `groups` and the result are `[N]`.
pub(super) fn mean_normalized(
    rewards: &[Option<f64>],
    groups: &[usize],
    epsilon: f64,
) -> Result<Vec<f64>> {
    check_epsilon("epsilon", epsilon)?;
    let below = |reward: &Option<f64>| reward.is_some_and(|reward| reward < 0.0);
    if let Some(rollout) = rewards.iter().position(below) {
        return Err(Error::config(
            format!("rewards[{rollout}]"),
            rewards[rollout].unwrap_or(f64::NAN),
            "0 or more: `max_rl` divides by the mean of the group",
        ));
    }
    per_group(rewards, groups, |group, reward| {
        if group.flat {
            return 0.0;
        }
        // Non-negative rewards that are not all equal have a mean above 0.
        group.centered(reward) / (group.mean + epsilon)
    })
}
