//! The parsed calls of a reply.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::{Message, ToolCall};

/// The status of an attempt to call a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallStatus {
    /// The call can be run.
    Ok,
    /// The JSON of the call is invalid.
    InvalidJson,
    /// The call is not closed.
    Unclosed,
    /// The call has the syntax of its format but is incomplete, such as without a name, or has
    /// extra parts.
    Malformed,
    /// There is no tool with this name.
    UnknownTool,
    /// The arguments do not match the tool's schema.
    InvalidArguments,
}

impl CallStatus {
    /// Returns the name in metrics and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::InvalidJson => "invalid_json",
            Self::Unclosed => "unclosed",
            Self::Malformed => "malformed",
            Self::UnknownTool => "unknown_tool",
            Self::InvalidArguments => "invalid_arguments",
        }
    }
}

/// An attempt to call a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallAttempt {
    /// Its byte range in the reply, including the tags of the format.
    pub span: Range<usize>,
    /// The status.
    pub status: CallStatus,
    /// The call, if it could be read; always present if the status is `Ok`.
    pub call: Option<ToolCall>,
    /// The error, for the model; empty if the status is `Ok`.
    pub reason: String,
}

/// A parsed reply: reasoning, calls, and the text outside of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedReply<'a> {
    /// The reply as sampled.
    pub text: &'a str,
    /// The byte ranges of the blocks of reasoning, including their tags.
    pub reasoning: Vec<Range<usize>>,
    /// The attempts to call a tool, in order.
    pub calls: Vec<CallAttempt>,
    /// The tags of the blocks of reasoning.
    pub(super) tags: (&'a str, &'a str),
}

impl ParsedReply<'_> {
    /// Returns the text outside of calls and reasoning, exactly as sampled.
    pub fn content(&self) -> String {
        let mut inside: Vec<&Range<usize>> = self.calls.iter().map(|call| &call.span).collect();
        inside.extend(&self.reasoning);
        inside.sort_by_key(|span| span.start);
        let (mut content, mut end) = (String::new(), 0);
        for span in inside {
            content += &self.text[end..span.start];
            end = span.end;
        }
        content + &self.text[end..]
    }

    /// Returns the concatenated blocks of reasoning without their tags; `None` without reasoning.
    pub fn reasoning(&self) -> Option<String> {
        let (open, close) = self.tags;
        let block = |span: &Range<usize>| {
            let text = &self.text[span.clone()];
            let text = text.strip_prefix(open).unwrap_or(text);
            text.strip_suffix(close).unwrap_or(text)
        };
        match self.reasoning.is_empty() {
            true => None,
            false => Some(self.reasoning.iter().map(block).collect()),
        }
    }

    /// Returns the reply as a message with separate reasoning, calls and content. Calls that could
    /// not be read, or whose arguments are not a JSON object, are omitted, since no chat template
    /// can write them.
    pub fn message(&self) -> Message {
        let writable =
            |call: &&ToolCall| serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok();
        let calls = self.calls.iter().filter_map(|call| call.call.as_ref());
        let calls = calls.filter(writable).cloned();
        Message {
            reasoning_content: self.reasoning(),
            tool_calls: calls.collect(),
            ..Message::assistant(self.content())
        }
    }

    /// Returns the number of attempts, by status.
    pub fn statuses(&self) -> BTreeMap<String, usize> {
        let mut statuses = BTreeMap::new();
        for call in &self.calls {
            *statuses.entry(call.status.name().to_string()).or_default() += 1;
        }
        statuses
    }
}
