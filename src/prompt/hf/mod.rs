//! Tokenizers and chat templates from Hugging Face folders.
//!
//! [`HfTokenizer`] reads `tokenizer.json` and the configs beside it. [`ChatTemplate`] renders
//! [`Message`](super::Message)s into the text format that an instruction-tuned model was trained
//! on. [`ChatTokenizer`] combines both, and is the tokenizer to train with: a problem's prompt
//! becomes a message of the user, and the completion is the reply of the assistant. In a
//! conversation of several turns it appends to the sampled ids; [`History`] describes how, and
//! which templates support it.
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
//! The folder and the messages are untrusted: a template has a limited budget and can access only
//! its variables, and the text of a message never becomes a special token.

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
