//! Change it.
mod optimizer;
mod schedule;
mod sft;
pub use optimizer::{Optimizer, OptimizerConfig, UpdateReport, global_norm};
pub use schedule::{Decay, Schedule};
pub use sft::{Demonstration, SftConfig, SftReport, supervise};
