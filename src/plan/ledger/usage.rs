//! The usage of a step.

use serde::{Deserialize, Serialize};

use crate::plan::flops::ModelFlops;
use crate::plan::tokens::Tokens;
use crate::{Error, Result};

/// Wall-clock seconds of a step by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PhaseSeconds {
    /// Prefill and decoding.
    pub generate: f64,
    /// Rewards.
    pub reward: f64,
    /// Forward passes without a gradient, and advantages.
    pub prepare: f64,
    /// Forward and backward passes, and the optimizer.
    pub update: f64,
    /// Time in which devices were idle, waiting for each other, an engine or the host.
    pub idle: f64,
    /// The whole step.
    pub step: f64,
}

/// The usage of a step, all devices together.
///
/// # Metrics
/// The metrics that [`Ledger::record`](super::Ledger::record) computes, named as in TRL where TRL
/// has the metric. Metrics that need a peak, a price or a nonzero time are absent without it.
///
/// | name | meaning | unit |
/// |---|---|---|
/// | `num_tokens` | tokens read so far, prompts included | tokens |
/// | `step_time` | time of the step | s |
/// | `tokens/generated`, `tokens/trained` | generated and trained completion tokens of the step | tokens |
/// | `tokens_per_second/generate` | generated tokens per second of generation and device | 1/s |
/// | `tokens_per_second/update` | tokens read by updates per second of update and device | 1/s |
/// | `tokens_per_second/device` | generated tokens per second of the step and device | 1/s |
/// | `flops/step`, `flops/total` | useful FLOPs | FLOP |
/// | `mfu/update` | FLOPs of the update over peak and time of the update | fraction |
/// | `mfu/step` | FLOPs of the update over peak and time of the step | fraction |
/// | `mbu/generate` | bytes read by decoding over peak bandwidth and time of generation | fraction |
/// | `time/idle` | idle time of devices | s |
/// | `cost/hours`, `cost/device_hours`, `cost/dollars` | cost so far | h, h, $ |
/// | `memory/peak` | peak so far | bytes |
/// | `memory/predicted` | prediction at the length cap | bytes |
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepUsage {
    /// Devices, idle ones included.
    pub devices: usize,
    /// Generated completions, dropped ones included.
    pub completions: u64,
    /// Generated completion tokens.
    pub generated: u64,
    /// Trained completion tokens.
    pub trained: u64,
    /// Tokens of the longest completion.
    pub longest: u64,
    /// Tokens read by generation: each prompt once, and each token of the completions.
    pub generation: Tokens,
    /// Tokens read by forward passes without a gradient, summed over passes.
    pub scoring: Tokens,
    /// Tokens read by forward and backward passes, summed over passes.
    pub update: Tokens,
    /// Bytes of weights and cache read by decoding, if known.
    pub decoded_bytes: Option<f64>,
    /// Time by phase.
    pub seconds: PhaseSeconds,
    /// Peak memory of the step on the fullest device, in bytes, if measured.
    pub peak_memory: Option<u64>,
    /// Predicted memory of a micro-batch at the length cap, in bytes.
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

    /// Returns the mean tokens per completion; 0 without completions.
    pub(super) fn mean_length(&self) -> f64 {
        self.generated as f64 / self.completions.max(1) as f64
    }

    /// Returns the FLOPs of the step.
    pub(super) fn flops(&self, model: &ModelFlops) -> f64 {
        model.forward(self.generation + self.scoring) + model.update(self.update)
    }
}

/// Rejects a time that is negative or not finite.
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
