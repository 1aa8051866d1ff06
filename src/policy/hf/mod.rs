//! Reading and writing model folders in the format of Hugging Face's `transformers`.
//!
//! [`load`] reads a folder as a [`CausalModel`](super::causal::CausalModel), and [`save`] writes
//! one that other tools can load. [`load_reward_model`] and [`save_reward_model`] do the same for
//! models with one score in place of the unembedding, and [`load_adapters`] and [`save_adapters`]
//! for adapters in the format of PEFT. [`prompt::hf`](crate::prompt::hf) reads the tokenizer and
//! the chat template of a folder.

mod checkpoint;
mod config;
mod files;
mod load;
mod peft;
mod reward;
mod save;

pub(crate) use checkpoint::{export, export_adapters, import};
pub use config::read_config;
#[cfg(feature = "remote")]
pub(crate) use files::tensor_shapes;
pub use load::{LoadOptions, load};
pub use peft::{load_adapters, save_adapters};
pub use reward::{load_reward_model, save_reward_model};
pub use save::{SaveOptions, save};
