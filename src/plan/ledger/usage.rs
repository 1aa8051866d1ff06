//! What a step used.

use serde::{Deserialize, Serialize};

use crate::plan::flops::ModelFlops;
use crate::plan::tokens::Tokens;
use crate::{Error, Result};

/// Seconds of a step by phase, on the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhaseSeconds {
    /// Prompts and decoding.
    pub generate: f64,
    /// Rewards.
    pub reward: f64,
    /// Forward passes without a gradient, and advantages.
    pub prepare: f64,
    /// Forward and backward passes, and the optimizer.
    pub update: f64,
    /// Time in which devices waited: for each other, for an engine or for the host.
    pub idle: f64,
    /// The step.
    pub step: f64,
}

/// What a step used, on all devices together.
///
/// # Metrics
/// What [`Ledger::record`](super::Ledger::record) makes of it. Names as in TRL where TRL has one. What needs a peak or a price is absent without;
/// so is what would be a division by zero.
///
/// | name | what | unit |
/// |---|---|---|
/// | `num_tokens` | tokens read so far, prompts included | tokens |
/// | `step_time` | the step | s |
/// | `tokens/generated`, `tokens/trained` | completion tokens of the step, drawn and learned from | tokens |
/// | `tokens_per_second/generate` | drawn, a second of generation and device | 1/s |
/// | `tokens_per_second/update` | read by updates, a second of update and device | 1/s |
/// | `tokens_per_second/device` | drawn, a second of the step and device | 1/s |
/// | `flops/step`, `flops/total` | useful work | FLOP |
/// | `mfu/update` | FLOPs of the update by peak and time of the update | fraction |
/// | `mfu/step` | the same by the time of the step | fraction |
/// | `mbu/generate` | bytes read by decoding, by peak bandwidth and time of generation | fraction |
/// | `time/idle` | devices waited | s |
/// | `cost/hours`, `cost/device_hours`, `cost/dollars` | so far | h, h, $ |
/// | `memory/peak` | the most so far | bytes |
/// | `memory/predicted` | what was predicted for the length cap | bytes |
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepUsage {
    /// Devices that were paid for.
    pub devices: usize,
    /// Completions that were generated, dropped ones included.
    pub completions: u64,
    /// Tokens of these.
    pub generated: u64,
    /// Completion tokens that were learned from.
    pub trained: u64,
    /// Tokens of the longest completion.
    pub longest: u64,
    /// What generation read: each prompt once, and each token of the completions.
    pub generation: Tokens,
    /// What forward passes without a gradient read, summed over passes.
    pub scoring: Tokens,
    /// What forward and backward passes read, summed over passes.
    pub update: Tokens,
    /// Bytes of weights and cache that decoding read, if that is known.
    pub decoded_bytes: Option<f64>,
    /// Where the time went.
    pub seconds: PhaseSeconds,
    /// Bytes of the step's peak on the fullest device, if it was measured.
    pub peak_memory: Option<u64>,
    /// Bytes that were predicted for a micro-batch at the length cap.
    pub predicted_memory: Option<u64>,
}

impl StepUsage {
    pub(super) fn validate(&self) -> Result<()> {
        if self.devices == 0 {
            return Err(Error::config("usage.devices", 0, "at least 1"));
        }
        let seconds = &self.seconds;
        for (field, value) in [
            ("usage.seconds.generate", seconds.generate),
            ("usage.seconds.reward", seconds.reward),
            ("usage.seconds.prepare", seconds.prepare),
            ("usage.seconds.update", seconds.update),
            ("usage.seconds.idle", seconds.idle),
            ("usage.seconds.step", seconds.step),
        ] {
            check_seconds(field, value)?;
        }
        for (field, tokens) in [
            ("usage.generation", self.generation),
            ("usage.scoring", self.scoring),
            ("usage.update", self.update),
        ] {
            let sum = tokens.count + tokens.squares;
            if !(sum.is_finite() && tokens.count >= 0.0 && tokens.squares >= 0.0) {
                let value = format!("{} tokens, {} squared", tokens.count, tokens.squares);
                return Err(Error::config(field, value, "finite numbers of at least 0"));
            }
        }
        Ok(())
    }

    /// Mean tokens of a completion; 0 of none.
    pub(super) fn mean_length(&self) -> f64 {
        self.generated as f64 / self.completions.max(1) as f64
    }

    /// FLOPs of the step.
    pub(super) fn flops(&self, model: &ModelFlops) -> f64 {
        model.forward(self.generation + self.scoring) + model.update(self.update)
    }
}

/// Refuses a time that cannot be.
pub(super) fn check_seconds(field: &str, seconds: f64) -> Result<()> {
    match seconds.is_finite() && seconds >= 0.0 {
        true => Ok(()),
        false => Err(Error::config(
            field,
            seconds,
            "a finite number of at least 0",
        )),
    }
}
