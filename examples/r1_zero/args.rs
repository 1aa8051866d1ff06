//! Command-line options.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use rlvr::train::TrainerConfig;
use rlvr::train::observer::KeepRollouts;

use crate::backend::Backend;
use crate::cost::CostArgs;
use crate::learners::LearnerArgs;

/// DeepSeek-R1-Zero in miniature: a small transformer that mostly answers directly is rewarded when
/// it is right, and finds out that thinking pays.
///
/// Trains from scratch in two parts: a short supervised warm start, then reinforcement with two
/// rule-based rewards (accuracy and format). Leaves metrics.jsonl, report.html, summary.json,
/// curve.svg and checkpoints in the output folder. A folder that holds a run is an error unless --resume
/// or --overwrite is given. Ctrl-C stops after the current step and leaves a checkpoint.
///
/// Several learners:
/// `mpirun -n 2 --bind-to none target/release/examples/r1_zero --learners mpi --shards 2`, built
/// with --features mpi. A file called `stop` in the output folder ends them after the current step.
#[derive(Parser, Debug)]
#[command(name = "r1_zero", version)]
pub struct Args {
    /// Reinforcement steps in all, those before a --resume included
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// All randomness derives from it: problems, weights, order, sampling
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for everything that is left behind
    #[arg(long, default_value = "runs/r1_zero")]
    pub out: PathBuf,
    /// Where tensors live: one of the backends compiled in (features of the same names)
    #[arg(long, value_enum, default_value_t = Backend::default())]
    pub device: Backend,
    /// What is asked, unless --data is given
    #[arg(long, value_enum, default_value_t = TaskName::Arithmetic)]
    pub task: TaskName,
    /// Problems from a JSON Lines file with the fields `question` and `answer` instead of generated
    /// ones
    #[arg(long, value_name = "FILE.jsonl")]
    pub data: Option<PathBuf>,
    /// The training method: `grpo` (answers of a group are compared with each other; token
    /// mean, no KL), `ppo` (each answer is compared with what a critic expected), or any other
    /// method by name, such as dapo, gspo, cispo, rloo; a wrong name lists them
    #[arg(long, default_value = "grpo", value_parser = algorithm)]
    pub algorithm: String,
    /// Steps between two checkpoints; the last two are kept
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_every: u64,
    /// Keep the rollouts of the first step and of every N-th, in the folder `rollouts`; the report
    /// shows some of them
    #[arg(long, value_name = "every=N")]
    pub keep_rollouts: Option<KeepRollouts>,
    /// Continue from the last checkpoint in the output folder
    #[arg(long)]
    pub resume: bool,
    /// Delete the run that the output folder holds
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
    #[command(flatten)]
    pub learners: LearnerArgs,
    #[command(flatten)]
    pub cost: CostArgs,
}

/// The generated tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    /// Sums of two two-digit numbers
    Arithmetic,
    /// Reach a target with three numbers
    Countdown,
}

/// A method that the library knows.
fn algorithm(name: &str) -> rlvr::Result<String> {
    TrainerConfig::default().with_recipe(name)?;
    Ok(name.into())
}
