//! What an estimator reads: one batch of rollouts, as slices.

use super::moments::{check_len, check_rewards};
use crate::{Error, Result};

/// A batch of `N` rollouts, as an estimator sees it.
///
/// All slices have one entry per rollout, in the same order; rollouts of one group need not be neighbours. "Token" means a
/// *trained* token throughout: tokens of the prompt, of a tool or of padding have no place here.
///
/// ```
/// use rlvr::advantage::AdvantageInput;
///
/// let kl_penalty = [vec![-0.1, -0.1], vec![-0.5]];
/// let input = AdvantageInput::new(&[Some(1.0), Some(0.0)], &[0, 0], &[2, 1])
///     .with_token_rewards(&kl_penalty)
///     .scores()?;
/// assert_eq!(input, [Some(0.8), Some(-0.5)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdvantageInput<'a> {
    /// `[N]` The outcome reward of each rollout; `None` where none could be given.
    pub rewards: &'a [Option<f64>],
    /// `[N]` The group (the prompt) each rollout belongs to: any ids, in any order.
    pub groups: &'a [usize],
    /// `[N]` How many trained tokens each rollout has. 0 is allowed: the rollout takes part in its group's statistics.
    pub lengths: &'a [usize],
    /// `[N][lengths[i]]` Rewards of single tokens that come on top of the outcome, such as `-beta * KL`.
    ///
    /// [`Gae`](super::Gae) pays them where they stand. The group estimators add their sum to the rollout's reward before
    /// any statistic, as TRL does with the KL term of RLOO.
    pub token_rewards: Option<&'a [Vec<f64>]>,
    /// `[N][lengths[i]]` A critic's value of the prefix before each token, from before the update.
    pub values: Option<&'a [Vec<f64>]>,
}

impl<'a> AdvantageInput<'a> {
    /// Outcome rewards only: no per-token rewards and no critic.
    pub fn new(rewards: &'a [Option<f64>], groups: &'a [usize], lengths: &'a [usize]) -> Self {
        Self {
            rewards,
            groups,
            lengths,
            token_rewards: None,
            values: None,
        }
    }

    /// Adds rewards of single tokens.
    pub fn with_token_rewards(mut self, token_rewards: &'a [Vec<f64>]) -> Self {
        self.token_rewards = Some(token_rewards);
        self
    }

    /// Adds a critic's values.
    pub fn with_values(mut self, values: &'a [Vec<f64>]) -> Self {
        self.values = Some(values);
        self
    }

    /// Refuses slices that do not fit together ([`Error::Shape`]) and numbers that are not finite ([`Error::Config`]).
    ///
    /// Estimators call this first; [`AdvantageInput::scores`] includes it.
    pub fn check(&self) -> Result<()> {
        check_rewards(self.rewards, self.groups)?;
        check_len("lengths", self.lengths.len(), self.rewards.len())?;
        self.check_rows("token_rewards", self.token_rewards)?;
        self.check_rows("values", self.values)
    }

    /// `[N]` What the group estimators compare: the outcome reward plus the sum of the rollout's token rewards.
    ///
    /// `None` where the outcome reward is `None`, whatever the token rewards: a KL penalty alone is no verdict.
    pub fn scores(&self) -> Result<Vec<Option<f64>>> {
        self.check()?;
        let Some(rows) = self.token_rewards else {
            return Ok(self.rewards.to_vec());
        };
        let scores: Vec<Option<f64>> = self
            .rewards
            .iter()
            .zip(rows)
            .map(|(reward, row)| reward.map(|reward| reward + row.iter().sum::<f64>()))
            .collect();
        // Finite numbers can have an infinite sum.
        check_rewards(&scores, self.groups)?;
        Ok(scores)
    }

    fn check_rows(&self, what: &str, rows: Option<&[Vec<f64>]>) -> Result<()> {
        let Some(rows) = rows else {
            return Ok(());
        };
        check_len(what, rows.len(), self.rewards.len())?;
        for (rollout, (row, length)) in rows.iter().zip(self.lengths).enumerate() {
            if row.len() != *length {
                return Err(Error::shape(
                    format!("length of `{what}[{rollout}]`"),
                    row.len(),
                    format!("{length}, as `lengths[{rollout}]` says"),
                ));
            }
            if let Some(token) = row.iter().position(|x| !x.is_finite()) {
                return Err(Error::config(
                    format!("{what}[{rollout}][{token}]"),
                    row[token],
                    "a finite number",
                ));
            }
        }
        Ok(())
    }
}
