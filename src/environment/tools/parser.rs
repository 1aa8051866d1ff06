//! The parser of replies.

use std::ops::Range;
use std::sync::Arc;

use super::call::{CallAttempt, CallStatus, ParsedReply};
use super::formats::{self, ToolCallFormat};
use super::toolset::ToolSet;
use crate::types::ToolCall;
use crate::{Error, Result};

/// A parser that separates the reasoning, the calls and the text of a reply, for one format of
/// calls.
///
/// Calls inside a block of reasoning are ignored. A block starts with its opening tag, anywhere
/// outside of a call, and ends with the next closing tag or the end of the reply. The default tags
/// are `<think>` and `</think>`.
///
/// Parsing takes time linear in the length of the reply, for any content. See [`ToolSet`] for an
/// example.
#[derive(Clone)]
pub struct ReplyParser {
    format: Arc<dyn ToolCallFormat>,
    open: String,
    close: String,
    begins_in_reasoning: bool,
}

impl ReplyParser {
    /// Creates a parser for a custom format, or a format with settings.
    pub fn new(format: impl ToolCallFormat + 'static) -> Self {
        Self::shared(Arc::new(format))
    }

    /// Creates a parser for the format with this name; see [`formats`](super::formats) for the
    /// names. The format must be the model's: with another, calls are not found.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if the name is unknown; the message lists the known names.
    pub fn named(name: &str) -> Result<Self> {
        formats::named(name).map(Self::shared).ok_or_else(|| {
            let expected = format!("one of {}", formats::NAMES.join(", "));
            Error::config("tool_call_format", format!("{name:?}"), expected)
        })
    }

    fn shared(format: Arc<dyn ToolCallFormat>) -> Self {
        Self {
            format,
            open: "<think>".into(),
            close: "</think>".into(),
            begins_in_reasoning: false,
        }
    }

    /// Sets the tags around reasoning. Two empty tags disable reasoning.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if only one tag is empty.
    pub fn with_reasoning_tags(
        mut self,
        open: impl Into<String>,
        close: impl Into<String>,
    ) -> Result<Self> {
        (self.open, self.close) = (open.into(), close.into());
        match self.open.is_empty() == self.close.is_empty() {
            true => Ok(self),
            false => {
                let value = format!("{:?} and {:?}", self.open, self.close);
                Err(Error::config(
                    "reasoning_tags",
                    value,
                    "two tags or two empty strings",
                ))
            }
        }
    }

    /// Treats the start of a reply as reasoning, for prompts that end with the opening tag.
    #[must_use]
    pub fn begins_in_reasoning(mut self) -> Self {
        self.begins_in_reasoning = true;
        self
    }

    /// Returns the format of calls.
    pub fn format(&self) -> &dyn ToolCallFormat {
        &*self.format
    }

    /// Parses a reply. A call is `Ok` if `tools` has the tool and the arguments match its schema.
    pub fn parse<'a>(&'a self, reply: &'a str, tools: &ToolSet) -> ParsedReply<'a> {
        let mut parsed = ParsedReply {
            text: reply,
            reasoning: Vec::new(),
            calls: Vec::new(),
            tags: (&self.open, &self.close),
        };
        let mut position = 0;
        if self.begins_in_reasoning && !self.close.is_empty() {
            position = self.end_of_reasoning(reply, 0);
            if position > 0 {
                parsed.reasoning.push(0..position);
            }
        }
        // The next opening tag, searched again only after it has been passed.
        let mut opening = self.next_opening(reply, position);
        while position < reply.len() {
            if opening < position {
                opening = self.next_opening(reply, position);
            }
            // Search only up to the tag, so that no text is scanned twice.
            let found = self.format.find(&reply[position..opening]);
            let Some(start) = found.map(|at| position + at) else {
                if opening == reply.len() {
                    break;
                }
                position = self.end_of_reasoning(reply, opening);
                parsed.reasoning.push(opening..position);
                continue;
            };
            let block = self.format.read(&reply[start..], tools);
            let end = start + block.length;
            if block.length == 0 || !reply.is_char_boundary(end) || end > reply.len() {
                break;
            }
            let mut from = start;
            let last = block.attempts.len().saturating_sub(1);
            for (at, found) in block.attempts.into_iter().enumerate() {
                // Text between the calls of a block, such as commas, belongs to the previous call.
                let until = if at == last { end } else { start + found.end };
                let span = from..until.clamp(from, end);
                from = span.end;
                let index = parsed.calls.len();
                parsed.calls.push(attempt(span, found.call, index, tools));
            }
            position = end;
        }
        parsed
    }

    /// The start of the next block of reasoning, or the end of the reply.
    fn next_opening(&self, reply: &str, from: usize) -> usize {
        match self.open.is_empty() {
            true => reply.len(),
            false => reply[from..]
                .find(&self.open)
                .map_or(reply.len(), |at| from + at),
        }
    }

    /// The end of the block of reasoning that contains `from`.
    fn end_of_reasoning(&self, reply: &str, from: usize) -> usize {
        let close = reply[from..].find(&self.close);
        close.map_or(reply.len(), |at| from + at + self.close.len())
    }
}

impl std::fmt::Debug for ReplyParser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplyParser")
            .field("format", &self.format.name())
            .field("reasoning", &(&self.open, &self.close))
            .field("begins_in_reasoning", &self.begins_in_reasoning)
            .finish()
    }
}

/// Converts a found call to an attempt.
fn attempt(
    span: Range<usize>,
    found: Result<ToolCall, (CallStatus, String)>,
    index: usize,
    tools: &ToolSet,
) -> CallAttempt {
    let (call, fault) = match found {
        Ok(mut call) => {
            if call.id.is_empty() {
                call.id = call_id(index);
            }
            let fault = tools.check(&call).err();
            (Some(call), fault)
        }
        Err(fault) => (None, Some(fault)),
    };
    let (status, reason) = fault.unwrap_or((CallStatus::Ok, String::new()));
    CallAttempt {
        span,
        status,
        call,
        reason,
    }
}

/// The id of a call that was written without one: nine letters and digits, as Mistral's templates
/// require.
pub(super) fn call_id(index: usize) -> String {
    format!("call{:05}", index % 100_000)
}
