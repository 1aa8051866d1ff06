//! Group mean, then whitening over the batch: the advantage of REINFORCE++-baseline.

use serde::{Deserialize, Serialize};

use super::moments::check_epsilon;
use super::whiten::whiten_scored;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupMean, SingletonGroup};
use crate::Result;

/// The advantage of REINFORCE++-baseline: rewards minus the mean of their group, whitened over all
/// tokens of the batch.
///
/// ```text
/// d_i     = r_i - mean_g
/// A_{i,t} = (d_i - mean) / sqrt(var + whiten_epsilon)
/// ```
///
/// with the mean and the unbiased variance over all *tokens* of all scored rollouts: rollouts count
/// in proportion to their length, and the mean need not be 0. REINFORCE++ (arXiv 2501.03262), as
/// verl's `reinforce_plus_plus_baseline` (with `singleton` `score`). [`LitePpo`](super::LitePpo)
/// divides by the standard deviation of the rollout rewards instead.
///
/// Whitening shifts by the mean over tokens, so a group whose rewards are all equal gets the same
/// small number at every token, not exactly 0. NeMo-RL's variant divides by the biased variance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforcePlusPlusBaseline {
    /// Whether the advantages are whitened. Default true; false is [`GroupMean`].
    pub whiten: bool,
    /// Added to the variance when whitening, 0 or more. Default 1e-8, as in verl.
    pub whiten_epsilon: f64,
    /// The advantage of the only scored rollout of a group before whitening: 0, or its raw reward.
    /// Default 0.
    pub singleton: SingletonGroup,
}

impl Default for ReinforcePlusPlusBaseline {
    fn default() -> Self {
        Self {
            whiten: true,
            whiten_epsilon: 1e-8,
            singleton: SingletonGroup::Zero,
        }
    }
}

impl AdvantageEstimator for ReinforcePlusPlusBaseline {
    fn name(&self) -> &str {
        "reinforce_plus_plus_baseline"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let centered = GroupMean {
            singleton: self.singleton,
        };
        let mut advantages = centered.estimate(input)?;
        if self.whiten {
            let scores = input.scores()?;
            whiten_scored(&mut advantages.per_token, &scores, self.whiten_epsilon)?;
        }
        Ok(advantages)
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }

    fn validate(&self) -> Result<()> {
        check_epsilon(
            "reinforce_plus_plus_baseline.whiten_epsilon",
            self.whiten_epsilon,
        )
    }
}
