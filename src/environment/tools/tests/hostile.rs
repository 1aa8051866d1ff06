//! Tests with hostile replies, and round trips of arbitrary calls.

use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::environment::tools::formats::NAMES;
use crate::types::FinishReason;
use CallStatus::{InvalidJson, Ok as Fine, UnknownTool};

/// The pieces of hostile replies.
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

/// The length of a hostile reply, in bytes. A quadratic parser takes more than twice the time
/// limit.
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
    for format in &NAMES {
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

/// Arguments of the echo tool, without numbers that JSON does not preserve.
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

/// Whether the format can write these arguments: values in XML and code blocks are not escaped.
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
    fn rendered_calls_are_read_back(
        list in prop::collection::vec((prop::sample::select(&["echo", "sub"][..]), arguments()), 1..4),
        before in "[a-z é\n]{0,12}",
        after in "[a-z é\n]{0,12}",
    ) {
        let tools = tools();
        for format in &NAMES {
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
            // llama_json reads calls only at the start of a reply.
            let before = if *format == "llama_json" { "" } else { &before };
            let parser = parser(format);
            let written = parser.format().render(&calls);
            let reply = format!("{before}{written}{after}");
            let parsed = parser.parse(&reply, &tools);
            check_spans(&parsed);
            prop_assert_eq!(parsed.calls.len(), calls.len(), "{}: {}", format, reply);
            for (attempt, call) in parsed.calls.iter().zip(&calls) {
                let known = call.name != "sub";
                // Without a schema, the type of an XML value is unknown.
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
    fn any_reply_is_parsed(
        pieces in prop::collection::vec(prop_oneof![4 => prop::sample::select(&PIECES[..]).prop_map(String::from), 1 => any::<String>()], 0..40),
        cut in 0usize..400,
    ) {
        let text = pieces.concat();
        let text = &text[..text.floor_char_boundary(cut)];
        let tools = tools();
        for format in &NAMES {
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
