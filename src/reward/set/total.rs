//! Computes the total of one rollout from its records.

use super::entry::{BoundGate, Entry};
use super::options::Missing;
use crate::types::{RewardOutcome, RewardRecord};

/// The state of a gate for one rollout.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GateState {
    Open,
    Closed,
    /// The reward of the gate failed.
    Unknown,
}

impl Entry {
    /// The contribution of an outcome to the total: a score becomes [`Missing::Value`], a missing
    /// one is replaced according to the options.
    fn contribution(&self, outcome: &RewardOutcome) -> Missing {
        match outcome {
            RewardOutcome::Score(number) | RewardOutcome::Gated(number) => Missing::Value(*number),
            RewardOutcome::Abstained => self.on_abstain,
            _ => self.on_failure,
        }
    }
}

impl BoundGate {
    /// The state of this gate, given the records of the rollout.
    pub(super) fn state(&self, entries: &[Entry], records: &[RewardRecord]) -> GateState {
        let outcome = &records[self.reward].outcome;
        match entries[self.reward].contribution(outcome) {
            Missing::Value(number) if number >= self.at_least => GateState::Open,
            Missing::Value(_) => GateState::Closed,
            _ if outcome.is_failure() => GateState::Unknown,
            _ => GateState::Open,
        }
    }
}

/// The options of the total.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    pub(super) gate: Option<BoundGate>,
    pub(super) clamp: Option<(f64, f64)>,
}

impl Total {
    /// Returns the total of the records, one for each entry, or `None` if there is none. Entries
    /// whose `runs` is `false` are ignored.
    pub(super) fn of(
        &self,
        entries: &[Entry],
        runs: &[bool],
        records: &[RewardRecord],
    ) -> Option<f64> {
        let closed = |gate: &BoundGate| gate.state(entries, records) == GateState::Closed;
        let total = match self.gate.filter(closed) {
            Some(gate) => gate.otherwise,
            None => weighted_sum(entries, runs, records)?,
        };
        let clamped = match self.clamp {
            Some((low, high)) => total.clamp(low, high),
            None => total,
        };
        Some(clamped).filter(|total| total.is_finite())
    }
}

fn weighted_sum(entries: &[Entry], runs: &[bool], records: &[RewardRecord]) -> Option<f64> {
    let mut sum = None;
    let (mut present, mut absent) = (0.0, 0.0);
    let both = entries.iter().zip(records).zip(runs);
    for ((entry, record), _) in both.filter(|(_, runs)| **runs) {
        let share = record.weight.abs();
        match entry.contribution(&record.outcome) {
            Missing::DropRollout => return None,
            Missing::Renormalise => absent += share,
            Missing::LeaveOut => present += share,
            Missing::Value(number) => {
                present += share;
                let term = record.weight * number;
                sum = Some(sum.map_or(term, |sum: f64| sum + term));
            }
        }
    }
    // Exact if nothing is renormalised. If only weights of 0 are present, there is nothing to
    // scale.
    match absent > 0.0 && present > 0.0 {
        true => sum.map(|sum| sum * ((present + absent) / present)),
        false => sum,
    }
}
