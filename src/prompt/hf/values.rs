//! Conversion of messages to template values.

use minijinja::Value;
use minijinja::value::ValueKind;

use crate::types::{Message, ToolCall};
use crate::{Error, Result};

/// Converts messages to values as `transformers` does. A field that is not set is undefined,
/// reasoning is also called `thinking`, and calls have the form of the chat APIs,
/// `{"id", "type": "function", "function": {"name", "arguments"}}`, with the arguments as an
/// object.
pub(super) fn values(messages: &[Message]) -> Result<Vec<Value>> {
    let messages = messages.iter().enumerate();
    messages.map(|(at, message)| value(message, at)).collect()
}

fn value(message: &Message, at: usize) -> Result<Value> {
    let text = |field: &Option<String>| field.as_deref().map(Value::from);
    let reasoning = text(&message.reasoning_content);
    let mut fields: Vec<(&str, Value)> = Vec::new();
    fields.extend(reasoning.clone().map(|text| ("thinking", text)));
    fields.push(("role", Value::from(message.role.as_str())));
    fields.push(("content", Value::from(message.content.as_str())));
    fields.extend(reasoning.map(|text| ("reasoning_content", text)));
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().enumerate();
        let calls = calls.map(|(i, call)| {
            let arguments = arguments(call, || format!("messages[{at}].tool_calls[{i}].arguments"));
            Ok(call_value(call, arguments?))
        });
        let calls: Vec<Value> = calls.collect::<Result<_>>()?;
        fields.push(("tool_calls", calls.into()));
    }
    fields.extend(text(&message.tool_call_id).map(|id| ("tool_call_id", id)));
    fields.extend(text(&message.name).map(|name| ("name", name)));
    Ok(Value::from_pairs(fields))
}

fn call_value(call: &ToolCall, arguments: Value) -> Value {
    let function = [
        ("name", Value::from(call.name.as_str())),
        ("arguments", arguments),
    ];
    let id = Some(call.id.as_str()).filter(|id| !id.is_empty());
    let id = id.map(|id| ("id", Value::from(id)));
    Value::from_pairs(id.into_iter().chain([
        ("type", Value::from("function")),
        ("function", Value::from_pairs(function)),
    ]))
}

/// The arguments of a call, with their fields in the original order.
fn arguments(call: &ToolCall, field: impl Fn() -> String) -> Result<Value> {
    let refused = |reason: String| {
        let expected = format!("a JSON object{reason}");
        Error::config(field(), format!("{:?}", call.arguments), expected)
    };
    match serde_json::from_str::<Value>(&call.arguments) {
        Ok(arguments) if arguments.kind() == ValueKind::Map => Ok(arguments),
        Ok(_) => Err(refused(String::new())),
        Err(error) => Err(refused(format!(": {error}"))),
    }
}

/// Copies `value` with all strings in it replaced, including keys of maps.
pub(super) fn map_strings(value: &Value, replace: &mut dyn FnMut(&str) -> String) -> Value {
    if let Some(text) = value.as_str() {
        return Value::from(replace(text));
    }
    let Ok(items) = value.try_iter() else {
        return value.clone();
    };
    match value.kind() {
        ValueKind::Map => Value::from_pairs(items.map(|key| {
            let item = value.get_item(&key).unwrap_or_default();
            (map_strings(&key, replace), map_strings(&item, replace))
        })),
        ValueKind::Seq => items.map(|item| map_strings(&item, replace)).collect(),
        _ => value.clone(),
    }
}

/// All strings in `value`, including keys of maps.
pub(super) fn strings(value: &Value) -> Vec<String> {
    let mut strings = Vec::new();
    map_strings(value, &mut |text| {
        strings.push(text.to_owned());
        String::new()
    });
    strings
}
