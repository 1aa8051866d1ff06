//! Tests of reasoning, tool results and definitions.

use serde_json::Value;

use super::*;
use crate::types::FinishReason;

#[test]
fn calls_inside_reasoning_are_ignored() {
    let call = "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 3}}</tool_call>";
    let parser = parser("hermes");
    let tools = tools();
    let parts = |parser: &ReplyParser, reply: &str| {
        let parsed = parser.parse(reply, &tools);
        check_spans(&parsed);
        (parsed.reasoning(), parsed.calls.len(), parsed.content())
    };
    let reasoned = |text: &str| Some(text.to_string());
    let reply = format!("<think>\n{call}?\n</think>\n\nYes. {call}");
    assert_eq!(
        parts(&parser, &reply),
        (reasoned(&format!("\n{call}?\n")), 1, "\n\nYes. ".into())
    );
    assert_eq!(
        parts(&parser, &format!("{call}<think>{call}")),
        (reasoned(call), 1, String::new())
    );
    let twice = format!("<think>a</think>{call}<think>b</think>c");
    assert_eq!(parts(&parser, &twice), (reasoned("ab"), 1, "c".into()));
    // The opening tag is in the prompt.
    let begun = parser.clone().begins_in_reasoning();
    assert_eq!(
        parts(&begun, &format!("{call}</think>{call}x")),
        (reasoned(call), 1, "x".into())
    );
    assert_eq!(parts(&begun, call), (reasoned(call), 0, String::new()));
    let other = parser
        .clone()
        .with_reasoning_tags("[THINK]", "[/THINK]")
        .unwrap();
    assert_eq!(
        parts(&other, &format!("[THINK]<think>{call}[/THINK]")),
        (reasoned(&format!("<think>{call}")), 0, String::new())
    );
    let none = parser.clone().with_reasoning_tags("", "").unwrap();
    assert_eq!(
        parts(&none, &format!("<think>{call}")),
        (None, 1, "<think>".into())
    );
    assert!(parser.clone().with_reasoning_tags("<t>", "").is_err());

    let parsed = parser.parse(&reply, &tools);
    let message = parsed.message();
    assert_eq!(message.content, "\n\nYes. ");
    assert_eq!(message.tool_calls[0].arguments, ADD);
    assert_eq!(message.tool_calls[0].id, "call00000");
    assert_eq!(parsed.statuses(), [("ok".to_string(), 1)].into());
}

#[test]
fn calls_run_in_order_and_not_in_a_reply_that_was_cut_off() {
    let tools = tools().with_max_calls(6);
    let call = |name: &str, arguments: &str| {
        format!("<tool_call>{{\"name\": \"{name}\", \"arguments\": {arguments}}}</tool_call>")
    };
    let reply = [
        call("add", ADD),
        "<tool_call>{oops}</tool_call>".into(),
        call("sub", "{}"),
        call("add", "{\"a\": 1}"),
        call("add", &format!("{{\"a\": {}, \"b\": 1}}", i64::MAX)),
        call("echo", "{\"text\": \"x\"}"),
        call("add", ADD),
    ]
    .concat();
    let parser = parser("hermes");
    let parsed = parser.parse(&reply, &tools);
    let answers = tools.answer(&parsed, FinishReason::Stop).unwrap();
    let texts: Vec<&str> = answers.iter().map(|answer| &*answer.content).collect();
    assert_eq!(texts[0], "5");
    assert!(
        texts[1].starts_with("error: the call is not valid JSON: "),
        "{}",
        texts[1]
    );
    assert_eq!(
        texts[2],
        "error: there is no tool \"sub\"; the tools are add, broken, echo, python"
    );
    assert_eq!(
        texts[3],
        "error: the arguments of add do not match the schema: `b` is missing"
    );
    assert_eq!(texts[4], "error: the sum does not fit in 64 bits");
    assert_eq!(texts[5], "{\"text\":\"x\"}");
    assert_eq!(texts[6], "error: not run; a reply may have at most 6 calls");
    assert!(answers.iter().all(|answer| answer.role == "tool"));
    let ids: Vec<&str> = answers
        .iter()
        .filter_map(|a| a.tool_call_id.as_deref())
        .collect();
    assert_eq!(ids[..2], ["call00000", "call00001"]);
    assert_eq!(
        (answers[0].name.as_deref(), answers[1].name.as_deref()),
        (Some("add"), None)
    );

    assert_eq!(tools.answer(&parsed, FinishReason::Length).unwrap(), []);
    let broken = call("broken", "{}");
    let parsed = parser.parse(&broken, &tools);
    let error = tools.answer(&parsed, FinishReason::Stop).unwrap_err();
    assert_eq!(
        error,
        ToolError::Broken("tool broken: no connection".into())
    );
    assert!(tools.answer(&parsed, FinishReason::Length).is_ok());
    // An attempt that was not created by the parser is checked again.
    let forged = CallAttempt {
        span: 0..1,
        status: CallStatus::Ok,
        call: Some(ToolCall {
            name: "add".into(),
            arguments: "{}".into(),
            ..ToolCall::default()
        }),
        reason: String::new(),
    };
    assert!(
        tools
            .run(&forged)
            .unwrap()
            .starts_with("error: the arguments of add do not match")
    );
    let none = ToolSet::new();
    let parsed = parser.parse(&broken, &none);
    assert_eq!(
        none.answer(&parsed, FinishReason::Stop).unwrap()[0].content,
        "error: there is no tool \"broken\"; there are no tools"
    );
}

#[test]
fn definitions_have_the_form_of_templates_and_invalid_tools_are_errors() {
    let parameters =
        r#"{"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}"#;
    let tool = |name: &str, parameters: &str| {
        FnTool::new(name, "Says \"x\".", parameters, |_| Ok(String::new()))
    };
    let tools = ToolSet::new().with(tool("f", parameters)).unwrap();
    assert_eq!(
        tools.definitions(),
        format!(
            r#"[{{"type": "function", "function": {{"name": "f", "description": "Says \"x\".", "parameters": {parameters}}}}}]"#
        )
    );
    assert!(serde_json::from_str::<Value>(&tools.definitions()).is_ok());
    let error = |tool| tools.clone().with(tool).unwrap_err().to_string();
    assert_eq!(
        error(tool("f", "{}")),
        "invalid `tool.name`: \"f\"; expected a unique name"
    );
    assert!(error(tool("a b", "{}")).starts_with("invalid `tool.name`: \"a b\""));
    assert!(error(tool("", "{}")).starts_with("invalid `tool.name`: \"\""));
    assert!(error(tool("g", "{")).starts_with("invalid `g.parameters`: EOF"));
    assert!(
        error(tool("g", r#"{"type": "int"}"#))
            .starts_with("invalid `g.parameters.#/type`: \"int\"")
    );
}
