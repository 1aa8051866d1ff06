//! Rewards for programs: runs the program of a completion, confined, against the tests of its
//! problem.
//!
//! [`CodeReward`] is the reward. [`Suite`] describes the tests and their form in the metadata of a
//! problem, and [`Language`] how programs are compiled and run. The programs run in the sandbox of
//! the crate [`rlvr_sandbox`].
//!
//! ```
//! use rlvr::reward::code::{CodeConfig, CodeReward};
//! use rlvr::reward::{Reward, RewardInput};
//! use serde_json::json;
//!
//! # fn main() -> rlvr::Result<()> {
//! # if !cfg!(target_os = "linux") { return Ok(()) }
//! let mut config = CodeConfig::default();
//! // Run with the confinement that this machine has. Without this line, a missing measure
//! // is an error.
//! config.sandbox = config.sandbox.allow_less();
//! let reward = CodeReward::new(config)?;
//! let score = |completion: &str| {
//!     let tests = json!([
//!         {"input": "2 3", "output": "5"},
//!         {"input": "-1 1", "output": "0"},
//!     ]);
//!     let input = RewardInput::new("Add two numbers.", "", completion);
//!     reward.score(&input.with_metadata("tests", tests))
//! };
//! assert_eq!(
//!     score("```python\nprint(sum(map(int, input().split())))\n```").unwrap(),
//!     Some(1.0)
//! );
//! assert_eq!(score("```python\nprint(5)\n```").unwrap(), Some(0.0));
//! assert_eq!(score("It prints the sum.").unwrap(), Some(0.0));
//! # Ok(())
//! # }
//! ```
//!
//! # Threat model
//!
//! The program was written by a policy that is rewarded for passing tests by any means. It may try
//! to read the tests, to make the judge believe that they passed, to exhaust the machine, or to
//! reach something outside, by learned behaviour or by accident. It is not assumed to have a kernel
//! exploit: all confinement is enforced by the kernel.
//!
//! # Guarantees about the verdict
//!
//! **The judge runs outside, and expected values never enter the process of the program.** That
//! process receives the input of one test, and whatever it prints, returns or raises is only an
//! answer.
//!
//! | tests | the program's process receives | compared by | a pass means |
//! |---|---|---|---|
//! | input and output | the input | this process | status 0, and the expected text |
//! | calls | the arguments of a call, after the answer to the previous one | this process | the expected value |
//! | assertions | the arguments of the calls in them | a separate process with the tests and without the program | every statement completed there |
//!
//! In assertions, a name that neither the setup of the tests nor Python defines refers to the
//! program: calling it sends the arguments to the process of the program and receives the value.
//! Values travel as text and become built-in Python types (none, booleans, numbers, strings, bytes,
//! lists, tuples, sets, dicts, ranges, iterators, decimals, fractions; arrays as lists). An object
//! of a class of the program can be called and its attributes can be read, but it equals only
//! itself, so an `__eq__` that is always true has no effect. Python modules (`math.isclose`) are
//! never those of the program. Neither are its built-in functions, except in a test that uses no
//! other name of the program and has no `entry_point`: `assert sum(10, 15) == 25` calls the `sum`
//! of the program. Exiting early with any status, patching Python, or reading frames, memory, files
//! or descriptors does not help: nothing in the process of the program leads to a pass except the
//! right value.
//!
//! The following is **not** guaranteed:
//! - Helpers that the tests use without defining them are taken from the program, including
//!   comparisons that rely on them. Set `entry_point`: then no other name is taken from the
//!   program, and tests that need one are an error that says so. Put helpers into `setup` or
//!   `prelude`.
//! - A program may change the lists, dicts and sets that it receives, and a test that compares with
//!   them afterwards sees the change, as in a single process:
//!   `a = [3, 1]; assert order(a) == sorted(a)`. Write out the expected value.
//! - Tests check values, not how they were computed: a program that knows the few inputs can
//!   contain their answers. Use hidden and random tests.
//! - Values of other types cannot be passed *to* the program (a lambda, an object of a class of the
//!   tests): this is an error. Operators on objects of the program, `isinstance` with its classes,
//!   and the exception subclasses that it defines are not supported.
//! - The tests of one suite of calls or assertions share a process as long as it lives, so a call
//!   sees the side effects of earlier ones. Each input and output test has its own process.
//!
//! # Guarantees about the confinement
//!
//! See [`rlvr_sandbox`], which runs the programs. With every [measure](Measure) in force, a program
//! sees the programs and libraries of the system and its own files, has no network, writes to a
//! limited folder in memory, is subject to every limit, and leaves nothing behind.
//! [`CodeReward::new`] tries every measure and returns an error if a required one is not available.
//! Programs run only on Linux.
//!
//! # Cost
//!
//! A run costs the start of the interpreter and a few milliseconds for the namespaces. A suite of
//! calls or assertions starts one or two processes for all its tests; input and output tests start
//! one each. The cost does not depend on the memory of the trainer.

mod judge;
mod language;
mod output;
mod reward;
mod suite;

pub use judge::TestOutcome;
pub use language::Language;
pub use reward::{CodeConfig, CodeReward, Scoring};
pub(crate) use rlvr_sandbox::{Command, Exit, Folder, Sandbox};
pub use rlvr_sandbox::{Measure, MeasureState, Need, SandboxConfig, SandboxReport};
pub use suite::Suite;
use suite::{Cases, Stream};
