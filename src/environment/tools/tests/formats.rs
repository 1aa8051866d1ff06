//! Tests of each format with valid and malformed calls.

use serde_json::{Value, json};

use super::*;
use CallStatus::{InvalidArguments, InvalidJson, Malformed, Ok as Fine, Unclosed, UnknownTool};

#[test]
fn every_format_reads_its_own_syntax() {
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
fn malformed_calls_have_a_status_and_do_not_affect_other_calls() {
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
        // Tags in a string of the arguments are part of the string.
        (
            "<tool_call>{\"name\": \"echo\", \"arguments\": {\"text\": \"</tool_call><tool_call><think>\"}}</tool_call>!".into(),
            vec![Fine],
            "!",
        ),
        // A lone surrogate is invalid; other characters are not.
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
        // JSON in an XML format is an attempt, not text.
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
