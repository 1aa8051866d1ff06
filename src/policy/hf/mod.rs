//! Open weights, in and out: folders as Hugging Face's `transformers` reads and writes them.
//!
//! [`load`] makes a [`CausalModel`](super::causal::CausalModel) of a folder, [`save`] makes a folder of a model that any other tool
//! loads. [`load_reward_model`] and [`save_reward_model`] do the same for models with one score in place of the unembedding,
//! [`load_adapters`] and [`save_adapters`] do the same for adapters, in the format of PEFT. The tokenizer and the chat
//! template of a folder are [`prompt::hf`](crate::prompt::hf)'s.

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
