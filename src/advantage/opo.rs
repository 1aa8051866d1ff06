//! Length-weighted group mean: the advantage of OPO.

use serde::{Deserialize, Serialize};

use super::moments::{ScoredGroup, scored_groups};
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::Result;

/// The advantage of OPO: rewards minus the length-weighted mean of their group.
///
/// ```text
/// A_i = r_i - sum_{j in g} l_j r_j / sum_{j in g} l_j
/// ```
///
/// over the scored rollouts of the group `g` of rollout `i`, with `l_j` their numbers of trained
/// tokens. OPO (arXiv 2505.23585): the minimum-variance baseline if the squared gradient norm of a
/// rollout is proportional to its length. It is meant for strictly on-policy updates. verl's `opo`
/// (with `singleton` `score`).
///
/// Exactly 0 for `None`, for a group whose scored rewards are all equal, for a group with one
/// scored rollout, and for a group without tokens. Rollouts without tokens have no weight in the
/// baseline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Opo {
    /// The advantage of the only scored rollout of a group: 0, or its raw reward. Default 0.
    pub singleton: SingletonGroup,
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
        self.singleton == SingletonGroup::Zero
    }
}

/// The formula of [`Opo`]; `rewards`, `groups`, `lengths` and the result are `[N]`.
fn length_weighted(
    rewards: &[Option<f64>],
    groups: &[usize],
    lengths: &[usize],
) -> Result<Vec<f64>> {
    let mut advantages = vec![0.0; rewards.len()];
    for ScoredGroup { rollouts, moments } in scored_groups(rewards, groups)? {
        let tokens: f64 = rollouts.iter().map(|(i, _)| lengths[*i] as f64).sum();
        if moments.flat || tokens == 0.0 {
            continue;
        }
        let weighted = rollouts.iter().map(|(i, r)| lengths[*i] as f64 * r);
        let baseline = weighted.sum::<f64>() / tokens;
        for (rollout, reward) in rollouts {
            advantages[rollout] = reward - baseline;
        }
    }
    Ok(advantages)
}
