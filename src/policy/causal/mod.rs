//! A decoder-only transformer of the Llama family, with RMSNorm, rotary positions, grouped-query
//! attention and SwiGLU.
//!
//! A [`CausalModel`] has new weights ([`CausalConfig::init`]) or open ones (`policy::hf::load`,
//! feature `hf`). Its fields have the names of Hugging Face checkpoints. All its weights can be
//! trained, or adapters only ([`CausalModel::with_lora`]), with or without gradient checkpointing
//! ([`CausalModel::with_gradient_checkpointing`]).

mod adapters;
mod attention;
mod checkpointing;
mod config;
mod cuts;
mod init;
mod lora;
mod model;
#[cfg(feature = "hf")]
mod names;
mod pass;
mod policy;
mod projection;
mod rope_scaling;
mod rotary;
mod weights;

pub use attention::Attention;
pub use config::CausalConfig;
pub use lora::{Lora, LoraConfig, LoraTarget};
pub use model::{Block, CausalModel, Mlp};
pub use projection::Projection;
pub use rope_scaling::RopeScaling;
#[cfg(feature = "hf")]
pub(crate) use {names::Weight, weights::WeightSource};
