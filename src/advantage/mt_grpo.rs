//! Outcome and turn rewards, standardised separately within the group: the advantage of MT-GRPO.

use serde::{Deserialize, Serialize};

use super::group::group_normalized;
use super::moments::{check_epsilon, check_floor, check_unit};
use super::turn_returns::by_token;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics};
use crate::{Error, Result};

/// MT-GRPO: the advantage of the outcome at every token, plus that of the turn reward at the tokens
/// of the turn.
///
/// With `z` the standardisation within the group (see [`Group`](super::Group)), `r_k` the reward of
/// turn `k` and `R` the outcome:
///
/// ```text
/// in every turn but the last:
///     additive:    A_k = z(R) + coef * z(r_k)
///     cumulative:  A_k = z(r_k + gamma * R)
/// in the last:     A_k = z(R)
/// ```
///
/// `z(r_k)` compares rollouts that have a turn after `k`. A rollout of one turn has `z(r_1 + R)`,
/// over the sums of all rollouts of its group. The paper has two turns, a tool call and the answer.
/// MT-GRPO (arXiv 2505.11821).
///
/// The turn rewards should not be part of the outcome as well: give
/// [`EpisodeReward`](crate::environment::EpisodeReward) the weight 0. The reward of the last turn
/// is added to the outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtGrpo {
    /// How the turn reward and the outcome are combined. Default: additive, with coefficient 1.
    pub assignment: TurnAssignment,
    /// Added to the standard deviation, 0 or more. Default 1e-4.
    pub epsilon: f64,
    /// The smallest divisor before `epsilon` is added, above 0. Default 1e-6.
    pub floor: f64,
}

/// How [`MtGrpo`] assigns credit to a turn that is not the last.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TurnAssignment {
    /// `z(R) + coef * z(r_k)`.
    Additive {
        /// The weight of the turn's advantage.
        coef: f64,
    },
    /// `z(r_k + gamma * R)`.
    Cumulative {
        /// The discount of the outcome, in `[0, 1]`.
        gamma: f64,
    },
}

impl Default for MtGrpo {
    fn default() -> Self {
        Self {
            assignment: TurnAssignment::Additive { coef: 1.0 },
            epsilon: 1e-4,
            floor: 1e-6,
        }
    }
}

impl MtGrpo {
    fn normalized(&self, scores: &[Option<f64>], groups: &[usize]) -> Result<Vec<f64>> {
        group_normalized(scores, groups, self.epsilon, self.floor)
    }
}

impl AdvantageEstimator for MtGrpo {
    fn name(&self) -> &str {
        "mt_grpo"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let turns = input.credited();
        let last = |i: usize| turns[i].last().map_or(0.0, |turn| turn.reward);
        let outcomes: Vec<Option<f64>> = scores
            .iter()
            .enumerate()
            .map(|(i, score)| score.map(|score| score + last(i)))
            .collect();
        let of_outcome = self.normalized(&outcomes, input.groups)?;
        let sums: Vec<Option<f64>> = outcomes
            .iter()
            .zip(&turns)
            .map(|(outcome, turns)| {
                let before = turns.iter().rev().skip(1).map(|turn| turn.reward);
                outcome.map(|outcome| outcome + before.sum::<f64>())
            })
            .collect();
        let of_sum = self.normalized(&sums, input.groups)?;
        let mut advantages: Vec<Vec<f64>> = turns
            .iter()
            .enumerate()
            .map(|(i, turns)| match turns.len() {
                1 => vec![of_sum[i]],
                count => vec![of_outcome[i]; count],
            })
            .collect();
        let most = turns.iter().map(Vec::len).max().unwrap_or(0);
        for k in 0..most.saturating_sub(1) {
            let of_turn = |i: usize| {
                let reward = turns[i].get(k).map(|turn| turn.reward)?;
                let goes_on = turns[i].len() > k + 1;
                outcomes[i]
                    .filter(|_| goes_on)
                    .map(|outcome| match self.assignment {
                        TurnAssignment::Additive { .. } => reward,
                        TurnAssignment::Cumulative { gamma } => reward + gamma * outcome,
                    })
            };
            let rewards: Vec<Option<f64>> = (0..turns.len()).map(of_turn).collect();
            let normalized = self.normalized(&rewards, input.groups)?;
            for (i, row) in advantages.iter_mut().enumerate() {
                if let (Some(place), Some(_)) = (row.get_mut(k), rewards[i]) {
                    *place = match self.assignment {
                        TurnAssignment::Additive { coef } => of_outcome[i] + coef * normalized[i],
                        TurnAssignment::Cumulative { .. } => normalized[i],
                    };
                }
            }
        }
        for (row, score) in advantages.iter_mut().zip(&scores) {
            if score.is_none() {
                row.fill(0.0);
            }
        }
        Ok(Advantages {
            per_token: by_token(input, &advantages),
            returns: None,
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn validate(&self) -> Result<()> {
        match self.assignment {
            TurnAssignment::Additive { coef } if !coef.is_finite() => {
                let expected = "a finite number";
                return Err(Error::config("mt_grpo.assignment.coef", coef, expected));
            }
            TurnAssignment::Cumulative { gamma } => check_unit("mt_grpo.assignment.gamma", gamma)?,
            TurnAssignment::Additive { .. } => {}
        }
        check_epsilon("mt_grpo.epsilon", self.epsilon)?;
        check_floor("mt_grpo.floor", self.floor)
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        super::estimator::reject_kl_with_group_std(self.name())
    }
}
