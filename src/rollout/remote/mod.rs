//! Completions from inference servers, vLLM and SGLang, whose weights follow the learner's (feature `remote`).
//!
//! [`RemoteEngines`] is several servers as one [`AsyncEngine`](super::AsyncEngine), and as a [`RolloutEngine`](super::RolloutEngine)
//! that waits. Token ids go out and come back: nothing is tokenized by a server. The log-probs that come back are those of the
//! distribution that was sampled from.
//!
//! ```no_run
//! use rlvr::policy::causal::CausalModel;
//! use rlvr::policy::hf::{LoadOptions, load};
//! use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
//! use rlvr::rollout::{GenerationConfig, GenerationRequest, generate_with};
//!
//! # fn run(device: &burn::tensor::Device) -> rlvr::Result<()> {
//! let policy: CausalModel = load("SmolLM2-135M-Instruct", &LoadOptions::default(), device)?;
//! let config = RemoteConfig::new(vec!["vllm=http://127.0.0.1:8000".parse()?], "run/weights");
//! let mut engines = RemoteEngines::connect(config)?;
//! let requests = [GenerationRequest::new(vec![504, 3575, 282], 8, [0, 0])];
//! let version = 0; // updates of the optimizer so far
//! let answers = generate_with(&mut engines, &policy, version, &requests, &GenerationConfig::new(64, vec![2]))?;
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
//! VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --host 127.0.0.1 --port 8000 --max-model-len 4096 \
//!     --logprobs-mode processed_logprobs --generation-config vllm
//! ```
//!
//! | what | why |
//! |---|---|
//! | `VLLM_SERVER_DEV_MODE=1` | the commands by which weights are loaded |
//! | `--logprobs-mode processed_logprobs` | log-probs after temperature and truncation; the default ignores both |
//! | `--generation-config vllm` | no sampling defaults from the model's folder |
//! | `--max-model-len L` | room for a prompt and `max_new_tokens` |
//! | `--enable-scale-out` | for `vllm-generate=`, since 0.30 |
//! | `--enable-lora --max-lora-rank R --max-loras 2`, `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1` | for a policy with adapters; one adapter for each version in flight |
//!
//! `vllm-generate=` says which weights sampled which token since 0.32, `vllm=` since 0.33. `scripts/vllm-cpu.sh` installs and starts
//! a vLLM for a CPU, for trying.
//!
//! SGLang: `python -m sglang.launch_server --model-path MODEL --host 127.0.0.1 --port 30000`, with `--enable-deterministic-inference`
//! if completions are to be drawn again from the same seeds. Its log-probs are those before truncation: sampling with top-k, top-p
//! or min-p is refused.
//!
//! The server and this process see [`RemoteConfig::weights`] under the same path. `MODEL` is the model that the policy was made
//! from: names and shapes of its tensors are compared before anything is loaded, if the folder can be read here.
//!
//! # Safety
//!
//! Whoever reaches a server commands it. The commands that load weights need no key (`--api-key` of vLLM does not guard them) and
//! load what they are told to from the server's disk. Let servers listen on the loopback or on a private network that only the
//! run's machines reach, and not on `0.0.0.0` of a machine with a public address. Without the feature `remote-tls` prompts,
//! completions and the key travel unencrypted; `http_proxy` and its like are not used. A server belongs to one run: weights that
//! somebody else loads are noticed and replaced.
//!
//! # What is done with weights
//!
//! [`AsyncEngine::load`](super::AsyncEngine::load) writes the policy to `WEIGHTS/v000007`, and every engine loads it at the same time. The
//! last two versions stay on disk, and older ones that an engine may still read.
//!
//! 1. vLLM is paused, reloads, is told the version's name, drops its prefix cache and goes on; SGLang likewise. Requests carry the
//!    version as a salt of the prefix cache, so that keys and values of older weights are not found even where the cache could not
//!    be dropped.
//! 2. Requests in flight go on or begin again ([`InFlight`](super::InFlight)). An engine that does not say which weights sampled which
//!    token is made to abort them: they are continued from prompt and tokens so far, so that the boundary between versions is known.
//! 3. The engine is asked for the token after three fixed texts. Its log-probs must be the policy's to
//!    [`RemoteConfig::tolerance`]. What arrives before this verdict waits for it.
//! 4. An engine that fails gets its last good weights back and leaves the rotation; it is tried again every few seconds.
//!
//! A policy with adapters is loaded as an adapter, under a new name for each version and without a pause. Requests in flight end with
//! the adapter that they began with (unless they are to begin again), and it is unloaded after the last of them.
//!
//! # What is examined
//!
//! When an engine gets its first weights, and whenever it comes back: that log-probs at temperatures 1 and 2 are the policy's; that
//! top-k, top-p and min-p are honoured; that log-probs are of what they keep; that seeds matter; that one token is one token; that a
//! stop token ends a completion and is its last. What is wrong is an error that names the flag to start the server with.
//!
//! Of each answer: the prompt that was read, the number and range of tokens, a log-prob for each, the stop token, the finish reason, spans
//! of versions that cover it, and that the server still has this run's weights.
//!
//! # When something fails
//!
//! | what | what is done |
//! |---|---|
//! | no connection, a broken one, 429, 502, 503 | the same request with the same seed again, after `Retry-After` or 50 ms to 5 s, for [`RemoteConfig::retry_for`] |
//! | 500 | the same, three times |
//! | the rest of 4xx | the sample is an error |
//! | no answer in [`RemoteConfig::request_timeout`] | another engine is asked once |
//! | an answer that cannot be true | the engine is examined again; the sample is an error at the second time |
//! | an engine that is not healthy | its requests move to others; it gets the current weights before it is asked again |
//! | no engine for [`RemoteConfig::retry_for`] | all requests are errors, and so is [`AsyncEngine::check`](super::AsyncEngine::check) |
//!
//! With [`RemoteConfig::stream`], what arrived before a connection broke is kept. A retry loses one sample, never its group.
//!
//! # What was run
//!
//! The conformance tests (`tests/engines`) against vLLM 0.32 on a CPU in f32, both endpoints, whole models and adapters: log-probs within 1e-4 of
//! the policy's. SGLang, servers on GPUs, half precision on the server's side, tensor parallelism and several nodes were not run; SGLang's
//! protocol is written from its source. Weights travel by disk: transfer over NCCL is not there.
//!
//! One defect was found: on a CPU, vLLM 0.32 reloads whole weights but for the unembedding of a model with tied embeddings, such as SmolLM2, of which
//! it keeps a packed copy. The comparison with the policy finds that and refuses the engine. Train adapters there, or serve a model with
//! an unembedding of its own.

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
