//! Reward components standardised separately, then summed: the advantage of GDPO.

use serde::{Deserialize, Serialize};

use super::group::group_normalized;
use super::group_mean::group_centered;
use super::input::Components;
use super::moments::{Moments, check_epsilon, check_floor};
use super::whiten::whiten_scored;
use super::{AdvantageEstimator, AdvantageInput, Advantages, SingletonGroup};
use crate::{Error, Result};

/// The advantage of GDPO: every reward component is standardised within its group before the
/// weighted sum (see [`Gdpo::sums`]).
///
/// ```text
/// x_i = sum_k w_k * (r_ik - mean_gk) / (max(std_gk, floor) + epsilon)
/// A_i = x_i, rescaled over the batch
/// ```
///
/// GDPO (arXiv 2601.05242). Rewards of different scale or frequency all keep their influence; if
/// the sum is standardised instead ([`Group`](super::Group)), the reward with the largest variance
/// dominates, and different combinations of rewards get the same advantage.
///
/// Frameworks differ in the second line; see [`Rescale`]. The defaults are TRL's
/// `multi_objective_aggregation="normalize_then_sum"`. verl's `gdpo` has `epsilon` 1e-6,
/// `singleton` `score` and `rescale` `{"tokens": {"epsilon": 1e-8}}`.
///
/// - A missing component is excluded from every statistic and adds 0; a rollout without any
///   component, or without a total, gets 0.
/// - Token rewards together with components are an error: they belong to no component.
/// - Without [`AdvantageInput::components`] the score, including token rewards, is the only
///   component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gdpo {
    /// Whether each component is divided by its standard deviation, or only centred. Default true.
    pub normalize: bool,
    /// Added to the standard deviation, 0 or more. Default 1e-4.
    pub epsilon: f64,
    /// The smallest divisor before `epsilon` is added, above 0. Default 1e-6.
    pub floor: f64,
    /// The term of a component that only one rollout of the group has: 0, or the component over
    /// `1 + epsilon`. Default 0.
    pub singleton: SingletonGroup,
    /// How the sums are rescaled. Default: standardised over the rollouts, with an epsilon of 1e-4.
    pub rescale: Rescale,
}

/// How [`Gdpo`] rescales the sums of standardised rewards.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rescale {
    /// Not at all.
    None,
    /// `(x - mean) / (std + epsilon)` over the scored *rollouts*, `std` unbiased, as in the paper
    /// and TRL.
    Rollouts {
        /// Added to the standard deviation, 0 or more.
        epsilon: f64,
    },
    /// `(x - mean) / sqrt(var + epsilon)` over all *tokens* of the scored rollouts, as in verl.
    /// Rollouts count in proportion to their length.
    Tokens {
        /// Added to the variance, 0 or more.
        epsilon: f64,
    },
}

impl Default for Gdpo {
    fn default() -> Self {
        Self {
            normalize: true,
            epsilon: 1e-4,
            floor: 1e-6,
            singleton: SingletonGroup::Zero,
            rescale: Rescale::Rollouts { epsilon: 1e-4 },
        }
    }
}

impl AdvantageEstimator for Gdpo {
    fn name(&self) -> &str {
        "gdpo"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let parts: Vec<Vec<Option<f64>>>;
        let sums = match input.components {
            None => {
                parts = scores.iter().map(|score| vec![*score]).collect();
                self.sums(&parts, &[1.0], input.groups)?
            }
            Some(_) if input.token_rewards.is_some() => {
                return Err(Error::config(
                    "token_rewards",
                    "given",
                    "none together with components: `gdpo` standardises each component, and a token reward belongs to none of them",
                ));
            }
            Some(components) => {
                // A rollout without a total is excluded from training, whatever its components are.
                let known = |(row, score): (&Vec<Option<f64>>, &Option<f64>)| {
                    row.iter().map(|part| score.and(*part)).collect()
                };
                parts = components.rewards.iter().zip(&scores).map(known).collect();
                self.sums(&parts, components.weights, input.groups)?
            }
        };
        let sums = match self.rescale {
            Rescale::Rollouts { epsilon } => standardised(&sums, epsilon, self.floor)?,
            Rescale::None | Rescale::Tokens { .. } => sums,
        };
        let mut advantages = Advantages::per_rollout(input, |_, _| {
            Ok(sums.iter().map(|sum| sum.unwrap_or(0.0)).collect())
        })?;
        if let Rescale::Tokens { epsilon } = self.rescale {
            whiten_scored(&mut advantages.per_token, &sums, epsilon)?;
        }
        Ok(advantages)
    }

    fn needs_components(&self) -> bool {
        true
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("gdpo.epsilon", self.epsilon)?;
        check_floor("gdpo.floor", self.floor)?;
        match self.rescale {
            Rescale::None => Ok(()),
            Rescale::Rollouts { epsilon } => {
                check_epsilon("gdpo.rescale.rollouts.epsilon", epsilon)
            }
            Rescale::Tokens { epsilon } => check_epsilon("gdpo.rescale.tokens.epsilon", epsilon),
        }
    }
}

impl Gdpo {
    /// Returns the weighted sum of the standardised components of each rollout,
    /// `x_i = sum_k w_k * (r_ik - mean_gk) / (max(std_gk, floor) + epsilon)`; without `normalize`
    /// there is no division.
    ///
    /// `components` are `[N][K]`, `weights` `[K]`, `groups` and the result `[N]`. Mean and unbiased
    /// standard deviation are over the rollouts of the group that have component `k`; a component
    /// that is equal for all of them, or that only one of them has, adds 0 (see
    /// [`singleton`](Self::singleton)). The result is `None` for a rollout without any component.
    ///
    /// # Errors
    ///
    /// Returns an error for slices of different lengths and for numbers that are not finite.
    ///
    /// ```
    /// use rlvr::advantage::Gdpo;
    ///
    /// let exact = Gdpo {
    ///     epsilon: 0.0,
    ///     ..Gdpo::default()
    /// };
    /// // The scale of a reward does not matter.
    /// let components = [
    ///     vec![Some(0.0), Some(300.0)],
    ///     vec![Some(2.0), Some(100.0)],
    ///     vec![None, None],
    /// ];
    /// let sums = exact.sums(&components, &[1.0, 0.5], &[0, 0, 0])?;
    /// let side = 0.5_f64.sqrt();
    /// assert!((sums[0].unwrap() - (0.5 - 1.0) * side).abs() < 1e-12);
    /// assert_eq!(sums[2], None);
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    pub fn sums(
        &self,
        components: &[Vec<Option<f64>>],
        weights: &[f64],
        groups: &[usize],
    ) -> Result<Vec<Option<f64>>> {
        Components {
            rewards: components,
            weights,
        }
        .check(groups.len())?;
        let mut sums: Vec<Option<f64>> = vec![None; groups.len()];
        for (k, weight) in weights.iter().enumerate() {
            let part: Vec<Option<f64>> = components.iter().map(|row| row[k]).collect();
            let (advantages, scale) = if self.normalize {
                let scale = 1.0 / (self.floor.max(1.0) + self.epsilon);
                let advantages = group_normalized(&part, groups, self.epsilon, self.floor)?;
                (advantages, scale)
            } else {
                (group_centered(&part, groups)?, 1.0)
            };
            let advantages = self.singleton.apply(advantages, &part, groups, scale)?;
            for (i, sum) in sums.iter_mut().enumerate() {
                if part[i].is_some() {
                    *sum = Some(sum.unwrap_or(0.0) + weight * advantages[i]);
                }
            }
        }
        Ok(sums)
    }
}

/// Computes `(x - mean) / (max(std, floor) + epsilon)` over the sums that are `Some`; 0 if all of
/// them are equal.
fn standardised(sums: &[Option<f64>], epsilon: f64, floor: f64) -> Result<Vec<Option<f64>>> {
    let present: Vec<f64> = sums.iter().flatten().copied().collect();
    let Some(moments) = Moments::of(&present, || "sums of standardised rewards".into())? else {
        return Ok(sums.to_vec());
    };
    let scale = 1.0 / (moments.std.max(floor) + epsilon);
    let one = |sum: &Option<f64>| sum.map(|sum| moments.centered(sum) * scale);
    Ok(sums.iter().map(one).collect())
}
