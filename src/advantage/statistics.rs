//! How the scores of a batch are spread: is there anything to learn from?

use serde::{Deserialize, Serialize};

use super::moments::{check_rewards, group_moments, members};
use crate::Result;

/// Below this a standard deviation is the rounding of a weighted sum; the tolerance of TRL's `torch.isclose`.
const ZERO_STD: f64 = 1e-8;

/// How the scores of a batch were spread over its groups: is there anything to learn from?
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatistics {
    /// Groups in the batch, with or without a scored rollout.
    pub groups: usize,
    /// Groups with at least one scored rollout.
    pub scored_groups: usize,
    /// Groups with at least one scored rollout, all of whose scores are equal: they teach nothing. A group with a single
    /// scored rollout is one of them.
    pub zero_std_groups: usize,
    /// Rollouts that could not be scored.
    pub unscored: usize,
    /// The unbiased standard deviation of the scores within a group, averaged over the groups with two or more scored
    /// rollouts; 0 if there is no such group.
    pub mean_std: f64,
}

impl GroupStatistics {
    /// The statistics of `scores` `[N]` in `groups` `[N]`.
    pub fn of(scores: &[Option<f64>], groups: &[usize]) -> Result<Self> {
        check_rewards(scores, groups)?;
        let members = members(groups);
        let mut statistics = Self {
            groups: members.len(),
            unscored: scores.iter().filter(|score| score.is_none()).count(),
            ..Self::default()
        };
        let mut spread = 0;
        for (group, rollouts) in &members {
            if let Some(moments) = group_moments(scores, *group, rollouts)? {
                statistics.scored_groups += 1;
                statistics.zero_std_groups += usize::from(moments.flat);
                if moments.count > 1 {
                    spread += 1;
                    statistics.mean_std += moments.std;
                }
            }
        }
        statistics.mean_std /= f64::from(spread.max(1));
        Ok(statistics)
    }

    /// `zero_std_groups / scored_groups`, TRL's `frac_reward_zero_std`; `None` if nothing was scored.
    pub fn frac_zero_std(&self) -> Option<f64> {
        let share = self.zero_std_groups as f64 / self.scored_groups as f64;
        (self.scored_groups > 0).then_some(share)
    }
}

/// `[N]` Whether the standard deviation of a rollout's group is 0, TRL's `is_std_zero`.
///
/// `rewards` and `groups` are `[N]`. The standard deviation is unbiased and over the scored rollouts of the group; "0" is up to
/// 1e-8, so that equal sums of unequal parts count as equal. False where it is undefined, that is, where fewer than two of
/// several rollouts are scored; true for a group of one, where TRL sets it to 0.
///
/// With one group for all (`&vec![0; n]`) it is the flag that TRL reports under `scale_rewards="batch"`.
///
/// Such a group has no gradient under any estimator that compares within the group: DAPO (arXiv 2503.14476, section 3.2)
/// drops it and asks another problem.
///
/// # Errors
///
/// Slices of different lengths, rewards that are not finite.
///
/// ```
/// use rlvr::advantage::zero_std;
///
/// let rewards = [Some(1.0), Some(1.0), Some(0.0), Some(1.0), None, Some(1.0)];
/// let flags = zero_std(&rewards, &[0, 0, 1, 1, 2, 2])?;
/// assert_eq!(flags, [true, true, false, false, false, false]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn zero_std(rewards: &[Option<f64>], groups: &[usize]) -> Result<Vec<bool>> {
    check_rewards(rewards, groups)?;
    let mut flags = vec![false; rewards.len()];
    for (group, rollouts) in members(groups) {
        let moments = group_moments(rewards, group, &rollouts)?;
        let spread = moments.filter(|moments| moments.count > 1);
        let flag = rollouts.len() == 1 || spread.is_some_and(|moments| moments.std <= ZERO_STD);
        for rollout in rollouts {
            flags[rollout] = flag;
        }
    }
    Ok(flags)
}
