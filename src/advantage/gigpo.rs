//! Turns from the same state compared with each other: the advantage of GiGPO.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::group::group_normalized;
use super::group_mean::group_centered;
use super::moments::{check_epsilon, check_floor, check_unit};
use super::turn_returns::{by_token, turn_returns};
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics};
use crate::{Error, Result};

/// GiGPO: the advantage of the episode within its group, plus that of each turn among the turns of
/// the group from the same state.
///
/// ```text
/// A_i,k = A_E(i) + step_weight * A_S(i, k)
/// A_E   = (R_i - mean) / (std + epsilon)
///         over the group; R_i is the outcome plus the rewards of all turns
/// A_S   = (G_i,k - mean) / (std + epsilon)
///         over all turns of the group in the same state
/// G_i,k = sum_{j >= k} gamma^(j - k) r_i,j + gamma^(K_i - 1 - k) R
/// ```
///
/// A turn whose state occurs only once in the group gets `A_S = 0`. Without `scale` there is no
/// division by standard deviations. GiGPO (arXiv 2505.10978, equations 4 to 9).
///
/// The state of a turn comes from the environment
/// ([`Step::state`](crate::environment::Step::state)) or, if it gives none, from the observation
/// that the policy read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gigpo {
    /// Discount per turn, in `[0, 1]`. Default 0.95, as in the paper.
    pub gamma: f64,
    /// The weight of the turn advantages. Default 1, as in the paper.
    pub step_weight: f64,
    /// Whether differences are divided by the standard deviation. Default true.
    pub scale: bool,
    /// Added to the standard deviation, 0 or more. Default 1e-6.
    pub epsilon: f64,
    /// The smallest divisor before `epsilon` is added, above 0. Default 1e-6.
    pub floor: f64,
}

impl Default for Gigpo {
    fn default() -> Self {
        Self {
            gamma: 0.95,
            step_weight: 1.0,
            scale: true,
            epsilon: 1e-6,
            floor: 1e-6,
        }
    }
}

impl Gigpo {
    fn compared(&self, scores: &[Option<f64>], groups: &[usize]) -> Result<Vec<f64>> {
        match self.scale {
            true => group_normalized(scores, groups, self.epsilon, self.floor),
            false => group_centered(scores, groups),
        }
    }
}

impl AdvantageEstimator for Gigpo {
    fn name(&self) -> &str {
        "gigpo"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let turns = input.credited();
        let returns: Vec<Option<f64>> = scores
            .iter()
            .zip(&turns)
            .map(|(score, turns)| {
                let sum: f64 = turns.iter().map(|turn| turn.reward).sum();
                score.map(|score| score + sum)
            })
            .collect();
        let of_episode = self.compared(&returns, input.groups)?;
        let to_come = turn_returns(input, &scores, self.gamma)?;
        // Every turn as a separate rollout, grouped by its state.
        let mut states = BTreeMap::new();
        let (mut places, mut step_scores, mut step_groups) = (Vec::new(), Vec::new(), Vec::new());
        for (i, turns) in turns.iter().enumerate() {
            for (k, turn) in turns.iter().enumerate() {
                let count = states.len();
                let state = states.entry((input.groups[i], turn.state)).or_insert(count);
                places.push((i, k));
                step_scores.push(to_come[i].get(k).copied());
                step_groups.push(*state);
            }
        }
        let of_step = self.compared(&step_scores, &step_groups)?;
        let mut advantages: Vec<Vec<f64>> = turns
            .iter()
            .zip(&of_episode)
            .map(|(turns, &advantage)| vec![advantage; turns.len()])
            .collect();
        for ((i, k), advantage) in places.into_iter().zip(of_step) {
            advantages[i][k] += self.step_weight * advantage;
        }
        Ok(Advantages {
            per_token: by_token(input, &advantages),
            returns: None,
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn validate(&self) -> Result<()> {
        check_unit("gigpo.gamma", self.gamma)?;
        if !self.step_weight.is_finite() {
            let expected = "a finite number";
            return Err(Error::config(
                "gigpo.step_weight",
                self.step_weight,
                expected,
            ));
        }
        check_epsilon("gigpo.epsilon", self.epsilon)?;
        check_floor("gigpo.floor", self.floor)
    }

    fn validate_kl_in_reward(&self) -> Result<()> {
        super::estimator::reject_kl_with_group_std(self.name())
    }
}
