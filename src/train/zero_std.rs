//! Detection of groups whose rewards are all equal, as in TRL.

use std::collections::BTreeMap;

use crate::Result;
use crate::advantage::GroupStatistics;

/// A standard deviation up to this is the rounding error of a weighted sum; the tolerance of TRL's
/// `torch.isclose`.
const ZERO_STD: f64 = 1e-8;

/// Returns for each rollout, `[N]`, whether the standard deviation of its group's rewards is 0:
/// TRL's `is_std_zero`.
///
/// `rewards` and `groups` are `[N]`. The standard deviation is unbiased and over the scored
/// rollouts of the group. Up to 1e-8 counts as 0, because equal totals of different terms may
/// differ by rounding. The result is false if the deviation is undefined, because fewer than two of
/// several rollouts are scored, and true for a group of one, as in TRL.
///
/// With a single group (`&vec![0; n]`) it is the flag that TRL reports with
/// `scale_rewards="batch"`.
///
/// Such a group has no gradient with any estimator that compares within the group; DAPO (arXiv
/// 2503.14476, section 3.2) replaces it by another problem.
///
/// # Errors
/// Returns an error if the slices differ in length, or a reward is not finite.
///
/// ```
/// use rlvr::train::zero_std;
///
/// let rewards = [Some(1.0), Some(1.0), Some(0.0), Some(1.0), None, Some(1.0)];
/// let flags = zero_std(&rewards, &[0, 0, 1, 1, 2, 2])?;
/// assert_eq!(flags, [true, true, false, false, false, false]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn zero_std(rewards: &[Option<f64>], groups: &[usize]) -> Result<Vec<bool>> {
    GroupStatistics::of(rewards, groups)?;
    let mut members = BTreeMap::<usize, Vec<usize>>::new();
    for (rollout, group) in groups.iter().enumerate() {
        members.entry(*group).or_default().push(rollout);
    }
    let mut flags = vec![false; rewards.len()];
    for rollouts in members.values() {
        let own: Vec<Option<f64>> = rollouts.iter().map(|&i| rewards[i]).collect();
        let spread = GroupStatistics::of(&own, &vec![0; own.len()])?;
        let several = own.len() - spread.unscored > 1;
        let flag = own.len() == 1 || (several && spread.mean_std <= ZERO_STD);
        rollouts.iter().for_each(|&i| flags[i] = flag);
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_that_differ_by_rounding_count_as_equal() {
        // 0.1 + 0.2 is not 0.3.
        let rewards = [Some(0.1 + 0.2), Some(0.3), Some(0.3), Some(0.3 + 1e-6)];
        assert_eq!(
            zero_std(&rewards, &[0, 0, 1, 1]).unwrap(),
            [true, true, false, false]
        );
        assert_eq!(zero_std(&rewards, &[0; 4]).unwrap(), [false; 4]);
        assert_eq!(
            zero_std(&[Some(1.0), None, None], &[0, 0, 1]).unwrap(),
            [false, false, true]
        );
    }
}
