//! Takes a reply apart.

use std::ops::Range;
use std::sync::Arc;

use super::call::{CallAttempt, CallStatus, ParsedReply};
use super::formats::{self, ToolCallFormat};
use super::toolset::ToolSet;
use crate::types::ToolCall;
use crate::{Error, Result};

/// Tells apart the reasoning, the calls and the text of a reply, for one way of writing calls.
///
/// What is written inside a block of reasoning is no call. A block begins with its opening tag, anywhere outside of a call, and ends
/// with the next closing one, or with the reply. By default the tags are `<think>` and `</think>`.
///
/// Parsing costs time in proportion to the length of the reply, whatever is in it.
#[derive(Clone)]
pub struct ReplyParser {
    format: Arc<dyn ToolCallFormat>,
    open: String,
    close: String,
    begins_in_reasoning: bool,
}

impl ReplyParser {
    /// The names of the formats: see [`formats`](super::formats).
    pub const FORMATS: &'static [&'static str] = &formats::NAMES;

    /// For a custom format, or one with settings.
    pub fn new(format: impl ToolCallFormat + 'static) -> Self {
        Self::shared(Arc::new(format))
    }

    /// For the format of this name. It is not guessed from a model: with another model's format, no call is ever found.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none; the message lists those that there are.
    pub fn named(name: &str) -> Result<Self> {
        formats::named(name).map(Self::shared).ok_or_else(|| {
            let expected = format!("one of {}", Self::FORMATS.join(", "));
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

    /// The same with other tags around reasoning; two empty ones for none.
    ///
    /// # Errors
    /// [`Error::Config`] if only one is empty.
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
                Err(Error::config("reasoning_tags", value, "two tags, or none"))
            }
        }
    }

    /// The same for prompts that end with the opening tag, so that replies begin inside of reasoning.
    #[must_use]
    pub fn begins_in_reasoning(mut self) -> Self {
        self.begins_in_reasoning = true;
        self
    }

    /// How calls are written.
    pub fn format(&self) -> &dyn ToolCallFormat {
        &*self.format
    }

    /// Takes a reply apart. A call is `Ok` if `tools` has it and its arguments fit.
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
        // The next opening tag, looked for again only when it has been passed.
        let mut opening = self.next_opening(reply, position);
        while position < reply.len() {
            if opening < position {
                opening = self.next_opening(reply, position);
            }
            // Only up to the tag, so that nothing is looked at twice.
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
                // What stands between the calls of a block, such as commas, belongs to the one before.
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

    /// Where the next block of reasoning begins; the end of the reply if none does.
    fn next_opening(&self, reply: &str, from: usize) -> usize {
        match self.open.is_empty() {
            true => reply.len(),
            false => reply[from..]
                .find(&self.open)
                .map_or(reply.len(), |at| from + at),
        }
    }

    /// Where the block of reasoning ends that goes on at `from`.
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

/// The record of what was found.
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

/// The id of a call that was written without one: nine letters and digits, which is what Mistral's templates require.
pub(super) fn call_id(index: usize) -> String {
    format!("call{:05}", index % 100_000)
}
