//! How models write calls.
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
//! Marks such as `<tool_call>` and `[TOOL_CALLS]` are special tokens of some models: the text must be decoded with them.

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

/// A way of writing calls.
///
/// A format reads text that begins with what looks like a call, and never fails: what cannot be read is an attempt as well. It reads
/// in time proportional to the part that it takes, so that a reply of any content is read in linear time.
pub trait ToolCallFormat: Send + Sync {
    /// The name in settings and messages.
    fn name(&self) -> &str;

    /// Where the first attempt begins. The text follows reasoning or another call, or is the beginning of the reply.
    fn find(&self, text: &str) -> Option<usize>;

    /// Reads the attempts of the block that the text begins with, which is where [`find`](Self::find) said.
    fn read(&self, text: &str, tools: &ToolSet) -> CallBlock;

    /// Calls as a model writes them. Arguments are JSON objects.
    fn render(&self, calls: &[ToolCall]) -> String;
}

/// One or several calls that are written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallBlock {
    /// The number of bytes; at least 1.
    pub length: usize,
    /// The attempts in it, in order; at least one.
    pub attempts: Vec<FoundCall>,
}

/// An attempt in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCall {
    /// Where it ends in the block. It begins where the one before ends.
    pub end: usize,
    /// The call, or what is wrong and why.
    pub call: Result<ToolCall, (CallStatus, String)>,
}

impl CallBlock {
    /// A block of one attempt.
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

/// The format of this name.
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

/// Where the first of two marks stands that begin with `<`, in one pass.
fn first(text: &str, marks: [&str; 2]) -> Option<usize> {
    let is_mark = |at: &usize| marks.iter().any(|mark| text[*at..].starts_with(mark));
    text.match_indices('<').map(|(at, _)| at).find(is_mark)
}

/// Where what began before `rest` ends: behind its closing mark, and whether it has one before the next opening mark.
fn extent(rest: &str, open: &str, close: &str) -> (usize, bool) {
    let next = rest.find(open).unwrap_or(rest.len());
    match rest[..next].find(close) {
        Some(at) => (at + close.len(), true),
        None => (next, false),
    }
}

/// A fault of a block that has its closing mark, or lacks it.
fn fault(closed: bool, close: &str, status: CallStatus, reason: String) -> Fault {
    match closed {
        true => (status, reason),
        false => {
            let reason = format!("the call has no end, which is {}", close.trim());
            (CallStatus::Unclosed, reason)
        }
    }
}

/// The number of bytes of white space at the start.
fn blank(text: &str) -> usize {
    text.len() - text.trim_ascii_start().len()
}
