//! Takes a completion with a program and its tests; gives how many of them the program passes, run where it can do no harm.

mod sandbox;
pub use sandbox::{Command, Ended, Folder, InForce, Measure, Need, Ran, Sandbox, SandboxConfig, SandboxReport};
