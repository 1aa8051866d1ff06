//! Takes a completion with a program and its tests; gives how many of them the program passes, run where it can do no harm.

mod judge;
mod language;
mod output;
mod reward;
mod sandbox;
mod suite;

pub use judge::Case;
pub use language::Language;
pub use reward::{CodeConfig, CodeReward, Scoring};
pub use sandbox::{
    Command, Ended, Folder, InForce, Measure, Need, Ran, Sandbox, SandboxConfig, SandboxReport,
};
pub use suite::{Asserts, Call, Cases, Stream, Suite};
