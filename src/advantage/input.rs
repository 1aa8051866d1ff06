//! The input of an estimator: one batch of rollouts, as slices.

use super::moments::{check_len, check_numbers, check_rewards};
use crate::types::PerToken;
use crate::{Error, Result};

/// A batch of `N` rollouts, the input of an estimator.
///
/// All slices have one entry per rollout, in the same order; the rollouts of a group need not be
/// adjacent. "Token" always means a *trained* token: tokens of the prompt, of tool output or of
/// padding are not included.
///
/// ```
/// use rlvr::advantage::AdvantageInput;
/// use rlvr::types::PerToken;
///
/// let kl_penalty = PerToken::from(vec![vec![-0.1, -0.1], vec![-0.5]]);
/// let input = AdvantageInput::new(&[Some(1.0), Some(0.0)], &[0, 0], &[2, 1])
///     .with_token_rewards(&kl_penalty)
///     .scores()?;
/// assert_eq!(input, [Some(0.8), Some(-0.5)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AdvantageInput<'a> {
    /// `[N]` The outcome reward of each rollout; `None` if it could not be given.
    pub rewards: &'a [Option<f64>],
    /// `[N]` The group (the prompt) of each rollout: arbitrary ids, in any order.
    pub groups: &'a [usize],
    /// `[N]` The number of trained tokens of each rollout. 0 is allowed: the rollout still counts
    /// in the statistics of its group.
    pub lengths: &'a [usize],
    /// `[N][lengths[i]]` Rewards of single tokens, in addition to the outcome, such as
    /// `-beta * KL`.
    ///
    /// [`Gae`](super::Gae) adds them at their tokens. The group estimators add their sum to the
    /// rollout's reward before any statistic, as TRL does with the KL term of RLOO.
    pub token_rewards: Option<&'a PerToken>,
    /// `[N][lengths[i]]` A critic's value of the prefix before each token, computed before the
    /// update.
    pub values: Option<&'a PerToken>,
    /// The components of the outcome reward, for an estimator that compares each one separately
    /// ([`Gdpo`](super::Gdpo)).
    pub components: Option<Components<'a>>,
    /// `[N]` A baseline reward that does not come from the group, such as that of a greedy
    /// completion of the same prompt ([`Remax`](super::Remax)); `None` if it could not be given.
    pub baselines: Option<&'a [Option<f64>]>,
    /// `[N][lengths[i]]` Log-probs of the tokens under the policy before the update, in nats; for
    /// an estimator that [needs them](super::AdvantageEstimator::needs_ref_log_probs).
    pub policy_log_probs: Option<&'a PerToken>,
    /// `[N][lengths[i]]` Log-probs of the tokens under the reference policy or a teacher, in nats.
    pub ref_log_probs: Option<&'a PerToken>,
    /// The policy's probabilities at each token
    /// ([`OptimalTokenBaseline`](super::OptimalTokenBaseline)).
    pub probabilities: Option<Probabilities<'a>>,
    /// `[N][lengths[i]]` The index of each trained token in its completion, strictly increasing;
    /// for an estimator that compares tokens by position. `None` if there are no other tokens
    /// between the trained ones.
    pub positions: Option<&'a [Vec<usize>]>,
    /// `[N]` The replies of each rollout in order, for an estimator that assigns credit to turns;
    /// their tokens sum to `lengths[i]`. `None` if each rollout is a single reply without a turn
    /// reward.
    pub turns: Option<&'a [Vec<TurnCredit>]>,
}

/// A reply within a rollout of several turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnCredit {
    /// The number of trained tokens.
    pub tokens: usize,
    /// The environment's reward for the reply, in addition to the outcome; 0 if there is none.
    pub reward: f64,
    /// An id of the state in which the reply was given: replies of a group with equal states are
    /// compared ([`Gigpo`](super::Gigpo)).
    pub state: u64,
}

/// The components of an outcome reward.
#[derive(Clone, Copy, Debug)]
pub struct Components<'a> {
    /// `[N][K]` The components of each rollout, unweighted; `None` for a component that could not
    /// be given.
    pub rewards: &'a [Vec<Option<f64>>],
    /// `[K]` The weight of each component.
    pub weights: &'a [f64],
}

/// The token probabilities that [`OptimalTokenBaseline`](super::OptimalTokenBaseline) reads.
#[derive(Clone, Copy, Debug)]
pub struct Probabilities<'a> {
    /// `[N][lengths[i]]` Log-probs of the tokens under the policy before the update, in nats.
    pub log_probs: &'a PerToken,
    /// `[N][lengths[i]]` The sum of the squared probabilities of the whole vocabulary at each
    /// token.
    pub sum_pi_squared: &'a PerToken,
    /// `[N][lengths[i]]` Importance weights of the sampler correction, if there is one.
    pub importance_weights: Option<&'a PerToken>,
}

impl<'a> AdvantageInput<'a> {
    /// Creates an input with outcome rewards only.
    pub fn new(rewards: &'a [Option<f64>], groups: &'a [usize], lengths: &'a [usize]) -> Self {
        Self {
            rewards,
            groups,
            lengths,
            token_rewards: None,
            values: None,
            components: None,
            baselines: None,
            policy_log_probs: None,
            ref_log_probs: None,
            probabilities: None,
            positions: None,
            turns: None,
        }
    }

    /// Adds rewards of single tokens.
    pub fn with_token_rewards(mut self, token_rewards: &'a PerToken) -> Self {
        self.token_rewards = Some(token_rewards);
        self
    }

    /// Adds a critic's values.
    pub fn with_values(mut self, values: &'a PerToken) -> Self {
        self.values = Some(values);
        self
    }

    /// Adds the components of the outcome reward and their weights.
    pub fn with_components(mut self, rewards: &'a [Vec<Option<f64>>], weights: &'a [f64]) -> Self {
        self.components = Some(Components { rewards, weights });
        self
    }

    /// Adds baselines that do not come from the group.
    pub fn with_baselines(mut self, baselines: &'a [Option<f64>]) -> Self {
        self.baselines = Some(baselines);
        self
    }

    /// Adds the token probabilities.
    pub fn with_probabilities(mut self, probabilities: Probabilities<'a>) -> Self {
        self.probabilities = Some(probabilities);
        self
    }

    /// Adds the log-probs of the tokens under the policy before the update, and under the reference
    /// or a teacher.
    pub fn with_log_probs(mut self, policy: &'a PerToken, reference: &'a PerToken) -> Self {
        self.policy_log_probs = Some(policy);
        self.ref_log_probs = Some(reference);
        self
    }

    /// Checks that the slices fit together and that all numbers are finite.
    ///
    /// Estimators call this first; [`AdvantageInput::scores`] includes it.
    ///
    /// # Errors
    /// [`Error::Shape`] for slices of different lengths, [`Error::Config`] for a number that is not
    /// finite.
    pub fn validate(&self) -> Result<()> {
        check_rewards(self.rewards, self.groups)?;
        check_len("lengths", self.lengths.len(), self.rewards.len())?;
        self.check_rows("token_rewards", self.token_rewards)?;
        self.check_rows("values", self.values)?;
        if let Some(components) = &self.components {
            components.check(self.rewards.len())?;
        }
        if let Some(baselines) = self.baselines {
            check_len("baselines", baselines.len(), self.rewards.len())?;
            check_numbers("baselines", baselines)?;
        }
        self.check_rows("policy_log_probs", self.policy_log_probs)?;
        self.check_rows("ref_log_probs", self.ref_log_probs)?;
        if let Some(probabilities) = &self.probabilities {
            self.check_rows("log_probs", Some(probabilities.log_probs))?;
            self.check_rows("sum_pi_squared", Some(probabilities.sum_pi_squared))?;
            self.check_rows("importance_weights", probabilities.importance_weights)?;
        }
        self.check_positions()?;
        self.check_turns()
    }

    /// The replies of each rollout; a single one without turns.
    pub(super) fn credited(&self) -> Vec<Vec<TurnCredit>> {
        let single = |&tokens: &usize| {
            vec![TurnCredit {
                tokens,
                reward: 0.0,
                state: 0,
            }]
        };
        match self.turns {
            Some(turns) => turns.to_vec(),
            None => self.lengths.iter().map(single).collect(),
        }
    }

    fn check_turns(&self) -> Result<()> {
        let Some(rows) = self.turns else {
            return Ok(());
        };
        check_len("turns", rows.len(), self.rewards.len())?;
        for (rollout, (turns, &length)) in rows.iter().zip(self.lengths).enumerate() {
            let tokens: usize = turns.iter().map(|turn| turn.tokens).sum();
            if tokens != length {
                return Err(Error::shape(
                    format!("tokens of `turns[{rollout}]`"),
                    tokens,
                    format!("{length}, as `lengths[{rollout}]` says"),
                ));
            }
            if let Some(turn) = turns.iter().position(|turn| !turn.reward.is_finite()) {
                return Err(Error::config(
                    format!("turns[{rollout}][{turn}].reward"),
                    turns[turn].reward,
                    "a finite number",
                ));
            }
        }
        Ok(())
    }

    /// `[N]` The score of each rollout: the outcome reward plus the sum of the rollout's token
    /// rewards.
    ///
    /// `None` where the outcome reward is `None`, whatever the token rewards are.
    ///
    /// # Errors
    /// As for [`validate`](Self::validate), and if a sum is not finite.
    pub fn scores(&self) -> Result<Vec<Option<f64>>> {
        self.validate()?;
        let Some(rows) = self.token_rewards else {
            return Ok(self.rewards.to_vec());
        };
        let scores: Vec<Option<f64>> = self
            .rewards
            .iter()
            .zip(rows.rows())
            .map(|(reward, row)| reward.map(|reward| reward + row.iter().sum::<f64>()))
            .collect();
        // Finite numbers can have an infinite sum.
        check_rewards(&scores, self.groups)?;
        Ok(scores)
    }

    /// `[lengths[rollout]]` The reward of each token of a rollout: its token rewards, plus the
    /// outcome at the last token. `None` if the outcome reward is `None` or there is no such
    /// rollout.
    ///
    /// The result is empty for a rollout without tokens. Call [`validate`](Self::validate) first.
    pub fn paid(&self, rollout: usize) -> Option<Vec<f64>> {
        let outcome = (*self.rewards.get(rollout)?)?;
        let mut row = match self.token_rewards {
            Some(rows) => rows.get(rollout)?.to_vec(),
            None => vec![0.0; *self.lengths.get(rollout)?],
        };
        if let Some(last) = row.last_mut() {
            *last += outcome;
        }
        Some(row)
    }

    fn check_positions(&self) -> Result<()> {
        let Some(rows) = self.positions else {
            return Ok(());
        };
        check_len("positions", rows.len(), self.rewards.len())?;
        for (rollout, (row, length)) in rows.iter().zip(self.lengths).enumerate() {
            if row.len() != *length || !row.is_sorted_by(|a, b| a < b) {
                return Err(Error::shape(
                    format!("`positions[{rollout}]`"),
                    format!("{row:?}"),
                    format!(
                        "{length} positions, as `lengths[{rollout}]` says, strictly increasing"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_rows(&self, what: &str, rows: Option<&PerToken>) -> Result<()> {
        let Some(rows) = rows else {
            return Ok(());
        };
        rows.check_lengths(what, self.lengths)?;
        for (rollout, row) in rows.rows().enumerate() {
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

impl Components<'_> {
    /// Rejects components that do not fit `rollouts` rollouts, and numbers that are not finite.
    pub(super) fn check(&self, rollouts: usize) -> Result<()> {
        check_len("components", self.rewards.len(), rollouts)?;
        for (rollout, row) in self.rewards.iter().enumerate() {
            if row.len() != self.weights.len() {
                return Err(Error::shape(
                    format!("length of `components[{rollout}]`"),
                    row.len(),
                    format!("{}, one component per weight", self.weights.len()),
                ));
            }
            check_numbers(&format!("components[{rollout}]"), row)?;
        }
        match self.weights.iter().position(|weight| !weight.is_finite()) {
            None => Ok(()),
            Some(k) => Err(Error::config(
                format!("weights[{k}]"),
                self.weights[k],
                "a finite number",
            )),
        }
    }
}
