//! Cost estimates for a run, before it starts and while it runs: tokens, FLOPs, bytes, seconds and
//! dollars from the shape of a model, the devices and the work of a step.
//!
//! A [`Plan`] is computed from a [`ModelShape`], a [`Hardware`] and a [`PlanConfig`]: the time of
//! each phase of a step, the memory of a device, what does not fit and which setting would make it
//! fit ([`Misfit`]), and the cost of the run. [`weak_scaling`] repeats the plan for more devices. A
//! [`Ledger`] adds up the steps of a run, forecasts the rest and reports when a budget is used up.
//! Everything is computed on the host, without tensors.
//!
//! # Formulas
//!
//! `D` is the width of a model, `L` its blocks, `H` its query heads of size `h`, `H_kv` its
//! key/value heads, `I` the inner width, `V` the vocabulary; `N` all parameters, `N_a` those that a
//! token is multiplied by. `T` is a number of tokens and `Q` the sum of the squared lengths of
//! their sequences ([`Tokens`]).
//!
//! | quantity | formula |
//! |---|---|
//! | `N_a` | `L (2 D H h + 2 D H_kv h + 3 D I) + V D`; of the experts only those a token is routed to, and the router |
//! | FLOPs, forward | `2 N_a T + (h_qk + h_v) H L Q` |
//! | FLOPs, forward and backward | three times that; four times with gradient checkpointing, which utilisation does not count |
//! | a decoding step of `b` rows | `max((weights + b * cache per row) / bandwidth, 2 N_a b / speed) + overhead` |
//! | generation | the sum over `t` up to the cap of a decoding step of `b P(length >= t)` rows, while any row of the step is unfinished |
//! | cache per token | `2 H_kv h L` numbers; latent attention `(kv_rank + rope) L` |
//! | training state | 20 bytes per parameter in f32, 18 in mixed precision; see [`TrainingState`] and [`Sharding`] |
//! | activations per token | see [`Kernels`] |
//!
//! By convention many reports also count attention to future tokens, which doubles the second term
//! of the FLOPs.

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
pub use scaling::{WeakScaling, weak_scaling};
pub use shape::{AttentionShape, Experts, ModelShape};
pub use time::{StepFlops, StepSeconds};
pub use tokens::{Lengths, Tokens};
pub use update_memory::{Kernels, TrainingState, UpdateMemory};
pub(crate) use update_memory::{MicroBatch, UpdateConfig};
