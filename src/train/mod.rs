//! Change it. Takes a policy, problems and rewards, and drives every room above; gives the trained policy,
//! its metrics to [`observer`]s, and checkpoints.

mod checkpoint;
mod config;
mod controllers;
mod critic;
mod dynamic_sampling;
mod evaluate;
mod experience;
mod gather;
pub mod observer;
mod optimizer;
mod recipe;
mod reward_metrics;
mod run;
mod sampler_metrics;
mod schedule;
mod sft;
mod step_metrics;
mod trained;
mod trainer;
mod update;
mod zero_std;

pub use checkpoint::latest_checkpoint;
pub use config::{AdaptiveTarget, CriticConfig, KlInReward, TrainerConfig};
pub use critic::Critic;
pub use dynamic_sampling::{DynamicSampling, Exhausted};
pub use evaluate::{Evaluation, EvaluationConfig, evaluate, pass_at_k};
pub use optimizer::{Optimizer, OptimizerConfig, UpdateReport, global_norm};
pub use run::{RunCheckpoints, RunConfig, RunEnd, RunEvaluation};
pub use schedule::{Decay, Schedule};
pub use sft::{Demonstration, SftConfig, SftReport, supervise};
pub use trainer::Trainer;
pub use zero_std::zero_std;
