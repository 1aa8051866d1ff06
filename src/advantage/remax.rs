//! Greedy completion as the baseline: the advantage of ReMax.

use serde::{Deserialize, Serialize};

use super::reinforce_plus_plus::returns_to_go;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics};
use crate::{Error, Result};

/// The advantage of ReMax: the return, minus the reward of the greedy completion of the same
/// prompt.
///
/// ```text
/// A_t = sum_{s >= t} r_s - b
/// ```
///
/// with `b` the rollout's entry in [`AdvantageInput::baselines`]. ReMax (arXiv 2310.10505,
/// algorithm 1); verl's `remax`. `returns` is the undiscounted return. It has no settings.
///
/// The baseline does not depend on the rollout, so the gradient is unbiased and one completion per
/// prompt is enough; the cost is one more, greedy completion. Token rewards are added at their
/// tokens and are not part of the baseline: a KL penalty on the tokens shifts all advantages down.
///
/// A rollout without a baseline gets 0, as does one without a reward.
///
/// ```
/// use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Remax};
///
/// let input =
///     AdvantageInput::new(&[Some(2.0)], &[0], &[3]).with_baselines(&[Some(0.5)]);
/// assert_eq!(Remax {}.estimate(&input)?.per_token, [vec![1.5, 1.5, 1.5]]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Remax {}

impl AdvantageEstimator for Remax {
    fn name(&self) -> &str {
        "remax"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        let scores = input.scores()?;
        let Some(baselines) = input.baselines else {
            return Err(Error::config(
                "baselines",
                "absent",
                "the reward of the greedy completion for each rollout, the baseline of `remax`",
            ));
        };
        let returns = returns_to_go(input, 1.0)?;
        let row = |(i, row): (usize, &[f64])| match (scores[i], baselines[i]) {
            (Some(_), Some(baseline)) => row.iter().map(|to_go| to_go - baseline).collect(),
            _ => vec![0.0; row.len()],
        };
        Ok(Advantages {
            per_token: returns.rows().enumerate().map(row).collect(),
            returns: Some(returns),
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn needs_groups(&self) -> bool {
        false
    }

    fn needs_baselines(&self) -> bool {
        true
    }
}
