//! Tools that a model calls by writing text: what they are, how calls are written, and how they are answered.
//!
//! A [`Tool`] is a function with a name and a JSON Schema of its arguments; [`FnTool`] makes one of a closure, [`Calculator`] and, with the
//! feature `code`, `PythonTool` are ready. A [`ToolSet`] holds those of an episode. A [`ReplyParser`] takes a reply apart into reasoning, calls
//! and the text outside of both, for the way in which the model writes calls ([`ToolCallFormat`]); [`ToolSet::answer`] runs the calls.
//!
//! There is one [`CallAttempt`] for everything that looks like a call, with what became of it ([`CallStatus`]):
//!
//! - A call that cannot be run is answered with what is wrong, which the model reads. It does not hide the others of the reply.
//! - A reply that was cut off runs nothing.
//! - What the model wrote is never written again: spans say where in the reply the parts are, and arguments keep their text.
//!
//! | status | |
//! |---|---|
//! | `ok` | it can be run |
//! | `invalid_json` | its JSON cannot be read |
//! | `unclosed` | it has no end |
//! | `malformed` | it is readable, but no call |
//! | `unknown_tool` | there is no such tool |
//! | `invalid_arguments` | the arguments do not fit the schema |

mod calculator;
mod call;
pub mod formats;
mod json;
mod parser;
#[cfg(feature = "code")]
mod python;
mod schema;
#[cfg(test)]
mod tests;
mod tool;
mod toolset;

pub use calculator::Calculator;
pub use call::{CallAttempt, CallStatus, ParsedReply};
pub use formats::ToolCallFormat;
pub use parser::ReplyParser;
#[cfg(feature = "code")]
pub use python::{PythonConfig, PythonTool};
pub use schema::Schema;
pub use tool::{FnTool, Tool, ToolError};
pub use toolset::ToolSet;

pub use crate::types::{Message, ToolCall};
