//! Environments in other programs, over their standard input and output: a JSON object a line.
//!
//! A [`ProcessEnvironment`] starts a [`Program`] and sends it requests. The program answers each with the `id` of the request, in any
//! order; one process plays many episodes.
//!
//! | sent to the program | its answer |
//! |---|---|
//! | `{"op": "open", "id": 1, "episode": 7, "problem": {"prompt": "", "answer": "", "metadata": {"most": 9}}, "seed": 42}` | `{"id": 1, "messages": [{"role": "user", "content": "Guess a number from 0 to 9."}]}` |
//! | `{"op": "step", "id": 2, "episode": 7, "text": "5", "finish": "stop", "turn": 0}` | `{"id": 2, "observation": "higher", "reward": 0.1}` |
//! | `{"op": "step", "id": 3, "episode": 7, "text": "8", "finish": "stop", "turn": 1}` | `{"id": 3, "reward": 1.0, "end": "done"}` |
//! | `{"op": "close", "episode": 7}` | none |
//! | any request that cannot be answered | `{"id": 4, "error": "KeyError: 'most'"}` |
//!
//! `open` begins an episode: the same problem and seed must begin in the same way. `close` ends one, whatever became of it; no request names it
//! afterwards. An `error` fails the one rollout. Every field of an answer but `id` may be absent or null:
//!
//! | field | of | meaning |
//! |---|---|---|
//! | `messages` | `open` | What stands before the first reply: a text, which is a user's, or a list of [messages](crate::types::Message). Default: the problem's prompt. |
//! | `tools` | `open` | The functions that the policy may call, as the list that chat templates read. |
//! | `observation` | `step` | What the policy reads next, as `messages`. Not needed at the end. |
//! | `reward` | `step` | The reward of the reply, a number. Absent means that there is none, which is not 0. |
//! | `end` | `step` | `"done"` if the episode is over, `"truncated"` if it is cut off. |
//! | `message` | `step` | The reply as a message with its parts told apart, for chat templates. |
//! | `state` | `step` | Tells states of the environment apart: a text, or a number of 64 bits. |
//! | `calls` | `step` | How many attempts to call a tool had which status, such as `{"ok": 1}`. |
//!
//! In `step`, `finish` is `"stop"`, or `"length"` for a reply that was cut off. Such a reply ends the episode after this step, and nothing that it
//! asks for is to be done.
//!
//! The program ends when its standard input does. What it writes on its standard error is shown if it fails. Nothing but answers may be on its
//! standard output: in Python, `print` belongs elsewhere, and `NaN` is no JSON. A whole environment:
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
//! `scripts/reasoning_gym_environment.py` serves every task of `reasoning_gym` in this way; its head says what a problem's metadata may ask for:
//!
//! ```no_run
//! # #[cfg(feature = "code")]
//! # fn main() -> rlvr::Result<()> {
//! use rlvr::environment::process::{ProcessEnvironment, Program};
//! use rlvr::prompt::Problem;
//!
//! let script = "scripts/reasoning_gym_environment.py";
//! let environment = ProcessEnvironment::new("reasoning_gym", Program::confined_python("python3", script)?, 2)?;
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
//! # Confinement
//!
//! Programs run as the user does, unless [`Program::sandbox`] (feature `code`) confines them. Confine whatever evaluates what the policy
//! writes.

mod environment;
pub(super) mod exchange;
pub(super) mod program;
mod protocol;

pub use environment::ProcessEnvironment;
pub use program::Program;
