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
//! always true is of no use. Python's modules (`math.isclose`) are never the program's, and neither are its built-in functions,
//! except in a test that names nothing else of the program's and has no `entry_point`: `assert sum(10, 15) == 25` calls its `sum`.
//! Leaving early, with whatever status, patching Python, reading frames, memory, files or descriptors: there is nothing in the
//! program's process from which a pass follows, short of the right value.
//!
//! What is **not** guaranteed:
//! - Helpers that the tests use without defining them are the program's, and so may be comparisons that rest on them. Name the
//!   `entry_point`: then nothing else is taken from the program, and tests that need more are an error that says so. Put
//!   helpers into `setup` or `prelude`.
//! - A program may change the lists, dicts and sets that it is given, and a test that compares with them afterwards compares
//!   with what it made of them, as in one process: `a = [3, 1]; assert order(a) == sorted(a)`. Write the expected value out.
//! - Tests see values, not how they were computed: a program that knows the few inputs can hold their answers. Hidden and
//!   random tests are the remedy.
//! - Values that are no plain ones cannot be handed *to* the program (a lambda, an object of the tests' own class): an error.
//!   Operators on the program's objects, `isinstance` with its classes and subclasses of exceptions it defines are not carried over.
//! - The tests of one suite of calls or assertions share a process as long as it lives: what one call leaves behind, the next
//!   finds. Streams have a process each.
//!
//! # What is guaranteed about the confinement
//!
//! See [`rlvr_sandbox`], the crate that runs the programs: with every [measure](Measure) in force, a program sees the system's
//! programs and libraries and its own files, has no network, writes to a limited folder in memory, is held to every limit, and
//! leaves nothing behind. [`Sandbox::new`] tries every measure, and is an error if one that is required is not available.
//! Programs run only on Linux.
//!
//! # Time
//!
//! A run costs the start of the interpreter and a few milliseconds for the namespaces. A suite of calls or assertions starts one
//! process, or two, for all its tests; streams start one for each. How much memory the trainer uses does not matter.

mod judge;
mod language;
mod output;
mod reward;
mod suite;

pub use judge::TestOutcome;
pub use language::Language;
pub use reward::{CodeConfig, CodeReward, Scoring};
pub use rlvr_sandbox::{
    Command, Exit, Folder, Measure, MeasureState, Need, Output, Sandbox, SandboxConfig,
    SandboxReport,
};
pub use suite::{Asserts, Call, Cases, Stream, Suite};
