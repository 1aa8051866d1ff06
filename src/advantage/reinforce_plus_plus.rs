//! Returns whitened over the batch: the advantage of REINFORCE++.

use serde::{Deserialize, Serialize};

use super::moments::{check_epsilon, check_unit};
use super::returns::discounted_returns;
use super::whiten::whiten_scored;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics};
use crate::Result;
use crate::types::PerToken;

/// The advantage of REINFORCE++: returns, whitened over all tokens of the batch.
///
/// ```text
/// G_t = r_t + gamma * G_{t+1}
///       over the rollout's trained tokens, the outcome added at the last
/// A_t = (G_t - mean) / sqrt(var + whiten_epsilon)
/// ```
///
/// with the mean and the unbiased variance over all tokens of all scored rollouts. REINFORCE++
/// (arXiv 2501.03262), as in verl: observations are skipped, where SkyRL restarts the sum after
/// each. `returns` is `G` before whitening.
///
/// Groups are not used: one completion per prompt is enough, and the difficulty of a prompt stays
/// in the advantage; [`ReinforcePlusPlusBaseline`](super::ReinforcePlusPlusBaseline) removes it.
/// Token rewards are added at their tokens; the paper puts its KL penalty there.
///
/// ```
/// use rlvr::advantage::{AdvantageEstimator, AdvantageInput, ReinforcePlusPlus};
///
/// let estimator = ReinforcePlusPlus {
///     gamma: 0.5,
///     whiten: false,
///     ..ReinforcePlusPlus::default()
/// };
/// let input = AdvantageInput::new(&[Some(2.0), Some(-1.0)], &[0, 1], &[3, 1]);
/// assert_eq!(
///     estimator.estimate(&input)?.per_token,
///     [vec![0.5, 1.0, 2.0], vec![-1.0]]
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReinforcePlusPlus {
    /// Discount per token, in `[0, 1]`. Default 1.
    pub gamma: f64,
    /// Whether the advantages are whitened. Default true; false is plain REINFORCE.
    pub whiten: bool,
    /// Added to the variance when whitening, 0 or more. Default 1e-8, as in verl.
    pub whiten_epsilon: f64,
}

impl Default for ReinforcePlusPlus {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            whiten: true,
            whiten_epsilon: 1e-8,
        }
    }
}

impl AdvantageEstimator for ReinforcePlusPlus {
    fn name(&self) -> &str {
        "reinforce_plus_plus"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let returns = returns_to_go(input, self.gamma)?;
        let mut per_token = returns.clone();
        if self.whiten {
            whiten_scored(&mut per_token, &scores, self.whiten_epsilon)?;
        }
        Ok(Advantages {
            per_token,
            returns: Some(returns),
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn needs_groups(&self) -> bool {
        false
    }

    fn validate(&self) -> Result<()> {
        check_unit("reinforce_plus_plus.gamma", self.gamma)?;
        check_epsilon("reinforce_plus_plus.whiten_epsilon", self.whiten_epsilon)
    }
}

/// Returns the discounted return `[N][lengths[i]]` at each token of checked input; zeros without a
/// score.
pub(super) fn returns_to_go(input: &AdvantageInput, gamma: f64) -> Result<PerToken> {
    let row = |(rollout, length): (usize, &usize)| match input.paid(rollout) {
        Some(rewards) => discounted_returns(&rewards, gamma),
        None => Ok(vec![0.0; *length]),
    };
    input.lengths.iter().enumerate().map(row).collect()
}
