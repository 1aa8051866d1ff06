//! Group mean, with the batch scaled up for what taught nothing: the advantage of GPG.

use serde::{Deserialize, Serialize};

use super::moments::{check_floor, scored_groups};
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup, group_centered};
use crate::Result;

/// The advantage of GPG: centred rewards, scaled so that rollouts without a signal do not dilute the step.
///
/// ```text
/// A_i   = alpha * (r_i - mean_g) / norm
/// alpha = B / max(1, those of the B scored rollouts that count)
/// ```
///
/// GPG (arXiv 2504.02546). Which rollouts count is [`GpgScale`]: the paper's and verl's `gpg` are not the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gpg {
    /// Which rollouts `alpha` counts. Default: those of groups with a signal, the paper's.
    pub scale: GpgScale,
    /// What the centred rewards are divided by, above 0; verl's `f_norm`. Default 1.
    pub norm: f64,
    /// What the only scored rollout of a group gets: 0, or its reward times `alpha / norm`, as in verl. Default 0.
    pub singleton: SingletonGroup,
}

/// Which rollouts the scale of [`Gpg`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpgScale {
    /// The rollouts of groups whose rewards are not all equal: `alpha = B / (B - M)` with `M` rollouts that have no gradient. The
    /// paper's, and the default.
    #[default]
    Signal,
    /// The rollouts whose reward is not 0: verl's. It depends on where the zero of the reward is: with 0 and 1 it counts right
    /// answers, with -1 and 1 everything.
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
