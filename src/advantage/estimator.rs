//! The estimator trait, its output, and the enum of estimators that a configuration file can name.

use std::fmt::Debug;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::custom;
use super::{
    AdvantageInput, Distillation, Gae, Gdpo, Gigpo, Gpg, Group, GroupMean, GroupStatistics,
    LeaveOneOut, LitePpo, MaxRl, MtGrpo, Opo, OptimalTokenBaseline, PassAtK, ReinforcePlusPlus,
    ReinforcePlusPlusBaseline, Remax, TurnReturns,
};
use crate::types::PerToken;
use crate::{Error, Result};

/// Turns the rewards of a batch into advantages.
///
/// An estimator is a configuration without state: the same input always gives the same output, and
/// a checkpoint stores nothing of it. The contract:
///
/// - `per_token[i]` has `lengths[i]` entries, all finite.
/// - A rollout without a reward gets zeros and does not affect the others.
/// - Reordering the rollouts reorders the output (up to rounding).
///
/// ```
/// use rlvr::Result;
/// use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Advantages, Estimator};
///
/// /// REINFORCE without a baseline.
/// #[derive(Debug)]
/// struct RawReward;
///
/// impl AdvantageEstimator for RawReward {
///     fn name(&self) -> &str {
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
/// assert_eq!(
///     RawReward.estimate(&input)?.per_token,
///     [vec![1.0, 1.0], vec![0.0]]
/// );
///
/// // As a part of a configuration:
/// let estimator = Estimator::custom(RawReward);
/// assert_eq!(estimator.name(), "raw_reward");
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait AdvantageEstimator: Send + Sync + Debug {
    /// Returns the name in configuration files and logs, in `snake_case`.
    fn name(&self) -> &str;

    /// Computes the advantages of one batch.
    ///
    /// # Errors
    /// Returns an error if the input does not fit together, lacks what the estimator needs, or has
    /// a number that is not finite.
    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages>;

    /// Returns whether [`AdvantageInput::values`] must be given, that is, whether a critic must be
    /// trained. Default false.
    fn needs_values(&self) -> bool {
        false
    }

    /// Returns whether rollouts are compared only within their group, so that a group of one gives
    /// no gradient.
    ///
    /// Default: true unless [`needs_values`](Self::needs_values).
    fn needs_groups(&self) -> bool {
        !self.needs_values()
    }

    /// Returns whether [`AdvantageInput::components`] must be given: the separate rewards, not only
    /// their sum. Default false.
    fn needs_components(&self) -> bool {
        false
    }

    /// Returns whether [`AdvantageInput::baselines`] must be given. The trainer then generates one
    /// greedy completion per problem. Default false.
    fn needs_baselines(&self) -> bool {
        false
    }

    /// Returns whether [`AdvantageInput::probabilities`] must be given, which costs a forward pass
    /// before the update. Default false.
    fn needs_probabilities(&self) -> bool {
        false
    }

    /// Returns whether [`AdvantageInput::policy_log_probs`] and [`AdvantageInput::ref_log_probs`]
    /// must be given. The trainer then scores every token under the policy before the update, and
    /// under the reference policy or a teacher. Default false.
    fn needs_ref_log_probs(&self) -> bool {
        false
    }

    /// Checks that the estimator works with a KL penalty inside the rewards. Default: an error if
    /// it [`needs_components`](Self::needs_components), since the penalty belongs to none of them.
    ///
    /// # Errors
    /// [`Error::Config`] naming the estimator.
    fn validate_kl_in_reward(&self) -> Result<()> {
        match self.needs_components() {
            true => Err(kl_error(
                self.name(),
                "it standardises each reward separately, and the penalty belongs to none of them",
            )),
            false => Ok(()),
        }
    }

    /// Returns the estimator and its settings as text, by which a checkpoint detects that a run has
    /// changed. Default: the `Debug` output.
    fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    /// Rejects invalid settings. The trainer calls it when it is built.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and its range.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}

/// The error of an estimator that does not work with a KL penalty inside the rewards.
pub(super) fn kl_error(name: &str, reason: &str) -> Error {
    let expected = format!("none with `{name}`: {reason}; put the KL term into the objective");
    Error::config("kl_in_reward", "given", expected)
}

/// [`AdvantageEstimator::validate_kl_in_reward`] of estimators that divide by the standard
/// deviation of a group.
pub(super) fn reject_kl_with_group_std(name: &str) -> Result<()> {
    Err(kl_error(
        name,
        "in a group whose rewards are all equal it would divide by the standard deviation of the penalties and scale their \
         noise up to full-size advantages",
    ))
}

/// The output of an estimator.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// `[N][lengths[i]]` The advantage of each trained token.
    pub per_token: PerToken,
    /// `[N][lengths[i]]` The return (reward to go) at each token, the target of a critic. `None`
    /// from estimators that do not compute it.
    pub returns: Option<PerToken>,
    /// The spread of the scores over the groups.
    pub statistics: GroupStatistics,
}

impl Advantages {
    /// Creates advantages from one number per rollout, repeated at each of its tokens; `returns` is
    /// `None`.
    ///
    /// `advantage(scores, groups)` is called with the checked [`AdvantageInput::scores`] and
    /// returns one number per rollout. Rollouts whose score is `None` get 0, whatever it returns.
    ///
    /// # Errors
    /// As for [`AdvantageInput::scores`]; any error of `advantage`; [`Error::Shape`] if it returns
    /// another number of advantages.
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

/// Defines the enum of all estimators, which delegates to its variants.
macro_rules! estimators {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// An estimator of this module, selected by name in a configuration file, or a custom one.
        ///
        /// The field `estimator` has the name; the estimator's own fields are next to it and
        /// default if left out. An unknown field is an error.
        ///
        /// ```
        /// use rlvr::advantage::{Estimator, Gae};
        ///
        /// let estimator: Estimator =
        ///     serde_json::from_str(r#"{"estimator": "gae", "lambda": 0.9}"#)?;
        /// assert_eq!(estimator, Estimator::Gae(Gae { lambda: 0.9, ..Gae::default() }));
        /// # Ok::<(), serde_json::Error>(())
        /// ```
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "estimator", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum Estimator {
            $($(#[$doc])* $name($name),)+
            /// A custom estimator.
            ///
            /// A file stores only its name and fingerprint. An estimator read from such a file
            /// compares equal to the original, but [`validate`](AdvantageEstimator::validate)
            /// returns an error.
            #[serde(with = "custom")]
            Custom(Arc<dyn AdvantageEstimator>),
        }

        $(impl From<$name> for Estimator {
            fn from(estimator: $name) -> Self {
                Self::$name(estimator)
            }
        })+

        impl Estimator {
            /// Wraps a custom estimator.
            pub fn custom(estimator: impl AdvantageEstimator + 'static) -> Self {
                Self::Custom(Arc::new(estimator))
            }

            /// Returns every built-in estimator with its defaults.
            pub fn all() -> Vec<Self> {
                vec![$(Self::$name($name::default()),)+]
            }

            fn inner(&self) -> &dyn AdvantageEstimator {
                match self {
                    $(Self::$name(estimator) => estimator,)+
                    Self::Custom(estimator) => estimator.as_ref(),
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
    LitePpo,
    /// The value of a critic.
    Gae,
    /// No baseline; whitened over the batch.
    ReinforcePlusPlus,
    /// Group mean; whitened over the batch.
    ReinforcePlusPlusBaseline,
    /// The reward of the greedy completion.
    Remax,
    /// Group mean, weighted by length.
    Opo,
    /// Group mean, scaled by the share of the batch that has a signal.
    Gpg,
    /// The best of a group only, compared with the second best.
    PassAtK,
    /// Each reward component standardised separately.
    Gdpo,
    /// A baseline for each token that minimises the variance.
    OptimalTokenBaseline,
    /// Group mean, as baseline and as scale.
    MaxRl,
    /// The return at each turn, minus that of the other rollouts.
    TurnReturns,
    /// Outcome and turn, standardised separately.
    MtGrpo,
    /// The episode within its group, plus each turn among those from the same state.
    Gigpo,
    /// The log-prob of a teacher minus that of the policy.
    Distillation,
}

impl Default for Estimator {
    /// [`Group`], as in GRPO.
    fn default() -> Self {
        Group::default().into()
    }
}

impl AdvantageEstimator for Estimator {
    fn name(&self) -> &str {
        self.inner().name()
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.inner().estimate(input)
    }

    fn needs_values(&self) -> bool {
        self.inner().needs_values()
    }

    fn needs_groups(&self) -> bool {
        self.inner().needs_groups()
    }

    fn needs_components(&self) -> bool {
        self.inner().needs_components()
    }

    fn needs_baselines(&self) -> bool {
        self.inner().needs_baselines()
    }

    fn needs_probabilities(&self) -> bool {
        self.inner().needs_probabilities()
    }

    fn needs_ref_log_probs(&self) -> bool {
        self.inner().needs_ref_log_probs()
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        self.inner().validate_kl_in_reward()
    }

    fn fingerprint(&self) -> String {
        self.inner().fingerprint()
    }

    fn validate(&self) -> Result<()> {
        self.inner().validate()
    }
}
