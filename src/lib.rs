//! Reinforcement learning with verifiable rewards, on [Burn](burn).
//!
//! A language model that is rewarded when it solves a problem and penalised when it does not teaches itself to reason.
//! This crate is what DeepSeek-R1 did, as parts that compose: problems become rollouts, rollouts become rewards, rewards
//! become advantages, advantages become a gradient.
//!
//! # The loop
//!
//! ```
//! use rlvr::prelude::*;
//! use rlvr::prompt::Arithmetic;
//!
//! # #[cfg(all(feature = "flex", feature = "math"))]
//! # fn main() -> rlvr::Result<()> {
//! let device = burn::tensor::Device::flex().autodiff(); // or cuda(0): the device is the backend
//! let task = Arithmetic { digits: 1, terms: 2 };
//! let problems = split(task.problems(100, 0)?, 20, 0)?;
//! let tags = ["<think>", "</think>", "<answer>", "</answer>"];
//! let tokenizer = CharTokenizer::new(task.alphabet(), &tags)?;
//! let policy = CausalConfig {
//!     hidden_size: 16,
//!     intermediate_size: 32,
//!     ..CausalConfig::new(tokenizer.vocab_size())
//! }
//! .init(0, &device)?;
//! let rewards = RewardSet::builder()
//!     .add(1.0, AccuracyReward::new())
//!     .add(1.0, FormatReward::new())
//!     .build()?;
//! let config = TrainerConfig {
//!     optimizer: OptimizerConfig::new(Schedule::constant(3e-4)), // from scratch; pretrained: 1e-6
//!     ..TrainerConfig::default() // GRPO
//! };
//! let mut trainer = Trainer::builder(policy, tokenizer)
//!     .config(config)
//!     .rewards(rewards)
//!     .problems(problems.train)
//!     .build()?;
//! trainer.train(2)?; // `run` adds evaluation, checkpoints, a progress bar, a metrics file, a chart ...
//! # Ok(())
//! # }
//! # #[cfg(not(all(feature = "flex", feature = "math")))]
//! # fn main() {}
//! ```
//!
//! With the feature `hf` the policy can be an open-weight model: [`policy::hf::load`] reads a Hugging Face folder, its
//! [`ChatTokenizer`](prompt::hf::ChatTokenizer) asks as the model was taught to be asked, and [`policy::hf::save`] leaves a folder that any
//! other tool loads. `examples/grpo_hf` is that.
//!
//! A policy, a reward or an observer of your own: `examples/bring_your_own`. Coming from TRL, verl or Burn: [`migration`].
//!
//! `examples/r1_zero` is this with a warm start, evaluation and checkpoints, and learns in minutes on two CPU cores;
//! `examples/compose.rs` is the same loop without a trainer.
//!
//! # The rooms
//!
//! Data travels down this list, and no room knows one below it. Each can be used by itself. What they share - problems, rollouts,
//! numbers per token - is in [`types`]; [`prelude`] has what a training program needs.
//!
//! | room | | takes | gives |
//! |---|---|---|---|
//! | [`prompt`] | what is asked | files, generators | problems, tokens |
//! | [`policy`] | who answers | tokens | hidden states, log-probs, entropies, values |
//! | [`rollout`] | what was answered | problems, a policy | completions in groups |
//! | [`reward`] | how good it was | completions | named scores |
//! | [`advantage`] | better than what | scores | a number per token |
//! | [`loss`] | what to change | log-probs, advantages, a mask | a scalar |
//! | [`plan`] | what it costs | a model's shape, devices, the work of a step | hours, bytes, dollars |
//! | [`train`] | change it | all of the above | a better policy |
//!
//! # What is promised
//!
//! - **The device is the backend.** Every constructor takes a [`Device`](burn::tensor::Device); one build runs on the CPU and on
//!   a GPU. Nothing here asks for the process's default device.
//! - **Denominators are global.** Splitting a step into other micro-batches, padding it further or reordering it changes
//!   nothing beyond float rounding.
//! - **Randomness has an address.** A completion is a function of the weights and (seed, step, problem, sample), whatever is
//!   generated beside it; a resumed run continues bit for bit on the CPU.
//! - **A reward is untrusted.** It may abstain, fail, panic or hang; each is recorded on that one rollout.
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
//! | `remote` | | completions from vLLM and SGLang, whose weights follow: [`rollout::remote`]; judges behind a chat protocol: [`reward::judge`]; implies `hf` |
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
