//! The resource usage of a step, for the ledger of a run.

use std::collections::BTreeMap;

use super::observer::StepRecord;
use crate::host;
use crate::plan::{PhaseSeconds, StepUsage, Tokens};
use crate::types::RolloutBuffer;

/// The multipliers of the work of a step.
pub(super) struct Passes {
    /// The number of learners.
    pub devices: usize,
    /// Forward passes over all rollouts before the updates.
    pub scoring: f64,
    /// Forward and backward passes over all rollouts.
    pub updates: f64,
}

/// Returns the usage of the step of `record`, which trained on `rollouts`.
pub(super) fn step_usage(
    record: &StepRecord,
    rollouts: &RolloutBuffer,
    passes: &Passes,
) -> StepUsage {
    let mut read = Tokens::default();
    for group in &rollouts.groups {
        let prompt = group.prompt_tokens.len() as f64;
        read += Tokens::sequence(prompt);
        for rollout in &group.rollouts {
            read += Tokens::continuation(prompt, rollout.tokens.len() as f64);
        }
    }
    let metric = |name: &str| record.get(name).unwrap_or(0.0);
    let trained = rollouts.tokens() as u64;
    let dropped = metric("dynamic_sampling/dropped_tokens");
    let lengths = rollouts.rollouts().map(|rollout| rollout.tokens.len());
    StepUsage {
        devices: passes.devices,
        completions: rollouts.len() as u64,
        generated: trained + dropped as u64,
        trained,
        longest: lengths.max().unwrap_or(0) as u64,
        generation: read + Tokens::sequence(dropped),
        scoring: read * passes.scoring,
        update: read * passes.updates,
        decoded_bytes: None,
        seconds: PhaseSeconds {
            generate: metric("time/generate"),
            reward: metric("time/reward"),
            prepare: metric("time/prepare"),
            update: metric("time/update"),
            idle: metric("async/wait"),
            step: metric("time/step"),
        },
        peak_memory: host::peak_memory(),
        predicted_memory: None,
    }
}

/// Adds the ledger's metrics to the record, except those that it already has.
pub(super) fn add_missing(record: &mut StepRecord, metrics: BTreeMap<String, f64>) {
    for (name, value) in metrics {
        record.metrics.entry(name).or_insert(value);
    }
}
