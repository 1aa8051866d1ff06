//! Tests of the trainer, of checkpoints, of several learners and of the planner.

#[path = "../common/mod.rs"]
mod common;

mod crash;
mod diagnosis;
mod downstream;
mod learners;
mod plan;
mod resume;
mod trainer;
