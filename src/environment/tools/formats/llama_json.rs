use super::{CallBlock, CallStatus, FoundCall, ToolCallFormat, blank, json};
use crate::environment::tools::ToolSet;
use crate::types::ToolCall;

const TAG: &str = "<|python_tag|>";

/// JSON objects at the start of the reply or after `<|python_tag|>`, separated by `;`.
///
/// ```text
/// {"name": "add", "parameters": {"a": 2, "b": 3}};
/// {"name": "add", "parameters": {"a": 5, "b": 5}}
/// ```
///
/// Without the tag, an object is a call if it starts with `"name"` or `"type": "function"`, and has
/// parameters or cannot be read. Objects in the middle of a text are text.
#[derive(Clone, Copy, Debug, Default)]
pub struct LlamaJson;

impl ToolCallFormat for LlamaJson {
    fn name(&self) -> &str {
        "llama_json"
    }

    fn find(&self, text: &str) -> Option<usize> {
        let start = blank(text);
        match is_call(&text[start..]) {
            true => Some(start),
            false => text.find(TAG),
        }
    }

    fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
        let mut position = match text.starts_with(TAG) {
            true => TAG.len() + blank(&text[TAG.len()..]),
            false => 0,
        };
        let mut attempts = Vec::new();
        loop {
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
                    // Calls have no closing mark, so the call takes the rest.
                    let fault = match error.ended {
                        true => (
                            CallStatus::Unclosed,
                            "the JSON object of the call is not closed".to_string(),
                        ),
                        false => (CallStatus::InvalidJson, error.reason),
                    };
                    let end = text.len();
                    attempts.push(FoundCall {
                        end,
                        call: Err(fault),
                    });
                    return CallBlock {
                        length: end,
                        attempts,
                    };
                }
            }
            let rest = text[position..].trim_ascii_start();
            let next = rest.strip_prefix(';').map(str::trim_ascii_start);
            match next {
                Some(next) if next.starts_with('{') => position = text.len() - next.len(),
                _ => {
                    return CallBlock {
                        length: position,
                        attempts,
                    };
                }
            }
        }
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let object = |call| json::object(call, "parameters", false);
        calls.iter().map(object).collect::<Vec<_>>().join("; ")
    }
}

/// Whether an object at the start of the text is a call or an attempt at one.
fn is_call(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('{').map(str::trim_ascii_start) else {
        return false;
    };
    let after = |text: &'_ str, mark: &str| -> Option<usize> {
        let rest = text.trim_ascii_start().strip_prefix(mark)?;
        Some(text.len() - rest.len())
    };
    let is_function = || {
        let at = after(inside, "\"type\"")?;
        let colon = at + after(&inside[at..], ":")?;
        after(&inside[colon..], "\"function\"")
    };
    if !inside.starts_with("\"name\"") && is_function().is_none() {
        return false;
    }
    match json::object_length(text) {
        Ok(length) => ["\"parameters\"", "\"arguments\""]
            .iter()
            .any(|key| text[..length].contains(key)),
        Err(_) => true,
    }
}
