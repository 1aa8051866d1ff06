//! Formats in which models write calls.
//!
//! | name | format | models |
//! |---|---|---|
//! | `hermes` | [`Hermes`] | Hermes, Qwen2.5, Qwen3, SmolLM3 with `xml_tools` |
//! | `qwen_xml` | [`QwenXml`] | Qwen3-Coder, Qwen3.5, Nemotron 3 |
//! | `llama_json` | [`LlamaJson`] | Llama 3.1, 3.2 |
//! | `mistral` | [`Mistral`] | Mistral v0.3 and later |
//! | `deepseek_v3` | [`DeepSeekV3`] | DeepSeek V3, V3.1, R1 |
//! | `code_block` | [`CodeBlock`] | SmolLM3 with `python_tools` |
//!
//! Tags such as `<tool_call>` and `[TOOL_CALLS]` are special tokens of some models: decode the text
//! with them. [`ReplyParser::named`](super::ReplyParser::named) selects a format by name; implement
//! [`ToolCallFormat`] for others.

mod code_block;
mod deepseek;
mod hermes;
mod llama_json;
mod mistral;
mod qwen_xml;

use std::sync::Arc;

pub use code_block::CodeBlock;
pub use deepseek::DeepSeekV3;
pub use hermes::Hermes;
pub use llama_json::LlamaJson;
pub use mistral::Mistral;
pub use qwen_xml::QwenXml;

use super::call::CallStatus;
use super::json::{self, Fault};
use super::toolset::ToolSet;
use crate::types::ToolCall;

/// A format of calls.
///
/// A format reads text that starts with what looks like a call, and never fails: what cannot be
/// read is a failed attempt. Reading must take time linear in the length of the block, so that any
/// reply is parsed in linear time.
///
/// ```
/// use rlvr::environment::tools::formats::{CallBlock, ToolCallFormat};
/// use rlvr::environment::tools::{
///     Calculator, CallStatus, ReplyParser, ToolCall, ToolSet,
/// };
///
/// /// One call per line: `CALL name {"argument": ..}`.
/// struct Lines;
///
/// impl ToolCallFormat for Lines {
///     fn name(&self) -> &str {
///         "lines"
///     }
///
///     fn find(&self, text: &str) -> Option<usize> {
///         text.find("CALL ")
///     }
///
///     fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
///         let length = text.find('\n').unwrap_or(text.len());
///         let call = match text["CALL ".len()..length].split_once(' ') {
///             Some((name, arguments)) => Ok(ToolCall {
///                 name: name.into(),
///                 arguments: arguments.into(),
///                 ..ToolCall::default()
///             }),
///             None => Err((
///                 CallStatus::Malformed,
///                 "expected arguments after the name".into(),
///             )),
///         };
///         CallBlock::one(length, call)
///     }
///
///     fn render(&self, calls: &[ToolCall]) -> String {
///         let line =
///             |call: &ToolCall| format!("CALL {} {}\n", call.name, call.arguments);
///         calls.iter().map(line).collect()
///     }
/// }
///
/// let tools = ToolSet::new().with(Calculator)?;
/// let parser = ReplyParser::new(Lines);
/// let parsed = parser.parse("CALL calculator {\"expression\": \"6*7\"}", &tools);
/// assert_eq!(parsed.calls[0].status, CallStatus::Ok);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub trait ToolCallFormat: Send + Sync {
    /// Returns the name for settings and errors.
    fn name(&self) -> &str;

    /// Returns the byte offset of the first attempt. The text is the start of the reply, or follows
    /// reasoning or another call.
    fn find(&self, text: &str) -> Option<usize>;

    /// Reads the attempts of the block at the start of the text, which is the position that
    /// [`find`](Self::find) returned.
    fn read(&self, text: &str, tools: &ToolSet) -> CallBlock;

    /// Writes calls as a model writes them. Arguments are JSON objects.
    fn render(&self, calls: &[ToolCall]) -> String;
}

/// One or more adjacent calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallBlock {
    /// The length, in bytes; at least 1.
    pub length: usize,
    /// The attempts, in order; at least one.
    pub attempts: Vec<FoundCall>,
}

/// An attempt within a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCall {
    /// The byte offset of its end in the block. It starts at the end of the previous one.
    pub end: usize,
    /// The call, or its status and the error for the model.
    pub call: Result<ToolCall, (CallStatus, String)>,
}

impl CallBlock {
    /// Creates a block of one attempt.
    pub fn one(length: usize, call: Result<ToolCall, (CallStatus, String)>) -> Self {
        Self {
            length,
            attempts: vec![FoundCall { end: length, call }],
        }
    }
}

/// The names of the formats.
pub(super) const NAMES: [&str; 6] = [
    "hermes",
    "qwen_xml",
    "llama_json",
    "mistral",
    "deepseek_v3",
    "code_block",
];

/// Returns the format with this name.
pub(super) fn named(name: &str) -> Option<Arc<dyn ToolCallFormat>> {
    Some(match name {
        "hermes" => Arc::new(Hermes),
        "qwen_xml" => Arc::new(QwenXml),
        "llama_json" => Arc::new(LlamaJson),
        "mistral" => Arc::new(Mistral),
        "deepseek_v3" => Arc::new(DeepSeekV3),
        "code_block" => Arc::new(CodeBlock::default()),
        _ => return None,
    })
}

/// Finds the first of two marks that start with `<`, in one pass.
fn first(text: &str, marks: [&str; 2]) -> Option<usize> {
    let is_mark = |at: &usize| marks.iter().any(|mark| text[*at..].starts_with(mark));
    text.match_indices('<').map(|(at, _)| at).find(is_mark)
}

/// Returns the end of a block that started before `rest`: after its closing mark, or at the next
/// opening mark. The flag says whether the block is closed.
fn extent(rest: &str, open: &str, close: &str) -> (usize, bool) {
    let next = rest.find(open).unwrap_or(rest.len());
    match rest[..next].find(close) {
        Some(at) => (at + close.len(), true),
        None => (next, false),
    }
}

/// Returns the error of a block: the given one if the block is closed, and `Unclosed` otherwise.
fn fault(closed: bool, close: &str, status: CallStatus, reason: String) -> Fault {
    match closed {
        true => (status, reason),
        false => {
            let reason = format!("the call is not closed; expected {}", close.trim());
            (CallStatus::Unclosed, reason)
        }
    }
}

/// The length of leading white space, in bytes.
fn blank(text: &str) -> usize {
    text.len() - text.trim_ascii_start().len()
}
