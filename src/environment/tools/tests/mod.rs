//! Tests of all formats.

mod answers;
mod formats;
mod hostile;

use serde_json::json;

use super::*;

/// A tool with an argument of every type, which returns its arguments.
fn echo(name: &str) -> impl Tool {
    let parameters = json!({
        "type": "object",
        "properties": {
            "text": {"type": "string"}, "number": {"type": "number"}, "integer": {"type": "integer"}, "flag": {"type": "boolean"},
            "list": {"type": "array"}, "object": {"type": "object"}, "none": {"type": "null"}, "maybe": {"type": ["string", "null"]},
        },
    });
    FnTool::new(name, "Echoes.", parameters.to_string(), |arguments| {
        Ok(arguments.to_string())
    })
}

fn tools() -> ToolSet {
    let pair = r#"{"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}"#;
    let add = FnTool::new("add", "Adds.", pair, |arguments| {
        let sum = arguments["a"].as_i64().zip(arguments["b"].as_i64());
        let (a, b) = sum.ok_or("no integers")?;
        let sum = a.checked_add(b).ok_or("the sum does not fit in 64 bits")?;
        Ok(sum.to_string())
    });
    let broken = FnTool::new("broken", "Breaks.", "{}", |_| {
        Err(ToolError::Broken("no connection".into()))
    });
    let code = FnTool::new(
        "python",
        "Runs.",
        r#"{"type": "object", "properties": {"code": {"type": "string"}}}"#,
        |arguments| Ok(arguments["code"].to_string()),
    );
    let tools = ToolSet::new()
        .with(add)
        .and_then(|tools| tools.with(broken));
    tools
        .and_then(|tools| tools.with(echo("echo")))
        .and_then(|tools| tools.with(code))
        .unwrap()
}

fn parser(format: &str) -> ReplyParser {
    ReplyParser::named(format).unwrap()
}

/// The statuses of a reply's calls, and the text outside of them.
fn read(format: &str, reply: &str) -> (Vec<CallStatus>, String) {
    let parser = parser(format);
    let parsed = parser.parse(reply, &tools());
    check_spans(&parsed);
    let statuses = parsed.calls.iter().map(|call| call.status).collect();
    (statuses, parsed.content())
}

/// Checks that spans are ordered, disjoint and within the text, and that the rest is the content.
fn check_spans(parsed: &ParsedReply<'_>) {
    let mut spans: Vec<_> = parsed.calls.iter().map(|call| call.span.clone()).collect();
    spans.extend(parsed.reasoning.iter().cloned());
    spans.sort_by_key(|span| span.start);
    let mut end = 0;
    let mut inside = 0;
    for span in spans {
        assert!(
            end <= span.start && span.start < span.end,
            "{span:?} after {end}"
        );
        end = span.end;
        inside += parsed.text[span].len();
    }
    assert_eq!(parsed.content().len() + inside, parsed.text.len());
    for call in &parsed.calls {
        assert_eq!(
            call.status == CallStatus::Ok,
            call.reason.is_empty(),
            "{call:?}"
        );
        assert!(call.status != CallStatus::Ok || call.call.is_some());
    }
}

/// The name and arguments of the single call of a reply.
fn only(format: &str, reply: &str) -> (String, String) {
    let parser = parser(format);
    let parsed = parser.parse(reply, &tools());
    check_spans(&parsed);
    let [attempt] = &parsed.calls[..] else {
        panic!("{parsed:?}");
    };
    assert_eq!(attempt.status, CallStatus::Ok, "{attempt:?}");
    let call = attempt.call.clone().unwrap();
    (call.name, call.arguments)
}

const ADD: &str = r#"{"a": 2, "b": 3}"#;
