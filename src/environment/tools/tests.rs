//! Replies of all kinds in all formats.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::types::FinishReason;

/// A tool with an argument of every type, which gives its arguments back.
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
        let sum = a.checked_add(b).ok_or("the sum does not fit 64 bits")?;
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

/// The statuses of a reply, and the text outside of its calls.
fn read(format: &str, reply: &str) -> (Vec<CallStatus>, String) {
    let parser = parser(format);
    let parsed = parser.parse(reply, &tools());
    check_spans(&parsed);
    let statuses = parsed.calls.iter().map(|call| call.status).collect();
    (statuses, parsed.content())
}

/// Spans are in order, in the text, and apart; what is outside of them is the content.
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

/// The name and arguments of the only call.
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

use CallStatus::{InvalidArguments, InvalidJson, Malformed, Ok as Fine, Unclosed, UnknownTool};

#[test]
fn every_format_reads_its_own_grammar() {
    let deepseek = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": 2, \"b\": 3}\n```\
                    <｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let deepseek_3_1 = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{\"a\": 2, \"b\": 3}<｜tool▁call▁end｜>\
                        <｜tool▁calls▁end｜>";
    for (format, reply) in [
        (
            "hermes",
            "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 3}}\n</tool_call>",
        ),
        (
            "hermes",
            "<tool_call>{\"arguments\": {\"a\": 2, \"b\": 3}, \"name\": \"add\"}</tool_call>",
        ),
        (
            "hermes",
            "<tool_call>{\"name\": \"add\", \"parameters\": {\"a\": 2, \"b\": 3}}</tool_call>",
        ),
        (
            "qwen_xml",
            "<tool_call>\n<function=add>\n<parameter=a>\n2\n</parameter>\n<parameter=b>\n3\n</parameter>\n</function>\n</tool_call>",
        ),
        (
            "qwen_xml",
            "<function=add><parameter=a>2</parameter><parameter=b>3</parameter></function>",
        ),
        (
            "llama_json",
            "{\"name\": \"add\", \"parameters\": {\"a\": 2, \"b\": 3}}",
        ),
        (
            "llama_json",
            "<|python_tag|>{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 3}}",
        ),
        (
            "llama_json",
            "\n{ \"type\": \"function\", \"name\": \"add\", \"parameters\": {\"a\": 2, \"b\": 3}}",
        ),
        (
            "mistral",
            "[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 3}}]",
        ),
        ("mistral", "[TOOL_CALLS]add[ARGS]{\"a\": 2, \"b\": 3}"),
        (
            "mistral",
            "[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS] {\"a\": 2, \"b\": 3}",
        ),
        ("deepseek_v3", deepseek),
        ("deepseek_v3", deepseek_3_1),
    ] {
        assert_eq!(only(format, reply), ("add".into(), ADD.into()), "{reply}");
        let parsed = parser(format);
        let parsed = parsed.parse(reply, &tools()).content();
        assert_eq!(parsed.trim(), "", "{reply}");
    }
    let (name, arguments) = only("code_block", "<code>\nprint(\"1\")\n\nx\n</code>");
    assert_eq!(
        (&*name, &*arguments),
        ("python", r#"{"code":"print(\"1\")\n\nx"}"#)
    );
    let error = ReplyParser::named("xml").unwrap_err().to_string();
    assert!(
        error.starts_with("invalid `tool_call_format`: \"xml\"; expected one of hermes, qwen_xml,"),
        "{error}"
    );
}

#[test]
fn what_is_wrong_has_a_status_and_leaves_the_rest_alone() {
    let good = "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 3}}</tool_call>";
    for (reply, statuses, content) in [
        ("No call.".to_string(), vec![], "No call."),
        (format!("a {good} b"), vec![Fine], "a  b"),
        (format!("{good}\n{good}"), vec![Fine, Fine], "\n"),
        ("a<tool_call>{\"name\": \"add\", </tool_call>b".into(), vec![InvalidJson], "ab"),
        (format!("{good}<tool_call>oops</tool_call>{good}."), vec![Fine, InvalidJson, Fine], "."),
        (format!("{good}<tool_call>{{\"name\": \"add\"{good}."), vec![Fine, Unclosed, Fine], "."),
        ("a<tool_call>{\"name\": \"add\"".into(), vec![Unclosed], "a"),
        (good.replace("</tool_call>", ""), vec![Unclosed], ""),
        (good.replace("</tool_call>", "x</tool_call>y"), vec![Malformed], "y"),
        ("<tool_call>".into(), vec![Unclosed], ""),
        ("<tool_call></tool_call>".into(), vec![InvalidJson], ""),
        ("<tool_call>{}</tool_call>".into(), vec![Malformed], ""),
        ("<tool_call>{\"name\": 1}</tool_call>".into(), vec![Malformed], ""),
        (good.replace("add", "sub"), vec![UnknownTool], ""),
        (good.replace("\"a\": 2", "\"a\": \"2\""), vec![InvalidArguments], ""),
        (good.replace("{\"a\": 2, \"b\": 3}", "[2, 3]"), vec![InvalidArguments], ""),
        ("<tool_call>{\"name\": \"add\"}</tool_call>".into(), vec![InvalidArguments], ""),
        ("</tool_call> alone".into(), vec![], "</tool_call> alone"),
        // Tags in a text of the arguments are part of it.
        (
            "<tool_call>{\"name\": \"echo\", \"arguments\": {\"text\": \"</tool_call><tool_call><think>\"}}</tool_call>!".into(),
            vec![Fine],
            "!",
        ),
        // Escaped, so that what is cut off in the middle of a character is seen.
        ("<tool_call>{\"name\": \"echo\", \"arguments\": {\"text\": \"\\ud800\"}}</tool_call>".into(), vec![InvalidJson], ""),
        ("<tool_call>{\"name\": \"echo\", \"arguments\": {\"text\": \"é😀\"}}</tool_call>é".into(), vec![Fine], "é"),
    ] {
        let expected = (statuses, content.to_string());
        assert_eq!(read("hermes", &reply), expected, "{reply}");
    }
    let call = "<function=add>\n<parameter=a>\n2\n</parameter>\n<parameter=b>\n3\n</parameter>\n</function>";
    let wrapped = format!("<tool_call>\n{call}\n</tool_call>");
    for (reply, statuses, content) in [
        (format!("a{wrapped}b{wrapped}c"), vec![Fine, Fine], "abc"),
        (
            format!("a{call}b{call}</tool_call>c"),
            vec![Fine, Fine],
            "abc",
        ),
        (format!("<tool_call>{wrapped}c"), vec![Unclosed, Fine], "c"),
        (wrapped.replace("</function>", ""), vec![Malformed], ""),
        (wrapped.replace("</tool_call>", ""), vec![Unclosed], ""),
        (wrapped.replace("=b>", "=b"), vec![Malformed], ""),
        (wrapped.replace("=add>", "=sub>"), vec![UnknownTool], ""),
        (
            wrapped.replace("\n3\n", "\nthree\n"),
            vec![InvalidArguments],
            "",
        ),
        // JSON in a format that is not: no silent nothing.
        (good.to_string(), vec![Malformed], ""),
        ("a<function=add><parameter=a>2".into(), vec![Unclosed], "a"),
    ] {
        let expected = (statuses, content.to_string());
        assert_eq!(read("qwen_xml", &reply), expected, "{reply}");
    }
    let call = "{\"name\": \"add\", \"parameters\": {\"a\": 2, \"b\": 3}}";
    for (reply, statuses, content) in [
        (format!("{call}; {call} done"), vec![Fine, Fine], " done"),
        (format!("{call};"), vec![Fine], ";"),
        (
            format!("{call}; {{\"name\": oops}}"),
            vec![Fine, InvalidJson],
            "",
        ),
        (
            format!("{call}; {{\"name\": \"add\""),
            vec![Fine, Unclosed],
            "",
        ),
        (format!("Text {call}"), vec![], &format!("Text {call}")),
        (format!("Text <|python_tag|>{call}"), vec![Fine], "Text "),
        ("<|python_tag|>print(2)".into(), vec![InvalidJson], ""),
        (
            "{\"name\": \"Ada\", \"age\": 36}".into(),
            vec![],
            "{\"name\": \"Ada\", \"age\": 36}",
        ),
        ("{\"answer\": 5}".into(), vec![], "{\"answer\": 5}"),
        ("{\"name\": \"add\"".into(), vec![Unclosed], ""),
    ] {
        let expected = (statuses, content.to_string());
        assert_eq!(read("llama_json", &reply), expected, "{reply}");
    }
    let call = "{\"name\": \"add\", \"arguments\": {\"a\": 2, \"b\": 3}}";
    for (reply, statuses, content) in [
        (
            format!("a[TOOL_CALLS] [{call}, {call}]b"),
            vec![Fine, Fine],
            "ab",
        ),
        (
            format!("[TOOL_CALLS] [{call}, oops, {call}]"),
            vec![Fine, InvalidJson],
            "",
        ),
        (
            format!("[TOOL_CALLS] [{call}, {call}"),
            vec![Fine, Unclosed],
            "",
        ),
        (format!("[TOOL_CALLS] [{call}, "), vec![Fine, Unclosed], ""),
        (format!("[TOOL_CALLS] [{call} {call}]"), vec![Malformed], ""),
        ("[TOOL_CALLS] []x".into(), vec![Malformed], "x"),
        ("[TOOL_CALLS]".into(), vec![Malformed], ""),
        ("[TOOL_CALLS]add{\"a\": 1}".into(), vec![Malformed], ""),
        ("[TOOL_CALLS]add[ARGS]{\"a\": 1".into(), vec![Unclosed], ""),
        (
            "[TOOL_CALLS]add[ARGS]{\"a\": 2, \"b\": 3}[TOOL_CALLS]sub[ARGS]{}".into(),
            vec![Fine, UnknownTool],
            "",
        ),
        (
            format!("[TOOL_CALLS] oops [TOOL_CALLS] [{call}]"),
            vec![Malformed, Fine],
            "",
        ),
    ] {
        let expected = (statuses, content.to_string());
        assert_eq!(read("mistral", &reply), expected, "{reply}");
    }
    let begin = "<｜tool▁calls▁begin｜>";
    let end = "<｜tool▁calls▁end｜>";
    let call = "<｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{\"a\": 2, \"b\": 3}\n```<｜tool▁call▁end｜>";
    let open = call.replace("<｜tool▁call▁end｜>", "");
    for (reply, statuses, content) in [
        (
            format!("a{begin}{call}\n{call}{end}b"),
            vec![Fine, Fine],
            "ab",
        ),
        (format!("a{begin}{call}b"), vec![Fine], "ab"),
        (
            format!("{begin}{open}{call}{end}"),
            vec![Unclosed, Fine],
            "",
        ),
        (
            format!("{begin}{}{call}{end}", call.replace("3}", "3")),
            vec![InvalidJson, Fine],
            "",
        ),
        (
            format!("{begin}{}{end}", call.replace("```json", "")),
            vec![Malformed],
            "",
        ),
        (format!("{begin}oops{end}b"), vec![Malformed], "b"),
        (format!("{begin}oops"), vec![Unclosed], ""),
    ] {
        let expected = (statuses, content.to_string());
        assert_eq!(read("deepseek_v3", &reply), expected, "{reply}");
    }
    assert_eq!(
        read("code_block", "a<code>1<code>2</code>b"),
        (vec![Unclosed, Fine], "ab".into())
    );
}

#[test]
fn reasoning_has_no_calls_and_is_kept() {
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
    // It begins in the prompt.
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
fn calls_are_answered_in_order_and_none_of_a_reply_that_was_cut_off() {
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
        texts[1].starts_with("error: the call is no valid JSON: "),
        "{}",
        texts[1]
    );
    assert_eq!(
        texts[2],
        "error: there is no tool \"sub\"; the tools are add, broken, echo, python"
    );
    assert_eq!(
        texts[3],
        "error: the arguments of add do not fit: `b` is missing"
    );
    assert_eq!(texts[4], "error: the sum does not fit 64 bits");
    assert_eq!(texts[5], "{\"text\":\"x\"}");
    assert_eq!(texts[6], "error: not run; a reply may have 6 calls");
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
    // A record that was made elsewhere is checked again.
    let forged = CallAttempt {
        span: 0..1,
        status: Fine,
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
            .starts_with("error: the arguments of add do not fit")
    );
    let none = ToolSet::new();
    let parsed = parser.parse(&broken, &none);
    assert_eq!(
        none.answer(&parsed, FinishReason::Stop).unwrap()[0].content,
        "error: there is no tool \"broken\"; there are no tools"
    );
}

#[test]
fn definitions_are_as_templates_read_them_and_broken_tools_are_refused() {
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
    let refused = |tool| tools.clone().with(tool).unwrap_err().to_string();
    assert_eq!(
        refused(tool("f", "{}")),
        "invalid `tool.name`: \"f\"; expected a name that no other tool has"
    );
    assert!(refused(tool("a b", "{}")).starts_with("invalid `tool.name`: \"a b\""));
    assert!(refused(tool("", "{}")).starts_with("invalid `tool.name`: \"\""));
    assert!(refused(tool("g", "{")).starts_with("invalid `g.parameters`: EOF"));
    assert!(
        refused(tool("g", r#"{"type": "int"}"#))
            .starts_with("invalid `g.parameters.#/type`: \"int\"")
    );
}

#[test]
fn xml_values_have_the_types_of_the_schema() {
    for (parameter, text, expected) in [
        ("text", "5", json!("5")),
        ("text", "null", json!("null")),
        ("text", "\n  two lines\n\n", json!("\n  two lines\n\n")),
        ("text", "a</parameter>b", json!("a</parameter>b")),
        ("number", "2.5", json!(2.5)),
        ("number", "1e3", json!(1000.0)),
        ("integer", " 7 ", json!(7)),
        ("flag", "True", json!(true)),
        ("flag", "false", json!(false)),
        ("list", "[1, \"a\"]", json!([1, "a"])),
        ("object", "{\"a\": {\"b\": 1}}", json!({"a": {"b": 1}})),
        ("none", "None", json!(null)),
        ("maybe", "null", json!(null)),
        ("maybe", "5", json!("5")),
        ("unknown", "5", json!("5")),
    ] {
        let reply =
            format!("<function=echo>\n<parameter={parameter}>\n{text}\n</parameter>\n</function>");
        let (_, arguments) = only("qwen_xml", &reply);
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        assert_eq!(arguments, json!({parameter: expected}), "{reply}");
    }
    for (parameter, text) in [("number", "two"), ("flag", "1"), ("list", "1, 2")] {
        let reply = format!("<function=echo><parameter={parameter}>{text}</parameter></function>");
        assert_eq!(read("qwen_xml", &reply).0, [InvalidArguments], "{reply}");
    }
}

/// Pieces of which a hostile reply is made.
const PIECES: [&str; 40] = [
    "<tool_call>",
    "</tool_call>",
    "<function=add>",
    "<function=",
    "</function>",
    "<parameter=a>",
    "</parameter>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<|python_tag|>",
    "<code>",
    "</code>",
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
    "```json\n",
    "```",
    "{\"name\": \"add\", \"arguments\": ",
    "{\"name\"",
    "\"add\"",
    "{\"a\": 1}",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ",",
    ";",
    ":",
    "\n",
    " ",
    "é",
    "add",
    "1e400",
];

/// The length of a hostile reply. What reads it in quadratic time takes more than twice the limit.
const SIZE: usize = 250_000;

#[test]
fn long_replies_are_read_in_linear_time() {
    let tools = tools();
    let mut hostile: Vec<String> = PIECES
        .iter()
        .map(|piece| piece.repeat(SIZE / piece.len()))
        .collect();
    for (a, b) in [
        ("<tool_call>", "{\"a\":\""),
        ("<tool_call>", "<think>"),
        ("<think></think>", ""),
        ("<think></think>", "{\"name\""),
        ("<tool_call>{", "\\\""),
        ("<function=f><parameter=a>", "x"),
        ("<tool_call><function=f><parameter=a>", "</parameter>"),
        ("[TOOL_CALLS] [{\"", "a"),
        ("[TOOL_CALLS] [", "<think>"),
        ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>", "f"),
        ("<｜tool▁call▁begin｜>f<｜tool▁sep｜>", "{\"a"),
        ("<code>", "<think>"),
        ("<|python_tag|>", "<think>"),
        ("{\"name\": \"add\", \"parameters\": {}};", ""),
        ("<function=f>", "</parameter> "),
        (
            "<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>",
            "<think>a</think>",
        ),
    ] {
        hostile.push([a, b].concat().repeat(SIZE / (a.len() + b.len())));
    }
    for format in ReplyParser::FORMATS {
        let parser = parser(format);
        for reply in &hostile {
            let start = Instant::now();
            let parsed = parser.parse(reply, &tools);
            let seconds = start.elapsed().as_secs_f64();
            assert!(
                seconds < 2.0,
                "{format}: {seconds} s for {:?}",
                &reply[..reply.floor_char_boundary(60)]
            );
            check_spans(&parsed);
        }
        for depth in [100, 10_000, 100_000] {
            let nested = format!("{}1{}", "{\"a\": [".repeat(depth), "]}".repeat(depth));
            let call = ToolCall {
                name: "echo".into(),
                arguments: format!("{{\"list\": [{nested}]}}"),
                ..ToolCall::default()
            };
            if !["qwen_xml", "code_block"].contains(format) {
                let reply = parser.format().render(&[call]);
                let parsed = parser.parse(&reply, &tools);
                assert_eq!(parsed.calls.len(), 1);
                assert_eq!(parsed.calls[0].status, InvalidJson, "{format} {depth}");
                assert!(
                    tools.answer(&parsed, FinishReason::Stop).unwrap()[0]
                        .content
                        .starts_with("error: ")
                );
            }
            let reply = format!(
                "<tool_call><function=echo><parameter=list>{nested}</parameter></function></tool_call>"
            );
            let _ = parser.parse(&reply, &tools);
        }
    }
}

/// Arguments of the echo tool, without numbers that JSON does not keep.
fn arguments() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        prop::collection::vec(prop::sample::select(&PIECES[..]), 0..6)
            .prop_map(|pieces| pieces.concat()),
    ];
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6f64..1e6).prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    let nested = scalar.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z ]{0,4}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    let list = prop::collection::vec(nested.clone(), 0..3).prop_map(Value::from);
    let object = prop::collection::btree_map("[a-z\"<>]{0,4}", nested, 0..3)
        .prop_map(|map| Value::Object(map.into_iter().collect()));
    (text, any::<i64>(), any::<bool>(), list, object, 0u8..64).prop_map(
        |(text, integer, flag, list, object, kept)| {
            let all = [
                ("text", json!(text)),
                ("integer", json!(integer)),
                ("flag", json!(flag)),
                ("list", list),
                ("object", object),
                ("none", json!(null)),
            ];
            let kept = all
                .into_iter()
                .enumerate()
                .filter(|(at, _)| kept >> at & 1 == 1);
            Value::Object(
                kept.map(|(_, (key, value))| (key.to_string(), value))
                    .collect(),
            )
        },
    )
}

/// Whether the format can write these arguments: the texts of XML and of code are not escaped.
fn can_be_written(format: &str, arguments: &Value) -> bool {
    let text = arguments.to_string();
    match format {
        "qwen_xml" => !["</parameter>", "<tool_call>", "</tool_call>", "<function="]
            .iter()
            .any(|tag| text.contains(tag)),
        "code_block" => !text.contains("<code>") && !text.contains("</code>"),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_rendered_is_read_back(
        list in prop::collection::vec((prop::sample::select(&["echo", "sub"][..]), arguments()), 1..4),
        before in "[a-z é\n]{0,12}",
        after in "[a-z é\n]{0,12}",
    ) {
        let tools = tools();
        for format in ReplyParser::FORMATS {
            let calls: Vec<ToolCall> = list.iter().map(|(name, arguments)| match *format {
                "code_block" => {
                    let code = json!({"code": arguments.to_string()});
                    ToolCall { name: "python".into(), arguments: code.to_string(), ..ToolCall::default() }
                }
                _ => ToolCall { name: name.to_string(), arguments: arguments.to_string(), ..ToolCall::default() },
            }).collect();
            if !calls.iter().all(|call| can_be_written(format, &serde_json::from_str(&call.arguments).unwrap())) {
                continue;
            }
            // What is before is text for some formats only.
            let before = if *format == "llama_json" { "" } else { &before };
            let parser = parser(format);
            let written = parser.format().render(&calls);
            let reply = format!("{before}{written}{after}");
            let parsed = parser.parse(&reply, &tools);
            check_spans(&parsed);
            prop_assert_eq!(parsed.calls.len(), calls.len(), "{}: {}", format, reply);
            for (attempt, call) in parsed.calls.iter().zip(&calls) {
                let known = call.name != "sub";
                // A name that is unknown has no schema to say what a text in XML means.
                prop_assert_eq!(attempt.status, if known { Fine } else { UnknownTool }, "{}: {:?}", format, attempt);
                let found = attempt.call.as_ref().unwrap();
                prop_assert_eq!(&found.name, &call.name);
                let value = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
                if known {
                    prop_assert_eq!(value(&found.arguments), value(&call.arguments), "{}: {}", format, reply);
                }
                if !["qwen_xml", "code_block"].contains(format) {
                    prop_assert_eq!(&found.arguments, &call.arguments);
                }
            }
            let between = "\n".repeat(match *format {
                "hermes" | "qwen_xml" | "code_block" => calls.len() - 1,
                _ => 0,
            });
            prop_assert_eq!(parsed.content(), format!("{before}{between}{after}"));
        }
    }

    #[test]
    fn any_reply_is_taken_apart(
        pieces in prop::collection::vec(prop_oneof![4 => prop::sample::select(&PIECES[..]).prop_map(String::from), 1 => any::<String>()], 0..40),
        cut in 0usize..400,
    ) {
        let text = pieces.concat();
        let text = &text[..text.floor_char_boundary(cut)];
        let tools = tools();
        for format in ReplyParser::FORMATS {
            for parser in [parser(format), parser(format).begins_in_reasoning()] {
                let parsed = parser.parse(text, &tools);
                check_spans(&parsed);
                let answers = tools.answer(&parsed, FinishReason::Stop);
                prop_assert!(answers.is_err() || answers.unwrap().len() == parsed.calls.len());
                let _ = (parsed.message(), parsed.statuses());
            }
        }
    }
}
