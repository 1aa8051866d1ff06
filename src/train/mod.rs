//! Training: reinforcement learning, supervised fine-tuning, distillation and reward models.
//!
//! A [`Trainer`] is built from a policy, rewards and problems ([`Trainer::builder`]) and configured
//! by a [`TrainerConfig`]. Each step has two halves: a [`Collector`] samples and scores rollouts, and
//! the learner estimates advantages and updates the policy. [`Trainer::run`] adds evaluation,
//! checkpoints and [`observer`]s.
//!
//! | task | entry point |
//! |---|---|
//! | reinforcement learning | [`Trainer`] |
//! | asynchronous rollouts | [`AsyncRollouts`] |
//! | several learners | [`Learners`] |
//! | supervised fine-tuning | [`SftTrainer`], [`supervise`] |
//! | rejection sampling | [`RejectionSampler`] |
//! | distillation | [`Distiller`] |
//! | reward models | [`train_reward_model`] |
//! | evaluation | [`evaluate`](evaluate()) |
//! | metrics, charts, reports | [`observer`], [`diagnosis`] |

mod async_rollouts;
mod builder;
mod checkpoint;
mod checkpoint_copy;
mod checkpoint_folder;
mod collector;
mod config;
mod controllers;
mod critic;
pub mod diagnosis;
mod distill;
mod domain_metrics;
mod dynamic_sampling;
mod episode_metrics;
mod evaluate;
mod experience;
mod gradients;
mod learner;
mod learners;
mod mixture;
pub mod observer;
mod optimizer;
mod piecewise;
mod predicted;
mod problems;
mod recipe;
mod rejection;
mod reward_metrics;
mod reward_model;
mod run;
mod sampler_metrics;
mod schedule;
mod scorer;
mod sft;
mod sharded;
mod source;
mod step_metrics;
mod step_schedules;
mod teacher;
mod trained;
mod trainer;
mod update;
mod usage;
mod zero_std;

pub use async_rollouts::{AsyncConfig, AsyncRollouts};
pub use builder::TrainerBuilder;
pub use checkpoint_folder::latest_checkpoint;
pub use collector::{Collected, Collector, PolicyState};
pub use config::{AdaptiveTarget, CriticConfig, KlInReward, TrainerConfig};
pub use distill::{
    DistillConfig, DistillData, DistillReport, Distiller, ModelTeacher, Teacher, TeacherStates,
    TopRecord, TopTeacher,
};
pub use dynamic_sampling::{DynamicSampling, Exhausted};
pub use evaluate::{
    DomainEvaluation, Estimate, Evaluation, EvaluationConfig, RewardEstimates, evaluate, pass_at_k,
};
#[cfg(feature = "mpi")]
pub use learners::Mpi;
pub use learners::{Alone, Learners, Threads};
pub use mixture::Mixture;
pub use optimizer::{Optimizer, OptimizerConfig, UpdateReport, global_norm};
pub use piecewise::Piecewise;
pub use problems::{Draw, ProblemSource, ShuffledProblems};
pub use rejection::{
    KeptCompletion, RejectionConfig, RejectionReport, RejectionSampler, read_kept,
};
pub use reward_model::{
    LabeledResponse, PreferencePair, RewardExamples, RewardModelConfig, RewardModelMetrics,
    RewardModelReport, evaluate_reward_model, train_reward_model,
};
pub use run::{RunCheckpoints, RunConfig, RunEnd, RunEvaluation};
pub use schedule::{Decay, Schedule};
pub use scorer::{ModelScorer, Scorer, ScoringConfig};
pub use sft::{
    Conversation, Demonstration, DemonstrationFile, DemonstrationSet, HeldOut, SftConfig,
    SftExample, SftReport, SftRunConfig, SftTrainer, supervise,
};
pub use source::RolloutSource;
pub use step_schedules::StepSchedules;
pub use teacher::{SuccessfulSibling, TeacherContext};
pub use trainer::Trainer;
pub use zero_std::zero_std;
