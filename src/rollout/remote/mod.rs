//! Generation with vLLM and SGLang servers whose weights follow the learner's (feature `remote`).
//!
//! [`RemoteEngines`] combines several servers into one [`AsyncEngine`](super::AsyncEngine), which
//! is also a [`RolloutEngine`](super::RolloutEngine) that waits. Requests and answers are token
//! ids: the server does not tokenize. The returned log-probs are those of the distribution that was
//! sampled from.
//!
//! ```no_run
//! use rlvr::policy::causal::CausalModel;
//! use rlvr::policy::hf::{LoadOptions, load};
//! use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
//! use rlvr::rollout::{GenerationConfig, GenerationRequest, generate_with};
//!
//! # fn run(device: &burn::tensor::Device) -> rlvr::Result<()> {
//! let policy: CausalModel =
//!     load("SmolLM2-135M-Instruct", &LoadOptions::default(), device)?;
//! let config =
//!     RemoteConfig::new(vec!["vllm=http://127.0.0.1:8000".parse()?], "run/weights");
//! let mut engines = RemoteEngines::connect(config)?;
//! let requests = [GenerationRequest::new(vec![504, 3575, 282], 8, [0, 0])];
//! let version = 0; // optimizer updates so far
//! let answers = generate_with(
//!     &mut engines,
//!     &policy,
//!     version,
//!     &requests,
//!     &GenerationConfig::new(64, vec![2]),
//! )?;
//! # let _ = answers;
//! # Ok(())
//! # }
//! ```
//!
//! # Starting a server
//!
//! vLLM, 0.16 or later:
//!
//! ```text
//! VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --host 127.0.0.1 --port 8000 \
//!     --max-model-len 4096 --logprobs-mode processed_logprobs --generation-config vllm
//! ```
//!
//! | flag or variable | purpose |
//! |---|---|
//! | `VLLM_SERVER_DEV_MODE=1` | enables the commands that load weights |
//! | `--logprobs-mode processed_logprobs` | log-probs after temperature and truncation; the default ignores both |
//! | `--generation-config vllm` | no sampling defaults from the model folder |
//! | `--max-model-len L` | room for a prompt and `max_new_tokens` |
//! | `--enable-scale-out` | required for `vllm-generate=` since 0.30 |
//! | `--enable-lora --max-lora-rank R --max-loras 2`, `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1` | for a policy with adapters; one adapter per version in flight |
//!
//! `vllm-generate=` reports which weights sampled which token since 0.32, `vllm=` since 0.33.
//! `scripts/vllm-cpu.sh` installs and starts vLLM on a CPU for experiments.
//!
//! SGLang: `python -m sglang.launch_server --model-path MODEL --host 127.0.0.1 --port 30000`, with
//! `--enable-deterministic-inference` if completions must be reproducible from their seeds. Its
//! log-probs are those before truncation, so sampling with top-k, top-p or min-p is an error.
//!
//! The server and this process must see [`RemoteConfig::weights`] under the same path. `MODEL` is
//! the model that the policy was created from. If its folder can be read here, tensor names and
//! shapes are compared before anything is loaded.
//!
//! # Security
//!
//! Anyone who can reach a server controls it. The commands that load weights need no key (vLLM's
//! `--api-key` does not protect them) and load any path on the server's disk. Let servers listen on
//! the loopback interface or on a private network that only the machines of the run can reach,
//! never on `0.0.0.0` of a machine with a public address. Without the feature `remote-tls`,
//! prompts, completions and the key travel unencrypted. `http_proxy` and similar variables are
//! ignored. A server belongs to one run: foreign weights are detected and replaced.
//!
//! # Loading weights
//!
//! [`AsyncEngine::load`](super::AsyncEngine::load) writes the policy to `WEIGHTS/v000007`, and all
//! engines load it in parallel. The last two versions stay on disk, and older ones that an engine
//! may still read.
//!
//! 1. vLLM is paused, reloads the weights, receives the name of the version, drops its prefix cache
//!    and resumes; SGLang likewise. Requests carry the version as a salt of the prefix cache, so
//!    that keys and values of older weights are not used even if the cache could not be dropped.
//! 2. Requests in flight continue or start over ([`InFlight`](super::InFlight)). An engine that
//!    does not report which weights sampled which token aborts them; they are then continued from
//!    the prompt and the tokens so far, so that the boundary between versions is known.
//! 3. The engine samples the token after each of three fixed texts. Its log-probs must match the
//!    policy's within [`RemoteConfig::tolerance`]. Answers that arrive before the comparison is
//!    finished wait for it.
//! 4. An engine that fails gets its last valid weights back and leaves the rotation. It is retried
//!    every few seconds.
//!
//! A policy with adapters is loaded as an adapter, under a new name per version and without a
//! pause. Requests in flight finish with the adapter that they started with (unless they are to
//! start over), and the adapter is unloaded after the last of them.
//!
//! # Checks
//!
//! When an engine gets its first weights, and whenever it comes back: log-probs at temperatures 1
//! and 2 match the policy's; top-k, top-p and min-p are honoured; log-probs are those of the
//! truncated distribution; seeds have an effect; a request for one token returns one token; a stop
//! token ends a completion and is its last token. The error for a failed check names the flag to
//! start the server with.
//!
//! For each answer: the prompt that was read, the number and range of tokens, one log-prob per
//! token, the stop token, the finish reason, version spans that cover the tokens, and that the
//! server still has this run's weights.
//!
//! # Failures
//!
//! | failure | handling |
//! |---|---|
//! | no connection, a broken connection, 429, 502, 503 | the same request with the same seed is retried, after `Retry-After` or 50 ms to 5 s, for [`RemoteConfig::retry_for`] |
//! | 500 | retried three times |
//! | other 4xx | the sample is an error |
//! | no answer within [`RemoteConfig::request_timeout`] | retried once on another engine |
//! | an invalid answer | the engine is checked again; the second invalid answer makes the sample an error |
//! | an unhealthy engine | its requests move to others; it gets the current weights before it is used again |
//! | no engine for [`RemoteConfig::retry_for`] | all requests are errors, and so is [`AsyncEngine::check`](super::AsyncEngine::check) |
//!
//! With [`RemoteConfig::stream`], the tokens that arrived before a connection broke are kept. A
//! failed sample does not affect the rest of its group.
//!
//! # Test coverage
//!
//! The conformance tests (`tests/rollouts/engines`) ran against vLLM 0.32 on a CPU in f32, with both
//! endpoints, whole models and adapters: log-probs within 1e-4 of the policy's. Not tested: SGLang
//! (its protocol is written from its source), servers on GPUs, half precision on the server's side,
//! tensor parallelism and several nodes. Weights travel by disk; transfer over NCCL is not
//! supported.
//!
//! A known defect: on a CPU, vLLM 0.32 does not reload the unembedding of a model with tied
//! embeddings, such as SmolLM2, because it keeps a packed copy. The comparison with the policy
//! detects this and rejects the engine. Train adapters there, or serve a model with a separate
//! unembedding.

mod config;
mod control;
mod engines;
mod flight;
mod http;
mod job;
mod loader;
mod probe;
mod protocol;
mod sglang;
mod sse;
mod state;
mod vllm;
mod watch;
mod weights;

pub use config::{EngineAddress, RemoteConfig};
pub(crate) use config::{check_key, server_url};
pub use engines::RemoteEngines;
pub(crate) use http::{Client, FAILURES, Kind, Trouble, wait_after};
