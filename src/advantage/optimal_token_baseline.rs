//! A baseline for every token, weighted by gradient norm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::input::Probabilities;
use super::moments::{check_epsilon, members};
use super::reinforce_plus_plus::returns_to_go;
use super::returns::check_finite;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics, SingletonGroup};
use crate::types::PerToken;
use crate::{Error, Result};

/// The optimal token baseline: the return, minus a baseline for each column that minimises the
/// variance.
///
/// ```text
/// w_t = (1 - 2 pi_t + sum_v pi_v^2) * rho_t^2
///       the squared norm of the gradient of log pi_t in the logits
/// W_t = w_1 + ... + w_t
///       the same for the rollout up to t
/// B_t = sum_i G_it W_it / (sum_i W_it + epsilon)
///       over the rollouts of the group that have a token in column t
/// A_t = G_t - B_t
/// ```
///
/// with `pi_t` the probability of the token and the sum over the vocabulary (both in
/// [`AdvantageInput::probabilities`]), `rho` the weight of the sampler correction (1 without one),
/// `G` the undiscounted return, all over the rollout's trained tokens. verl's
/// `optimal_token_baseline` and `tir_optimal_token_baseline`, which differ in
/// [`align`](Self::align). `returns` is `G`.
///
/// - Meant for on-policy updates: `pi` is the policy before the update.
/// - If the policy was certain of every token so far, `W` and the baseline are 0: `A = G`, on
///   tokens without a gradient.
/// - In a group whose rewards are all equal the advantages are 0 only up to `epsilon`, and `G` in a
///   zeroed tail.
/// - A rollout without a reward is excluded from the baseline and gets 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimalTokenBaseline {
    /// Added to the denominator of the baseline, 0 or more. Default 1e-8, as in verl.
    pub epsilon: f64,
    /// Whether the baseline is 0 for the part of the longest rollout that no other of its group
    /// reaches; otherwise the baseline there is the rollout's own return and the advantage 0.
    /// Default true, as in verl.
    pub zero_tail: bool,
    /// Which tokens of a group are compared with each other. Default: those at the same position in
    /// the completion.
    pub align: Align,
    /// The advantage of the only scored rollout of a group: 0, or the raw return, as in verl.
    /// Default 0.
    pub singleton: SingletonGroup,
}

/// The columns of [`OptimalTokenBaseline`]. The variants differ only if there are observations
/// between the trained tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// Tokens at the same position in their completions, observations included: verl's
    /// `optimal_token_baseline`. Positions come from [`AdvantageInput::positions`]. As in verl, the
    /// zeroed tail still starts at the number of trained tokens.
    #[default]
    Position,
    /// The `n`th trained tokens: verl's `tir_optimal_token_baseline` for reasoning with tools. A
    /// rollout without trained tokens does not count as a member of its group.
    TrainedToken,
}

impl Default for OptimalTokenBaseline {
    fn default() -> Self {
        Self {
            epsilon: 1e-8,
            zero_tail: true,
            align: Align::Position,
            singleton: SingletonGroup::Zero,
        }
    }
}

impl AdvantageEstimator for OptimalTokenBaseline {
    fn name(&self) -> &str {
        "optimal_token_baseline"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let Some(probabilities) = &input.probabilities else {
            return Err(Error::config(
                "probabilities",
                "absent",
                "log-probs and sums of squared probabilities: `optimal_token_baseline` weights each token by them",
            ));
        };
        let returns = returns_to_go(input, 1.0)?;
        let weights: Vec<Vec<f64>> = (0..scores.len())
            .map(|i| running_weights(probabilities, i))
            .collect();
        let mut per_token = PerToken::filled(input.lengths, 0.0);
        for rollouts in members(input.groups).values() {
            let belongs = |i: &usize| match self.align {
                Align::Position => scores[*i].is_some(),
                Align::TrainedToken => scores[*i].is_some() && input.lengths[*i] > 0,
            };
            let group: Vec<usize> = rollouts.iter().copied().filter(belongs).collect();
            if let [only] = group[..] {
                if self.singleton == SingletonGroup::Score {
                    per_token[only].copy_from_slice(&returns[only]);
                }
                continue;
            }
            let column = |i: usize, t: usize| match (self.align, input.positions) {
                (Align::Position, Some(positions)) => positions[i][t],
                _ => t,
            };
            let mut sums = BTreeMap::<usize, (f64, f64)>::new();
            for &i in &group {
                for t in 0..input.lengths[i] {
                    let (weighted, total) = sums.entry(column(i, t)).or_default();
                    *weighted += returns[i][t] * weights[i][t];
                    *total += weights[i][t];
                }
            }
            let tail = self
                .zero_tail
                .then(|| tail(&group, input.lengths))
                .flatten();
            for &i in &group {
                for t in 0..input.lengths[i] {
                    let column = column(i, t);
                    let (weighted, total) = sums[&column];
                    let in_tail =
                        tail.is_some_and(|(longest, from)| i == longest && column >= from);
                    let denominator = total + self.epsilon;
                    let baseline = if in_tail || denominator == 0.0 {
                        0.0
                    } else {
                        weighted / denominator
                    };
                    per_token[i][t] = returns[i][t] - baseline;
                }
                check_finite(&format!("advantages[{i}]"), &per_token[i])?;
            }
        }
        Ok(Advantages {
            per_token,
            returns: Some(returns),
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn needs_groups(&self) -> bool {
        self.singleton == SingletonGroup::Zero
    }

    fn needs_probabilities(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<()> {
        check_epsilon("optimal_token_baseline.epsilon", self.epsilon)
    }
}

/// Returns `W_t` of one rollout.
fn running_weights(probabilities: &Probabilities, rollout: usize) -> Vec<f64> {
    let log_probs = &probabilities.log_probs[rollout];
    let squares = &probabilities.sum_pi_squared[rollout];
    let importance = probabilities.importance_weights.map(|rows| &rows[rollout]);
    let mut running = 0.0;
    let step = |(t, (log_prob, squares)): (usize, (&f64, &f64))| {
        let rho = importance.map_or(1.0, |row| row[t]);
        running += (1.0 - 2.0 * log_prob.exp() + squares) * rho * rho;
        running
    };
    log_probs
        .iter()
        .zip(squares)
        .enumerate()
        .map(step)
        .collect()
}

/// Returns the longest rollout of a group and the length of the second longest; `None` if several
/// are longest.
fn tail(group: &[usize], lengths: &[usize]) -> Option<(usize, usize)> {
    let mut by_length: Vec<usize> = group.to_vec();
    by_length.sort_by_key(|i| std::cmp::Reverse(lengths[*i]));
    match by_length[..] {
        [longest, second, ..] if lengths[longest] > lengths[second] => {
            Some((longest, lengths[second]))
        }
        _ => None,
    }
}
