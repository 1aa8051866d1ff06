//! Group mean, rescaled for the rollouts without a signal: the advantage of GPG.

use serde::{Deserialize, Serialize};

use super::group_mean::group_centered;
use super::moments::{check_floor, scored_groups};
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::Result;

/// The advantage of GPG: centred rewards, rescaled so that rollouts without a signal do not dilute
/// the step.
///
/// ```text
/// A_i   = alpha * (r_i - mean_g) / norm
/// alpha = B / max(1, number of the B scored rollouts that count)
/// ```
///
/// GPG (arXiv 2504.02546). [`GpgScale`] defines which rollouts count: the paper and verl's `gpg`
/// differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpg {
    /// Which rollouts `alpha` counts. Default: those of groups with a signal, as in the paper.
    pub scale: GpgScale,
    /// The divisor of the centred rewards, above 0; verl's `f_norm`. Default 1.
    pub norm: f64,
    /// The advantage of the only scored rollout of a group: 0, or its reward times `alpha / norm`,
    /// as in verl. Default 0.
    pub singleton: SingletonGroup,
}

/// Which rollouts the scale of [`Gpg`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpgScale {
    /// The rollouts of groups whose rewards are not all equal: `alpha = B / (B - M)` with `M`
    /// rollouts that have no gradient. The paper's definition and the default.
    #[default]
    Signal,
    /// The rollouts whose reward is not 0, as in verl. It depends on the zero of the reward: with
    /// rewards of 0 and 1 it counts correct answers, with -1 and 1 all rollouts.
    NonzeroRewards,
}

impl Default for Gpg {
    fn default() -> Self {
        Self {
            scale: GpgScale::Signal,
            norm: 1.0,
            singleton: SingletonGroup::Zero,
        }
    }
}

impl AdvantageEstimator for Gpg {
    fn name(&self) -> &str {
        "gpg"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        Advantages::per_rollout(input, |scores, groups| {
            let scale = self.scale.alpha(scores, groups)? / self.norm;
            let centered = group_centered(scores, groups)?;
            let advantages = centered.iter().map(|centered| scale * centered).collect();
            self.singleton.apply(advantages, scores, groups, scale)
        })
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }

    fn validate(&self) -> Result<()> {
        check_floor("gpg.norm", self.norm)
    }
}

impl GpgScale {
    fn alpha(self, scores: &[Option<f64>], groups: &[usize]) -> Result<f64> {
        let scored: Vec<f64> = scores.iter().flatten().copied().collect();
        let counted = match self {
            Self::NonzeroRewards => scored.iter().filter(|score| **score != 0.0).count(),
            Self::Signal => {
                let groups = scored_groups(scores, groups)?.into_iter();
                let with_signal = groups.filter(|group| !group.moments.flat);
                with_signal.map(|group| group.rollouts.len()).sum()
            }
        };
        Ok(scored.len() as f64 / counted.max(1) as f64)
    }
}
