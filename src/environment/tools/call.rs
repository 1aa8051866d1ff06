//! The calls of a reply, and what became of reading them.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::{Message, ToolCall};

/// What became of an attempt to call a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallStatus {
    /// It can be run.
    Ok,
    /// Its JSON cannot be read.
    InvalidJson,
    /// It has no end.
    Unclosed,
    /// It is JSON, or in the form of the format, but no call: it has no name, or something stands where nothing may.
    Malformed,
    /// There is no tool of this name.
    UnknownTool,
    /// The arguments do not fit the schema of the tool.
    InvalidArguments,
}

impl CallStatus {
    /// The name in metrics and records.
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
    /// Where it stands in the reply, in bytes, with the marks of the format around it.
    pub span: Range<usize>,
    /// What became of it.
    pub status: CallStatus,
    /// The call, if one could be read: always if it is `Ok`.
    pub call: Option<ToolCall>,
    /// What is wrong with it, for the model; empty if it is `Ok`.
    pub reason: String,
}

/// A reply taken apart: reasoning, calls, and the text outside of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedReply<'a> {
    /// The reply as it was sampled.
    pub text: &'a str,
    /// Where the blocks of reasoning stand, in bytes, with their tags.
    pub reasoning: Vec<Range<usize>>,
    /// The attempts to call a tool, in order.
    pub calls: Vec<CallAttempt>,
    /// The tags of the blocks of reasoning.
    pub(super) tags: (&'a str, &'a str),
}

impl ParsedReply<'_> {
    /// The text outside of calls and reasoning, exactly as it was sampled.
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

    /// The reasoning without its tags, block after block; `None` if there is none.
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

    /// The reply as a message with its parts told apart. Calls that could not be read, or whose arguments are no JSON object, are in no part
    /// of it: no chat template could write them.
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

    /// How many attempts had which status.
    pub fn statuses(&self) -> BTreeMap<String, usize> {
        let mut statuses = BTreeMap::new();
        for call in &self.calls {
            *statuses.entry(call.status.name().to_string()).or_default() += 1;
        }
        statuses
    }
}
