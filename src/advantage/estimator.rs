//! What an estimator is, what it gives back, and the list of those a configuration file can name.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::moments::{check_rewards, group_moments, members};
use super::{AdvantageInput, Batch, Gae, Group, GroupMean, LeaveOneOut};
use crate::Result;

/// Turns the rewards of a batch into advantages.
///
/// An estimator is a small configuration: it holds no state, so that the same input always gives the same output, and a
/// resumed run needs nothing of it. The contract:
///
/// - `per_token[i]` has `lengths[i]` entries, all finite.
/// - A rollout without a reward gets zeros and changes nothing for the others.
/// - Reordering the rollouts reorders the output (up to rounding).
///
/// ```
/// use rlvr::Result;
/// use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Advantages};
///
/// /// REINFORCE without a baseline.
/// #[derive(Debug)]
/// struct RawReward;
///
/// impl AdvantageEstimator for RawReward {
///     fn name(&self) -> &'static str {
///         "raw_reward"
///     }
///
///     fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
///         Advantages::per_rollout(input, |scores, _groups| {
///             Ok(scores.iter().map(|score| score.unwrap_or(0.0)).collect())
///         })
///     }
/// }
///
/// let input = AdvantageInput::new(&[Some(1.0), None], &[0, 0], &[2, 1]);
/// assert_eq!(RawReward.estimate(&input)?.per_token, [vec![1.0, 1.0], vec![0.0]]);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait AdvantageEstimator: Send + Sync + Debug {
    /// The name it has in configuration files and logs, in `snake_case`.
    fn name(&self) -> &'static str;

    /// The advantages of one batch. Fails on input that does not fit together and on numbers that are not finite.
    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages>;

    /// Whether [`AdvantageInput::values`] must be given, that is, whether a critic must be trained.
    fn needs_values(&self) -> bool {
        false
    }

    /// Refuses settings that cannot mean anything, naming field, value and range. The trainer calls it when it is built.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}

/// What an estimator gives to the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// `[N][lengths[i]]` The advantage of each trained token.
    pub per_token: Vec<Vec<f64>>,
    /// `[N][lengths[i]]` What a critic is to predict; `None` from estimators that have no critic.
    pub returns: Option<Vec<Vec<f64>>>,
    /// How the scores were spread.
    pub statistics: GroupStatistics,
}

impl Advantages {
    /// One advantage per rollout, repeated on each of its tokens; `returns` is `None`.
    ///
    /// `advantage(scores, groups)` gets the checked [`AdvantageInput::scores`] and answers with one number per rollout. The
    /// rollouts whose score is `None` get 0 whatever it answers.
    pub fn per_rollout(
        input: &AdvantageInput,
        advantage: impl FnOnce(&[Option<f64>], &[usize]) -> Result<Vec<f64>>,
    ) -> Result<Self> {
        let scores = input.scores()?;
        let advantages = advantage(&scores, input.groups)?;
        super::moments::check_len("advantages", advantages.len(), scores.len())?;
        let per_token = advantages
            .iter()
            .zip(&scores)
            .zip(input.lengths)
            .map(|((advantage, score), length)| {
                vec![if score.is_some() { *advantage } else { 0.0 }; *length]
            })
            .collect();
        Ok(Self {
            per_token,
            returns: None,
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }
}

/// How the scores of a batch were spread over its groups: is there anything to learn from?
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupStatistics {
    /// Groups in the batch, with or without a scored rollout.
    pub groups: usize,
    /// Groups with at least one scored rollout, all of whose scores are equal: they teach nothing. A group with a single
    /// scored rollout is one of them.
    pub zero_std_groups: usize,
    /// Rollouts that could not be scored.
    pub unscored: usize,
    /// The unbiased standard deviation of the scores within a group, averaged over the groups with two or more scored
    /// rollouts; 0 if there is no such group.
    pub mean_std: f64,
}

impl GroupStatistics {
    /// The statistics of `scores` `[N]` in `groups` `[N]`.
    pub fn of(scores: &[Option<f64>], groups: &[usize]) -> Result<Self> {
        check_rewards(scores, groups)?;
        let members = members(groups);
        let mut statistics = Self {
            groups: members.len(),
            unscored: scores.iter().filter(|score| score.is_none()).count(),
            ..Self::default()
        };
        let mut spread = 0;
        for (group, rollouts) in &members {
            if let Some(moments) = group_moments(scores, *group, rollouts)? {
                statistics.zero_std_groups += usize::from(moments.flat);
                if moments.count > 1 {
                    spread += 1;
                    statistics.mean_std += moments.std;
                }
            }
        }
        statistics.mean_std /= f64::from(spread.max(1));
        Ok(statistics)
    }

    /// `zero_std_groups / groups`, TRL's `frac_reward_zero_std`; 0 for an empty batch.
    pub fn frac_zero_std(&self) -> f64 {
        self.zero_std_groups as f64 / self.groups.max(1) as f64
    }
}

/// Writes the enum of all estimators and passes every call on to the one inside.
macro_rules! estimators {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Any estimator of this module, by its name in a configuration file.
        ///
        /// The field `estimator` says which; the estimator's own fields stand beside it, and those left out have their
        /// defaults. A misspelt field is an error.
        ///
        /// ```
        /// use rlvr::advantage::{Estimator, Gae};
        ///
        /// let estimator: Estimator = serde_json::from_str(r#"{"estimator": "gae", "lambda": 0.9}"#)?;
        /// assert_eq!(estimator, Estimator::Gae(Gae { lambda: 0.9, ..Gae::default() }));
        /// # Ok::<(), serde_json::Error>(())
        /// ```
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "estimator", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Estimator {
            $($(#[$doc])* $name($name),)+
        }

        $(impl From<$name> for Estimator {
            fn from(estimator: $name) -> Self {
                Self::$name(estimator)
            }
        })+

        impl Estimator {
            /// Every estimator of the list, with its defaults.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$name($name::default()),)+]
            }

            fn inner(&self) -> &dyn AdvantageEstimator {
                match self {
                    $(Self::$name(estimator) => estimator,)+
                }
            }
        }
    };
}

// One line per estimator.
estimators! {
    /// Group mean and group standard deviation.
    Group,
    /// Group mean only.
    GroupMean,
    /// Mean of the others in the group.
    LeaveOneOut,
    /// Group mean and batch standard deviation.
    Batch,
    /// A critic.
    Gae,
}

impl Default for Estimator {
    /// [`Group`], as in GRPO.
    fn default() -> Self {
        Group::default().into()
    }
}

impl AdvantageEstimator for Estimator {
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.inner().estimate(input)
    }

    fn needs_values(&self) -> bool {
        self.inner().needs_values()
    }

    fn validate(&self) -> Result<()> {
        self.inner().validate()
    }
}
