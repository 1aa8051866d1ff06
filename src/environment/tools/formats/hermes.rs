use super::{CallBlock, CallStatus, ToolCallFormat, blank, extent, fault, json};
use crate::environment::tools::ToolSet;
use crate::types::ToolCall;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// One JSON object in tags per call.
///
/// ```text
/// <tool_call>
/// {"name": "add", "arguments": {"a": 2, "b": 3}}
/// </tool_call>
/// ```
///
/// The strings of the object may contain the tags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hermes;

impl ToolCallFormat for Hermes {
    fn name(&self) -> &str {
        "hermes"
    }

    fn find(&self, text: &str) -> Option<usize> {
        text.find(OPEN)
    }

    fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
        let start = OPEN.len() + blank(&text[OPEN.len()..]);
        let (after, status, reason) = match json::object_length(&text[start..]) {
            Ok(length) => {
                let after = start + length;
                let close = after + blank(&text[after..]);
                if text[close..].starts_with(CLOSE) {
                    let call = json::call(&text[start..after]);
                    return CallBlock::one(close + CLOSE.len(), call);
                }
                let reason = format!("expected {CLOSE} after the JSON object");
                (after, CallStatus::Malformed, reason)
            }
            Err(error) => (OPEN.len(), CallStatus::InvalidJson, error.reason),
        };
        let (length, closed) = extent(&text[after..], OPEN, CLOSE);
        CallBlock::one(after + length, Err(fault(closed, CLOSE, status, reason)))
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let block = |call| {
            format!(
                "{OPEN}\n{}\n{CLOSE}",
                json::object(call, "arguments", false)
            )
        };
        calls.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}
