//! The mean of the others as the baseline: the advantage of RLOO.

use serde::{Deserialize, Serialize};

use super::moments::per_group;
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::Result;

/// The advantage of RLOO: rewards minus the mean of the *other* rewards of their group.
///
/// ```text
/// A_i = r_i - sum_{j in g, j != i} r_j / (n - 1) = n / (n - 1) * (r_i - mean_g)
/// ```
///
/// over the `n` scored rewards of the group `g` of rollout `i`. Exactly 0 for `None`, for a group
/// whose scored rewards are all equal, and for a group with one scored rollout.
///
/// RLOO (arXiv 2402.14740). The baseline does not depend on the rollout it is subtracted from, so
/// the on-policy gradient is unbiased; [`GroupMean`](super::GroupMean) is the same times
/// `(n - 1) / n`.
///
/// verl has both conventions for a group of one: its `rloo` is `singleton` `score`, its
/// `rloo_vectorized` is `zero`. TRL's RLOO raises an error for such groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LeaveOneOut {
    /// The advantage of the only scored rollout of a group: 0, or its raw reward. Default 0.
    pub singleton: SingletonGroup,
}

impl AdvantageEstimator for LeaveOneOut {
    fn name(&self) -> &str {
        "leave_one_out"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        Advantages::per_rollout(input, |scores, groups| {
            let advantages = leave_one_out(scores, groups)?;
            self.singleton.apply(advantages, scores, groups, 1.0)
        })
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }
}

/// The formula of [`LeaveOneOut`]; `rewards`, `groups` and the result are `[N]`.
pub(super) fn leave_one_out(rewards: &[Option<f64>], groups: &[usize]) -> Result<Vec<f64>> {
    per_group(rewards, groups, |group, reward| {
        // `centered` is exactly 0 for a group of one; `max` only avoids 1 / 0.
        let n = group.count as f64;
        n / (n - 1.0).max(1.0) * group.centered(reward)
    })
}
