//! Groups whose rewards are all equal, as TRL reports them.

use std::collections::BTreeMap;

use crate::Result;
use crate::advantage::GroupStatistics;

/// Below this a standard deviation is the rounding of a weighted sum; the tolerance of TRL's `torch.isclose`.
const ZERO_STD: f64 = 1e-8;

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
/// If the slices differ in length, or a reward is not finite.
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
    fn equal_sums_of_unequal_parts_have_no_spread() {
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
