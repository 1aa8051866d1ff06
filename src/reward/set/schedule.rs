//! Which calls a batch of completions takes, and in which order.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::entry::{Entry, Scorer};
use super::total::{GateState, gate_state};
use crate::reward::RewardInput;
use crate::reward::pool::{Lane, Plan, Pool};
use crate::rollout::RewardOutcome;

/// The completions of one call of a set.
pub(super) struct Batch {
    pub(super) inputs: Arc<Vec<RewardInput>>,
    /// The groups, which together are all inputs in order.
    pub(super) groups: Vec<Range<usize>>,
}

impl Batch {
    /// The inputs of groups of these sizes.
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

/// What became of every pair of input and reward, and the seconds it took.
pub(super) struct Outcomes {
    /// The number of rewards.
    width: usize,
    /// `input * width + reward`.
    cells: Vec<(RewardOutcome, f64)>,
}

/// One call of a reward.
struct Call {
    reward: usize,
    inputs: Inputs,
    /// What the rewards that it reads gave these inputs.
    scores: Vec<(usize, Vec<Option<f64>>)>,
}

enum Inputs {
    One(usize),
    Many(Vec<usize>),
}

/// What one call has found, in the order of its inputs.
enum Found {
    /// The usual case, without a list.
    One(RewardOutcome),
    Many(Vec<RewardOutcome>),
}

impl Inputs {
    fn as_slice(&self) -> &[usize] {
        match self {
            Self::One(input) => std::slice::from_ref(input),
            Self::Many(inputs) => inputs,
        }
    }
}

impl Outcomes {
    /// Runs every reward on every input, those that others wait for first.
    pub(super) fn find(entries: &Arc<[Entry]>, pool: &Pool, threads: usize, batch: &Batch) -> Self {
        let (width, count) = (entries.len(), batch.inputs.len());
        let mut outcomes = Self {
            width,
            cells: vec![(RewardOutcome::Abstained, 0.0); width * count],
        };
        let waves = entries.iter().map(|entry| entry.wave + 1).max();
        for wave in 0..waves.unwrap_or(0) {
            let mut calls = Vec::new();
            for reward in (0..width).filter(|&reward| entries[reward].wave == wave) {
                outcomes.plan(entries, reward, batch, &mut calls);
            }
            // Completion by completion: with cheap and dear rewards in turn, no worker is left with the dear ones.
            calls.sort_by_key(|call| call.inputs.as_slice()[0]);
            outcomes.run(entries, pool, threads, batch, calls);
        }
        outcomes
    }

    /// The outcomes of one input, in the order of the rewards.
    pub(super) fn of(&self, input: usize) -> &[(RewardOutcome, f64)] {
        &self.cells[input * self.width..(input + 1) * self.width]
    }

    /// Adds the calls of one reward; where its gate is shut, there is none.
    fn plan(&mut self, entries: &[Entry], reward: usize, batch: &Batch, calls: &mut Vec<Call>) {
        let entry = &entries[reward];
        let mut open = |inputs: Range<usize>| -> Vec<usize> {
            inputs
                .filter(|&input| self.passes(entries, reward, input))
                .collect()
        };
        match entry.scorer {
            Scorer::Each(_) => {
                let open = open(0..batch.inputs.len());
                calls.extend(open.chunks(entry.batch).map(|inputs| Call {
                    reward,
                    inputs: match inputs {
                        &[input] => Inputs::One(input),
                        inputs => Inputs::Many(inputs.to_vec()),
                    },
                    scores: Vec::new(),
                }));
            }
            Scorer::Group(_) => {
                let groups: Vec<Vec<usize>> = batch.groups.iter().cloned().map(open).collect();
                for inputs in groups.into_iter().filter(|inputs| !inputs.is_empty()) {
                    let scores_of = |&read: &usize| {
                        let score = |&input: &usize| self.of(input)[read].0.score();
                        (read, inputs.iter().map(score).collect())
                    };
                    calls.push(Call {
                        reward,
                        scores: entry.reads.iter().map(scores_of).collect(),
                        inputs: Inputs::Many(inputs),
                    });
                }
            }
        }
    }

    /// Whether the gate of a reward, if it has one, lets an input through. If not, the outcome is recorded.
    fn passes(&mut self, entries: &[Entry], reward: usize, input: usize) -> bool {
        let Some(gate) = entries[reward].gate else {
            return true;
        };
        let asked = &entries[gate.reward];
        let outcome = match gate_state(&gate, asked, &self.of(input)[gate.reward].0) {
            GateState::Open => return true,
            GateState::Shut => RewardOutcome::Gated(gate.otherwise),
            GateState::Unknown => {
                let message = format!("not run: the reward at its gate, `{}`, broke", asked.name);
                RewardOutcome::Failed(message)
            }
        };
        self.cells[input * self.width + reward] = (outcome, 0.0);
        false
    }

    fn run(
        &mut self,
        entries: &Arc<[Entry]>,
        pool: &Pool,
        threads: usize,
        batch: &Batch,
        calls: Vec<Call>,
    ) {
        let plan = lanes(entries, &calls, threads);
        let calls = Arc::new(calls);
        let job = {
            let (entries, calls) = (Arc::clone(entries), Arc::clone(&calls));
            let inputs = Arc::clone(&batch.inputs);
            move |index: usize| {
                let call = &calls[index];
                let entry = &entries[call.reward];
                if let Inputs::One(input) = call.inputs
                    && let Some(outcome) = entry.call_for_one(&inputs[input])
                {
                    return Found::One(outcome);
                }
                let given = call.inputs.as_slice().iter().map(|&input| &inputs[input]);
                let named = |(read, scores): &(usize, Vec<Option<f64>>)| {
                    (entries[*read].name.clone(), scores.clone())
                };
                Found::Many(entry.call(given.collect(), call.scores.iter().map(named)))
            }
        };
        let done = pool.run(plan, Arc::new(job));
        for (call, done) in calls.iter().zip(done) {
            let inputs = call.inputs.as_slice();
            let seconds = done.seconds / inputs.len() as f64;
            let found = match done.result {
                Ok(Found::Many(found)) => found,
                Ok(Found::One(outcome)) => {
                    self.cells[inputs[0] * self.width + call.reward] = (outcome, seconds);
                    continue;
                }
                Err(broken) => vec![broken; inputs.len()],
            };
            for (&input, outcome) in inputs.iter().zip(found) {
                self.cells[input * self.width + call.reward] = (outcome, seconds);
            }
        }
    }
}

/// Every reward with a concurrency of its own has a lane of its own; the others share one.
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
    // What waits is started first.
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
