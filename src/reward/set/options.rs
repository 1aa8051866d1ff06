//! The options of one reward in a set: limits, gate, and what counts where it gives no score.

use std::time::Duration;

use crate::{Error, Result};

/// What counts in the total in place of a missing score.
///
/// A total compares a rollout with the others of its group. Which of these keeps the comparison fair depends on why the score
/// is missing, so it is set for each reward, separately for abstaining and for failing.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Missing {
    /// The rollout has no total and is excluded from training. The default for failures: the sum without the reward would be on
    /// another scale, so that the failure itself would be rewarded or penalised.
    DropRollout,
    /// The reward is left out of the sum, as a NaN is in TRL's `nansum`. The same total as with a score of 0,
    /// unless no reward gave a number. The default for abstaining.
    LeaveOut,
    /// The reward is left out and the weights of the others grow, in proportion, so that the sum of their absolute values is
    /// that of all rewards: `total = sum(w_i s_i) * sum_all |w| / sum_counted |w|`. The total stays on its scale.
    Renormalise,
    /// This number, before the weight. `Value(0.0)` for a failure is what most trainers do: a time-out is a wrong answer.
    Value(f64),
}

/// A condition on the score of another reward of the set: "only if the format is right".
///
/// The gate is open if the other reward gave at least [`at_least`](Self::at_least). Where it is closed,
/// [`otherwise`](Self::otherwise) takes the place of what is behind it: one reward ([`RewardOptions::gate`]), which is then not
/// run, or the whole total ([`RewardSetBuilder::gate_total`](super::RewardSetBuilder::gate_total)).
///
/// If the other reward abstained, the gate is open: the condition does not apply to this rollout. If it failed, the reward
/// behind the gate counts as failed too. In both cases a [`Missing::Value`] of the other reward is compared instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    /// The name of the other reward.
    pub reward: String,
    /// The least score that opens the gate.
    pub at_least: f64,
    /// What counts where the gate is closed.
    pub otherwise: f64,
}

impl Gate {
    /// Open where the reward called `reward` gave at least 1, and 0 otherwise.
    pub fn on(reward: impl Into<String>) -> Self {
        Self {
            reward: reward.into(),
            at_least: 1.0,
            otherwise: 0.0,
        }
    }

    /// The same gate with another threshold.
    #[must_use]
    pub fn with_at_least(self, at_least: f64) -> Self {
        Self { at_least, ..self }
    }

    /// The same gate with another number where it is closed.
    #[must_use]
    pub fn with_otherwise(self, otherwise: f64) -> Self {
        Self { otherwise, ..self }
    }

    pub(super) fn validate(&self, field: &str) -> Result<()> {
        for (part, value) in [("at_least", self.at_least), ("otherwise", self.otherwise)] {
            finite(&format!("{field}.{part}"), value)?;
        }
        Ok(())
    }
}

/// The options of one reward in a set. What is not set is the set's default.
///
/// ```
/// use std::time::Duration;
/// use rlvr::reward::{AccuracyReward, FormatReward, Gate, Missing, RewardInput, RewardOptions, RewardSet};
///
/// let accuracy = RewardOptions::new()
///     .with_gate(Gate::on("format").with_otherwise(-0.5)) // only if the format is right
///     .with_on_failure(Missing::Value(0.0))
///     .with_time_limit(Duration::from_secs(1));
/// let rewards = RewardSet::builder()
///     .add_with(1.0, AccuracyReward::new(), accuracy)
///     .add(0.2, FormatReward::new())
///     .clamp(-1.0, 1.0)
///     .build()?;
///
/// let scored = rewards.score(vec![
///     RewardInput::new("2+2=", "4", "<think>2+2</think><answer>4</answer>"),
///     RewardInput::new("2+2=", "4", "<answer>4</answer>"),
/// ]);
/// let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.0), Some(-0.5)]); // 1.2 is clamped
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct RewardOptions {
    /// How long one call of the reward may take. Default: the set's time limit.
    pub time_limit: Option<Duration>,
    /// How many calls of the reward run at once, on workers of its own. Default: it shares the set's workers.
    pub concurrency: Option<usize>,
    /// How many completions one call is given. Default: what the reward asks for,
    /// [`Reward::batch_size`](super::super::Reward::batch_size).
    pub batch: Option<usize>,
    /// The domains of the problems on which the reward is run; on others it abstains. Default: all, and problems without a domain.
    pub domains: Option<Vec<String>>,
    /// The condition under which the reward is run. Default: none.
    pub gate: Option<Gate>,
    /// What counts where the reward abstained. Default: [`Missing::LeaveOut`].
    pub on_abstain: Missing,
    /// What counts where the reward failed, panicked or timed out. Default: [`Missing::DropRollout`].
    pub on_failure: Missing,
}

impl Default for RewardOptions {
    fn default() -> Self {
        Self {
            time_limit: None,
            concurrency: None,
            batch: None,
            domains: None,
            gate: None,
            on_abstain: Missing::LeaveOut,
            on_failure: Missing::DropRollout,
        }
    }
}

impl RewardOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long one call may take, more than zero.
    pub fn with_time_limit(self, limit: Duration) -> Self {
        let time_limit = Some(limit);
        Self { time_limit, ..self }
    }

    /// How many calls run at once, at least 1, on workers that no other reward uses. For rewards that wait.
    pub fn with_concurrency(self, calls: usize) -> Self {
        let concurrency = Some(calls);
        Self {
            concurrency,
            ..self
        }
    }

    /// How many completions one call is given, at least 1.
    pub fn with_batch(self, completions: usize) -> Self {
        let batch = Some(completions);
        Self { batch, ..self }
    }

    /// The [domains](crate::types::Problem::domain) of the problems on which the reward is run, at least one. On others it abstains.
    pub fn with_domains(self, domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let domains = Some(domains.into_iter().map(Into::into).collect());
        Self { domains, ..self }
    }

    /// The condition under which the reward is run. A group reward is given those of a group for which it holds.
    pub fn with_gate(self, gate: Gate) -> Self {
        let gate = Some(gate);
        Self { gate, ..self }
    }

    /// What counts where the reward abstained.
    pub fn with_on_abstain(self, on_abstain: Missing) -> Self {
        Self { on_abstain, ..self }
    }

    /// What counts where the reward failed, panicked or timed out.
    pub fn with_on_failure(self, on_failure: Missing) -> Self {
        Self { on_failure, ..self }
    }

    /// Rejects settings that are invalid in every set; `field` is the path of these options.
    pub(super) fn validate(&self, field: &str) -> Result<()> {
        if self.time_limit.is_some_and(|limit| limit.is_zero()) {
            let field = format!("{field}.time_limit");
            return Err(Error::config(field, "0 s", "more than zero"));
        }
        for (part, count) in [("concurrency", self.concurrency), ("batch", self.batch)] {
            if count == Some(0) {
                return Err(Error::config(format!("{field}.{part}"), 0, "1 or more"));
            }
        }
        if self.domains.as_ref().is_some_and(Vec::is_empty) {
            let field = format!("{field}.domains");
            return Err(Error::config(field, "[]", "at least one domain, or none"));
        }
        for (part, missing) in [
            ("on_abstain", self.on_abstain),
            ("on_failure", self.on_failure),
        ] {
            if let Missing::Value(value) = missing {
                finite(&format!("{field}.{part}"), value)?;
            }
        }
        let gate = self.gate.as_ref();
        gate.map_or(Ok(()), |gate| gate.validate(&format!("{field}.gate")))
    }
}

fn finite(field: &str, value: f64) -> Result<()> {
    match value.is_finite() {
        true => Ok(()),
        false => Err(Error::config(field, value, "a finite number")),
    }
}
