//! What the outcomes of one rollout come to.

use super::entry::{BoundGate, Entry};
use super::options::Missing;
use crate::rollout::RewardOutcome;

/// What one outcome counts as.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Counted {
    Number(f64),
    /// The rollout has no total.
    Dropped,
    LeftOut,
    /// Left out, and the others count for it.
    MadeUpFor,
}

/// Whether a gate lets through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum GateState {
    Open,
    Shut,
    /// The reward that it looks at broke.
    Unknown,
}

pub(super) fn counted(entry: &Entry, outcome: &RewardOutcome) -> Counted {
    let missing = match outcome {
        RewardOutcome::Score(number) | RewardOutcome::Gated(number) => {
            return Counted::Number(*number);
        }
        RewardOutcome::Abstained => entry.on_abstain,
        _ => entry.on_failure,
    };
    match missing {
        Missing::DropRollout => Counted::Dropped,
        Missing::LeaveOut => Counted::LeftOut,
        Missing::Renormalise => Counted::MadeUpFor,
        Missing::Value(number) => Counted::Number(number),
    }
}

/// The state of a gate that looks at `outcome` of `entry`.
pub(super) fn gate_state(gate: &BoundGate, entry: &Entry, outcome: &RewardOutcome) -> GateState {
    match counted(entry, outcome) {
        Counted::Number(number) if number >= gate.at_least => GateState::Open,
        Counted::Number(_) => GateState::Shut,
        _ if outcome.is_failure() => GateState::Unknown,
        _ => GateState::Open,
    }
}

/// How the rewards of a rollout become one number.
#[derive(Clone, Debug, Default)]
pub(super) struct Total {
    pub(super) gate: Option<BoundGate>,
    pub(super) clamp: Option<(f64, f64)>,
}

impl Total {
    /// The total of the outcomes, one for each entry; `None` if there is none.
    pub(super) fn of<'a>(
        &self,
        entries: &[Entry],
        outcomes: impl Iterator<Item = &'a RewardOutcome> + Clone,
    ) -> Option<f64> {
        let total = match self.gate_shut(entries, outcomes.clone()) {
            Some(otherwise) => otherwise,
            None => weighted(entries, outcomes)?,
        };
        let clamped = match self.clamp {
            Some((low, high)) => total.clamp(low, high),
            None => total,
        };
        Some(clamped).filter(|total| total.is_finite())
    }

    fn gate_shut<'a>(
        &self,
        entries: &[Entry],
        mut outcomes: impl Iterator<Item = &'a RewardOutcome>,
    ) -> Option<f64> {
        let gate = self.gate.as_ref()?;
        let outcome = outcomes.nth(gate.reward)?;
        let state = gate_state(gate, &entries[gate.reward], outcome);
        (state == GateState::Shut).then_some(gate.otherwise)
    }
}

fn weighted<'a>(
    entries: &[Entry],
    outcomes: impl Iterator<Item = &'a RewardOutcome>,
) -> Option<f64> {
    let mut sum = None;
    let (mut present, mut absent) = (0.0, 0.0);
    for (entry, outcome) in entries.iter().zip(outcomes) {
        let share = entry.weight.abs();
        match counted(entry, outcome) {
            Counted::Dropped => return None,
            Counted::MadeUpFor => absent += share,
            Counted::LeftOut => present += share,
            Counted::Number(number) => {
                present += share;
                let term = entry.weight * number;
                sum = Some(sum.map_or(term, |sum: f64| sum + term));
            }
        }
    }
    // Exact where nothing is made up for; where only weights of 0 are left there is nothing to grow.
    match absent > 0.0 && present > 0.0 {
        true => sum.map(|sum| sum * ((present + absent) / present)),
        false => sum,
    }
}
