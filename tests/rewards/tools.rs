//! Built-in tools: a calculator, and Python in the sandbox.

use std::path::Path;
use std::sync::OnceLock;

use rlvr::environment::tools::{
    Calculator, CallStatus, PythonConfig, PythonTool, ReplyParser, ToolSet,
};
use rlvr::reward::code::{Language, SandboxConfig};
use rlvr::types::FinishReason;
use serde_json::json;

fn config() -> PythonConfig {
    let path = ["/usr/bin/python3", "/usr/local/bin/python3"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    PythonConfig {
        language: Language::python_at(path.unwrap_or("python3")).unwrap(),
        sandbox: SandboxConfig {
            cpu_seconds: 2,
            wall_seconds: 4.0,
            memory_bytes: 512 << 20,
            output_bytes: 1 << 20,
            processes: 400,
            ..SandboxConfig::default().allow_less()
        },
        max_characters: 200,
    }
}

/// The tools, built once because the check of the sandbox takes time.
fn tools() -> &'static ToolSet {
    static TOOLS: OnceLock<ToolSet> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let python = PythonTool::new(config()).unwrap();
        eprintln!("{}", python.report());
        let tools = ToolSet::new().with(Calculator).unwrap();
        tools.with(python).unwrap()
    })
}

fn python(code: &str) -> String {
    let tool = tools().get("python").unwrap();
    match tool.call(&json!({"code": code})) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn calls_in_a_reply_are_parsed_run_and_answered() {
    let reply = "<think>Both?</think>Yes:\n<tool_call>\n{\"name\": \"calculator\", \"arguments\": {\"expression\": \"6*7/4\"}}\n\
                 </tool_call>\n<tool_call>\n{\"name\": \"python\", \"arguments\": {\"code\": \"print(sum(range(10)))\"}}\n</tool_call>\n\
                 <tool_call>\n{\"name\": \"python\", \"arguments\": {\"program\": 1}}\n</tool_call>";
    let parser = ReplyParser::named("hermes").unwrap();
    let parsed = parser.parse(reply, tools());
    let statuses: Vec<CallStatus> = parsed.calls.iter().map(|call| call.status).collect();
    assert_eq!(
        statuses,
        [CallStatus::Ok, CallStatus::Ok, CallStatus::InvalidArguments]
    );
    let answers = tools().answer(&parsed, FinishReason::Stop).unwrap();
    let texts: Vec<&str> = answers.iter().map(|answer| &*answer.content).collect();
    assert_eq!(
        texts,
        [
            "21/2",
            "45\n",
            "error: the arguments of python do not match the schema: `code` is missing"
        ]
    );
    assert!(
        tools()
            .answer(&parsed, FinishReason::Length)
            .unwrap()
            .is_empty()
    );

    let parser = ReplyParser::named("code_block").unwrap();
    let parsed = parser.parse("<code>\nprint('é', \"</co\" + \"de>\")\n</code>", tools());
    let answers = tools().answer(&parsed, FinishReason::Stop).unwrap();
    assert_eq!(answers[0].content, "é </code>\n");
}

#[test]
fn messages_only_have_calls_that_templates_can_render() {
    let reply = r#"Well: <tool_call>{"name": "calculator", "arguments": "2+2"}</tool_call>
<tool_call>{"name": "calculator", "arguments": {"expression": 4}}</tool_call>"#;
    let parser = ReplyParser::named("hermes").unwrap();
    let parsed = parser.parse(reply, tools());
    let wrong = CallStatus::InvalidArguments;
    let statuses: Vec<CallStatus> = parsed.calls.iter().map(|call| call.status).collect();
    assert_eq!(statuses, [wrong, wrong]);
    let message = parsed.message();
    assert_eq!(message.tool_calls.len(), 1);
    assert_eq!(message.tool_calls[0].arguments, r#"{"expression": 4}"#);
    // Both attempts are answered.
    let answers = tools().answer(&parsed, FinishReason::Stop).unwrap();
    assert_eq!(answers.len(), 2);
    assert!(answers[0].content.contains("not a JSON object"));
}

#[test]
fn failed_programs_report_the_reason() {
    assert_eq!(python("x = 1"), "(no output; use print)");
    assert_eq!(
        python("print(x)").lines().next(),
        Some("error: the program ended with status 1")
    );
    assert!(
        python("print(5)\n1/0").contains("\n5\n"),
        "{}",
        python("print(5)\n1/0")
    );
    assert!(python("print(5)\n1/0").ends_with("ZeroDivisionError: division by zero"));
    assert!(python("def").contains("SyntaxError"));
    let long = python("print('a' * 500 + 'b' * 500)");
    assert!(
        long.starts_with("aaa")
            && long.contains("[801 characters left out]")
            && long.ends_with("bbb\n"),
        "{long}"
    );
    let endless = python("while True: pass");
    assert!(endless.starts_with("error: the program was"), "{endless}");
    let loud = python("while True: print('x' * 10000)");
    assert!(
        loud.starts_with("error: the program was stopped because it printed too much"),
        "{loud:.200}"
    );
    // No state is kept, and files outside the sandbox are not visible.
    assert_eq!(
        python("y = 1; open('/tmp/kept', 'w').write('1'); print(y)"),
        "1\n"
    );
    assert!(python("open('/tmp/kept')").contains("FileNotFoundError"));
    assert!(python("import os; print(os.environ.get('CARGO_MANIFEST_DIR'))").starts_with("None"));
}

#[test]
fn invalid_settings_are_errors() {
    let few = PythonConfig {
        max_characters: 10,
        ..config()
    };
    let error = PythonTool::new(few).unwrap_err().to_string();
    assert!(
        error.starts_with("invalid `max_characters`: 10; expected 100 or more"),
        "{error}"
    );
    let mut language = config().language;
    language.trial = "print('no')".into();
    let error = PythonTool::new(PythonConfig {
        language,
        ..config()
    })
    .unwrap_err()
    .to_string();
    assert!(
        error.starts_with("invalid `language.run`") && error.contains("(no"),
        "{error}"
    );
}
