//! The configuration of a plan: the work of a step, its distribution over devices, and their
//! efficiency.

use serde::{Deserialize, Serialize};

use super::hardware::Hardware;
use super::memory::Sharding;
use super::shape::ModelShape;
use super::tokens::{Lengths, Tokens};
use super::update_memory::{Kernels, TrainingState};
use crate::{Error, Result};

/// The settings of a run that its cost depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanConfig {
    /// Problems per step. Default 16.
    pub problems: usize,
    /// Completions per problem. Default 8.
    pub group: usize,
    /// Steps of the run; each samples `problems * group` completions and trains on them. Default 100.
    pub steps: u64,
    /// Optimizer updates per step. Default 1.
    pub updates: u64,
    /// Training passes over each completion. Default 1.
    pub passes: u64,
    /// Mean number of tokens of a prompt. Default 128.
    pub prompt_tokens: f64,
    /// Distribution of completion lengths. Default: mean 512, cap 1024.
    pub completion: Lengths,
    /// Whether training reads a prompt once per group, as this crate does, or once per completion.
    /// Generation always reads it once. Default true.
    pub shared_prompts: bool,
    /// Whether a forward pass computes the log-probs of the policy before the step. Default true.
    pub old_log_probs: bool,
    /// Whether there is a reference policy, with a forward pass for its log-probs. Default true.
    pub reference: bool,
    /// Whether a critic of the policy's size is trained as well. Default false.
    pub critic: bool,
    /// Share of the completions that are trained on; those with zero advantage can be skipped.
    /// Default 1.
    pub trained_share: f64,
    /// Whether activations are recomputed in the backward pass (gradient checkpointing). Default
    /// false.
    pub recompute: bool,
    /// Rank of adapters on all projections, trained instead of the weights. Default: none, the
    /// weights are trained.
    pub adapter_rank: Option<u64>,

    /// Total number of devices. Default 1.
    pub devices: usize,
    /// Of these, devices that only generate, while the others train on completions of an earlier
    /// step. Default: none; all devices alternate between generation and training.
    pub generators: Option<usize>,
    /// Tensor parallelism in generation: devices that share one copy of the weights, each with a
    /// part of every matrix. Default 1.
    pub tensor_parallel: usize,
    /// Expert parallelism in generation: devices that share one copy of the experts, each with
    /// whole experts. Default 1.
    pub expert_parallel: usize,
    /// The largest number of completions that one copy of the weights generates at a time. Default:
    /// as many as fit in memory.
    pub max_rows: Option<usize>,
    /// Tokens per decoding step with speculative decoding. Default 1.
    pub accepted_tokens: f64,
    /// Bytes per weight in generation: 2, or 1 for fp8. Default 2.
    pub weight_bytes: f64,
    /// Bytes per number in the cache. Default 2.
    pub cache_bytes: f64,

    /// Precision of weights, gradients and moments in training. Default: mixed precision.
    pub state: TrainingState,
    /// Sharding of the training state over learners. Default: replicated.
    pub sharding: Sharding,
    /// Whether training state is offloaded from the device during generation. Default false.
    pub offload: bool,
    /// The largest number of tokens in a micro-batch on a device; a longer sequence is a
    /// micro-batch alone. Default 16384.
    pub micro_batch_tokens: usize,
    /// Tokens whose logits are in memory at the same time. Default 1024.
    pub logit_chunk: usize,
    /// What a block stores for its backward pass. Default: [`Kernels::Flash`].
    pub kernels: Kernels,

    /// Utilisation and overheads.
    pub efficiency: Efficiency,
    /// Price in dollars per device-hour. Default: the hardware's.
    pub price: Option<f64>,
}

impl Default for PlanConfig {
    fn default() -> Self {
        Self {
            problems: 16,
            group: 8,
            steps: 100,
            updates: 1,
            passes: 1,
            prompt_tokens: 128.0,
            completion: Lengths::new(512.0, 1024),
            shared_prompts: true,
            old_log_probs: true,
            reference: true,
            critic: false,
            trained_share: 1.0,
            recompute: false,
            adapter_rank: None,
            devices: 1,
            generators: None,
            tensor_parallel: 1,
            expert_parallel: 1,
            max_rows: None,
            accepted_tokens: 1.0,
            weight_bytes: 2.0,
            cache_bytes: 2.0,
            state: TrainingState::Mixed,
            sharding: Sharding::Replicated,
            offload: false,
            micro_batch_tokens: 16_384,
            logit_chunk: 1024,
            kernels: Kernels::Flash,
            efficiency: Efficiency::default(),
            price: None,
        }
    }
}

/// Utilisation of the devices and overheads, the assumptions of a plan. The example `plan` compares
/// the defaults with published runs (`--reproduce`). Replace them with measured values if there are
/// any.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Efficiency {
    /// Share of peak FLOP/s in forward and backward passes over whole sequences. Default: 0.35;
    /// with experts 0.15.
    pub update_mfu: Option<f64>,
    /// Share of peak FLOP/s in compute-bound decoding. Default 0.4.
    pub decode_mfu: Option<f64>,
    /// Share of peak memory bandwidth in decoding (MBU). Default 0.6.
    pub decode_mbu: Option<f64>,
    /// Overhead per layer and decoding step, in microseconds. Default 25.
    pub layer_overhead: f64,
    /// Overhead per layer of the two exchanges of tensor or expert parallelism within a node, in
    /// microseconds. Default 30; 2.5 times that across nodes.
    pub exchange_overhead: f64,
    /// Overhead per layer of dispatching tokens to experts and back, in microseconds: within a
    /// node, and across nodes. Default 60 and 100.
    pub dispatch_overhead: [f64; 2],
    /// Time of everything else (weight transfer, rewards, validation) as a share of the phases.
    /// Default 0.05.
    pub rest: f64,
    /// The upper end of the range, as a multiple of the formulas. Default: 2.2, with experts 4, the
    /// largest ratio of published runs.
    pub high: Option<f64>,
}

impl Default for Efficiency {
    fn default() -> Self {
        Self {
            update_mfu: None,
            decode_mfu: None,
            decode_mbu: None,
            layer_overhead: 25.0,
            exchange_overhead: 30.0,
            dispatch_overhead: [60.0, 100.0],
            rest: 0.05,
            high: None,
        }
    }
}

impl Efficiency {
    /// Returns `given`, or else `usual`; 1 if the hardware's figures are not peaks.
    fn share(given: Option<f64>, usual: f64, hardware: &Hardware) -> f64 {
        given.unwrap_or(match hardware.is_peak {
            true => usual,
            false => 1.0,
        })
    }

    /// Returns the FLOP/s that passes over whole sequences reach on a device.
    pub(super) fn update_flops(&self, shape: &ModelShape, hardware: &Hardware) -> f64 {
        let usual = match shape.experts {
            None => 0.35,
            Some(_) => 0.15,
        };
        hardware.flops() * Self::share(self.update_mfu, usual, hardware)
    }

    /// Returns the FLOP/s that decoding reaches on a device.
    pub(super) fn decode_flops(&self, hardware: &Hardware) -> f64 {
        hardware.flops() * Self::share(self.decode_mfu, 0.4, hardware)
    }

    /// Returns the bytes per second that decoding reads on a device.
    pub(super) fn decode_bytes(&self, hardware: &Hardware) -> f64 {
        hardware.bytes_per_second() * Self::share(self.decode_mbu, 0.6, hardware)
    }

    /// Returns the upper end of the range as a multiple of the lower end.
    pub(super) fn spread(&self, shape: &ModelShape) -> f64 {
        self.high.unwrap_or(match shape.experts {
            None => 2.2,
            Some(_) => 4.0,
        })
    }
}

impl PlanConfig {
    /// Returns the number of completions per step.
    pub fn rows(&self) -> usize {
        self.problems.saturating_mul(self.group)
    }

    /// Returns the parameters of the adapters, if adapters are trained.
    pub(super) fn adapters(&self, shape: &ModelShape) -> Option<u64> {
        self.adapter_rank.map(|rank| shape.adapter_parameters(rank))
    }

    /// Returns the number of devices that generate.
    pub(super) fn generating(&self) -> usize {
        self.generators.unwrap_or(self.devices)
    }

    /// Returns the number of devices that train.
    pub(super) fn learning(&self) -> usize {
        self.devices - self.generators.unwrap_or(0)
    }

    /// Returns the number of forward passes without a gradient over the completions of a step.
    pub(super) fn scorings(&self) -> f64 {
        f64::from(self.old_log_probs) + f64::from(self.reference) + f64::from(self.critic)
    }

    /// Returns the number of trained models.
    pub(super) fn trained_models(&self) -> f64 {
        1.0 + f64::from(self.critic)
    }

    /// Returns the prompt tokens of a step, each prompt counted once.
    pub(super) fn prompts(&self) -> Tokens {
        Tokens::sequence(self.prompt_tokens) * self.problems as f64
    }

    /// Returns the tokens of a pass over the completions of a step, prompts included, for
    /// completions of this mean length and mean squared length.
    pub(super) fn read(&self, mean: f64, mean_square: f64) -> Tokens {
        let rows = self.rows() as f64;
        let completions = Tokens {
            count: mean,
            squares: 2.0 * self.prompt_tokens * mean + mean_square,
        } * rows;
        match self.shared_prompts {
            true => completions + self.prompts(),
            false => completions + Tokens::sequence(self.prompt_tokens) * rows,
        }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and its range.
    pub fn validate(&self) -> Result<()> {
        self.completion.validate()?;
        for (field, value) in [
            ("problems", self.problems as u64),
            ("group", self.group as u64),
            ("steps", self.steps),
            ("updates", self.updates),
            ("passes", self.passes),
            ("devices", self.devices as u64),
            ("tensor_parallel", self.tensor_parallel as u64),
            ("expert_parallel", self.expert_parallel as u64),
            ("max_rows", self.max_rows.map_or(1, |rows| rows as u64)),
            ("micro_batch_tokens", self.micro_batch_tokens as u64),
            ("logit_chunk", self.logit_chunk as u64),
            ("adapter_rank", self.adapter_rank.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        if let Some(generators) = self.generators
            && !(1..self.devices).contains(&generators)
        {
            let expected = format!(
                "at least 1 and below devices = {}: the others train",
                self.devices
            );
            return Err(Error::config("generators", generators, expected));
        }
        let generating = self.generating();
        for (field, value) in [
            ("tensor_parallel", self.tensor_parallel),
            ("expert_parallel", self.expert_parallel),
        ] {
            if value > generating {
                let expected = format!("at most {generating}, the number of devices that generate");
                return Err(Error::config(field, value, expected));
            }
        }
        if self.tensor_parallel > 1 && self.expert_parallel > 1 {
            let expected = "1 with tensor_parallel above 1: a copy is split in one way";
            return Err(Error::config(
                "expert_parallel",
                self.expert_parallel,
                expected,
            ));
        }
        let positive = |field: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Error::config(field, value, "a finite number above 0")),
        };
        positive("weight_bytes", self.weight_bytes)?;
        positive("cache_bytes", self.cache_bytes)?;
        let efficiency = &self.efficiency;
        for (field, share) in [
            ("trained_share", Some(self.trained_share)),
            ("efficiency.update_mfu", efficiency.update_mfu),
            ("efficiency.decode_mfu", efficiency.decode_mfu),
            ("efficiency.decode_mbu", efficiency.decode_mbu),
        ] {
            if let Some(share) = share
                && !(share > 0.0 && share <= 1.0)
            {
                return Err(Error::config(field, share, "a share above 0, at most 1"));
            }
        }
        for (field, value, least) in [
            ("prompt_tokens", self.prompt_tokens, 0.0),
            ("accepted_tokens", self.accepted_tokens, 1.0),
            ("efficiency.layer_overhead", efficiency.layer_overhead, 0.0),
            (
                "efficiency.exchange_overhead",
                efficiency.exchange_overhead,
                0.0,
            ),
            (
                "efficiency.dispatch_overhead",
                efficiency.dispatch_overhead[0],
                0.0,
            ),
            (
                "efficiency.dispatch_overhead",
                efficiency.dispatch_overhead[1],
                0.0,
            ),
            ("efficiency.rest", efficiency.rest, 0.0),
            ("efficiency.high", efficiency.high.unwrap_or(1.0), 1.0),
            ("price", self.price.unwrap_or(0.0), 0.0),
        ] {
            if !(value.is_finite() && value >= least) {
                let expected = format!("a finite number of at least {least}");
                return Err(Error::config(field, value, expected));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_invalid_settings_are_errors() {
        PlanConfig::default().validate().unwrap();
        let invalid = |change: fn(&mut PlanConfig), field: &str| {
            let mut config = PlanConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        };
        invalid(|c| c.problems = 0, "`problems`");
        invalid(|c| c.generators = Some(1), "`generators`");
        invalid(|c| c.tensor_parallel = 2, "`tensor_parallel`");
        invalid(|c| c.trained_share = 1.5, "`trained_share`");
        invalid(|c| c.accepted_tokens = 0.5, "`accepted_tokens`");
        invalid(
            |c| c.efficiency.update_mfu = Some(0.0),
            "`efficiency.update_mfu`",
        );
        invalid(|c| c.completion.mean = 2000.0, "`completion.mean`");
        invalid(|c| c.price = Some(f64::NAN), "`price`");
        let unknown = serde_json::from_str::<PlanConfig>(r#"{"gropu": 4}"#).unwrap_err();
        assert!(unknown.to_string().contains("gropu"));
    }

    #[test]
    fn a_shared_prompt_is_read_once_but_attended_to_by_every_completion() {
        let config = PlanConfig {
            problems: 2,
            group: 3,
            prompt_tokens: 10.0,
            ..PlanConfig::default()
        };
        let shared = config.read(5.0, 25.0);
        assert_eq!(shared.count, 6.0 * 5.0 + 2.0 * 10.0);
        assert_eq!(shared.squares, 6.0 * (15.0 * 15.0 - 100.0) + 2.0 * 100.0);
        let apart = PlanConfig {
            shared_prompts: false,
            ..config
        }
        .read(5.0, 25.0);
        assert_eq!((apart.count, apart.squares), (90.0, 6.0 * 225.0));
    }
}
