//! Reinforcement learning with verifiable rewards, on [Burn](burn).
//!
//! A language model is rewarded when it solves a problem and penalised when it does not, and learns
//! to reason, as DeepSeek-R1 did. This crate provides the parts, which compose: problems become
//! rollouts, rollouts become rewards, rewards become advantages, advantages become a gradient.
//!
//! # A model from scratch
//!
//! ```no_run
#![doc = include_str!("../examples/from_scratch.rs")]
//! ```
//!
//! It prints, after some seconds on two CPU cores:
//!
//! ```text
//! step   0:  67 % right
//! step  30:  81 % right
//! step  60:  94 % right
//! step  90:  96 % right
//! step 120:  99 % right
//! step 150:  99 % right
//! ```
//!
//! # Open weights
//!
//! With the feature `hf` the policy can be an open-weight model: [`policy::hf::load`] reads a
//! Hugging Face folder, its [`ChatTokenizer`](prompt::hf::ChatTokenizer) renders prompts with the
//! model's chat template, and [`policy::hf::save`] writes a folder that other tools load.
//! `examples/open_weights.rs` is a complete program, `examples/grpo_hf` one with every option.
//!
//! # Where to go next
//!
//! - [`guide`]: the method in pictures, is it learning?, writing your own parts.
//! - [`migration`]: from TRL, verl and Burn.
//! - `examples/r1_zero`: a warm start, evaluation and checkpoints. `examples/compose.rs`: the loop
//!   without a trainer. `examples/bring_your_own`: a custom policy, reward, environment, engine
//!   and observer.
//!
//! # The modules
//!
//! Data flows down this list, and no module imports from one below it. Each can be used alone.
//! [`types`] has the data that they share, and [`prelude`] the names that a training program needs.
//!
//! | module | | takes | gives |
//! |---|---|---|---|
//! | [`prompt`] | problems and tokenizers | files, generators | problems, tokens |
//! | [`policy`] | policies | tokens | hidden states, log-probs, entropies, values |
//! | [`rollout`] | generation | problems, a policy | completions in groups |
//! | [`reward`] | scores for completions | completions | named scores |
//! | [`environment`] | multi-turn episodes | problems, an engine | rollouts of several turns |
//! | [`advantage`] | advantage estimators | scores | a number per token |
//! | [`loss`] | policy and value losses | log-probs, advantages, a mask | a scalar |
//! | [`plan`] | cost estimates | a model's shape, devices, the work of a step | hours, bytes, dollars |
//! | [`train`] | training | all of the above | a better policy |
//! # Guarantees
//!
//! - **The device is the backend.** Every constructor takes a [`Device`](burn::tensor::Device); one
//!   build runs on the CPU and on a GPU. The process's default device is never used.
//! - **Denominators are global.** Splitting a step into other micro-batches, padding it further or
//!   reordering it changes nothing beyond float rounding.
//! - **Randomness has an address.** A completion depends on the weights and (seed, step, problem,
//!   sample) only, whatever else is generated in the batch; a resumed run continues bit for bit on a
//!   CPU.
//! - **Rewards are untrusted code.** A reward may abstain, fail, panic or hang; that is recorded for
//!   the rollout concerned.
//! - **Bad input is an error** that names the field, its value and what would be right.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `flex` | yes | burn's CPU backend |
//! | `ndarray` | | burn's other CPU backend, which the numeric tests run on as well |
//! | `cuda` | | NVIDIA GPUs |
//! | `wgpu` | | WebGPU: Vulkan, Metal, DirectX 12 |
//! | `math` | yes | answers: finding and comparing them ([`rlvr_math`](https://docs.rs/rlvr-math)), and the rewards that read a completion's text |
//! | `language` | yes | the reward for the language of a text ([`LanguageReward`](reward::LanguageReward)), with its Unicode tables; implies `math` |
//! | `code` | yes | the reward for programs, run confined by [`rlvr_sandbox`](https://docs.rs/rlvr-sandbox) ([`reward::code`]; on Linux); implies `math` |
//! | `progress` | yes | the progress bar ([`indicatif`](https://docs.rs/indicatif)) |
//! | `chart` | yes | the SVG chart ([`plotters`](https://docs.rs/plotters)) |
//! | `tensorboard` | | TensorBoard's event files; needs no further package |
//! | `mpi` | | several learners as processes under MPI ([`train::Learners`]); needs an MPI library and libclang |
//! | `hf` | | open weights, tokenizers and chat templates in Hugging Face folders: [`policy::hf`], [`prompt::hf`] |
//! | `remote` | | generation on vLLM and SGLang servers whose weights follow the learner's: [`rollout::remote`]; judges behind a chat protocol: [`reward::judge`]; implies `hf` |
//! | `remote-tls` | | the same over `https://` |
//! | `openenv` | | environments of OpenEnv servers, over WebSocket: `environment::openenv` |

#![warn(missing_docs)]
#![forbid(unsafe_code)]

pub mod advantage;
pub mod environment;
pub mod error;
mod fnv;
mod folder;
mod fused;
pub mod guide;
mod host;
pub mod loss;
#[doc = include_str!("migration.md")]
pub mod migration {}
pub mod plan;
pub mod policy;
pub mod prelude;
pub mod prompt;
pub mod random;
mod recorded;
pub mod reward;
pub mod rollout;
pub mod train;
pub mod types;

/// The version of Burn that this crate's tensors come from.
pub use burn;
pub use error::{Error, Result};
