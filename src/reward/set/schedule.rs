//! The calls that a batch of completions takes, and their order.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Scorer};
use super::total::GateState;
use crate::reward::RewardInput;
use crate::reward::pool::{Lane, Plan, Pool};
use crate::types::{RewardOutcome, RewardRecord};

/// The completions of one call of a set.
pub(super) struct Batch {
    pub(super) inputs: Arc<Vec<RewardInput>>,
    /// The groups, which together cover all inputs in order.
    pub(super) groups: Vec<Range<usize>>,
}

impl Batch {
    /// Splits the inputs into groups of these sizes.
    pub(super) fn new(inputs: Vec<RewardInput>, sizes: &[usize]) -> Self {
        let mut end = 0;
        let range = |&size: &usize| {
            end += size;
            end - size..end
        };
        Self {
            groups: sizes.iter().map(range).collect(),
            inputs: Arc::new(inputs),
        }
    }
}

/// One call of a reward.
struct Call {
    reward: usize,
    /// The indices of the completions in the batch, at least one.
    inputs: Vec<usize>,
    /// The scores of these inputs by the rewards that are read.
    scores: Vec<(usize, Vec<Option<f64>>)>,
}

/// Runs the rewards of a set on the completions of a batch.
pub(super) struct Schedule<'a> {
    pub(super) entries: &'a Arc<[Entry]>,
    pub(super) weights: &'a [f64],
    /// Whether each reward runs.
    pub(super) runs: &'a [bool],
    pub(super) pool: &'a Pool,
    /// The number of workers that rewards without a concurrency share.
    pub(super) threads: usize,
    pub(super) batch: &'a Batch,
}

impl Schedule<'_> {
    /// Runs the rewards and returns the records of every input, in the order of the rewards.
    /// Rewards that others depend on run first.
    pub(super) fn run(&self) -> Vec<Vec<RewardRecord>> {
        let weighted = || self.entries.iter().zip(self.weights);
        let blank = || {
            weighted()
                .map(|(entry, &weight)| entry.record(weight))
                .collect()
        };
        let mut records: Vec<Vec<RewardRecord>> =
            self.batch.inputs.iter().map(|_| blank()).collect();
        let waves = self.entries.iter().map(|entry| entry.wave + 1).max();
        for wave in 0..waves.unwrap_or(0) {
            let mut calls = Vec::new();
            for reward in 0..self.entries.len() {
                if self.entries[reward].wave == wave && self.runs[reward] {
                    self.plan(reward, &mut records, &mut calls);
                }
            }
            // In the order of the completions: if cheap and expensive rewards alternate, no worker
            // gets only expensive ones.
            calls.sort_by_key(|call| call.inputs[0]);
            self.run_calls(calls, &mut records);
        }
        records
    }

    /// Adds the calls of one reward, for inputs whose gate is open.
    fn plan(&self, reward: usize, records: &mut [Vec<RewardRecord>], calls: &mut Vec<Call>) {
        let entry = &self.entries[reward];
        let mut open = |inputs: Range<usize>| -> Vec<usize> {
            inputs
                .filter(|&input| entry.applies_to(&self.batch.inputs[input].problem))
                .filter(|&input| self.passes(reward, &mut records[input]))
                .collect()
        };
        match entry.scorer {
            Scorer::Each(_) => {
                let open = open(0..self.batch.inputs.len());
                calls.extend(open.chunks(entry.batch).map(|inputs| Call {
                    reward,
                    inputs: inputs.to_vec(),
                    scores: Vec::new(),
                }));
            }
            Scorer::Group(_) => {
                let groups: Vec<_> = self.batch.groups.iter().cloned().map(open).collect();
                for inputs in groups.into_iter().filter(|inputs| !inputs.is_empty()) {
                    let scores_of = |&read: &usize| {
                        let score = |&input: &usize| records[input][read].outcome.score();
                        (read, inputs.iter().map(score).collect())
                    };
                    calls.push(Call {
                        reward,
                        scores: entry.reads.iter().map(scores_of).collect(),
                        inputs,
                    });
                }
            }
        }
    }

    /// Whether the gate of a reward is open for the input of these records. If it is not, the
    /// outcome is recorded.
    fn passes(&self, reward: usize, records: &mut [RewardRecord]) -> bool {
        let Some(gate) = self.entries[reward].gate else {
            return true;
        };
        records[reward].outcome = match gate.state(self.entries, records) {
            GateState::Open => return true,
            GateState::Closed => RewardOutcome::Gated(gate.otherwise),
            GateState::Unknown => {
                let name = &self.entries[gate.reward].name;
                let message = format!("not run: the reward in its gate, `{name}`, failed");
                RewardOutcome::Failed(message)
            }
        };
        false
    }

    fn run_calls(&self, calls: Vec<Call>, records: &mut [Vec<RewardRecord>]) {
        let plan = lanes(self.entries, &calls, self.threads);
        let calls = Arc::new(calls);
        let job = {
            let (entries, calls) = (Arc::clone(self.entries), Arc::clone(&calls));
            let inputs = Arc::clone(&self.batch.inputs);
            move |index: usize| {
                let call = &calls[index];
                let given: Vec<_> = call.inputs.iter().map(|&input| &inputs[input]).collect();
                let named = |(read, scores): &(usize, Vec<Option<f64>>)| {
                    (entries[*read].name.clone(), scores.clone())
                };
                entries[call.reward].call(&given, call.scores.iter().map(named))
            }
        };
        let done = self.pool.run(plan, Arc::new(job));
        for (call, done) in calls.iter().zip(done) {
            let seconds = done.seconds / call.inputs.len() as f64;
            // A call that failed as a whole has a single outcome, which applies to all of its
            // inputs.
            let outcomes = done.outcomes.into_iter().cycle();
            for (&input, outcome) in call.inputs.iter().zip(outcomes) {
                let record = &mut records[input][call.reward];
                (record.outcome, record.seconds) = (outcome, seconds);
            }
        }
    }
}

/// Every reward with a concurrency has its own lane; the others share one.
fn lanes(entries: &[Entry], calls: &[Call], threads: usize) -> Plan {
    let limits: Vec<Duration> = calls.iter().map(|c| entries[c.reward].time_limit).collect();
    let shared = Lane {
        jobs: Vec::new(),
        threads,
    };
    let own = |entry: &Entry| Lane {
        jobs: Vec::new(),
        threads: entry.concurrency.unwrap_or(0),
    };
    // Rewards that wait are started first.
    let mut lanes: Vec<Lane> = entries.iter().map(own).chain([shared]).collect();
    for (job, call) in calls.iter().enumerate() {
        let lane = match entries[call.reward].concurrency {
            Some(_) => call.reward,
            None => entries.len(),
        };
        lanes[lane].jobs.push(job);
    }
    lanes.retain(|lane| !lane.jobs.is_empty());
    Plan { limits, lanes }
}
