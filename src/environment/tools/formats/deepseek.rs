use super::{CallBlock, CallStatus, FoundCall, ToolCallFormat, blank, extent, fault, first, json};
use crate::environment::tools::ToolSet;
use crate::types::ToolCall;

const CALLS: &str = "<｜tool▁calls▁begin｜>";
const CALLS_END: &str = "<｜tool▁calls▁end｜>";
const CALL: &str = "<｜tool▁call▁begin｜>";
const CALL_END: &str = "<｜tool▁call▁end｜>";
const SEPARATOR: &str = "<｜tool▁sep｜>";
const FENCE: &str = "```";
/// The maximum length of a name, in bytes.
const MAX_NAME: usize = 200;

/// Calls between special tokens, with the arguments in a code block.
///
/// ````text
/// <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add
/// ```json
/// {"a": 2, "b": 3}
/// ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>
/// ````
///
/// The format of V3.1 is also read: the name, `<｜tool▁sep｜>` and the arguments.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeepSeekV3;

impl ToolCallFormat for DeepSeekV3 {
    fn name(&self) -> &str {
        "deepseek_v3"
    }

    fn find(&self, text: &str) -> Option<usize> {
        first(text, [CALLS, CALL])
    }

    fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
        let mut position = match text.strip_prefix(CALLS) {
            Some(rest) => CALLS.len() + blank(rest),
            None => 0,
        };
        let mut attempts = Vec::new();
        while text[position..].starts_with(CALL) {
            let start = position + CALL.len();
            let (length, call) = one(&text[start..]);
            position = start + length;
            attempts.push(FoundCall {
                end: position,
                call,
            });
            let next = position + blank(&text[position..]);
            if text[next..].starts_with(CALLS_END) {
                position = next + CALLS_END.len();
                break;
            }
            if text[next..].starts_with(CALL) {
                position = next;
            }
        }
        if attempts.is_empty() {
            let (length, closed) = extent(&text[position..], CALLS, CALLS_END);
            position += length;
            let reason = format!("expected {CALL} after {CALLS}");
            let fault = fault(closed, CALLS_END, CallStatus::Malformed, reason);
            return CallBlock::one(position, Err(fault));
        }
        CallBlock {
            length: position,
            attempts,
        }
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let block = |call: &ToolCall| {
            let ToolCall {
                name, arguments, ..
            } = call;
            format!("{CALL}function{SEPARATOR}{name}\n{FENCE}json\n{arguments}\n{FENCE}{CALL_END}")
        };
        let blocks: Vec<String> = calls.iter().map(block).collect();
        format!("{CALLS}{}{CALLS_END}", blocks.join("\n"))
    }
}

/// Reads one call after its opening token. Returns its length, including the closing token, and the
/// call.
fn one(text: &str) -> (usize, Result<ToolCall, json::Fault>) {
    let mut after = 0;
    match whole(text, &mut after) {
        Ok((length, call)) => (length, Ok(call)),
        Err((status, reason)) => {
            let (length, closed) = extent(&text[after..], CALL, CALL_END);
            (after + length, Err(fault(closed, CALL_END, status, reason)))
        }
    }
}

/// Reads a complete call and its length. `after` is set to the end of the part that was read.
fn whole(text: &str, after: &mut usize) -> Result<(usize, ToolCall), json::Fault> {
    let malformed = |reason: String| (CallStatus::Malformed, reason);
    let near = |from: usize| &text[from..text.floor_char_boundary(from + MAX_NAME)];
    let head = near(0).find(SEPARATOR);
    let head =
        head.ok_or_else(|| malformed(format!("expected {SEPARATOR} before the arguments")))?;
    let mut position = head + SEPARATOR.len();
    let inner = blank(&text[position..]);
    let fenced = !text[position + inner..].starts_with('{');
    let name = match fenced {
        false => {
            position += inner;
            &text[..head]
        }
        true => {
            let line = near(position).find('\n');
            let line =
                line.ok_or_else(|| malformed("expected a line break after the name".into()))?;
            let name = &text[position..position + line];
            position += line + 1;
            position += blank(&text[position..]);
            let opening = format!("{FENCE}json");
            if !text[position..].starts_with(&opening) {
                return Err(malformed(format!("expected {opening} after the name")));
            }
            position += opening.len();
            position += blank(&text[position..]);
            name
        }
    };
    let length = json::object_length(&text[position..])
        .map_err(|error| (CallStatus::InvalidJson, error.reason))?;
    let arguments = &text[position..position + length];
    position += length;
    *after = position;
    position += blank(&text[position..]);
    if fenced {
        if !text[position..].starts_with(FENCE) {
            return Err(malformed(format!("expected {FENCE} after the arguments")));
        }
        position += FENCE.len();
        position += blank(&text[position..]);
    }
    if !text[position..].starts_with(CALL_END) {
        return Err(malformed(format!(
            "expected {CALL_END} after the arguments"
        )));
    }
    let call = ToolCall {
        id: String::new(),
        name: name.trim().into(),
        arguments: arguments.into(),
    };
    Ok((position + CALL_END.len(), call))
}
