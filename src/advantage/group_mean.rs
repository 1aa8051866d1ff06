//! Group mean without division by the standard deviation: the advantage of Dr. GRPO.

use serde::{Deserialize, Serialize};

use super::moments::per_group;
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::Result;

/// The advantage of Dr. GRPO: rewards minus the mean of their group.
///
/// ```text
/// A_i = r_i - mean_g
/// ```
///
/// with the mean of the scored rewards of the group `g` of rollout `i`. Exactly 0 for `None`, for a
/// group whose scored rewards are all equal, and for a group with one scored rollout. (verl gives a
/// group of one the raw reward: [`SingletonGroup`].)
///
/// Dr. GRPO (arXiv 2503.20783, section 3.2). TRL's `scale_rewards="none"`, verl's
/// `norm_adv_by_std_in_grpo=False` (with `singleton` `score`). The scale is that of the rewards, so
/// easy and hard prompts are not weighted up.
///
/// ```
/// use rlvr::advantage::{AdvantageEstimator, AdvantageInput, GroupMean};
///
/// let rewards = [Some(6.0), Some(9.0), None, Some(3.0), Some(12.0)];
/// let input = AdvantageInput::new(&rewards, &[0, 1, 0, 0, 1], &[1; 5]);
/// let advantages = GroupMean::default().estimate(&input)?;
/// assert_eq!(
///     advantages.per_token,
///     [[1.5], [-1.5], [0.0], [-1.5], [1.5]].map(Vec::from)
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupMean {
    /// The advantage of the only scored rollout of a group: 0, or its raw reward. Default 0.
    pub singleton: SingletonGroup,
}

impl AdvantageEstimator for GroupMean {
    fn name(&self) -> &str {
        "group_mean"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        Advantages::per_rollout(input, |scores, groups| {
            let advantages = group_centered(scores, groups)?;
            self.singleton.apply(advantages, scores, groups, 1.0)
        })
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }
}

/// The formula of [`GroupMean`]; `rewards`, `groups` and the result are `[N]`.
pub(super) fn group_centered(rewards: &[Option<f64>], groups: &[usize]) -> Result<Vec<f64>> {
    per_group(rewards, groups, |group, reward| group.centered(reward))
}
