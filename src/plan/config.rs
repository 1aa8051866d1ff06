//! What a plan is made for: the work of a step, how it is spread over devices, and how well they are used.

use serde::{Deserialize, Serialize};

use super::hardware::Hardware;
use super::memory::Sharding;
use super::shape::ModelShape;
use super::tokens::{Lengths, Tokens};
use super::update_memory::{Kernels, TrainingState};
use crate::{Error, Result};

/// A run of reinforcement learning, as far as its cost depends on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlanConfig {
    /// Problems a step. Default 16.
    pub problems: usize,
    /// Completions of each problem. Default 8.
    pub group: usize,
    /// Steps of the run: a step samples `problems * group` completions and learns from them. Default 100.
    pub steps: u64,
    /// Optimizer updates a step. Default 1.
    pub updates: u64,
    /// How often each completion is learned from. Default 1.
    pub passes: u64,
    /// Mean tokens of a prompt. Default 128.
    pub prompt_tokens: f64,
    /// Lengths of the completions. Default: 512 on average, at most 1024.
    pub completion: Lengths,
    /// Whether training reads a prompt once for its group, as this crate does, or once for each completion. Generation always reads it
    /// once. Default true.
    pub shared_prompts: bool,
    /// A forward pass for the log-probs of the policy before the step. Default true.
    pub old_log_probs: bool,
    /// A reference policy and a forward pass for its log-probs. Default true.
    pub reference: bool,
    /// A critic of the policy's size, which is trained as well. Default false.
    pub critic: bool,
    /// Share of the completions that are learned from: those with an advantage of zero can be left out. Default 1.
    pub trained_share: f64,
    /// Compute blocks again in the backward pass rather than keep their activations (gradient checkpointing). Default false.
    pub recompute: bool,
    /// Train adapters of this rank on all projections, not the weights. Default: the weights.
    pub adapter_rank: Option<u64>,

    /// Devices in all. Default 1.
    pub devices: usize,
    /// Of these, the ones that only generate, while the others learn from completions of an earlier step. Default: none; all devices
    /// take turns at generating and learning.
    pub generators: Option<usize>,
    /// Devices that share one copy of the weights in generation, each with a part of every matrix. Default 1.
    pub tensor_parallel: usize,
    /// Devices that share one copy of the experts in generation, each with whole experts. Default 1.
    pub expert_parallel: usize,
    /// The most completions that one copy of the weights generates at a time. Default: as many as memory holds.
    pub max_rows: Option<usize>,
    /// Tokens that a decoding step yields with a draft model; 1 without. Default 1.
    pub accepted_tokens: f64,
    /// Bytes of a weight in generation: 2, or 1 for fp8. Default 2.
    pub weight_bytes: f64,
    /// Bytes of a number in the cache. Default 2.
    pub cache_bytes: f64,

    /// Types of weights, gradients and moments in training. Default: mixed precision.
    pub state: TrainingState,
    /// What each learner keeps of them. Default: everything.
    pub sharding: Sharding,
    /// Whether training state leaves the device while it generates. Default false.
    pub offload: bool,
    /// The most tokens that are forwarded together on a device; a longer sequence is forwarded alone. Default 16384.
    pub micro_batch_tokens: usize,
    /// Tokens whose logits exist at the same time. Default 1024.
    pub logit_chunk: usize,
    /// What a block keeps for its backward pass. Default: [`Kernels::Flash`].
    pub kernels: Kernels,

    /// How well devices are used.
    pub efficiency: Efficiency,
    /// Dollars for a device and hour. Default: the hardware's.
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

/// How well a run uses its devices: the guesses of a plan. With the defaults published runs come out at the ratios that the example `plan` prints
/// (`--reproduce`). Replace them by what a run measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Efficiency {
    /// Share of peak FLOP/s in forward and backward passes over whole sequences. Default: 0.35; with experts 0.15.
    pub update_mfu: Option<f64>,
    /// Share of peak FLOP/s in decoding, where it is bound by compute. Default 0.4.
    pub decode_mfu: Option<f64>,
    /// Share of peak memory bandwidth in decoding (MBU). Default 0.6.
    pub decode_mbu: Option<f64>,
    /// Microseconds that a layer adds to a decoding step. Default 25.
    pub layer_overhead: f64,
    /// Microseconds a layer for the two exchanges of tensor or expert parallelism in a node. Default 30; 2.5 times that across nodes.
    pub exchange_overhead: f64,
    /// Microseconds a layer for sending tokens to experts in a node and back. Default 60; 100 where experts are spread over nodes.
    pub dispatch_overhead: [f64; 2],
    /// Time of everything else - weights handed over, rewards, validation - as a share of the phases. Default 0.05.
    pub rest: f64,
    /// The upper end of the range, as a multiple of the formulas: published runs took up to 2.2 times as long, with experts 4 times. The
    /// default is that.
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
    /// `given`, or `usual`; 1 where the hardware's figures are not peaks.
    fn share(given: Option<f64>, usual: f64, hardware: &Hardware) -> f64 {
        given.unwrap_or(match hardware.is_peak {
            true => usual,
            false => 1.0,
        })
    }

    /// FLOP/s that passes over whole sequences reach on a device.
    pub(super) fn update_flops(&self, shape: &ModelShape, hardware: &Hardware) -> f64 {
        let usual = match shape.experts {
            None => 0.35,
            Some(_) => 0.15,
        };
        hardware.flops() * Self::share(self.update_mfu, usual, hardware)
    }

    /// FLOP/s that decoding reaches on a device.
    pub(super) fn decode_flops(&self, hardware: &Hardware) -> f64 {
        hardware.flops() * Self::share(self.decode_mfu, 0.4, hardware)
    }

    /// Bytes a second that decoding reads on a device.
    pub(super) fn decode_bytes(&self, hardware: &Hardware) -> f64 {
        hardware.bytes_per_second() * Self::share(self.decode_mbu, 0.6, hardware)
    }

    /// The upper end of the range as a multiple of the lower.
    pub(super) fn spread(&self, shape: &ModelShape) -> f64 {
        self.high.unwrap_or(match shape.experts {
            None => 2.2,
            Some(_) => 4.0,
        })
    }
}

impl PlanConfig {
    /// Completions of a step.
    pub fn rows(&self) -> usize {
        self.problems.saturating_mul(self.group)
    }

    /// Parameters of the adapters of a model, if they are what is trained.
    pub(super) fn adapters(&self, shape: &ModelShape) -> Option<u64> {
        self.adapter_rank.map(|rank| shape.adapter_parameters(rank))
    }

    /// Devices that generate.
    pub(super) fn generating(&self) -> usize {
        self.generators.unwrap_or(self.devices)
    }

    /// Devices that learn.
    pub(super) fn learning(&self) -> usize {
        self.devices - self.generators.unwrap_or(0)
    }

    /// Forward passes without a gradient over the completions of a step.
    pub(super) fn scorings(&self) -> f64 {
        f64::from(self.old_log_probs) + f64::from(self.reference) + f64::from(self.critic)
    }

    /// Models that are trained.
    pub(super) fn trained_models(&self) -> f64 {
        1.0 + f64::from(self.critic)
    }

    /// Prompts of a step, each read once.
    pub(super) fn prompts(&self) -> Tokens {
        Tokens::sequence(self.prompt_tokens) * self.problems as f64
    }

    /// What a pass over the completions of a step reads, prompts included; completions have this mean length and mean square.
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

    /// Refuses a run that cannot be.
    ///
    /// # Errors
    /// [`Error::Config`] with the field, its value and its range.
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
                "at least 1 and below devices = {}: the others learn",
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
                let expected = format!("at most the {generating} devices that generate");
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
    fn the_defaults_are_valid_and_what_cannot_be_is_refused() {
        PlanConfig::default().validate().unwrap();
        let refused = |change: fn(&mut PlanConfig), field: &str| {
            let mut config = PlanConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        };
        refused(|c| c.problems = 0, "`problems`");
        refused(|c| c.generators = Some(1), "`generators`");
        refused(|c| c.tensor_parallel = 2, "`tensor_parallel`");
        refused(|c| c.trained_share = 1.5, "`trained_share`");
        refused(|c| c.accepted_tokens = 0.5, "`accepted_tokens`");
        refused(
            |c| c.efficiency.update_mfu = Some(0.0),
            "`efficiency.update_mfu`",
        );
        refused(|c| c.completion.mean = 2000.0, "`completion.mean`");
        refused(|c| c.price = Some(f64::NAN), "`price`");
        let unknown = serde_json::from_str::<PlanConfig>(r#"{"gropu": 4}"#).unwrap_err();
        assert!(unknown.to_string().contains("gropu"));
    }

    #[test]
    fn a_shared_prompt_is_read_once_and_attended_to_by_every_row() {
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
