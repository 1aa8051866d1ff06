//! Takes a completion with a program and its tests; gives how many of them the program passes, run where it can do no harm.
//!
//! [`CodeReward`] is the reward, [`Suite`] the tests and where they stand in a problem's metadata, [`Language`] how programs
//! are compiled and run. [`Sandbox`] runs one program under limits, and may be used by itself.
//!
//! ```
//! use rlvr::reward::code::{CodeConfig, CodeReward};
//! use rlvr::reward::{Reward, RewardInput};
//! use serde_json::json;
//!
//! # fn main() -> rlvr::Result<()> {
//! # if !cfg!(target_os = "linux") { return Ok(()) }
//! let mut config = CodeConfig::default();
//! // Run with whatever confinement this machine has. Without this line, less than everything is an error.
//! config.sandbox = config.sandbox.allow_less();
//! let reward = CodeReward::new(config)?;
//! let score = |completion: &str| {
//!     let tests = json!([{"input": "2 3", "output": "5"}, {"input": "-1 1", "output": "0"}]);
//!     reward.score(&RewardInput::new("Add two numbers.", "", completion).with_metadata("tests", tests))
//! };
//! assert_eq!(score("```python\nprint(sum(map(int, input().split())))\n```").unwrap(), Some(1.0));
//! assert_eq!(score("```python\nprint(5)\n```").unwrap(), Some(0.0));
//! assert_eq!(score("It prints the sum.").unwrap(), Some(0.0));
//! # Ok(())
//! # }
//! ```
//!
//! # Whom this is about
//!
//! The program was written by a policy that is paid for passing tests and does not care how. It may try to read the tests, to
//! make the judge believe that they were passed, to use up the machine, or to reach something outside - by intent learned from
//! reward, or by accident. It is not assumed to have a flaw of the kernel at hand: all confinement here is the kernel's word.
//!
//! # What is guaranteed about the verdict
//!
//! **The judge is outside, and what is expected never goes in.** The program's process is given the input of one test, and nothing
//! that it could print, return or raise is more than an answer.
//!
//! | tests | the program's process has | who compares | a pass means |
//! |---|---|---|---|
//! | [streams](Stream) | the input | this process | status 0, and the expected text |
//! | [calls](Call) | the arguments, of a call after the answer to the one before | this process | the expected value |
//! | [assertions](Asserts) | the arguments of the calls in them | a process of its own, with the tests and without the program | every statement ran to its end there |
//!
//! For assertions, a name that neither the tests' setup nor Python defines stands for the program's: calling it sends the
//! arguments to the program's process and gets the value back. Values travel as text and become Python's own types (none,
//! booleans, numbers, strings, bytes, lists, tuples, sets, dicts, ranges, iterators, decimals, fractions; arrays as lists). An
//! object of a class of the program's can be called and its attributes read, and equals only itself, so that an `__eq__` that is
//! always true is of no use. Python's built-in functions and its modules (`math.isclose`) are never the program's.
//! Leaving early, with whatever status, patching Python, reading frames, memory, files or descriptors: there is nothing in the
//! program's process from which a pass follows, short of the right value.
//!
//! What is **not** guaranteed:
//! - Helpers that the tests use without defining them are the program's, and so may be comparisons that rest on them. Name the
//!   `entry_point`: then nothing else is taken from the program, and tests that need more are an error that says so. Put
//!   helpers into `setup` or `prelude`.
//! - Tests see values, not how they were come by: a program that knows the few inputs can hold their answers. Hidden and
//!   random tests are the remedy.
//! - Values that are no plain ones cannot be handed *to* the program (a lambda, an object of the tests' own class): an error.
//!   Operators on the program's objects, `isinstance` with its classes and subclasses of exceptions it defines are not carried over.
//! - The tests of one suite of calls or assertions share a process as long as it lives: what one call leaves behind, the next
//!   finds. Streams have a process each.
//!
//! # What is guaranteed about the confinement
//!
//! With every [measure](Measure) in force, a program and whatever it starts
//! - sees only the system's programs and libraries (`/usr`, `/bin`, `/sbin`, `/lib*`), what `read_only` adds, its own files - all
//!   of that read-only - its own processes in `/proc`, five harmless devices, and an empty `/tmp` in memory;
//! - writes only to that `/tmp`, up to a size and a number of files, and all of it is gone with the run;
//! - has no network, no sockets but local ones of its own, no memory or queue shared with others;
//! - is an ordinary user without capabilities, and cannot become another; started by root, a user that nobody else is;
//! - cannot signal, trace, or see a process outside;
//! - is held to CPU time, memory, open files and the size of a file by process, to processes, to the clock and to the size
//!   of its output as a whole;
//! - is dead, to the last child, when the run has ended, and when the judge's thread or process has, however that happens.
//!
//! What is **not**:
//! - Memory and CPU time are counted by process: a run may use `processes` times `memory_bytes`, and as many cores. Control
//!   groups, which count a run as a whole, are not used: they are seldom to be had without a service manager.
//! - What is readable under `/usr` for everybody is readable. Keep no secrets there.
//! - The kernel is shared. So are its caches and its clock, by which programs can tell that others run.
//! - A judge that is killed (SIGKILL) leaves its folders, named `rlvr-...` and without anything running in them.
//!
//! # What is missing where
//!
//! [`Sandbox::new`] tries every measure, and refuses to go on with less than is asked for. Measures that are left out or
//! [allowed to be missing](Need::IfAvailable) leave these gaps, and the others fill what they can:
//!
//! | without | |
//! |---|---|
//! | `pid_namespace` | seccomp keeps the run's processes in one group, which is killed; root also kills everything of the run's user. An ordinary user without seccomp cannot kill what leaves the group. |
//! | `mount_namespace` | landlock holds the files; their total size and number are not limited, there is no `/proc`, attributes such as the date of a file are seccomp's to protect |
//! | `network_namespace` | seccomp allows local sockets only, and without a view none that has a name; without both, landlock refuses TCP since Linux 6.7 |
//! | any namespace, as an ordinary user | the limit on processes counts all processes of the user |
//! | `landlock` | the view of the mount namespace holds the files; without both, what the user may read and write |
//! | `seccomp` | the namespaces hold; more of the kernel can be called, and so more of its flaws |
//! | `unprivileged_user` | root with no capabilities still owns root's files, and no limit on processes holds it |
//!
//! Containers often forbid namespaces: Docker's default profile does, for root as well. Landlock (Linux 5.13) and seccomp
//! usually work there. Programs run only on Linux; elsewhere [`Sandbox::new`] is an error.
//!
//! # Time
//!
//! A run costs the start of the interpreter and a few milliseconds for the namespaces. A suite of calls or assertions starts one
//! process, or two, for all its tests; streams start one for each. How much memory the trainer uses does not matter.

mod judge;
mod language;
mod output;
mod reward;
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
mod sandbox;
mod suite;

pub use judge::Case;
pub use language::Language;
pub use reward::{CodeConfig, CodeReward, Scoring};
pub use sandbox::{
    Command, Ended, Folder, InForce, Measure, Need, Ran, Sandbox, SandboxConfig, SandboxReport,
};
pub use suite::{Asserts, Call, Cases, Stream, Suite};
