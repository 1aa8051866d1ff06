//! On-policy distillation by policy gradient.

use serde::{Deserialize, Serialize};

use super::{AdvantageEstimator, AdvantageInput, Advantages, Estimator, GroupStatistics};
use crate::{Error, Result};

/// The advantage of on-policy distillation: the log-prob of each sampled token under a teacher
/// minus that under the policy.
///
/// ```text
/// d_t = clip(ln pi_T(y_t) - ln pi(y_t), -clip, clip)
/// A_t = weight * d_t + (1 - weight) * A_t(rewards)
/// ```
///
/// `pi` is the policy before the update. With tokens sampled from the policy and `weight` 1, the
/// policy gradient of `A` is a single-sample estimate of the negative gradient of the reverse KL
/// `KL(pi || pi_T)` at each token; [`DistilledTokens`](crate::policy::DistilledTokens) uses the
/// whole vocabulary instead. Only the teacher's log-probs of the sampled tokens are needed, so the
/// teacher may be a server or a file. The same as verl's `use_policy_gradient` distillation and the
/// `opd` of slime and prime-rl.
///
/// The teacher is that of the trainer
/// ([`TrainerBuilder::teacher`](crate::train::TrainerBuilder::teacher)), or its reference policy if
/// there is none. With an estimator of `rewards` the two are mixed, as in SDPO (arXiv 2601.20802)
/// or KDRL (arXiv 2506.02208); without one, rewards are ignored, except that completions without a
/// reward get 0.
///
/// ```
/// use rlvr::advantage::{
///     AdvantageEstimator, AdvantageInput, Distillation, GroupMean,
/// };
///
/// let (policy, teacher) = (
///     vec![vec![-1.0, -2.0], vec![-1.0]].into(),
///     vec![vec![-0.5, -4.0], vec![-1.0]].into(),
/// );
/// let input = AdvantageInput::new(&[Some(1.0), Some(0.0)], &[0, 0], &[2, 1])
///     .with_log_probs(&policy, &teacher);
/// assert_eq!(
///     Distillation::default().estimate(&input)?.per_token,
///     [vec![0.5, -2.0], vec![0.0]]
/// );
///
/// let mixed = Distillation {
///     weight: 0.5,
///     clip: Some(1.0),
///     rewards: Some(Box::new(GroupMean::default().into())),
/// };
/// assert_eq!(
///     mixed.estimate(&input)?.per_token,
///     [vec![0.5, -0.25], vec![-0.25]]
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Distillation {
    /// The weight of the teacher term, above 0 and at most 1. Default 1; a smaller weight needs
    /// `rewards`.
    pub weight: f64,
    /// The bound on `|d_t|`, in nats. Default: none.
    pub clip: Option<f64>,
    /// The estimator of the reward term. Default: none.
    pub rewards: Option<Box<Estimator>>,
}

impl Default for Distillation {
    fn default() -> Self {
        Self {
            weight: 1.0,
            clip: None,
            rewards: None,
        }
    }
}

impl Distillation {
    fn invalid(field: &str, value: impl ToString, expected: &str) -> Result<()> {
        Err(Error::config(
            format!("distillation.{field}"),
            value.to_string(),
            expected,
        ))
    }

    /// Applies `of` to the estimator of rewards; `none` without one.
    fn of_rewards<T>(&self, of: impl Fn(&Estimator) -> T, none: T) -> T {
        self.rewards.as_deref().map_or(none, of)
    }
}

impl AdvantageEstimator for Distillation {
    fn name(&self) -> &str {
        "distillation"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let (Some(policy), Some(teacher)) = (input.policy_log_probs, input.ref_log_probs) else {
            return Err(Error::config(
                "ref_log_probs",
                "none",
                "log-probs, together with policy_log_probs: `distillation` compares a teacher with the policy",
            ));
        };
        let clip = self.clip.unwrap_or(f64::INFINITY);
        let mut per_token = policy.zip_with(teacher, |policy, teacher| {
            (teacher - policy).clamp(-clip, clip)
        })?;
        let Some(rewards) = &self.rewards else {
            for (row, _) in per_token
                .rows_mut()
                .zip(&scores)
                .filter(|(_, score)| score.is_none())
            {
                row.fill(0.0);
            }
            return Ok(Advantages {
                per_token,
                returns: None,
                statistics: GroupStatistics::of(&scores, input.groups)?,
            });
        };
        let of_rewards = rewards.estimate(input)?;
        for ((row, other), score) in per_token
            .rows_mut()
            .zip(of_rewards.per_token.rows())
            .zip(&scores)
        {
            for (number, other) in row.iter_mut().zip(other) {
                let distilled = if score.is_some() { *number } else { 0.0 };
                *number = self.weight * distilled + (1.0 - self.weight) * other;
            }
        }
        Ok(Advantages {
            per_token,
            ..of_rewards
        })
    }

    fn needs_values(&self) -> bool {
        self.of_rewards(Estimator::needs_values, false)
    }

    fn needs_groups(&self) -> bool {
        self.of_rewards(Estimator::needs_groups, false)
    }

    fn needs_components(&self) -> bool {
        self.of_rewards(Estimator::needs_components, false)
    }

    fn needs_baselines(&self) -> bool {
        self.of_rewards(Estimator::needs_baselines, false)
    }

    fn needs_probabilities(&self) -> bool {
        self.of_rewards(Estimator::needs_probabilities, false)
    }

    fn needs_ref_log_probs(&self) -> bool {
        true
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        let nothing = super::estimator::kl_error(
            self.name(),
            "it reads no reward without an estimator of `rewards`",
        );
        self.of_rewards(Estimator::validate_kl_in_reward, Err(nothing))
    }

    fn validate(&self) -> Result<()> {
        if !(self.weight > 0.0 && self.weight <= 1.0) {
            return Self::invalid("weight", self.weight, "a share in (0, 1]");
        }
        if let Some(clip) = self.clip.filter(|clip| !(clip.is_finite() && *clip > 0.0)) {
            return Self::invalid("clip", clip, "a finite number above 0, or none");
        }
        match self.rewards.as_deref() {
            None if self.weight < 1.0 => {
                Self::invalid("weight", self.weight, "1 without `rewards`")
            }
            Some(_) if self.weight == 1.0 => Self::invalid(
                "rewards",
                "given",
                "none with weight 1, which gives the rewards no weight",
            ),
            Some(rewards) if rewards.needs_ref_log_probs() => Self::invalid(
                "rewards",
                rewards.name(),
                "an estimator that reads rewards and needs no teacher",
            ),
            Some(rewards) => rewards.validate(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::advantage::{Gae, Group, GroupMean};

    fn mixed(rewards: impl Into<Estimator>, weight: f64) -> Distillation {
        Distillation {
            weight,
            rewards: Some(Box::new(rewards.into())),
            ..Distillation::default()
        }
    }

    #[test]
    fn a_completion_without_a_reward_gets_zero_with_and_without_a_reward_estimator() {
        let (policy, teacher) = (
            vec![vec![-1.0], vec![-3.0, -1.0], vec![-2.0]].into(),
            vec![vec![-2.0], vec![-1.0, -1.5], vec![-1.0]].into(),
        );
        let input = AdvantageInput::new(&[Some(3.0), None, Some(1.0)], &[0, 0, 0], &[1, 2, 1])
            .with_log_probs(&policy, &teacher);
        let pure = Distillation::default().estimate(&input).unwrap();
        assert_eq!(pure.per_token, [vec![-1.0], vec![0.0, 0.0], vec![1.0]]);
        let half = mixed(GroupMean::default(), 0.25).estimate(&input).unwrap();
        assert_eq!(half.per_token, [vec![0.5], vec![0.0, 0.0], vec![-0.5]]);
        assert_eq!(half.statistics.unscored, 1);
    }

    #[test]
    fn a_missing_teacher_and_invalid_settings_are_errors() {
        let input = AdvantageInput::new(&[Some(1.0)], &[0], &[1]);
        let error = Distillation::default().estimate(&input).unwrap_err();
        assert!(error.to_string().contains("ref_log_probs"), "{error}");
        let weight = |weight| Distillation {
            weight,
            ..Distillation::default()
        };
        let clip = Distillation {
            clip: Some(0.0),
            ..Distillation::default()
        };
        for (invalid, field) in [
            (weight(0.0), "weight"),
            (weight(f64::NAN), "weight"),
            (weight(0.5), "weight"),
            (clip, "clip"),
            (mixed(Group::default(), 1.0), "rewards"),
            (mixed(Distillation::default(), 0.5), "rewards"),
            (
                mixed(
                    Gae {
                        gamma: 2.0,
                        ..Gae::default()
                    },
                    0.5,
                ),
                "gae.gamma",
            ),
        ] {
            let error = invalid.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn the_needs_of_the_reward_estimator_are_passed_on() {
        assert!(mixed(Gae::default(), 0.5).needs_values());
        assert!(mixed(Group::default(), 0.5).needs_groups());
        assert!(!Distillation::default().needs_groups());
        let name = r#"{"estimator": "distillation", "weight": 0.5, "rewards": {"estimator": "group_mean"}}"#;
        let read: Estimator = serde_json::from_str(name).unwrap();
        assert_eq!(read, mixed(GroupMean::default(), 0.5).into());
    }
}
