//! Memory of a device during generation and updates.

use serde::{Deserialize, Serialize};

use super::config::PlanConfig;
use super::hardware::Hardware;
use super::shape::ModelShape;
use super::update_memory::{MicroBatch, UpdateConfig, UpdateMemory};

/// Sharding of the training state over learners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharding {
    /// Each learner has everything.
    #[default]
    Replicated,
    /// Each learner has the weights and gradients, and a share of the optimizer state (ZeRO-1,
    /// arXiv 1910.02054).
    Optimizer,
    /// Each learner has a share of everything and gathers one block at a time (ZeRO-3, FSDP),
    /// except for routed experts.
    Full,
}

/// Memory of a device during generation, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerationMemory {
    /// The weights for generation.
    pub weights: f64,
    /// Training state that stays on the device.
    pub state: f64,
    /// The cache of the completions generated at the same time, each at the length cap.
    pub cache: f64,
}

impl GenerationMemory {
    /// Returns the sum, in bytes.
    pub fn total(&self) -> f64 {
        self.weights + self.state + self.cache
    }
}

/// Memory of a device in the phases of a step. The phases alternate, so the peak is the larger one,
/// not the sum.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// During generation.
    pub generation: GenerationMemory,
    /// During updates.
    pub update: UpdateMemory,
    /// Memory of the device, in bytes.
    pub device: f64,
    /// The number of completions at the length cap that fit beside one copy of the weights; below 1
    /// if none fits.
    pub slots: f64,
}

/// The share of a device's memory available to generation.
const USABLE: f64 = 0.85;

impl Memory {
    /// Computes the memory of a valid configuration.
    pub(super) fn new(shape: &ModelShape, hardware: &Hardware, config: &PlanConfig) -> Self {
        let update = update(shape, config);
        let device = 1e9 * hardware.memory;
        let copies = config.tensor_parallel as f64;
        let routed = shape.routed_parameters() as f64;
        let common = shape.parameters() as f64 - routed;
        let weights =
            config.weight_bytes * (common + routed / config.expert_parallel as f64) / copies;
        // Gradients are freed after the update. Generation uses the training weights directly if
        // they are whole and have the same type.
        let same = config.sharding != Sharding::Full
            && config.tensor_parallel.max(config.expert_parallel) == 1
            && config.weight_bytes == config.state.bytes()[0];
        let state = match config.offload || config.generators.is_some() {
            true => 0.0,
            false => {
                let shared = if same { weights } else { 0.0 };
                update.optimizer + update.reference + (update.weights - shared).max(0.0)
            }
        };
        let longest = config.prompt_tokens + config.completion.cap as f64;
        let row = config.cache_bytes * shape.cache_per_token() as f64 * longest;
        let free = (USABLE * device - weights - state).max(0.0);
        let slots = copies * free / row;
        let rows = config.rows_per_copy();
        let limit = config
            .max_rows
            .map_or(slots, |limit| slots.min(limit as f64));
        Self {
            generation: GenerationMemory {
                weights,
                state,
                cache: row * rows.min(limit.max(1.0)) / copies,
            },
            update,
            device,
            slots,
        }
    }
}

impl PlanConfig {
    /// Returns the number of completions per copy of the weights.
    pub(super) fn rows_per_copy(&self) -> f64 {
        let copies = self.generating() as f64 / self.tensor_parallel as f64;
        (self.rows() as f64 / copies).max(1.0)
    }

    /// Returns the micro-batch of a device at the length cap.
    pub(super) fn micro_batch(&self) -> MicroBatch {
        let cap = self.completion.cap as f64;
        let budget = self.micro_batch_tokens as f64;
        let fitting = ((budget / (self.prompt_tokens + cap)) as usize).max(1);
        let rows = fitting.min(self.rows().div_ceil(self.learning()));
        let prompts = match self.shared_prompts {
            true => rows.div_ceil(self.group),
            false => rows,
        };
        MicroBatch {
            rows,
            prompts,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: cap,
        }
    }
}

/// Computes the memory of an update on one of the learners.
fn update(shape: &ModelShape, config: &PlanConfig) -> UpdateMemory {
    let learners = config.learning() as f64;
    let whole = UpdateMemory::new(
        shape,
        &UpdateConfig {
            micro_batch: config.micro_batch(),
            several: true,
            state: config.state,
            kernels: config.kernels,
            recompute: config.recompute,
            adapters: config.adapters(shape),
            reference: config.reference,
            critic: config.critic,
            logit_chunk: config.logit_chunk,
        },
    );
    match config.sharding {
        Sharding::Replicated => whole,
        Sharding::Optimizer => UpdateMemory {
            optimizer: whole.optimizer / learners,
            ..whole
        },
        Sharding::Full => {
            // One block is gathered at a time, except for experts, to which tokens are sent.
            let common = 1.0 - shape.routed_parameters() as f64 / shape.parameters() as f64;
            let block = common * (learners - 1.0) / learners / shape.layers as f64;
            let share = |bytes: f64| bytes / learners + bytes * block;
            UpdateMemory {
                weights: share(whole.weights),
                gradients: share(whole.gradients),
                optimizer: whole.optimizer / learners,
                reference: share(whole.reference),
                ..whole
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recomputation_adapters_and_sharding_reduce_memory() {
        let shape = ModelShape::named("qwen2.5-7b").unwrap();
        let config = PlanConfig {
            devices: 8,
            ..PlanConfig::default()
        };
        let whole = update(&shape, &config);
        let parameters = shape.parameters() as f64;
        assert_eq!(
            whole.weights + whole.gradients + whole.optimizer,
            18.0 * parameters
        );
        let zero = update(
            &shape,
            &PlanConfig {
                sharding: Sharding::Optimizer,
                ..config.clone()
            },
        );
        assert_eq!(zero.optimizer, 12.0 * parameters / 8.0);
        assert_eq!(zero.weights, whole.weights);
        let full = update(
            &shape,
            &PlanConfig {
                sharding: Sharding::Full,
                ..config.clone()
            },
        );
        assert!(full.weights < 0.2 * whole.weights && full.weights > whole.weights / 8.0);
        let again = update(
            &shape,
            &PlanConfig {
                recompute: true,
                ..config.clone()
            },
        );
        assert!(again.activations < 0.2 * whole.activations);
        let adapters = update(
            &shape,
            &PlanConfig {
                adapter_rank: Some(16),
                ..config
            },
        );
        assert!(adapters.gradients + adapters.optimizer < 0.01 * whole.optimizer);
        assert_eq!(adapters.reference, 0.0);
    }
}
