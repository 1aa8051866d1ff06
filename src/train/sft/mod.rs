//! Supervised fine-tuning. [`SftTrainer`] has checkpoints, a held-out loss and observers;
//! [`supervise`] is the bare loop.

mod checkpoint;
mod config;
mod data;
mod example;
mod run;
mod supervise;
mod trainer;

pub use config::SftConfig;
pub use data::{DemonstrationFile, DemonstrationSet};
pub use example::{Conversation, Demonstration, SftExample};
pub use run::{HeldOut, SftRunConfig};
pub use supervise::{SftReport, supervise};
pub use trainer::SftTrainer;
