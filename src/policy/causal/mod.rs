//! One decoder-only transformer for the Llama family: RMSNorm, rotary positions, grouped-query
//! attention, SwiGLU. Small from scratch here; its fields carry the names of Hugging Face's
//! checkpoints, so that open weights find their places.

mod attention;
mod checkpointing;
mod config;
mod init;
mod lora;
mod model;
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
pub(crate) use weights::{Weight, WeightSource};
