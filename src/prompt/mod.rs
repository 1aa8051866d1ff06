//! Problems and tokenizers: problem files and generators, held-out splits, the order of problems,
//! and the conversion of text to tokens.
//!
//! A [`Problem`] is a prompt with a reference answer. Problems are read from JSON Lines
//! ([`JsonLines`]) or generated ([`Arithmetic`], [`Countdown`], the [`tasks`]), divided into a
//! training set and a held-out set ([`split`]) and visited in a reproducible order
//! ([`ProblemOrder`]). A [`Tokenizer`] converts text to token ids and back; [`CharTokenizer`] is
//! the simplest one. [`TextStream`] decodes a completion while it is generated.
//!
//! This module runs on the host, without tensors. Everything random is a pure function of its seed.
//!
//! ```
//! use rlvr::prompt::{Arithmetic, CharTokenizer, Tokenizer, split};
//!
//! let task = Arithmetic {
//!     digits: 2,
//!     terms: 2,
//! };
//! let problems = split(task.problems(100, 0)?, 20, 0)?;
//! let tokenizer = CharTokenizer::new(task.alphabet(), &["<answer>", "</answer>"])?;
//! let ids = tokenizer.encode_prompt(&problems.train[0].prompt)?;
//! assert_eq!(tokenizer.decode(&ids)?, problems.train[0].prompt);
//! # Ok::<(), rlvr::Error>(())
//! ```

mod arithmetic;
mod chars;
mod countdown;
pub(crate) mod expression;
#[cfg(feature = "hf")]
pub mod hf;
mod jsonl;
mod length;
mod order;
mod rational;
mod split;
mod stream;
pub mod tasks;
mod tokenizer;

pub use arithmetic::Arithmetic;
pub use chars::CharTokenizer;
pub use countdown::Countdown;
pub use jsonl::JsonLines;
pub use length::drop_long_prompts;
pub(crate) use length::encode_problem;
pub use order::ProblemOrder;
pub use split::{Split, split};
pub use stream::TextStream;
pub use tokenizer::Tokenizer;

pub use crate::types::{Message, Problem, ToolCall};
#[cfg(feature = "math")]
pub(crate) use expression::evaluate_expression;
