//! Command-line options.

use std::path::PathBuf;

use burn::tensor::FloatDType;
use clap::{Parser, ValueEnum};
use rlvr::policy::WeightFormat;
use rlvr::train::TrainerConfig;
use rlvr::train::observer::KeepRollouts;

use crate::backend::Backend;
use crate::cost::CostArgs;
use crate::engines::EngineArgs;
use crate::environments::EnvironmentArgs;
use crate::learners::LearnerArgs;

/// Teach an open-weight model to reason: take a Hugging Face folder, train it with verifiable
/// rewards (accuracy and format), and leave a Hugging Face folder that any other tool loads.
///
/// The result is in the folder --out. Beside it, in OUT-run, are metrics.jsonl, report.html,
/// summary.json, curve.svg, the checkpoints that --resume continues from, the model after the
/// supervised phase, and the adapters if there are any. Ctrl-C stops after the current step and
/// leaves a checkpoint.
///
/// Several learners:
/// `mpirun -n 2 --bind-to none target/release/examples/grpo_hf --learners mpi --shards 2 ...`,
/// built with --features hf,mpi. The first of them learns the demonstrations of --sft, in a folder
/// that all of them can read. A file called `stop` in OUT-run ends them after the current step.
#[derive(Parser, Debug)]
#[command(name = "grpo_hf", version)]
pub struct Args {
    /// The model's folder: config.json, safetensors, tokenizer.json, a chat template
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Problems: JSON Lines with the fields `question` and `answer`, or those named by --question-field
    /// and --answer-field
    #[arg(long, value_name = "FILE.jsonl")]
    pub data: PathBuf,
    /// The field of --data that holds the question
    #[arg(long, value_name = "NAME", default_value = "question")]
    pub question_field: String,
    /// The field of --data that holds the answer
    #[arg(long, value_name = "NAME", default_value = "answer")]
    pub answer_field: String,
    /// Folder for the trained model; new or empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Reinforcement steps in all, those before a --resume included
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Problems a step
    #[arg(long, default_value_t = 4)]
    pub problems: usize,
    /// Completions of each problem
    #[arg(long, default_value_t = 4)]
    pub group: usize,
    /// The most tokens in a completion
    #[arg(long, default_value_t = 48)]
    pub max_new_tokens: usize,
    /// The training method: grpo, dapo, dr_grpo, gspo, cispo, rloo, ...; a wrong name
    /// lists them
    #[arg(long, default_value = "grpo", value_parser = algorithm)]
    pub algorithm: String,
    /// Peak of the learning rate; default 1e-5, with adapters 2e-4
    #[arg(long)]
    pub learning_rate: Option<f64>,
    /// Coefficient of the KL to the reference policy; 0 for none; default: the algorithm's
    #[arg(long)]
    pub kl: Option<f64>,
    /// Temperature of the sampler
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    /// How the weights are stored during generation: `trained`, or `bf16` or `int8` for speed on
    /// the CPU, with a sampler correction (--truncate-weights)
    #[arg(long, value_name = "FORMAT", default_value = "trained")]
    pub generation_weights: WeightFormat,
    /// First, learn these demonstrations: JSON Lines with `question` and `response`, or with
    /// `messages`, of which the assistant's are learned
    #[arg(long, value_name = "FILE.jsonl")]
    pub sft: Option<PathBuf>,
    /// Updates of the supervised phase
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub sft_steps: u64,
    /// Demonstrations a supervised update
    #[arg(long, default_value_t = 8)]
    pub sft_batch: usize,
    /// Learning rate of the supervised phase
    #[arg(long, default_value_t = 2e-5)]
    pub sft_learning_rate: f64,
    /// Train adapters of this rank (LoRA) instead of the weights
    #[arg(long, value_name = "RANK")]
    pub lora: Option<usize>,
    /// Scale of the adapters; default: twice the rank
    #[arg(long, requires = "lora")]
    pub lora_alpha: Option<f64>,
    /// Projections that get adapters, for example q_proj,v_proj; default: all
    #[arg(long, requires = "lora", value_delimiter = ',')]
    pub lora_targets: Vec<String>,
    /// Recompute each block in the backward pass: less memory, more time, the same gradient
    #[arg(long)]
    pub gradient_checkpointing: bool,
    /// Completions that are forwarded together in training: memory against speed
    #[arg(long, default_value_t = 4)]
    pub micro_batch: usize,
    /// Problems that are never trained on and are asked before and after; default: a fifth of them,
    /// at most 32
    #[arg(long)]
    pub held_out: Option<usize>,
    /// Steps between two checkpoints; each holds weights and moments, three times the model
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
    /// Keep the rollouts of the first step and of every N-th, in the folder `rollouts`; the report
    /// shows some of them
    #[arg(long, value_name = "every=N")]
    pub keep_rollouts: Option<KeepRollouts>,
    /// A chat template in Jinja to use instead of the folder's, as for base models, which have none
    #[arg(long, value_name = "FILE")]
    pub chat_template: Option<PathBuf>,
    /// The system prompt
    #[arg(long, default_value = SYSTEM)]
    pub system: String,
    /// All randomness derives from it: order, sampling, adapters
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where tensors live: one of the backends compiled in (features of the same names)
    #[arg(long, value_enum, default_value_t = Backend::default())]
    pub device: Backend,
    /// What the weights are held in
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    pub dtype: Precision,
    /// Continue from the last checkpoint
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub environments: EnvironmentArgs,
    #[command(flatten)]
    pub engines: EngineArgs,
    #[command(flatten)]
    pub learners: LearnerArgs,
    #[command(flatten)]
    pub cost: CostArgs,
}

const SYSTEM: &str = "Think about the question first, then answer it. Write your thoughts between <think> and </think>, \
                      and after them the answer alone between <answer> and </answer>.";

/// A type of floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32 bits
    F32,
    /// 16 bits with the range of 32: half the memory; for GPUs
    Bf16,
}

impl From<Precision> for FloatDType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
        }
    }
}

/// A method that the library knows and that needs no critic.
fn algorithm(name: &str) -> rlvr::Result<String> {
    use rlvr::advantage::AdvantageEstimator;
    let config = TrainerConfig::default().with_recipe(name)?;
    if config.advantage.needs_values() {
        let expected = "a method without a critic, as grpo";
        return Err(rlvr::Error::config("algorithm", name, expected));
    }
    Ok(name.into())
}

impl Args {
    /// The folder beside `out` that holds everything but the result.
    pub fn run_folder(&self) -> PathBuf {
        let mut name = self.out.file_name().unwrap_or_default().to_os_string();
        name.push("-run");
        self.out.with_file_name(name)
    }
}
