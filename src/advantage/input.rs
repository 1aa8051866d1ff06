//! What an estimator reads: one batch of rollouts, as slices.

use super::moments::{check_len, check_numbers, check_rewards};
use crate::types::PerToken;
use crate::{Error, Result};

/// A batch of `N` rollouts, as an estimator sees it.
///
/// All slices have one entry per rollout, in the same order; rollouts of one group need not be neighbours. "Token" means a
/// *trained* token throughout: tokens of the prompt, of a tool or of padding have no place here.
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
    pub token_rewards: Option<&'a PerToken>,
    /// `[N][lengths[i]]` A critic's value of the prefix before each token, from before the update.
    pub values: Option<&'a PerToken>,
    /// The parts of the outcome reward, for an estimator that compares each by itself ([`Gdpo`](super::Gdpo)).
    pub components: Option<Components<'a>>,
    /// `[N]` A reward to compare each rollout with that is not taken from its group, such as that of a greedy completion
    /// of the same prompt ([`Remax`](super::Remax)); `None` where it could not be given.
    pub baselines: Option<&'a [Option<f64>]>,
    /// `[N][lengths[i]]` Log-probs of the tokens under the policy before the update, in nats; for an estimator that
    /// [asks for them](super::AdvantageEstimator::needs_ref_log_probs).
    pub policy_log_probs: Option<&'a PerToken>,
    /// `[N][lengths[i]]` The same under the reference policy or a teacher.
    pub ref_log_probs: Option<&'a PerToken>,
    /// How sure the policy was of each token ([`OptimalTokenBaseline`](super::OptimalTokenBaseline)).
    pub probabilities: Option<Probabilities<'a>>,
    /// `[N][lengths[i]]` The index of each trained token in its completion, strictly increasing; for an estimator that compares
    /// tokens by their position. `None`: there are no other tokens between the trained ones.
    pub positions: Option<&'a [Vec<usize>]>,
    /// `[N]` The replies of each rollout in order, for an estimator that gives credit to turns; their tokens add up to
    /// `lengths[i]`. `None`: each rollout is a single reply without a reward of its own.
    pub turns: Option<&'a [Vec<TurnCredit>]>,
}

/// A reply within a rollout of several turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TurnCredit {
    /// The number of trained tokens.
    pub tokens: usize,
    /// The environment's reward for the reply, which comes on top of the outcome; 0 if there is none.
    pub reward: f64,
    /// The state in which the reply was given: replies of a group with equal states are compared ([`Gigpo`](super::Gigpo)).
    pub state: u64,
}

/// The parts of an outcome reward.
#[derive(Clone, Copy, Debug)]
pub struct Components<'a> {
    /// `[N][K]` Each part of each rollout, before its weight; `None` for a part that could not be given.
    pub rewards: &'a [Vec<Option<f64>>],
    /// `[K]` What each part counts.
    pub weights: &'a [f64],
}

/// What the optimal token baseline knows about the tokens.
#[derive(Clone, Copy, Debug)]
pub struct Probabilities<'a> {
    /// `[N][lengths[i]]` Log-probs of the tokens under the policy before the update, in nats.
    pub log_probs: &'a PerToken,
    /// `[N][lengths[i]]` The sum over the vocabulary of the squared probabilities at each token.
    pub sum_pi_squared: &'a PerToken,
    /// `[N][lengths[i]]` Importance weights of the sampler correction, if there is one.
    pub importance_weights: Option<&'a PerToken>,
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

    /// Adds the parts of the outcome reward and their weights.
    pub fn with_components(mut self, rewards: &'a [Vec<Option<f64>>], weights: &'a [f64]) -> Self {
        self.components = Some(Components { rewards, weights });
        self
    }

    /// Adds baselines from outside the group.
    pub fn with_baselines(mut self, baselines: &'a [Option<f64>]) -> Self {
        self.baselines = Some(baselines);
        self
    }

    /// Adds what is known about the tokens' probabilities.
    pub fn with_probabilities(mut self, probabilities: Probabilities<'a>) -> Self {
        self.probabilities = Some(probabilities);
        self
    }

    /// Adds the log-probs of the tokens under the policy before the update, and under the reference or a teacher.
    pub fn with_log_probs(mut self, policy: &'a PerToken, reference: &'a PerToken) -> Self {
        self.policy_log_probs = Some(policy);
        self.ref_log_probs = Some(reference);
        self
    }

    /// Rejects slices that do not fit together ([`Error::Shape`]) and numbers that are not finite ([`Error::Config`]).
    ///
    /// Estimators call this first; [`AdvantageInput::scores`] includes it.
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

    /// The replies of each rollout.
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

    /// `[N]` What the group estimators compare: the outcome reward plus the sum of the rollout's token rewards.
    ///
    /// `None` where the outcome reward is `None`, whatever the token rewards: a KL penalty alone is no verdict.
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

    /// `[lengths[rollout]]` The rewards of a rollout as they are paid, token by token: its token rewards where they stand, and
    /// the outcome on top at the last token. `None` where the outcome reward is `None`.
    ///
    /// A rollout without tokens has nowhere to be paid. Call [`validate`](Self::validate) first; a rollout that is not there has `None`.
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
    /// Rejects parts that do not fit `rollouts` rollouts, and numbers that are not finite.
    pub(super) fn check(&self, rollouts: usize) -> Result<()> {
        check_len("components", self.rewards.len(), rollouts)?;
        for (rollout, row) in self.rewards.iter().enumerate() {
            if row.len() != self.weights.len() {
                return Err(Error::shape(
                    format!("length of `components[{rollout}]`"),
                    row.len(),
                    format!("{}, one part per weight", self.weights.len()),
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
