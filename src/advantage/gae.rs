//! Generalised advantage estimation: the advantage of PPO, with a critic.

use serde::{Deserialize, Serialize};

use super::moments::{check_epsilon, check_unit};
use super::returns::{check_finite, check_tokens};
use super::whiten::whiten_scored;
use super::{AdvantageEstimator, AdvantageInput, Advantages, GroupStatistics};
use crate::types::PerToken;
use crate::{Error, Result};

/// The advantage of PPO: discounted temporal-difference errors of a critic.
///
/// ```text
/// delta_t = r_t + gamma * V_{t+1} - V_t
/// A_t     = delta_t + gamma * lambda * A_{t+1}
/// R_t     = A_t + V_t
/// ```
///
/// with `V = A = 0` after the last token, over the trained tokens only, as in verl: tokens of tool
/// output between them are skipped. With `lambda = 1` the advantage is the discounted return minus
/// the value, with `lambda = 0` the one-step temporal difference.
///
/// GAE (arXiv 1506.02438, equations 11 and 16). The outcome reward is added at the last token;
/// token rewards are added at their tokens. Nothing is bootstrapped: the value after the last token
/// is 0, even if the completion was truncated.
///
/// ```
/// use rlvr::advantage::{AdvantageEstimator, AdvantageInput, Gae};
///
/// let values = vec![vec![0.5, 1.0, 1.5]].into();
/// let token_rewards = vec![vec![1.0, 2.0, 0.0]].into();
/// let input = AdvantageInput::new(&[Some(3.0)], &[0], &[3])
///     .with_values(&values)
///     .with_token_rewards(&token_rewards);
/// let gae = Gae {
///     lambda: 1.0,
///     whiten: false,
///     ..Gae::default()
/// };
/// let advantages = gae.estimate(&input)?;
/// assert_eq!(advantages.per_token, [vec![5.5, 4.0, 1.5]]);
/// assert_eq!(advantages.returns.unwrap(), [vec![6.0, 5.0, 3.0]]);
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// - `returns` is `R`, the target of the critic; whitening does not change it.
/// - A rollout without a reward gets advantages of 0 and is excluded from whitening. Its returns
///   are its values, so it does not train the critic either.
/// - The reward of a rollout without tokens counts only in the statistics.
/// - Groups do not affect the advantages, only the statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gae {
    /// Discount per token, in `[0, 1]`. Default 1: the length of an answer does not change its
    /// value.
    pub gamma: f64,
    /// Trade-off between bias (0: trust the critic) and variance (1: trust the reward), in
    /// `[0, 1]`. Default 0.95, as in TRL; verl has 1.
    #[doc(alias = "lam")]
    pub lambda: f64,
    /// Whether the advantages are whitened over all tokens of the batch, see
    /// [`whiten()`](super::whiten()). Default true.
    pub whiten: bool,
    /// Added to the variance when whitening, 0 or more. Default 1e-8.
    pub whiten_epsilon: f64,
}

impl Default for Gae {
    fn default() -> Self {
        Self {
            gamma: 1.0,
            lambda: 0.95,
            whiten: true,
            whiten_epsilon: 1e-8,
        }
    }
}

impl AdvantageEstimator for Gae {
    fn name(&self) -> &str {
        "gae"
    }

    fn estimate(&self, input: &AdvantageInput) -> Result<Advantages> {
        self.validate()?;
        let scores = input.scores()?;
        let Some(values) = input.values else {
            return Err(Error::config(
                "values",
                "absent",
                "a critic's value of each token: `gae` needs a value head; the group estimators do not",
            ));
        };
        let (mut per_token, mut returns) = (PerToken::default(), PerToken::default());
        for (i, values) in values.rows().enumerate() {
            let Some(rewards) = input.paid(i) else {
                per_token.push(vec![0.0; values.len()]);
                returns.push(values.to_vec());
                continue;
            };
            let (row, row_returns) = gae(&rewards, values, self.gamma, self.lambda)?;
            per_token.push(row);
            returns.push(row_returns);
        }
        if self.whiten {
            whiten_scored(&mut per_token, &scores, self.whiten_epsilon)?;
        }
        Ok(Advantages {
            per_token,
            returns: Some(returns),
            statistics: GroupStatistics::of(&scores, input.groups)?,
        })
    }

    fn needs_values(&self) -> bool {
        true
    }

    fn validate(&self) -> Result<()> {
        check_unit("gae.gamma", self.gamma)?;
        check_unit("gae.lambda", self.lambda)?;
        check_epsilon("gae.whiten_epsilon", self.whiten_epsilon)
    }
}

/// Computes `(advantages, returns)` of one row by the formula of [`Gae`]; all slices are `[T]`.
pub(super) fn gae(
    rewards: &[f64],
    values: &[f64],
    gamma: f64,
    lambda: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    check_unit("gamma", gamma)?;
    check_unit("lambda", lambda)?;
    check_tokens("values", values.len(), rewards.len())?;
    let mut advantages = vec![0.0; rewards.len()];
    let mut returns = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..rewards.len()).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        next_value = values[t];
        advantages[t] = next_advantage;
        returns[t] = next_advantage + values[t];
    }
    check_finite("advantages", &advantages)?;
    check_finite("returns", &returns)?;
    Ok((advantages, returns))
}
