//! The mean weighted by length as the baseline: the advantage of OPO.

use serde::{Deserialize, Serialize};

use super::moments::{check_len, check_rewards, group_moments, members};
use super::{AdvantageEstimator, AdvantageInput, Advantages, Singleton};
use crate::Result;

/// The advantage of OPO: rewards minus the length-weighted mean of their group, see [`length_weighted`].
///
/// OPO (arXiv 2505.23585); verl's `opo` (with `singleton` `score`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opo {
    /// What the only scored rollout of a group gets: 0, or its bare reward. Default 0.
    pub singleton: Singleton,
}

impl AdvantageEstimator for Opo {
    fn name(&self) -> &str {
        "opo"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        Advantages::per_rollout(input, |scores, groups| {
            let advantages = length_weighted(scores, groups, input.lengths)?;
            self.singleton.apply(advantages, scores, groups, 1.0)
        })
    }

    fn needs_groups(&self) -> bool {
        self.singleton == Singleton::Zero
    }
}

/// `A_i = r_i - sum_{j in g} l_j r_j / sum_{j in g} l_j`
///
/// over the scored rollouts of the group `g` of rollout `i`, with `l_j` their trained tokens. `rewards`, `groups`, `lengths` and the
/// result are `[N]`. OPO (arXiv 2505.23585): the baseline of least variance, if the squared norm of a rollout's gradient grows
/// with its length and nothing else. It is meant for exactly on-policy updates.
///
/// Exactly 0 for `None`, for a group whose scored rewards are all equal, for a group with one scored rollout, and for a group
/// without tokens. Rollouts without tokens have no weight in the baseline.
///
/// # Errors
///
/// Slices of different lengths, rewards that are not finite.
///
/// ```
/// use rlvr::advantage::length_weighted;
///
/// let advantages = length_weighted(&[Some(1.0), Some(0.0)], &[0, 0], &[10, 30])?;
/// assert_eq!(advantages, [0.75, -0.25]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn length_weighted(
    rewards: &[Option<f64>],
    groups: &[usize],
    lengths: &[usize],
) -> Result<Vec<f64>> {
    check_rewards(rewards, groups)?;
    check_len("lengths", lengths.len(), rewards.len())?;
    let mut advantages = vec![0.0; rewards.len()];
    for (group, rollouts) in members(groups) {
        let Some(moments) = group_moments(rewards, group, &rollouts)? else {
            continue;
        };
        let scored = || rollouts.iter().filter_map(|i| Some((*i, rewards[*i]?)));
        let tokens: f64 = scored().map(|(i, _)| lengths[i] as f64).sum();
        if moments.flat || tokens == 0.0 {
            continue;
        }
        let baseline = scored().map(|(i, r)| lengths[i] as f64 * r).sum::<f64>() / tokens;
        for (rollout, reward) in scored() {
            advantages[rollout] = reward - baseline;
        }
    }
    Ok(advantages)
}
