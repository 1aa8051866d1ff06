//! The trainer: learning, invariance under splitting, metrics, and validation.

mod advantages;
mod asynchronous;
mod broken_rewards;
mod domains;
mod dynamic_sampling;
mod evaluation;
mod learning;
mod metrics;
mod objectives;
mod optimizer;
mod reference;
mod rejection;
mod running;
mod schedules;
mod sft_job;
mod supervised;
mod updates;
mod validation;
