//! Environments in other programs, over standard input and output, with one JSON object per line.
//!
//! A [`ProcessEnvironment`] starts a [`Program`] and sends it requests. The program answers each
//! request with its `id`, in any order. One process runs many episodes.
//!
//! | request | answer |
//! |---|---|
//! | `{"op": "open", "id": 1, "episode": 7, "problem": {"prompt": "", "answer": "", "metadata": {"most": 9}}, "seed": 42}` | `{"id": 1, "messages": [{"role": "user", "content": "Guess a number from 0 to 9."}]}` |
//! | `{"op": "step", "id": 2, "episode": 7, "text": "5", "finish": "stop", "turn": 0}` | `{"id": 2, "observation": "higher", "reward": 0.1}` |
//! | `{"op": "step", "id": 3, "episode": 7, "text": "8", "finish": "stop", "turn": 1}` | `{"id": 3, "reward": 1.0, "end": "done"}` |
//! | `{"op": "close", "episode": 7}` | none |
//! | any request that fails | `{"id": 4, "error": "KeyError: 'most'"}` |
//!
//! `open` starts an episode: the same problem and seed must start in the same way. `close` ends an
//! episode in any state; no later request refers to it. An `error` fails one rollout. All fields of
//! an answer except `id` may be absent or null:
//!
//! | field | answer to | meaning |
//! |---|---|---|
//! | `messages` | `open` | The messages before the first reply: a string, which is a user message, or a list of [messages](crate::types::Message). Default: the problem's prompt. |
//! | `tools` | `open` | The functions that the policy may call, as the JSON list that chat templates read. |
//! | `observation` | `step` | The messages that the policy reads next, as `messages`. Optional in the last step. |
//! | `reward` | `step` | The reward of the reply, a number. Absent means no reward, which differs from 0. |
//! | `end` | `step` | `"done"` if the episode is complete, `"truncated"` if it is cut off. |
//! | `message` | `step` | The reply as a message with separate reasoning, calls and content, for chat templates. |
//! | `state` | `step` | An identifier of the environment's state: a string or a 64-bit unsigned number. |
//! | `calls` | `step` | The number of attempts to call a tool, by status, such as `{"ok": 1}`. |
//!
//! In `step`, `finish` is `"stop"`, or `"length"` for a reply that was cut off. Such a reply ends
//! the episode after this step; do not execute what it asks for.
//!
//! The program must end when its standard input is closed. Its standard error is shown if it fails.
//! Its standard output may contain only answers: in Python, redirect `print`, and do not write
//! `NaN`, which is not valid JSON. A complete environment:
//!
//! ```python
//! import json, random, sys
//!
//! answers, sys.stdout = sys.stdout, sys.stderr
//! secrets = {}
//!
//! def answer(op, episode, problem=None, seed=0, text="", **_):
//!     if op == "open":
//!         most = problem["metadata"]["most"]
//!         secrets[episode] = random.Random(seed).randint(0, most)
//!         return {"messages": f"Guess a number from 0 to {most}."}
//!     if op == "step":
//!         guess, secret = int(text) if text.strip().isdecimal() else -1, secrets[episode]
//!         if guess == secret:
//!             return {"reward": 1.0, "end": "done"}
//!         return {"observation": "higher" if guess < secret else "lower"}
//!     secrets.pop(episode, None)
//!
//! for line in sys.stdin:
//!     request = json.loads(line)
//!     number = request.pop("id", None)
//!     try:
//!         result = answer(**request)
//!     except Exception as error:
//!         result = {"error": f"{type(error).__name__}: {error}"}
//!     if number is not None:
//!         print(json.dumps({"id": number, **result}), file=answers, flush=True)
//! ```
//!
//! `scripts/reasoning_gym_environment.py` provides every task of `reasoning_gym`; its documentation
//! lists the fields of a problem's metadata:
//!
//! ```no_run
//! # #[cfg(feature = "code")]
//! # fn main() -> rlvr::Result<()> {
//! use rlvr::environment::process::{ProcessEnvironment, Program};
//! use rlvr::prompt::Problem;
//!
//! let script = "scripts/reasoning_gym_environment.py";
//! let environment = ProcessEnvironment::new(
//!     "reasoning_gym",
//!     Program::confined_python("python3", script)?,
//!     2,
//! )?;
//! let problem = |index: u64| {
//!     let problem = Problem::new("", "").with_metadata("task", "chain_sum");
//!     problem.with_metadata("index", index)
//! };
//! let problems: Vec<Problem> = (0..500).map(problem).collect();
//! # let _ = (environment, problems);
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "code"))]
//! # fn main() {}
//! ```
//!
//! # Security
//!
//! Programs run with the user's rights unless [`Program::sandbox`] (feature `code`) is set. Sandbox
//! every program that evaluates text of the policy.

mod environment;
pub(super) mod exchange;
pub(super) mod program;
mod protocol;

pub use environment::ProcessEnvironment;
pub use program::Program;
