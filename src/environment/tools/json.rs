//! Parsing of JSON objects and calls at the start of a text.

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

use super::call::CallStatus;
use crate::types::ToolCall;

/// The status of a call that cannot be read, and the error for the model.
pub type Fault = (CallStatus, String);

/// The error of a text that does not start with a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotJson {
    /// Whether the text ends before the object.
    pub ended: bool,
    /// The error for the model.
    pub reason: String,
}

impl NotJson {
    fn new(ended: bool, reason: impl ToString) -> Self {
        let reason = format!("the call is not valid JSON: {}", reason.to_string());
        Self { ended, reason }
    }
}

/// Returns the length, in bytes, of the JSON object at the start of the text.
///
/// The depth is not limited and does not use the stack; reading the object fails if it is too deep.
///
/// # Errors
/// Returns an error if the text does not start with a complete object.
pub fn object_length(text: &str) -> Result<usize, NotJson> {
    match text.starts_with('{') {
        true => length(text),
        false => Err(NotJson::new(text.is_empty(), "expected an object")),
    }
}

/// Returns the length, in bytes, of the JSON value at the start of the text.
fn length(text: &str) -> Result<usize, NotJson> {
    let mut values = Deserializer::from_str(text).into_iter::<IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => Ok(values.byte_offset()),
        Some(Err(error)) => Err(NotJson::new(error.is_eof(), error)),
        None => Err(NotJson::new(true, "expected a value")),
    }
}

/// Returns the members of a complete object: each key with the text of its value.
fn members(object: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = object.strip_prefix('{')?.trim_ascii_start();
    let mut members = Vec::new();
    while !rest.starts_with('}') {
        let end = length(rest).ok()?;
        let key: String = serde_json::from_str(&rest[..end]).ok()?;
        rest = rest[end..].trim_ascii_start().strip_prefix(':')?;
        rest = rest.trim_ascii_start();
        let end = length(rest).ok()?;
        members.push((key, &rest[..end]));
        rest = rest[end..].trim_ascii_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_ascii_start();
    }
    Some(members)
}

/// Reads a call from an object with `name` and `arguments` (or `parameters`). The arguments keep
/// their text. An absent `id` is empty.
///
/// # Errors
/// Returns an error if the object is not a call.
pub fn call(object: &str) -> Result<ToolCall, Fault> {
    let invalid = || {
        (
            CallStatus::InvalidJson,
            "a key is not a valid string".to_string(),
        )
    };
    let members = members(object).ok_or_else(invalid)?;
    // The last of equal keys counts, as in JSON parsers.
    let find = |names: &[&str]| {
        let found = members
            .iter()
            .rev()
            .find(|(key, _)| names.contains(&&**key));
        found.map(|(_, value)| *value)
    };
    let text = |value: Option<&str>| serde_json::from_str::<String>(value?).ok();
    let Some(name) = text(find(&["name"])) else {
        let reason = "the call has no string `name`".to_string();
        return Err((CallStatus::Malformed, reason));
    };
    let arguments = match find(&["arguments", "parameters"]) {
        None | Some("null") => "{}".to_string(),
        // Some models write the object as a string.
        Some(value) => match text(Some(value)) {
            Some(inside) if inside.trim_ascii_start().starts_with('{') => inside,
            _ => value.to_string(),
        },
    };
    Ok(ToolCall {
        id: text(find(&["id"])).unwrap_or_default(),
        name,
        arguments,
    })
}

/// Writes an object with the name and the arguments of a call, and its id if `id` is set, with a
/// space after each comma and colon.
pub fn object(call: &ToolCall, arguments: &str, id: bool) -> String {
    let id = match id && !call.id.is_empty() {
        true => format!(", \"id\": {}", Value::from(&*call.id)),
        false => String::new(),
    };
    let name = Value::from(&*call.name);
    format!(
        "{{\"name\": {name}, \"{arguments}\": {}{id}}}",
        call.arguments
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text() {
        let object = r#" {"b" : [1,  2.50] ,"a":{"x":"}\""},"\u0061":null}"#.trim();
        let found = members(object).unwrap();
        let found: Vec<(&str, &str)> = found.iter().map(|(k, v)| (&**k, *v)).collect();
        assert_eq!(
            found,
            [("b", "[1,  2.50]"), ("a", r#"{"x":"}\""}"#), ("a", "null")]
        );
        assert_eq!(members("{ }").unwrap(), []);
    }

    #[test]
    fn every_form_of_a_call_is_read() {
        let read = |text: &str| call(text).map(|call| (call.name, call.arguments, call.id));
        let ok =
            |name: &str, arguments: &str, id: &str| Ok((name.into(), arguments.into(), id.into()));
        assert_eq!(
            read(r#"{"name": "f", "arguments": {"b":1, "a":2}}"#),
            ok("f", r#"{"b":1, "a":2}"#, "")
        );
        assert_eq!(
            read(r#"{"parameters": {"a": 1.0}, "name": "f", "id": "x1"}"#),
            ok("f", r#"{"a": 1.0}"#, "x1")
        );
        assert_eq!(read(r#"{"name": "f"}"#), ok("f", "{}", ""));
        assert_eq!(
            read(r#"{"name": "f", "arguments": null}"#),
            ok("f", "{}", "")
        );
        assert_eq!(
            read(r#"{"name": "f", "arguments": "{\"a\": 1}"}"#),
            ok("f", r#"{"a": 1}"#, "")
        );
        assert_eq!(
            read(r#"{"name": "f", "arguments": "a"}"#),
            ok("f", r#""a""#, "")
        );
        for none in [r#"{}"#, r#"{"name": 5}"#, r#"{"function": "f"}"#] {
            assert_eq!(read(none).unwrap_err().0, CallStatus::Malformed);
        }
    }

    #[test]
    fn the_length_ends_with_the_object() {
        assert_eq!(object_length(r#"{"a": "}"} more"#), Ok(10));
        assert!(!object_length("[1]").unwrap_err().ended);
        assert!(!object_length("{a").unwrap_err().ended);
        assert!(object_length(r#"{"a": 1"#).unwrap_err().ended);
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(object_length(&deep), Ok(deep.len()));
    }
}
