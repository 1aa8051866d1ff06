//! Takes problem files and generator settings from the user; gives problems, their seeded order and their tokens to `rollout`.
//!
//! A [`Problem`] is a question with the answer that verifies it. It is read from JSON Lines ([`JsonLines`]) or generated
//! ([`Arithmetic`], [`Countdown`], the [`tasks`]), divided without leaks ([`split`]) and visited in an endless order that a resumed run
//! finds again ([`ProblemOrder`]). A [`Tokenizer`] turns text into ids and back; [`CharTokenizer`] is the smallest one, and
//! [`TextStream`] writes a completion while it grows.
//!
//! Everything here is host code without tensors, and everything random is a pure function of its seed.

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
