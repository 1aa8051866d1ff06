//! The command line.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use rlvr::plan::{Hardware, Kernels, Lengths, ModelShape, PlanConfig, Sharding, TrainingState};
use rlvr::{Error, Result};
use serde::de::DeserializeOwned;

/// Says what a run of reinforcement learning costs before it is rented.
#[derive(Parser)]
pub struct Args {
    /// A config.json, a folder with one, or a name (--list)
    #[arg(long)]
    pub model: Option<String>,
    /// The kind of device (--list)
    #[arg(long, alias = "hardware", default_value = "h100")]
    gpu: String,
    /// A JSON file with another kind of device, in place of --gpu
    #[arg(long)]
    hardware_file: Option<PathBuf>,
    /// A JSON file with a configuration of the plan; what else is given here changes it
    #[arg(long)]
    config: Option<PathBuf>,
    /// Kinds of devices to compare
    #[arg(long, value_delimiter = ',')]
    pub compare: Vec<String>,
    /// Numbers of devices, each with as much work for a device as --count has
    #[arg(long, value_delimiter = ',', num_args = 0..=1, default_missing_value = "1,8,64,512")]
    pub weak_scaling: Option<Vec<usize>>,
    /// Objects in place of tables
    #[arg(long)]
    pub json: bool,
    /// Compare the planner with published costs
    #[arg(long)]
    pub reproduce: bool,
    /// Print the names of models and hardware
    #[arg(long)]
    pub list: bool,

    /// Problems a step [default: 16]
    #[arg(long, help_heading = "Work")]
    problems: Option<usize>,
    /// Completions of each problem [default: 8]
    #[arg(long, help_heading = "Work")]
    group: Option<usize>,
    /// Steps: each samples problems x group completions and learns from them [default: 100]
    #[arg(long, help_heading = "Work")]
    steps: Option<u64>,
    /// Optimizer updates of the run, in place of --steps
    #[arg(long, help_heading = "Work", conflicts_with = "steps")]
    updates: Option<u64>,
    /// Optimizer updates a step [default: 1]
    #[arg(long, help_heading = "Work")]
    updates_per_step: Option<u64>,
    /// How often each completion is learned from [default: 1]
    #[arg(long, help_heading = "Work")]
    passes: Option<u64>,
    /// Mean tokens of a prompt [default: 128]
    #[arg(long, help_heading = "Work")]
    prompt_tokens: Option<f64>,
    /// The most tokens of a completion [default: 1024]
    #[arg(long, help_heading = "Work")]
    max_new_tokens: Option<usize>,
    /// Mean tokens of a completion [default: a quarter of the most]
    #[arg(long, help_heading = "Work")]
    pub mean_length: Option<f64>,
    /// Deviation of the lengths by their mean [default: 0.8]
    #[arg(long, help_heading = "Work")]
    cv: Option<f64>,
    /// No forward pass for old log-probs
    #[arg(long, help_heading = "Work")]
    no_old_log_probs: bool,
    /// No reference policy
    #[arg(long, help_heading = "Work")]
    no_reference: bool,
    /// A critic, trained as well
    #[arg(long, help_heading = "Work")]
    critic: bool,
    /// Share of the completions that are learned from [default: 1]
    #[arg(long, help_heading = "Work")]
    trained_share: Option<f64>,
    /// Train adapters of this rank
    #[arg(long, help_heading = "Work")]
    adapter_rank: Option<u64>,

    /// Devices [default: 1]
    #[arg(long, alias = "devices", help_heading = "Devices")]
    count: Option<usize>,
    /// Devices that only generate, while the others learn
    #[arg(long, help_heading = "Devices")]
    generators: Option<usize>,
    /// Devices that share the weights in generation [default: 1]
    #[arg(long, help_heading = "Devices")]
    tensor_parallel: Option<usize>,
    /// Devices that share the experts in generation [default: 1]
    #[arg(long, help_heading = "Devices")]
    expert_parallel: Option<usize>,
    /// The most completions that one copy of the weights generates at a time
    #[arg(long, help_heading = "Devices")]
    max_rows: Option<usize>,
    /// Tokens a decoding step yields with a draft model [default: 1]
    #[arg(long, help_heading = "Devices")]
    accepted_tokens: Option<f64>,
    /// Bytes of a weight in generation [default: 2]
    #[arg(long, help_heading = "Devices")]
    weight_bytes: Option<f64>,
    /// Bytes of a number in the cache [default: 2]
    #[arg(long, help_heading = "Devices")]
    cache_bytes: Option<f64>,
    /// Dollars for a device and hour [default: the hardware's]
    #[arg(long, help_heading = "Devices")]
    price: Option<f64>,

    /// Types in training [default: mixed]
    #[arg(long, help_heading = "Memory")]
    state: Option<State>,
    /// What each learner keeps [default: replicated]
    #[arg(long, help_heading = "Memory")]
    sharding: Option<Shards>,
    /// Training state leaves the device while it generates
    #[arg(long, help_heading = "Memory")]
    offload: bool,
    /// Compute blocks again in the backward pass
    #[arg(long, help_heading = "Memory")]
    recompute: bool,
    /// The most tokens that are forwarded together [default: 16384]
    #[arg(long, help_heading = "Memory")]
    micro_batch_tokens: Option<usize>,
    /// What blocks keep for the backward pass [default: flash]
    #[arg(long, help_heading = "Memory")]
    kernels: Option<Kept>,

    /// Share of peak FLOP/s in passes over whole sequences [default: 0.35, with experts 0.15]
    #[arg(long, help_heading = "Efficiency")]
    update_mfu: Option<f64>,
    /// Share of peak FLOP/s in decoding [default: 0.4]
    #[arg(long, help_heading = "Efficiency")]
    decode_mfu: Option<f64>,
    /// Share of peak memory bandwidth in decoding [default: 0.6]
    #[arg(long, help_heading = "Efficiency")]
    decode_mbu: Option<f64>,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    F32,
    Mixed,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shards {
    Replicated,
    Optimizer,
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kept {
    Fused,
    Flash,
    Composed,
}

/// The model at a path, or of a name.
pub fn shape(model: &str) -> Result<ModelShape> {
    match Path::new(model).exists() {
        true => ModelShape::read(model),
        false => ModelShape::named(model),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).map_err(|source| Error::io(path, source))?;
    serde_json::from_str(&text).map_err(|reason| Error::model_file(path, reason))
}

fn set<T>(place: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *place = given;
    }
}

impl Args {
    pub fn hardware(&self) -> Result<Hardware> {
        match &self.hardware_file {
            Some(path) => read(path),
            None => Hardware::named(&self.gpu),
        }
    }

    /// The configuration of the file or the default, changed by what else is given.
    pub fn config(&self) -> Result<PlanConfig> {
        let mut config = match &self.config {
            Some(path) => read(path)?,
            None => PlanConfig::default(),
        };
        set(&mut config.problems, self.problems);
        set(&mut config.group, self.group);
        set(&mut config.updates, self.updates_per_step);
        set(&mut config.steps, self.steps);
        let per_step = config.updates.max(1);
        let steps = self.updates.map(|updates| updates.div_ceil(per_step));
        set(&mut config.steps, steps);
        set(&mut config.passes, self.passes);
        set(&mut config.prompt_tokens, self.prompt_tokens);
        let lengths = &mut config.completion;
        if let Some(cap) = self.max_new_tokens {
            *lengths = Lengths {
                mean: 0.25 * cap as f64,
                cap,
                ..*lengths
            };
        }
        set(&mut lengths.mean, self.mean_length);
        set(&mut lengths.cv, self.cv);
        config.old_log_probs &= !self.no_old_log_probs;
        config.reference &= !self.no_reference;
        config.critic |= self.critic;
        set(&mut config.trained_share, self.trained_share);
        config.adapter_rank = self.adapter_rank.or(config.adapter_rank);

        set(&mut config.devices, self.count);
        config.generators = self.generators.or(config.generators);
        set(&mut config.tensor_parallel, self.tensor_parallel);
        set(&mut config.expert_parallel, self.expert_parallel);
        config.max_rows = self.max_rows.or(config.max_rows);
        set(&mut config.accepted_tokens, self.accepted_tokens);
        set(&mut config.weight_bytes, self.weight_bytes);
        set(&mut config.cache_bytes, self.cache_bytes);
        config.price = self.price.or(config.price);

        let state = self.state.map(|state| match state {
            State::F32 => TrainingState::F32,
            State::Mixed => TrainingState::Mixed,
        });
        set(&mut config.state, state);
        let sharding = self.sharding.map(|sharding| match sharding {
            Shards::Replicated => Sharding::Replicated,
            Shards::Optimizer => Sharding::Optimizer,
            Shards::Full => Sharding::Full,
        });
        set(&mut config.sharding, sharding);
        let kernels = self.kernels.map(|kernels| match kernels {
            Kept::Fused => Kernels::Fused,
            Kept::Flash => Kernels::Flash,
            Kept::Composed => Kernels::Composed,
        });
        set(&mut config.kernels, kernels);
        config.offload |= self.offload;
        config.recompute |= self.recompute;
        set(&mut config.micro_batch_tokens, self.micro_batch_tokens);

        let efficiency = &mut config.efficiency;
        efficiency.update_mfu = self.update_mfu.or(efficiency.update_mfu);
        efficiency.decode_mfu = self.decode_mfu.or(efficiency.decode_mfu);
        efficiency.decode_mbu = self.decode_mbu.or(efficiency.decode_mbu);
        Ok(config)
    }
}
