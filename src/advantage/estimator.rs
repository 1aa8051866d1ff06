//! What an estimator is, what it gives back, and the list of those a configuration file can name.

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
/// An estimator is a small configuration: it holds no state, so that the same input always gives the same output, and a
/// resumed run needs nothing of it. The contract:
///
/// - `per_token[i]` has `lengths[i]` entries, all finite.
/// - A rollout without a reward gets zeros and changes nothing for the others.
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
/// assert_eq!(RawReward.estimate(&input)?.per_token, [vec![1.0, 1.0], vec![0.0]]);
///
/// // As a part of a configuration:
/// let estimator = Estimator::custom(RawReward);
/// assert_eq!(estimator.name(), "raw_reward");
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait AdvantageEstimator: Send + Sync + Debug {
    /// The name it has in configuration files and logs, in `snake_case`.
    fn name(&self) -> &str;

    /// The advantages of one batch. Fails on input that does not fit together and on numbers that are not finite.
    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages>;

    /// Whether [`AdvantageInput::values`] must be given, that is, whether a critic must be trained.
    fn needs_values(&self) -> bool {
        false
    }

    /// Whether rollouts are compared within their group and nowhere else, so that a group of one teaches nothing.
    ///
    /// Default: unless there is a critic.
    fn needs_groups(&self) -> bool {
        !self.needs_values()
    }

    /// Whether [`AdvantageInput::components`] must be given: the rewards one by one, not only their sum.
    fn needs_components(&self) -> bool {
        false
    }

    /// Whether [`AdvantageInput::baselines`] must be given. The trainer then generates one greedy completion for each problem.
    fn needs_baselines(&self) -> bool {
        false
    }

    /// Whether [`AdvantageInput::probabilities`] must be given, which costs a forward pass before the update.
    fn needs_probabilities(&self) -> bool {
        false
    }

    /// Whether [`AdvantageInput::policy_log_probs`] and [`AdvantageInput::ref_log_probs`] must be given. The trainer then scores
    /// every token under the policy before the update, and under the reference policy or a teacher.
    fn needs_ref_log_probs(&self) -> bool {
        false
    }

    /// Rejects a KL penalty inside the rewards. Default: it is refused where rewards are read one by one, since it belongs to none of them.
    ///
    /// # Errors
    /// [`Error::Config`] naming the estimator.
    fn validate_kl_in_reward(&self) -> Result<()> {
        match self.needs_components() {
            true => Err(refused_kl(
                self.name(),
                "it standardises each reward by itself, and the penalty belongs to none",
            )),
            false => Ok(()),
        }
    }

    /// The estimator and its settings, by which a checkpoint tells whether it belongs to a run. Default: as `Debug` writes it.
    fn fingerprint(&self) -> String {
        format!("{self:?}")
    }

    /// Rejects settings that cannot mean anything, naming field, value and range. The trainer calls it when it is built.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}

/// Why an estimator does not go with a KL penalty inside the rewards.
pub(super) fn refused_kl(name: &str, reason: &str) -> Error {
    let expected = format!("none with `{name}`: {reason}; put the KL into the objective");
    Error::config("kl_in_reward", "given", expected)
}

/// As [`AdvantageEstimator::validate_kl_in_reward`], for estimators that divide by the spread of a group.
pub(super) fn refuse_kl_beside_group_std(name: &str) -> Result<()> {
    Err(refused_kl(
        name,
        "in a group whose rewards are all equal it would divide by the spread of the penalties, and scale their noise up \
         into advantages of full size",
    ))
}

/// What an estimator gives to the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// `[N][lengths[i]]` The advantage of each trained token.
    pub per_token: PerToken,
    /// `[N][lengths[i]]` The reward still to come at each token, which is what a critic is to predict. `None` from estimators
    /// that give one number to a whole rollout.
    pub returns: Option<PerToken>,
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

/// Writes the enum of all estimators and passes every call on to the one inside.
macro_rules! estimators {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Any estimator of this module by its name in a configuration file, or a custom one.
        ///
        /// The field `estimator` says which; the estimator's own fields are beside it, and those left out have their
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
            /// A custom estimator.
            ///
            /// A file has its name and fingerprint only. What is read from such a file can be compared with the estimator itself, and
            /// is refused by [`validate`](AdvantageEstimator::validate).
            #[serde(with = "custom")]
            Custom(Arc<dyn AdvantageEstimator>),
        }

        $(impl From<$name> for Estimator {
            fn from(estimator: $name) -> Self {
                Self::$name(estimator)
            }
        })+

        impl Estimator {
            /// A custom estimator.
            pub fn custom(estimator: impl AdvantageEstimator + 'static) -> Self {
                Self::Custom(Arc::new(estimator))
            }

            /// Every estimator of the list, with its defaults.
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
    /// A critic.
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
    /// Only the best of a group, compared with the second best.
    PassAtK,
    /// Each reward standardised by itself.
    Gdpo,
    /// A baseline for each token that minimises the variance.
    OptimalTokenBaseline,
    /// Group mean, as baseline and as scale.
    MaxRl,
    /// The reward still to come at each turn, less that of the others.
    TurnReturns,
    /// Outcome and turn, each standardised by itself.
    MtGrpo,
    /// The episode within its group, and each turn among those from the same state.
    Gigpo,
    /// What a teacher thinks of each token.
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
