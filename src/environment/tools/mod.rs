//! Tools that a model calls by writing text.
//!
//! A [`Tool`] is a function with a name and a JSON Schema of its arguments. [`FnTool`] makes a tool
//! from a closure; [`Calculator`] and, with the feature `code`, `PythonTool` are built in. A
//! [`ToolSet`] holds the tools of an episode. A [`ReplyParser`] separates the reasoning, the calls
//! and the text of a reply, for the [format](ToolCallFormat) in which the model writes calls, and
//! [`ToolSet::answer`] runs the calls.
//!
//! Everything that looks like a call is a [`CallAttempt`] with a [`CallStatus`]:
//!
//! - The model reads the error of a call that cannot be run. Such a call does not affect the other
//!   calls of the reply.
//! - The calls of a reply that was cut off do not run.
//! - The text of a reply is not rewritten: attempts refer to byte ranges of it, and arguments keep
//!   their text.
//!
//! | status | meaning |
//! |---|---|
//! | `ok` | the call can be run |
//! | `invalid_json` | its JSON is invalid |
//! | `unclosed` | it is not closed |
//! | `malformed` | it is incomplete or has extra parts |
//! | `unknown_tool` | the tool does not exist |
//! | `invalid_arguments` | the arguments do not match the schema |

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
pub use tool::{FnTool, Tool, ToolError};
pub use toolset::ToolSet;

pub use crate::types::ToolCall;
