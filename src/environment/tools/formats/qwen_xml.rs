use serde_json::{Map, Value};

use super::{CallBlock, CallStatus, ToolCallFormat, blank, extent, fault, first};
use crate::environment::tools::ToolSet;
use crate::types::ToolCall;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const FUNCTION: &str = "<function=";
const FUNCTION_END: &str = "</function>";
const PARAMETER: &str = "<parameter=";
const PARAMETER_END: &str = "</parameter>";
/// The maximum length of a name of a function or parameter, in bytes.
const MAX_NAME: usize = 200;

/// The function and each parameter in separate tags, with values as text.
///
/// ```text
/// <tool_call>
/// <function=add>
/// <parameter=a>
/// 2
/// </parameter>
/// </function>
/// </tool_call>
/// ```
///
/// The tool's schema determines the type of a value: if it does not allow a string, the value is
/// read as JSON, or as Python's `True`, `False` and `None`. A value ends with the first
/// `</parameter>` that is followed by another parameter or the end of the function. The outer tags
/// may be absent. A block ends at the latest where another starts.
#[derive(Clone, Copy, Debug, Default)]
pub struct QwenXml;

impl ToolCallFormat for QwenXml {
    fn name(&self) -> &str {
        "qwen_xml"
    }

    fn find(&self, text: &str) -> Option<usize> {
        first(text, [OPEN, FUNCTION])
    }

    fn read(&self, text: &str, tools: &ToolSet) -> CallBlock {
        let wrapped = text.starts_with(OPEN);
        let (open, close) = match wrapped {
            true => (OPEN, CLOSE),
            false => (FUNCTION, FUNCTION_END),
        };
        // Up to the next block, so that a malformed block does not affect it.
        let next = text[open.len()..].find(open);
        let text = &text[..next.map_or(text.len(), |at| open.len() + at)];
        let mut reader = Reader {
            text,
            position: 0,
            wrapped,
        };
        match reader.call() {
            Ok((name, parameters)) => {
                let arguments = arguments(&name, &parameters, tools);
                let call = ToolCall {
                    id: String::new(),
                    name,
                    arguments,
                };
                CallBlock::one(reader.position, Ok(call))
            }
            Err(reason) => {
                // Continue at least after the opening tag, which would be found again.
                let from = reader.position.max(open.len());
                let (length, closed) = extent(&text[from..], open, close);
                let fault = fault(closed, close, CallStatus::Malformed, reason);
                CallBlock::one(from + length, Err(fault))
            }
        }
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let block = |call: &ToolCall| {
            let arguments: Map<String, Value> =
                serde_json::from_str(&call.arguments).unwrap_or_default();
            let parameter = |(name, value): (&String, &Value)| {
                format!("{PARAMETER}{name}>\n{}\n{PARAMETER_END}\n", written(value))
            };
            let parameters: String = arguments.iter().map(parameter).collect();
            let name = &call.name;
            format!("{OPEN}\n{FUNCTION}{name}>\n{parameters}{FUNCTION_END}\n{CLOSE}")
        };
        calls.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

/// Writes a value as Qwen's template does: lists and objects as JSON, others as in Python.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Null => "None".into(),
        other => other.to_string(),
    }
}

/// Writes the JSON object of the arguments, in the order of the reply.
fn arguments(function: &str, parameters: &[(&str, &str)], tools: &ToolSet) -> String {
    let schema = tools.schema(function);
    let argument = |(name, text): &(&str, &str)| {
        let allows = |kind: &str| schema.and_then(|schema| schema.allows(name, kind));
        format!("{}: {}", Value::from(*name), typed(text, allows))
    };
    let arguments: Vec<String> = parameters.iter().map(argument).collect();
    format!("{{{}}}", arguments.join(", "))
}

/// Converts the text of a value to JSON. `allows` returns whether the schema allows a type, if
/// known.
fn typed(text: &str, allows: impl Fn(&str) -> Option<bool>) -> String {
    let plain = text.trim();
    let read = match plain {
        "True" => "true",
        "False" => "false",
        "None" => "null",
        other => other,
    };
    let kind = match serde_json::from_str::<Value>(read) {
        Ok(Value::Null) => "null",
        Ok(Value::Bool(_)) => "boolean",
        Ok(Value::Number(_)) => "number",
        Ok(Value::Array(_)) => "array",
        Ok(Value::Object(_)) => "object",
        Ok(Value::String(_)) | Err(_) => "string",
    };
    let text_allowed = allows("string");
    let other_allowed = match kind {
        "number" => allows("number") == Some(true) || allows("integer") == Some(true),
        kind => allows(kind) == Some(true),
    };
    // If the schema allows strings, the value is a string, except for null. If it does not, the
    // schema check reports other errors.
    let is_text = match (kind, text_allowed) {
        ("string", _) => true,
        ("null", Some(true)) => !other_allowed,
        (_, Some(true) | None) => true,
        (_, Some(false)) => false,
    };
    match is_text {
        true => Value::from(text).to_string(),
        false => read.to_string(),
    }
}

/// A function name and its parameters.
type Written<'a> = (String, Vec<(&'a str, &'a str)>);

struct Reader<'a> {
    text: &'a str,
    position: usize,
    /// Whether it started with the outer tag.
    wrapped: bool,
}

impl<'a> Reader<'a> {
    fn call(&mut self) -> Result<Written<'a>, String> {
        self.takes(OPEN);
        self.skip_blank();
        if !self.takes(FUNCTION) {
            return Err(format!("expected {FUNCTION}NAME> after {OPEN}"));
        }
        let name = self.tag_name(FUNCTION)?.trim().to_string();
        let mut parameters = Vec::new();
        loop {
            self.skip_blank();
            if self.takes(PARAMETER) {
                let name = self.tag_name(PARAMETER)?.trim();
                parameters.push((name, self.value(name)?));
            } else if self.takes(FUNCTION_END) {
                break;
            } else {
                return Err(format!(
                    "expected {PARAMETER}NAME> or {FUNCTION_END} after a parameter"
                ));
            }
        }
        let end = self.position;
        self.skip_blank();
        let closed = self.takes(CLOSE);
        if self.wrapped && !closed {
            return Err(format!("expected {CLOSE} after {FUNCTION_END}"));
        }
        if !closed {
            self.position = end;
        }
        Ok((name, parameters))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn takes(&mut self, mark: &str) -> bool {
        let found = self.rest().starts_with(mark);
        if found {
            self.position += mark.len();
        }
        found
    }

    fn skip_blank(&mut self) {
        self.position += blank(self.rest());
    }

    /// Reads the name and the `>` after it.
    fn tag_name(&mut self, tag: &str) -> Result<&'a str, String> {
        let rest = self.rest();
        let stop = rest[..rest.floor_char_boundary(MAX_NAME)].find(['>', '<', '\n']);
        match stop {
            Some(at) if rest[at..].starts_with('>') => {
                self.position += at + 1;
                Ok(&rest[..at])
            }
            _ => Err(format!("expected a name and > after {tag}")),
        }
    }

    /// Reads the value and the `</parameter>` after it, and strips one line break at each end.
    fn value(&mut self, name: &str) -> Result<&'a str, String> {
        let rest = self.rest();
        let ends = |at: &usize| {
            let after = rest[at + PARAMETER_END.len()..].trim_ascii_start();
            after.starts_with(PARAMETER) || after.starts_with(FUNCTION_END)
        };
        let found = rest
            .match_indices(PARAMETER_END)
            .map(|(at, _)| at)
            .find(ends);
        let Some(at) = found else {
            return Err(format!(
                "the parameter {name:?} is not closed; expected {PARAMETER_END}"
            ));
        };
        self.position += at + PARAMETER_END.len();
        let value = &rest[..at];
        let value = value.strip_prefix('\n').unwrap_or(value);
        Ok(value.strip_suffix('\n').unwrap_or(value))
    }
}
