//! The options of one reward in a set: limits, gate, and the replacement of missing scores.

use std::time::Duration;

use crate::{Error, Result};

/// The replacement of a missing score in the total.
///
/// Totals are compared within a group. Which replacement keeps the comparison fair depends on why
/// the score is missing, so it is set for each reward, separately for abstaining and failing.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Missing {
    /// The rollout has no total and is excluded from training. The default for failures: a sum
    /// without the reward would be on another scale and would reward or penalise the failure
    /// itself.
    DropRollout,
    /// The reward is left out of the sum, as a NaN is in TRL's `nansum`. The total is the same as
    /// with a score of 0, unless no reward gave a number. The default for abstaining.
    LeaveOut,
    /// The reward is left out and the weights of the others are scaled so that the sum of their
    /// absolute values stays the same: `total = sum(w_i s_i) * sum_all |w| / sum_counted |w|`. The
    /// total stays on its scale.
    Renormalise,
    /// This number, before the weight. `Value(0.0)` for failures is what most trainers do: a
    /// time-out counts as a wrong answer.
    Value(f64),
}

/// A condition on the score of another reward of the set, such as "only if the format is right".
///
/// The gate is open if the other reward gave at least a [threshold](Self::with_at_least). If it is
/// closed, a [fixed value](Self::with_otherwise) replaces what is behind it: one reward
/// ([`RewardOptions::with_gate`]), which then does not run, or the whole total
/// ([`RewardSetBuilder::gate_total`](super::RewardSetBuilder::gate_total)).
///
/// If the other reward abstained, the gate is open. If it failed, the reward behind the gate counts
/// as failed too. In both cases a [`Missing::Value`] of the other reward is compared instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Gate {
    pub(super) reward: String,
    pub(super) at_least: f64,
    pub(super) otherwise: f64,
}

impl Gate {
    /// Creates a gate that is open if the reward called `reward` gave at least 1. If it is closed,
    /// the value is 0.
    pub fn on(reward: impl Into<String>) -> Self {
        Self {
            reward: reward.into(),
            at_least: 1.0,
            otherwise: 0.0,
        }
    }

    /// Sets the lowest score that opens the gate, a finite number. Default: 1.
    #[must_use]
    pub fn with_at_least(self, at_least: f64) -> Self {
        Self { at_least, ..self }
    }

    /// Sets the value that counts if the gate is closed, a finite number. Default: 0.
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

/// The options of one reward in a set. Each has a default.
///
/// ```
/// use std::time::Duration;
/// use rlvr::reward::{
///     AccuracyReward, FormatReward, Gate, Missing, RewardInput, RewardOptions, RewardSet,
/// };
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
    pub(super) time_limit: Option<Duration>,
    pub(super) concurrency: Option<usize>,
    pub(super) batch: Option<usize>,
    pub(super) domains: Option<Vec<String>>,
    pub(super) gate: Option<Gate>,
    pub(super) on_abstain: Missing,
    pub(super) on_failure: Missing,
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
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the time limit of one call, more than zero. Default: the limit of the set.
    pub fn with_time_limit(self, limit: Duration) -> Self {
        let time_limit = Some(limit);
        Self { time_limit, ..self }
    }

    /// Sets the number of calls that run at once, at least 1, on workers that no other reward uses.
    /// For rewards that wait. Default: the reward shares the workers of the set.
    pub fn with_concurrency(self, calls: usize) -> Self {
        let concurrency = Some(calls);
        Self {
            concurrency,
            ..self
        }
    }

    /// Sets the number of completions per call, at least 1. Default:
    /// [`Reward::batch_size`](super::super::Reward::batch_size).
    pub fn with_batch(self, completions: usize) -> Self {
        let batch = Some(completions);
        Self { batch, ..self }
    }

    /// Sets the [domains](crate::types::Problem::domain) of the problems on which the reward runs,
    /// at least one. On others it abstains. Default: all problems, including those without a
    /// domain.
    pub fn with_domains(self, domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let domains = Some(domains.into_iter().map(Into::into).collect());
        Self { domains, ..self }
    }

    /// Sets the condition under which the reward runs. A group reward receives the completions of a
    /// group that meet it. Default: none.
    pub fn with_gate(self, gate: Gate) -> Self {
        let gate = Some(gate);
        Self { gate, ..self }
    }

    /// Sets the replacement of the score if the reward abstains. Default: [`Missing::LeaveOut`].
    pub fn with_on_abstain(self, on_abstain: Missing) -> Self {
        Self { on_abstain, ..self }
    }

    /// Sets the replacement of the score if the reward fails, panics or times out. Default:
    /// [`Missing::DropRollout`].
    pub fn with_on_failure(self, on_failure: Missing) -> Self {
        Self { on_failure, ..self }
    }

    /// Rejects settings that are invalid in every set. `field` is the path of these options.
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
