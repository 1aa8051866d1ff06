//! The spread of a batch's scores over its groups.

use serde::{Deserialize, Serialize};

use super::moments::{members, scored_groups};
use crate::Result;

/// The spread of a batch's scores over its groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatistics {
    /// Groups in the batch, with or without a scored rollout.
    pub groups: usize,
    /// Groups with at least one scored rollout.
    pub scored_groups: usize,
    /// Groups with at least one scored rollout whose scores are all equal: they give no gradient. A
    /// group with a single scored rollout counts as one.
    pub zero_std_groups: usize,
    /// Rollouts without a score.
    pub unscored: usize,
    /// The unbiased standard deviation of the scores within a group, averaged over the groups with
    /// two or more scored rollouts; 0 if there is no such group.
    pub mean_std: f64,
}

impl GroupStatistics {
    /// Computes the statistics of `scores` `[N]` in `groups` `[N]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for slices of different lengths,
    /// [`Error::Config`](crate::Error::Config) for a score that is not finite.
    pub fn of(scores: &[Option<f64>], groups: &[usize]) -> Result<Self> {
        let scored = scored_groups(scores, groups)?;
        let spread: Vec<f64> = scored
            .iter()
            .filter(|group| group.rollouts.len() > 1)
            .map(|group| group.moments.std)
            .collect();
        Ok(Self {
            groups: members(groups).len(),
            scored_groups: scored.len(),
            zero_std_groups: scored.iter().filter(|group| group.moments.flat).count(),
            unscored: scores.iter().filter(|score| score.is_none()).count(),
            mean_std: spread.iter().sum::<f64>() / spread.len().max(1) as f64,
        })
    }

    /// Returns `zero_std_groups / scored_groups`, TRL's `frac_reward_zero_std`; `None` if nothing
    /// was scored.
    pub fn frac_zero_std(&self) -> Option<f64> {
        let share = self.zero_std_groups as f64 / self.scored_groups as f64;
        (self.scored_groups > 0).then_some(share)
    }
}
