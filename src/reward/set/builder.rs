//! The builder of a [`RewardSet`].

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::entry::{BoundGate, Entry, Scorer};
use super::options::{Gate, RewardOptions};
use super::total::Total;
use super::{MAX_ABANDONED, RewardSet, TIME_LIMIT};
use crate::reward::pool::Pool;
use crate::reward::{GroupReward, Reward};
use crate::{Error, Result};

/// Collects the rewards and settings of a [`RewardSet`].
#[must_use]
pub struct RewardSetBuilder {
    rewards: Vec<Added>,
    time_limit: Duration,
    threads: Option<usize>,
    gate: Option<Gate>,
    clamp: Option<(f64, f64)>,
}

struct Added {
    weight: f64,
    scorer: Scorer,
    options: RewardOptions,
}

impl Added {
    fn name(&self) -> &str {
        match &self.scorer {
            Scorer::Each(reward) => reward.name(),
            Scorer::Group(reward) => reward.name(),
        }
    }

    fn validate(&self) -> Result<()> {
        match &self.scorer {
            Scorer::Each(reward) => reward.validate(),
            Scorer::Group(reward) => reward.validate(),
        }
    }
}

impl RewardSetBuilder {
    pub(super) fn new() -> Self {
        Self {
            rewards: Vec::new(),
            time_limit: TIME_LIMIT,
            threads: None,
            gate: None,
            clamp: None,
        }
    }

    /// Adds a reward and its weight in the total, any finite number. `Arc<dyn Reward>` and
    /// `Box<dyn Reward>` are rewards too.
    pub fn add(self, weight: f64, reward: impl Reward) -> Self {
        self.add_with(weight, reward, RewardOptions::new())
    }

    /// Adds a reward with options: a gate, limits, or other values for missing scores.
    pub fn add_with(mut self, weight: f64, reward: impl Reward, options: RewardOptions) -> Self {
        let scorer = Scorer::Each(Box::new(reward));
        self.rewards.push(Added {
            weight,
            scorer,
            options,
        });
        self
    }

    /// Adds a reward of whole groups and its weight. It runs after the rewards that it reads.
    pub fn add_group(self, weight: f64, reward: impl GroupReward) -> Self {
        self.add_group_with(weight, reward, RewardOptions::new())
    }

    /// Adds a reward of whole groups with options.
    pub fn add_group_with(
        mut self,
        weight: f64,
        reward: impl GroupReward,
        options: RewardOptions,
    ) -> Self {
        let scorer = Scorer::Group(Box::new(reward));
        self.rewards.push(Added {
            weight,
            scorer,
            options,
        });
        self
    }

    /// Sets the time limit of one call of a reward, more than zero, unless its options set another.
    /// Default: 5 seconds.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Sets the number of calls that run at once in a batch, at least 1. Rewards with their own
    /// [`concurrency`](RewardOptions::with_concurrency) are not counted. Default:
    /// [`std::thread::available_parallelism`].
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Sets a gate for the total. If it is closed, the total is the value of
    /// [`Gate::with_otherwise`], regardless of the other scores.
    pub fn gate_total(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Clamps the total to `low..=high`, after everything else. Either bound may be infinite.
    pub fn clamp(mut self, low: f64, high: f64) -> Self {
        self.clamp = Some((low, high));
        self
    }

    /// Builds the set.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, if there is no reward, a name is empty or
    /// occurs twice, the settings of a reward are invalid, a weight or a value is not finite, a
    /// time limit is zero, there are no threads, a gate or a group reward names a reward that is
    /// not in the set, or rewards depend on each other in a cycle.
    pub fn build(self) -> Result<RewardSet> {
        if self.rewards.is_empty() {
            return Err(Error::config("rewards", "none", "at least one reward"));
        }
        if self.time_limit.is_zero() {
            return Err(Error::config("time_limit", "0 s", "more than zero"));
        }
        let threads = match self.threads {
            Some(0) => return Err(Error::config("threads", 0, "1 or more")),
            Some(threads) => threads,
            None => thread::available_parallelism().map_or(1, usize::from),
        };
        if let Some((low, high)) = self.clamp
            && (low.is_nan() || high.is_nan() || low > high)
        {
            let value = format!("{low} to {high}");
            return Err(Error::config("clamp", value, "low <= high, and no NaN"));
        }
        // Read once, so that the records agree even if a reward changes its name.
        let names: Vec<String> = self.rewards.iter().map(|a| a.name().to_string()).collect();
        let gate = self.gate.map(|gate| bind(gate, "gate_total", &names));
        let total = Total {
            gate: gate.transpose()?,
            clamp: self.clamp,
        };
        let weights: Arc<[f64]> = self.rewards.iter().map(|added| added.weight).collect();
        let mut entries = Vec::new();
        for (place, added) in self.rewards.into_iter().enumerate() {
            entries.push(entry(added, place, &names, self.time_limit)?);
        }
        order(&mut entries)?;
        Ok(RewardSet {
            runs: vec![true; entries.len()].into(),
            rewards: entries.into(),
            weights,
            total: Arc::new(total),
            pool: Pool::new(MAX_ABANDONED),
            threads,
        })
    }
}

fn entry(added: Added, place: usize, names: &[String], time_limit: Duration) -> Result<Entry> {
    let field = |part: &str| format!("rewards[{place}]{part}");
    let name = &names[place];
    if name.is_empty() || names[..place].contains(name) {
        let expected = "a name that no other reward of the set has, not empty";
        return Err(Error::config(field(".name"), format!("{name:?}"), expected));
    }
    added.validate().map_err(|error| error.within(&field("")))?;
    let (weight, options) = (added.weight, added.options);
    if !weight.is_finite() {
        let expected = format!("a finite weight for `{name}`");
        return Err(Error::config(field(".weight"), weight, expected));
    }
    options.validate(&field(""))?;
    let mut reads = Vec::new();
    let batch = match &added.scorer {
        Scorer::Each(reward) => options.batch.unwrap_or_else(|| reward.batch_size()),
        Scorer::Group(reward) => {
            if let Some(batch) = options.batch {
                let expected = format!("none: `{name}` is given whole groups");
                return Err(Error::config(field(".batch"), batch, expected));
            }
            for read in reward.reads() {
                reads.push(find(read, &field(".reads"), names)?);
            }
            1
        }
    };
    if batch == 0 {
        return Err(Error::config(field(".batch_size"), 0, "1 or more"));
    }
    let gate = options.gate.map(|gate| bind(gate, &field(".gate"), names));
    Ok(Entry {
        name: name.clone(),
        scorer: added.scorer,
        time_limit: options.time_limit.unwrap_or(time_limit),
        concurrency: options.concurrency,
        batch,
        domains: options.domains,
        gate: gate.transpose()?,
        reads,
        wave: 0,
        on_abstain: options.on_abstain,
        on_failure: options.on_failure,
    })
}

fn bind(gate: Gate, field: &str, names: &[String]) -> Result<BoundGate> {
    gate.validate(field)?;
    Ok(BoundGate {
        reward: find(&gate.reward, &format!("{field}.reward"), names)?,
        at_least: gate.at_least,
        otherwise: gate.otherwise,
    })
}

fn find(name: &str, field: &str, names: &[String]) -> Result<usize> {
    let place = names.iter().position(|known| known == name);
    place.ok_or_else(|| Error::config(field, format!("{name:?}"), format!("one of {names:?}")))
}

/// Assigns to every reward the first wave in which everything that it depends on has run.
fn order(entries: &mut [Entry]) -> Result<()> {
    let mut waves: Vec<Option<usize>> = vec![None; entries.len()];
    // Each round assigns at least one more wave, or there is a cycle.
    for _ in 0..entries.len() {
        for (place, entry) in entries.iter().enumerate() {
            let before: Option<Vec<usize>> = entry.after().map(|before| waves[before]).collect();
            if let Some(before) = before {
                waves[place] = Some(before.into_iter().map(|wave| wave + 1).max().unwrap_or(0));
            }
        }
    }
    for (place, wave) in waves.into_iter().enumerate() {
        let Some(wave) = wave else {
            return Err(Error::config(
                format!("rewards[{place}]"),
                format!("{:?}", entries[place].name),
                "a reward that does not depend on itself through gates and group rewards",
            ));
        };
        entries[place].wave = wave;
    }
    Ok(())
}

impl fmt::Debug for RewardSetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rewards: Vec<_> = self
            .rewards
            .iter()
            .map(|added| (added.name(), added.weight, &added.options))
            .collect();
        f.debug_struct("RewardSetBuilder")
            .field("rewards", &rewards)
            .field("time_limit", &self.time_limit)
            .field("threads", &self.threads)
            .field("gate", &self.gate)
            .field("clamp", &self.clamp)
            .finish()
    }
}
