//! One decoder-only transformer for the Llama family: RMSNorm, rotary positions, grouped-query
//! attention, SwiGLU. With fresh weights ([`CausalConfig::init`]) or open ones (`policy::hf`, feature `hf`): its fields carry the
//! names of Hugging Face's checkpoints.
//!
//! A model can be trained whole or by adapters ([`LoraConfig`]), and keep all activations of a training pass or the inputs of its
//! blocks ([`CausalModel::with_gradient_checkpointing`]).

mod adapters;
mod attention;
mod checkpointing;
mod config;
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
