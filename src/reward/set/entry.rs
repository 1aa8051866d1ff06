//! One reward in a set, with its resolved options.

use std::time::Duration;

use super::options::Missing;
use crate::reward::{GroupInput, GroupReward, Reward, RewardError, RewardInput};
use crate::types::{Problem, RewardOutcome, RewardRecord};

/// The reward itself.
pub(super) enum Scorer {
    Each(Box<dyn Reward>),
    Group(Box<dyn GroupReward>),
}

/// A gate that refers to its reward by index.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoundGate {
    pub(super) reward: usize,
    pub(super) at_least: f64,
    pub(super) otherwise: f64,
}

pub(super) struct Entry {
    pub(super) name: String,
    pub(super) scorer: Scorer,
    pub(super) time_limit: Duration,
    pub(super) concurrency: Option<usize>,
    pub(super) batch: usize,
    /// The domains on which it runs; `None` for all.
    pub(super) domains: Option<Vec<String>>,
    pub(super) gate: Option<BoundGate>,
    /// The indices of the rewards whose scores it reads.
    pub(super) reads: Vec<usize>,
    /// The order of execution: it runs after all rewards of a lower wave.
    pub(super) wave: usize,
    pub(super) on_abstain: Missing,
    pub(super) on_failure: Missing,
}

impl Entry {
    /// Whether the reward runs on this problem.
    pub(super) fn applies_to(&self, problem: &Problem) -> bool {
        let known = |domains: &Vec<String>| {
            let own = problem.domain();
            own.is_some_and(|own| domains.iter().any(|domain| domain == own))
        };
        self.domains.as_ref().is_none_or(known)
    }

    /// The indices of the rewards that must run before this one.
    pub(super) fn after(&self) -> impl Iterator<Item = usize> {
        let gate = self.gate.map(|gate| gate.reward);
        self.reads.iter().copied().chain(gate)
    }

    /// The record of this reward for a rollout before it has run.
    pub(super) fn record(&self, weight: f64) -> RewardRecord {
        RewardRecord {
            name: self.name.clone(),
            weight,
            outcome: RewardOutcome::Abstained,
            seconds: 0.0,
        }
    }

    /// Calls the reward for `inputs`, with the `scores` of the rewards that it reads. Returns one
    /// outcome for each input.
    pub(super) fn call(
        &self,
        inputs: &[&RewardInput],
        scores: impl Iterator<Item = (String, Vec<Option<f64>>)>,
    ) -> Vec<RewardOutcome> {
        match &self.scorer {
            // A single input is scored without `score_batch`.
            Scorer::Each(reward) if inputs.len() == 1 => vec![outcome(reward.score(inputs[0]))],
            Scorer::Each(reward) => {
                let found = reward.score_batch(inputs);
                if found.len() != inputs.len() {
                    return miscounted(found.len(), inputs.len());
                }
                found.into_iter().map(outcome).collect()
            }
            Scorer::Group(reward) => {
                let count = inputs.len();
                let mut group = GroupInput::new(inputs.iter().copied());
                for (name, scores) in scores {
                    group = group.with_scores(name, scores);
                }
                match reward.score_group(&group) {
                    Ok(found) if found.len() != count => miscounted(found.len(), count),
                    Ok(found) => found.into_iter().map(|one| outcome(Ok(one))).collect(),
                    Err(error) => vec![RewardOutcome::Failed(error.to_string()); count],
                }
            }
        }
    }
}

fn miscounted(got: usize, wanted: usize) -> Vec<RewardOutcome> {
    let message = format!("{got} results for {wanted} completions; expected one for each");
    vec![RewardOutcome::Failed(message); wanted]
}

fn outcome(result: Result<Option<f64>, RewardError>) -> RewardOutcome {
    match result {
        Ok(Some(score)) if score.is_finite() => RewardOutcome::Score(score),
        Ok(Some(score)) => {
            RewardOutcome::Failed(format!("the score is {score}; expected a finite number"))
        }
        Ok(None) => RewardOutcome::Abstained,
        Err(error) => RewardOutcome::Failed(error.to_string()),
    }
}
