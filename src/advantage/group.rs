//! Group mean and group standard deviation: the advantage of GRPO.

use serde::{Deserialize, Serialize};

use super::estimator::refuse_kl_beside_group_std;
use super::moments::{check_epsilon, check_floor, per_group};
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::Result;

/// The advantage of GRPO: rewards standardised within their group, see [`group_normalized`].
///
/// GRPO (arXiv 2402.03300, section 4.1.2). It does not go with a KL penalty inside the rewards, where the noise of the penalties would be
/// standardised in groups whose rewards are all equal. The defaults are TRL's `scale_rewards="group"`; verl's `grpo` has `epsilon` 1e-6 and
/// `singleton` `score`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// Added to the standard deviation, 0 or more. Default 1e-4.
    pub epsilon: f64,
    /// The smallest standard deviation that is divided by, above 0. Default 1e-6.
    pub floor: f64,
    /// What the only scored rollout of a group gets: 0, or its reward over `1 + epsilon`. Default 0.
    pub singleton: SingletonGroup,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            epsilon: 1e-4,
            floor: 1e-6,
            singleton: SingletonGroup::Zero,
        }
    }
}

impl AdvantageEstimator for Group {
    fn name(&self) -> &str {
        "group"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        Advantages::per_rollout(input, |scores, groups| {
            let advantages = group_normalized(scores, groups, self.epsilon, self.floor)?;
            let scale = 1.0 / (self.floor.max(1.0) + self.epsilon);
            self.singleton.apply(advantages, scores, groups, scale)
        })
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        refuse_kl_beside_group_std(self.name())
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("group.epsilon", self.epsilon)?;
        check_floor("group.floor", self.floor)
    }
}

/// `A_i = (r_i - mean_g) / (max(std_g, floor) + epsilon)`
///
/// with the mean and the unbiased standard deviation (divisor `n - 1`) of the scored rewards of the group `g` of rollout `i`.
/// `rewards`, `groups` and the result are `[N]`. GRPO (arXiv 2402.03300, section 4.1.2).
///
/// - Exactly 0 for `None`, for a group whose scored rewards are all equal, and for a group with one scored rollout: it has
///   nothing to be compared with. (TRL refuses groups of one; verl gives them the bare reward: [`SingletonGroup`].)
/// - The floor bounds what an almost flat group can do: no difference `d` grows beyond `d / floor`. At the default of 1e-6
///   the rounding of rewards of order 1, about 1e-16, stays below 1e-9 even with `epsilon = 0`, while a real difference of
///   1e-5 is still standardised in full.
///
/// # Errors
///
/// Slices of different lengths, rewards that are not finite, a negative `epsilon`, a `floor` that is not above 0.
pub fn group_normalized(
    rewards: &[Option<f64>],
    groups: &[usize],
    epsilon: f64,
    floor: f64,
) -> Result<Vec<f64>> {
    check_epsilon("epsilon", epsilon)?;
    check_floor("floor", floor)?;
    per_group(rewards, groups, |group, reward| {
        group.centered(reward) / (group.std.max(floor) + epsilon)
    })
}
