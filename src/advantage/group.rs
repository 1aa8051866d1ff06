//! Group mean and group standard deviation: the advantage of GRPO.

use serde::{Deserialize, Serialize};

use super::estimator::reject_kl_with_group_std;
use super::moments::{check_epsilon, check_floor, per_group};
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::Result;

/// The advantage of GRPO: rewards standardised within their group.
///
/// ```text
/// A_i = (r_i - mean_g) / (max(std_g, floor) + epsilon)
/// ```
///
/// with the mean and the unbiased standard deviation (divisor `n - 1`) of the scored rewards of the
/// group `g` of rollout `i`.
///
/// GRPO (arXiv 2402.03300, section 4.1.2). The defaults are TRL's `scale_rewards="group"`; verl's
/// `grpo` has `epsilon` 1e-6 and `singleton` `score`.
///
/// - Exactly 0 for `None`, for a group whose scored rewards are all equal, and for a group with one
///   scored rollout. (TRL raises an error for groups of one; verl gives them the raw reward:
///   [`SingletonGroup`].)
/// - The floor bounds the advantages of an almost flat group: no difference `d` grows beyond
///   `d / floor`. At the default of 1e-6 the rounding of rewards of order 1, about 1e-16, stays
///   below 1e-9 even with `epsilon = 0`, while a real difference of 1e-5 is still standardised in
///   full.
/// - A KL penalty inside the rewards is an error: in groups whose rewards are all equal the noise
///   of the penalties would be standardised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Group {
    /// Added to the standard deviation, 0 or more. Default 1e-4.
    pub epsilon: f64,
    /// The smallest divisor before `epsilon` is added, above 0. Default 1e-6.
    pub floor: f64,
    /// The advantage of the only scored rollout of a group: 0, or its reward over `1 + epsilon`.
    /// Default 0.
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
        reject_kl_with_group_std(self.name())
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("group.epsilon", self.epsilon)?;
        check_floor("group.floor", self.floor)
    }
}

/// The formula of [`Group`]; `rewards`, `groups` and the result are `[N]`.
pub(super) fn group_normalized(
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
