//! Takes a Hugging Face folder from the user; gives its tokenizer and its chat template to `rollout` and `train`.
//!
//! [`HfTokenizer`] reads `tokenizer.json` and the configs beside it; [`ChatTemplate`] renders a conversation of [`Message`]s
//! into the text that an instruction-tuned model was trained on; [`ChatTokenizer`] is both, and is the tokenizer a trainer
//! holds: a problem's prompt becomes a turn of the user, and the completion is the turn of the assistant. In a conversation of several
//! turns it appends to the ids that were sampled; [`History`] says how, and which templates allow it.
//!
//! ```no_run
//! use rlvr::prompt::Tokenizer;
//! use rlvr::prompt::hf::ChatTokenizer;
//!
//! let tokenizer = ChatTokenizer::from_folder("SmolLM2-135M-Instruct")?
//!     .with_system("Think first, then answer in <answer> tags.")
//!     .with_prefix("<think>");
//! let ids = tokenizer.encode_prompt("What is 37 + 48?")?;
//! # Ok::<(), rlvr::Error>(())
//! ```
//!
//! The folder is untrusted: a template runs on a budget and reaches nothing but the variables it is given, and what a message
//! *spells* never becomes a special token.

mod chat;
mod continuation;
mod conversation;
mod environment;
mod folder;
mod json;
mod marks;
mod message;
mod methods;
mod rendering;
mod template;
mod tokenizer;
mod values;

pub use chat::ChatTokenizer;
pub use conversation::{Exchange, History};
pub use message::Variables;
pub use template::{ChatTemplate, RenderOptions};
pub use tokenizer::HfTokenizer;

pub use crate::types::Message;
