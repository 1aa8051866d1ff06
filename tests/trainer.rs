//! The trainer as a whole: it learns, its arithmetic does not depend on how it is cut, its metrics are what they say,
//! and settings that contradict each other are refused.

mod common;
#[path = "common/toy.rs"]
mod toy;

#[path = "trainer/advantages.rs"]
mod advantages;
#[path = "trainer/asynchronous.rs"]
mod asynchronous;
#[path = "trainer/broken_rewards.rs"]
mod broken_rewards;
#[path = "trainer/domains.rs"]
mod domains;
#[path = "trainer/dynamic_sampling.rs"]
mod dynamic_sampling;
#[path = "trainer/evaluation.rs"]
mod evaluation;
#[path = "trainer/learning.rs"]
mod learning;
#[path = "trainer/metrics.rs"]
mod metrics;
#[path = "trainer/objectives.rs"]
mod objectives;
#[path = "trainer/optimizer.rs"]
mod optimizer;
#[path = "trainer/reference.rs"]
mod reference;
#[path = "trainer/refusals.rs"]
mod refusals;
#[path = "trainer/rejection.rs"]
mod rejection;
#[path = "trainer/running.rs"]
mod running;
#[path = "trainer/schedules.rs"]
mod schedules;
#[path = "trainer/sft_job.rs"]
mod sft_job;
#[path = "trainer/supervised.rs"]
mod supervised;
#[path = "trainer/updates.rs"]
mod updates;
