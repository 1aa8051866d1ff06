//! FLOPs and seconds of the phases of a step.

use serde::{Deserialize, Serialize};

use super::config::PlanConfig;
use super::flops::ModelFlops;
use super::hardware::Hardware;
use super::memory::Memory;
use super::shape::ModelShape;
use super::tokens::{Curve, Tokens};

/// FLOPs per step, all devices together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepFlops {
    /// Prefill and decoding.
    pub generation: f64,
    /// Forward passes without a gradient: old log-probs, reference, values.
    pub scoring: f64,
    /// Forward and backward passes, without recomputation; utilisation (MFU) counts useful work
    /// only.
    pub update: f64,
    /// Recomputation in the backward pass.
    pub recomputed: f64,
}

/// Seconds per step and phase.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSeconds {
    /// Prefill and decoding, until the last completion is finished.
    pub generation: f64,
    /// Forward passes without a gradient.
    pub scoring: f64,
    /// Forward and backward passes.
    pub update: f64,
    /// Everything else.
    pub rest: f64,
    /// The whole step: the sum of the phases, or, if some devices generate while others train, the
    /// longer of the two plus the rest.
    pub step: f64,
}

/// The work of a step whose completion lengths follow `curve`.
pub(super) struct Work<'a> {
    shape: &'a ModelShape,
    config: &'a PlanConfig,
    curve: Curve,
    /// Tokens of one pass over the completions, prompts included.
    pub read: Tokens,
}

impl<'a> Work<'a> {
    /// Creates the work of a valid configuration.
    pub(super) fn new(shape: &'a ModelShape, config: &'a PlanConfig) -> Self {
        let curve = config.completion.curve();
        let read = config.read(config.completion.mean, curve.mean_square());
        Self {
            shape,
            config,
            curve,
            read,
        }
    }

    pub(super) fn flops(&self) -> StepFlops {
        let config = self.config;
        let model = ModelFlops::new(self.shape, config.adapters(self.shape));
        let forward = model.forward(self.read);
        let moving = config.passes as f64 * config.trained_share * config.trained_models();
        StepFlops {
            generation: model.forward(self.generated()),
            scoring: config.scorings() * forward,
            update: moving * model.update(self.read),
            recomputed: match config.recompute {
                true => moving * forward,
                false => 0.0,
            },
        }
    }

    /// Returns the tokens that generation reads: each prompt once, and every token of the
    /// completions.
    fn generated(&self) -> Tokens {
        let shared = PlanConfig {
            shared_prompts: true,
            ..self.config.clone()
        };
        shared.read(self.config.completion.mean, self.curve.mean_square())
    }

    pub(super) fn seconds(&self, hardware: &Hardware, memory: &Memory) -> StepSeconds {
        let config = self.config;
        let flops = self.flops();
        let speed = config.efficiency.update_flops(self.shape, hardware);
        let learners = speed * config.learning() as f64;
        let generation = self.generation(hardware, memory.slots);
        let scoring = flops.scoring / learners;
        let update = (flops.update + flops.recomputed) / learners;
        let phases = match config.generators {
            None => generation + scoring + update,
            Some(_) => generation.max(scoring + update),
        };
        let rest = phases * config.efficiency.rest;
        StepSeconds {
            generation,
            scoring,
            update,
            rest,
            step: phases + rest,
        }
    }

    /// Returns the seconds of one decoding step of `rows` completions per device, at `context`
    /// tokens each. With fewer than one row per device, the slowest of the devices that share
    /// experts has one.
    fn decoding_step(&self, hardware: &Hardware, rows: f64, context: f64) -> f64 {
        let (shape, config) = (self.shape, self.config);
        let efficiency = &config.efficiency;
        let (tensor, expert) = (config.tensor_parallel as f64, config.expert_parallel as f64);
        let together = (rows * expert).max(1.0);
        let weights = config.weight_bytes * shape.decoded_parameters(together, expert);
        let rows = rows.max(1.0);
        let cache = rows * context * config.cache_bytes * shape.cache_per_token() as f64;
        let reading = (weights + cache) / (tensor * efficiency.decode_bytes(hardware));
        let products = 2.0 * shape.active_parameters() as f64 * rows;
        let computing = products / (tensor * efficiency.decode_flops(hardware));

        let devices = config.tensor_parallel.max(config.expert_parallel);
        let across = devices > hardware.per_node;
        let mut micros = efficiency.layer_overhead * shape.layers as f64;
        if devices > 1 {
            let farther = if across { 2.5 } else { 1.0 };
            micros += farther * efficiency.exchange_overhead * shape.layers as f64;
        }
        if let Some(experts) = &shape.experts {
            // With tensor parallelism every device has a part of all experts; no tokens are sent.
            let farther = usize::from(config.expert_parallel > hardware.per_node);
            micros += efficiency.dispatch_overhead[farther] * experts.layers as f64;
        }
        reading.max(computing) + 1e-6 * micros
    }

    /// Returns the seconds until the last completion of a step is finished, if one copy of the
    /// weights has memory for `slots` completions. If not even one fits, enough memory is assumed.
    fn generation(&self, hardware: &Hardware, slots: f64) -> f64 {
        let config = self.config;
        let rows = config.rows_per_copy();
        let slots = if slots < 1.0 { rows } else { slots };
        let limit = config
            .max_rows
            .map_or(slots, |limit| slots.min(limit as f64));
        let together = rows.min(limit);
        let prompt = config.prompt_tokens;

        let mut decoding = 0.0;
        for (bin, &alive) in self.curve.alive.iter().enumerate() {
            // The phase lasts until the last completion of the step is finished.
            let going = 1.0 - (1.0 - alive).powf(config.rows() as f64);
            let context = prompt + self.curve.length(bin);
            let step = self.decoding_step(hardware, together * alive, context);
            decoding += going * self.curve.width * step;
        }
        // While completions are waiting, all slots are in use.
        let waiting = rows - together;
        if waiting > 0.0 {
            let mean = config.completion.mean;
            let context = prompt + self.curve.mean_square() / (2.0 * mean);
            let steps = waiting * mean / together;
            decoding += steps * self.decoding_step(hardware, together, context);
        }
        let speed = config.efficiency.update_flops(self.shape, hardware);
        let prefill = self.shape.forward_flops(config.prompts());
        decoding / config.accepted_tokens + prefill / (speed * config.generating() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Lengths;

    fn seconds(change: impl Fn(&mut PlanConfig)) -> StepSeconds {
        let shape = ModelShape::named("qwen2.5-7b").unwrap();
        let hardware = Hardware::named("h100").unwrap();
        let mut config = PlanConfig {
            devices: 8,
            problems: 64,
            completion: Lengths::new(1000.0, 4096),
            offload: true,
            ..PlanConfig::default()
        };
        change(&mut config);
        config.validate().unwrap();
        let memory = Memory::new(&shape, &hardware, &config);
        Work::new(&shape, &config).seconds(&hardware, &memory)
    }

    #[test]
    fn a_decoding_step_is_bound_by_bandwidth_or_compute() {
        let shape = ModelShape::named("qwen2.5-7b").unwrap();
        let hardware = Hardware::named("h100").unwrap();
        let config = PlanConfig::default();
        let work = Work::new(&shape, &config);
        let step = work.decoding_step(&hardware, 1.0, 0.0);
        let expected = 2.0 * 7_070_285_824.0 / (0.6 * 3.35e12) + 28.0 * 25e-6;
        assert!((step / expected - 1.0).abs() < 1e-12);
        // With many rows it is compute-bound.
        let step = work.decoding_step(&hardware, 1000.0, 0.0);
        let expected = 2000.0 * 7_070_285_824.0 / (0.4 * 989e12) + 28.0 * 25e-6;
        assert!((step / expected - 1.0).abs() < 1e-12);
    }

    #[test]
    fn generation_lasts_until_the_last_completion() {
        let even = seconds(|config| config.completion.cv = 0.0);
        let uneven = seconds(|config| config.completion.cv = 1.2);
        assert!(uneven.generation > 2.5 * even.generation);
        // The same number of tokens, but squares grow with the variation.
        assert!(uneven.update > even.update && uneven.update < 1.1 * even.update);
    }

    #[test]
    fn phases_alternate_or_overlap() {
        let together = seconds(|_| {});
        let phases = together.generation + together.scoring + together.update;
        assert!((together.step / (1.05 * phases) - 1.0).abs() < 1e-12);
        let apart = seconds(|config| config.generators = Some(4));
        let longer = apart.generation.max(apart.scoring + apart.update);
        assert!((apart.step / (1.05 * longer) - 1.0).abs() < 1e-12);
        assert!((apart.update / together.update - 2.0).abs() < 1e-12);
    }

    #[test]
    fn recomputation_passes_and_skipped_rows_scale_the_update() {
        let whole = seconds(|_| {}).update;
        let near = |got: f64, want: f64| (got / whole / want - 1.0).abs() < 1e-12;
        assert!(near(seconds(|c| c.recompute = true).update, 4.0 / 3.0));
        assert!(near(seconds(|c| c.trained_share = 0.25).update, 0.25));
        assert!(near(seconds(|c| c.passes = 3).update, 3.0));
        assert!(near(seconds(|c| c.critic = true).update, 2.0));
        let adapters = seconds(|c| c.adapter_rank = Some(8)).update / whole;
        assert!((0.66..0.70).contains(&adapters), "{adapters}");
    }

    #[test]
    fn rows_beyond_the_slots_wait() {
        let all = seconds(|_| {}).generation;
        let few = seconds(|config| config.max_rows = Some(8)).generation;
        assert!(few > 2.5 * all, "{few} {all}");
        let drafted = seconds(|config| config.accepted_tokens = 2.0).generation;
        assert!(drafted < 0.51 * all);
    }
}
