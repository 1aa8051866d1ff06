use super::{CallBlock, CallStatus, FoundCall, ToolCallFormat, blank, json};
use crate::environment::tools::ToolSet;
use crate::types::ToolCall;

const TAG: &str = "[TOOL_CALLS]";
const ARGUMENTS: &str = "[ARGS]";
const ID: &str = "[CALL_ID]";
/// The maximum length of a name or id, in bytes.
const MAX_NAME: usize = 200;

/// A JSON list after `[TOOL_CALLS]` or, in newer models, a name and an object.
///
/// ```text
/// [TOOL_CALLS] [{"name": "add", "arguments": {"a": 2, "b": 3}}]
/// [TOOL_CALLS]add[ARGS]{"a": 2, "b": 3}
/// ```
///
/// [`render`](ToolCallFormat::render) writes the first form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mistral;

impl ToolCallFormat for Mistral {
    fn name(&self) -> &str {
        "mistral"
    }

    fn find(&self, text: &str) -> Option<usize> {
        text.find(TAG)
    }

    fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
        let start = TAG.len() + blank(&text[TAG.len()..]);
        match text[start..].starts_with('[') && !text[start..].starts_with(TAG) {
            true => list(text, start + 1),
            false => named(text, start),
        }
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let object = |call| json::object(call, "arguments", true);
        let objects: Vec<String> = calls.iter().map(object).collect();
        format!("{TAG} [{}]", objects.join(", "))
    }
}

/// The end of a block that cannot be read after `from`: the next tag.
fn end(text: &str, from: usize) -> usize {
    text[from..].find(TAG).map_or(text.len(), |at| from + at)
}

/// Reads the objects of a list, after its bracket.
fn list(text: &str, mut position: usize) -> CallBlock {
    let mut attempts = Vec::new();
    let fault = loop {
        position += blank(&text[position..]);
        if text[position..].starts_with(']') && attempts.is_empty() {
            position += 1;
            break Some((
                CallStatus::Malformed,
                "the list of calls is empty".to_string(),
            ));
        }
        let object = &text[position..];
        match json::object_length(object) {
            Ok(length) => {
                position += length;
                let call = json::call(&object[..length]);
                attempts.push(FoundCall {
                    end: position,
                    call,
                });
            }
            Err(error) => {
                position = end(text, position);
                break Some(match error.ended {
                    true => unclosed(),
                    false => (CallStatus::InvalidJson, error.reason),
                });
            }
        }
        position += blank(&text[position..]);
        match text[position..].chars().next() {
            Some(',') => position += 1,
            Some(']') => {
                position += 1;
                break None;
            }
            next => {
                // The call is complete, but may not be what the model intended.
                attempts.pop();
                position = end(text, position);
                let reason = "expected `,` or `]` after a call".to_string();
                break Some(match next {
                    None => unclosed(),
                    Some(_) => (CallStatus::Malformed, reason),
                });
            }
        }
    };
    attempts.extend(fault.map(|fault| FoundCall {
        end: position,
        call: Err(fault),
    }));
    CallBlock {
        length: position,
        attempts,
    }
}

fn unclosed() -> json::Fault {
    let reason = "the list of calls is not closed; expected ]".to_string();
    (CallStatus::Unclosed, reason)
}

/// Reads a name, an optional id, and an object.
fn named(text: &str, start: usize) -> CallBlock {
    let fail = |from: usize, status, reason: String| {
        CallBlock::one(end(text, from.max(TAG.len())), Err((status, reason)))
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let word = |from: usize| {
        let rest = &text[from..];
        let length = rest.find(|c| !plain(c)).unwrap_or(rest.len());
        &rest[..length]
    };
    let name = word(start);
    let mut position = start + name.len();
    if name.is_empty() || name.len() > MAX_NAME {
        let reason = format!("expected a list or a name after {TAG}");
        return fail(start, CallStatus::Malformed, reason);
    }
    let mut id = "";
    if text[position..].starts_with(ID) {
        id = word(position + ID.len());
        position += ID.len() + id.len();
    }
    if !text[position..].starts_with(ARGUMENTS) {
        let reason = format!("expected {ARGUMENTS} after the name of the tool");
        return fail(position, CallStatus::Malformed, reason);
    }
    position += ARGUMENTS.len();
    position += blank(&text[position..]);
    match json::object_length(&text[position..]) {
        Ok(length) => {
            let call = ToolCall {
                id: id.into(),
                name: name.into(),
                arguments: text[position..position + length].into(),
            };
            CallBlock::one(position + length, Ok(call))
        }
        Err(error) => {
            let status = match error.ended {
                true => CallStatus::Unclosed,
                false => CallStatus::InvalidJson,
            };
            fail(position, status, error.reason)
        }
    }
}
