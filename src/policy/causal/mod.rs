//! One decoder-only transformer for the Llama family: RMSNorm, rotary positions, grouped-query
//! attention, SwiGLU. Small from scratch here; its fields carry the names of Hugging Face's
//! checkpoints, so that open weights find their places.

mod attention;
mod config;
mod init;
mod model;
mod rotary;

pub use attention::Attention;
pub use config::CausalConfig;
pub(crate) use init::Initializer;
pub use model::{Block, CausalModel, Mlp};
