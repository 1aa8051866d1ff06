//! What it costs: before a run is rented, and while it runs. Takes the shape of a model, devices and the work of a step; gives tokens, FLOPs, bytes,
//! seconds and dollars.
//!
//! A [`Plan`] is made from a [`ModelShape`], a row of [`Hardware`] and a [`PlanConfig`]: what a step takes in each phase, what a device must hold, what
//! does not fit and which setting would make it fit ([`Misfit`]), what the run costs. [`weak_scaling`] says what becomes of it on more devices. A
//! [`Ledger`] adds up what steps took, forecasts the rest and says when a budget ends. Everything is arithmetic on the host: no
//! tensors, no device.
//!
//! # Formulas
//!
//! `D` is the width of a model, `L` its blocks, `H` its query heads of size `h`, `H_kv` its key/value heads, `I` the inner width, `V` the vocabulary;
//! `N` all parameters, `N_a` those that a token is multiplied with. `T` is a number of tokens and `Q` the sum of the squared lengths of their
//! sequences ([`Tokens`]).
//!
//! | what | formula |
//! |---|---|
//! | `N_a` | `L (2 D H h + 2 D H_kv h + 3 D I) + V D`; of experts those that a token goes to, and the router |
//! | FLOPs, forward | `2 N_a T + (h_qk + h_v) H L Q` |
//! | FLOPs, forward and backward | three times that; four times with blocks computed again, which utilisation does not count |
//! | a decoding step of `b` rows | `max((weights + b * cache of a row) / bandwidth, 2 N_a b / speed) + overhead` |
//! | generation | the sum over `t` up to the cap of the step of `b P(length >= t)` rows, as long as any row of the step is alive |
//! | cache of a token | `2 H_kv h L` numbers, latent attention `(kv_rank + rope) L` |
//! | training state | 20 bytes a parameter in f32, 18 in mixed precision; see [`TrainingState`] and [`Sharding`] |
//! | activations of a token | see [`Kernels`] |
//!
//! Reports by convention count attention to the future as well, twice the second term of the FLOPs.

mod config;
mod cost;
mod estimate;
mod flops;
mod hardware;
mod knobs;
mod ledger;
mod memory;
mod names;
mod read;
mod scaling;
mod shape;
mod time;
mod tokens;
mod update_memory;

pub use config::{Efficiency, PlanConfig};
pub use cost::{Cost, Range};
pub use estimate::Plan;
pub use flops::ModelFlops;
pub use hardware::Hardware;
pub use knobs::Misfit;
pub use ledger::{Forecast, Ledger, LedgerConfig, LedgerState, PhaseSeconds, StepUsage, StopAfter};
pub use memory::{GenerationMemory, Memory, Sharding};
pub use scaling::{WeakScaling, exchange_seconds, weak_scaling};
pub use shape::{AttentionShape, Experts, ModelShape};
pub use time::{StepFlops, StepSeconds};
pub use tokens::{Lengths, Tokens};
pub use update_memory::{Kernels, MicroBatch, TrainingState, UpdateConfig, UpdateMemory};
