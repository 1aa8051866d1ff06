//! The return at each turn, minus that of the other rollouts.

use serde::{Deserialize, Serialize};

use super::moments::{check_unit, members};
use super::returns::discounted_returns;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics};
use crate::Result;
use crate::types::PerToken;

/// Turn-level credit: the discounted return at each turn, with the other rollouts of the group as
/// baseline.
///
/// ```text
/// G_i,k = sum_{j >= k} gamma^(j - k) r_i,j + gamma^(K_i - 1 - k) R_i
/// A_i,k = G_i,k - mean over the other rollouts j of the group of G_j,k
/// ```
///
/// for turn `k` of rollout `i`, which has `K_i` turns with rewards `r` and the outcome `R`;
/// `G_j,k = 0` if rollout `j` ended before turn `k`. Every token has the advantage of its turn.
///
/// The baseline does not depend on the rollout itself, so the gradient is unbiased. (A mean over
/// the rollouts that reached turn `k`, including the rollout itself, would reward or penalise
/// taking another turn.) A group with one scored rollout has advantages of 0.
///
/// The turn rewards should not be part of the outcome as well: give
/// [`EpisodeReward`](crate::environment::EpisodeReward) the weight 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnReturns {
    /// Discount per turn, in `[0, 1]`. Default 1.
    pub gamma: f64,
}

impl Default for TurnReturns {
    fn default() -> Self {
        Self { gamma: 1.0 }
    }
}

impl AdvantageEstimator for TurnReturns {
    fn name(&self) -> &str {
        "turn_returns"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let turns = input.credited();
        let returns = turn_returns(input, &scores, self.gamma)?;
        let mut advantages: Vec<Vec<f64>> = turns.iter().map(|row| vec![0.0; row.len()]).collect();
        for rollouts in members(input.groups).into_values() {
            let scored: Vec<usize> = rollouts
                .into_iter()
                .filter(|&i| scores[i].is_some())
                .collect();
            if scored.len() < 2 {
                continue;
            }
            for &i in &scored {
                for (k, advantage) in advantages[i].iter_mut().enumerate() {
                    let own = returns[i][k];
                    let others = scored.iter().filter(|&&j| j != i);
                    let mut others = others.map(|&j| returns[j].get(k).copied().unwrap_or(0.0));
                    // Exactly 0 if all are equal: their mean need not be exactly that number.
                    if others.clone().all(|other| other == own) {
                        continue;
                    }
                    let count = scored.len() as f64 - 1.0;
                    let sum = others.by_ref().sum::<f64>();
                    *advantage = own - sum / count;
                }
            }
        }
        Ok(Advantages {
            per_token: by_token(input, &advantages),
            returns: None,
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn validate(&self) -> Result<()> {
        check_unit("turn_returns.gamma", self.gamma)
    }
}

/// Returns the discounted return `[N][K_i]` at each turn, the outcome added at the last; empty
/// without a score.
pub(super) fn turn_returns(
    input: &AdvantageInput,
    scores: &[Option<f64>],
    gamma: f64,
) -> Result<Vec<Vec<f64>>> {
    let turns = input.credited();
    let rows = turns.iter().zip(scores).map(|(turns, score)| {
        let Some(outcome) = score else {
            return Ok(Vec::new());
        };
        let mut rewards: Vec<f64> = turns.iter().map(|turn| turn.reward).collect();
        if let Some(last) = rewards.last_mut() {
            *last += outcome;
        }
        discounted_returns(&rewards, gamma)
    });
    rows.collect()
}

/// Repeats the advantage of each turn at its tokens.
pub(super) fn by_token(input: &AdvantageInput, advantages: &[Vec<f64>]) -> PerToken {
    let turns = input.credited();
    let row = |(turns, advantages): (&Vec<super::TurnCredit>, &Vec<f64>)| {
        let both = turns.iter().zip(advantages);
        both.flat_map(|(turn, &advantage)| std::iter::repeat_n(advantage, turn.tokens))
            .collect()
    };
    turns.iter().zip(advantages).map(row).collect()
}
