//! Tools of MCP servers, against a scripted server. With `RLVR_MCP_PYTHON` set to a Python that has
//! the package `fastmcp`, also against a real one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rlvr::environment::mcp::{McpEnvironment, McpServer};
use rlvr::environment::process::Program;
use rlvr::environment::tools::{Calculator, ReplyParser, Tool, ToolError, ToolSet};
use rlvr::environment::{Environment, Opening, Reply, ToolEnvironment};
use rlvr::prompt::Problem;
use rlvr::types::FinishReason;
use serde_json::json;

use crate::scripts::{python, script};

fn program(python: &str, script: &Path) -> Program {
    Program {
        time_limit: Duration::from_secs(5),
        ..Program::new([python, script.to_str().unwrap()])
    }
}

/// A server with the messages of a real one, which exits after an invalid handshake.
const SERVER: &str = r#"
import json, os, sys, time

total = 0

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

def hear():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message = json.loads(line)
    if message.get("jsonrpc") != "2.0":
        sys.exit("no JSON-RPC")
    return message

def text(words, is_error=False):
    return {"content": [{"type": "text", "text": words}], "isError": is_error}

print("Scripted server, listening ...", flush=True)
hello = hear()
if hello["method"] != "initialize" or "clientInfo" not in hello["params"] or hello["params"]["capabilities"] != {}:
    sys.exit("not greeted")
say({"method": "notifications/message", "params": {"level": "info", "data": "hello"}})
say({"id": hello["id"], "result": {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}})
if hear() != {"jsonrpc": "2.0", "method": "notifications/initialized"}:
    sys.exit("not initialized")

number = {"properties": {"n": {"type": "integer"}}, "required": ["n"], "type": "object"}
pages = {
    None: {"tools": [{"name": "add", "description": "Adds to the total.", "inputSchema": number, "outputSchema": {}}], "nextCursor": "2"},
    "2": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in sys.argv[1:]]},
}
while True:
    message = hear()
    method, params = message["method"], message["params"]
    if method == "tools/list":
        say({"id": message["id"], "result": pages[params.get("cursor")]})
        continue
    name, arguments = params["name"], params["arguments"]
    if name == "add":
        # The server asks as well, with an id that is also one of the client's.
        say({"id": message["id"], "method": "ping"})
        answer = hear()
        if answer != {"jsonrpc": "2.0", "id": message["id"], "result": {}}:
            sys.exit(f"no pong: {answer}")
        say({"id": "r", "method": "roots/list"})
        if hear()["error"]["code"] != -32601:
            sys.exit("roots")
        total += arguments["n"]
        say({"id": message["id"], "result": {**text(f"total={total}"), "structuredContent": {"result": total}}})
    elif name == "fail":
        say({"id": message["id"], "result": text("Error calling tool 'fail': too bad", True)})
    elif name == "invalid":
        say({"id": message["id"], "error": {"code": -32602, "message": "Invalid arguments"}})
    elif name == "missing":
        say({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
    elif name == "pid":
        say({"id": message["id"], "result": text(str(os.getpid()))})
    elif name == "hang":
        time.sleep(600)
    elif name == "die":
        print("out of luck", file=sys.stderr, flush=True)
        os._exit(4)
"#;

fn server(python: &str, path: &Path) -> McpServer {
    let names = ["fail", "invalid", "missing", "pid", "hang", "die"];
    let program = names
        .into_iter()
        .fold(program(python, path), |program, name| {
            program.argument(name)
        });
    McpServer::new(program).unwrap()
}

fn call(
    tools: &[Arc<dyn Tool>],
    name: &str,
    arguments: serde_json::Value,
) -> Result<String, ToolError> {
    let tool = tools.iter().find(|tool| tool.name() == name);
    tool.unwrap().call(&arguments)
}

fn refused(text: &str) -> Result<String, ToolError> {
    Err(ToolError::Refused(text.into()))
}

#[test]
fn tools_of_a_server_can_be_called() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("server.py", SERVER);
    let tools = server(python, &path).tools().unwrap();
    let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
    assert_eq!(
        names,
        ["add", "fail", "invalid", "missing", "pid", "hang", "die"]
    );
    assert_eq!(tools[0].description(), "Adds to the total.");
    assert_eq!(tools[1].description(), "");
    // In the server's order, as templates print it.
    let parameters =
        r#"{"properties": {"n": {"type": "integer"}}, "required": ["n"], "type": "object"}"#;
    assert_eq!(tools[0].parameters(), parameters);
    assert_eq!(call(&tools, "add", json!({"n": 2})), Ok("total=2".into()));
    assert_eq!(call(&tools, "add", json!({"n": 3})), Ok("total=5".into()));
    assert_eq!(
        call(&tools, "fail", json!({})),
        refused("Error calling tool 'fail': too bad")
    );
    assert_eq!(
        call(&tools, "invalid", json!({})),
        refused("Invalid arguments")
    );
    let Err(ToolError::Broken(reason)) = call(&tools, "missing", json!({})) else {
        panic!("not broken");
    };
    assert!(
        reason.ends_with("tools/call: Method not found (-32601)"),
        "{reason}"
    );
}

#[test]
fn a_tool_set_calls_tools_of_a_server() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("server.py", SERVER);
    let mut set = ToolSet::new();
    for tool in server(python, &path).tools().unwrap() {
        set.add(tool).unwrap();
    }
    let parser = ReplyParser::named("hermes").unwrap();
    let text = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": 4}}\n</tool_call>\n\
                <tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": \"x\"}}\n</tool_call>\n\
                <tool_call>\n{\"name\": \"fail\", \"arguments\": {}}\n</tool_call>";
    let answers = set
        .answer(&parser.parse(text, &set), FinishReason::Stop)
        .unwrap();
    let said: Vec<&str> = answers
        .iter()
        .map(|answer| answer.content.as_str())
        .collect();
    assert_eq!(said[0], "total=4");
    assert!(
        said[1].starts_with("error: the arguments of add do not match"),
        "{said:?}"
    );
    assert_eq!(said[2], "error: Error calling tool 'fail': too bad");
}

#[test]
fn a_failed_server_is_restarted() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("server.py", SERVER);
    let tools = server(python, &path).tools().unwrap();
    for (name, expected) in [
        ("hang", "it did not answer within 5 s"),
        (
            "die",
            "it ended (exit status: 4); its standard error: out of luck",
        ),
    ] {
        call(&tools, "add", json!({"n": 1})).unwrap();
        let Err(ToolError::Broken(reason)) = call(&tools, name, json!({})) else {
            panic!("{name} is not broken");
        };
        assert!(reason.contains(expected), "{reason}");
        // Another process, with another total.
        assert_eq!(call(&tools, "add", json!({"n": 9})), Ok("total=9".into()));
    }
}

#[test]
fn a_server_is_shared_or_each_episode_has_its_own() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("server.py", SERVER);
    let shared = server(python, &path);
    let pid = |tools: &[Arc<dyn Tool>]| call(tools, "pid", json!({})).unwrap();
    let (one, two) = (shared.tools().unwrap(), shared.tools().unwrap());
    assert_eq!(pid(&one), pid(&two));
    let own = shared.per_episode();
    let (one, two) = (own.tools().unwrap(), own.tools().unwrap());
    assert_ne!(pid(&one), pid(&two));
    call(&one, "add", json!({"n": 1})).unwrap();
    assert_eq!(call(&two, "add", json!({"n": 5})), Ok("total=5".into()));
    // Its state is lost, so the episode stays failed.
    call(&two, "die", json!({})).unwrap_err();
    assert!(matches!(
        call(&two, "add", json!({"n": 1})),
        Err(ToolError::Broken(_))
    ));
    assert_eq!(call(&one, "add", json!({"n": 1})), Ok("total=2".into()));
    let process = Path::new("/proc").join(pid(&one));
    drop(one);
    assert!(!process.exists());
}

#[test]
fn an_environment_offers_the_tools_of_a_server() {
    let Some(python) = python() else { return };
    let (_folder, path) = script("server.py", SERVER);
    let set = ToolSet::new().with(Calculator).unwrap();
    let tools = ToolEnvironment::new(set, ReplyParser::named("hermes").unwrap());
    let add = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"n\": 4}}\n</tool_call>";
    let total = |opening: &mut Opening| {
        let reply = Reply {
            text: add,
            finish: FinishReason::Stop,
            turn: 0,
        };
        opening.episode.step(&reply).unwrap().observation[0]
            .content
            .clone()
    };
    let totals = |environment: &McpEnvironment| {
        let open = || environment.open(&Problem::new("Count.", ""), 0).unwrap();
        let (mut one, mut two) = (open(), open());
        let offered = one.tools.clone().unwrap();
        assert!(
            offered.contains("\"calculator\"") && offered.contains("\"add\""),
            "{offered}"
        );
        [total(&mut one), total(&mut two), total(&mut one)]
    };
    let server = server(python, &path);
    let shared = McpEnvironment::new(server.clone(), tools.clone());
    assert_eq!(totals(&shared), ["total=4", "total=8", "total=12"]);
    let own = McpEnvironment::new(server.per_episode(), tools);
    assert_eq!(totals(&own), ["total=4", "total=4", "total=8"]);
}

#[test]
fn a_program_that_is_no_server_is_an_error() {
    let Some(python) = python() else { return };
    let error = |text: &str| {
        let (_folder, path) = script("server.py", text);
        McpServer::new(program(python, &path))
            .unwrap_err()
            .to_string()
    };
    let ended = error("import sys\nsys.exit('no key')");
    assert!(ended.contains("`mcp.server`"), "{ended}");
    assert!(
        ended.contains("it ended (exit status: 1); its standard error: no key"),
        "{ended}"
    );
    let refusing = error(
        "import json\nm = json.loads(input())\nprint(json.dumps({'id': m['id'], 'error': {'code': -32602, 'message': 'Unsupported protocol version'}}), flush=True)\ninput()",
    );
    assert!(
        refusing.contains("initialize: Unsupported protocol version (-32602)"),
        "{refusing}"
    );
    let strange = error(
        "import json\nm = json.loads(input())\nprint(json.dumps({'id': m['id']}), flush=True)\ninput()",
    );
    assert!(strange.contains("missing field `result`"), "{strange}");
}

#[test]
fn a_real_server() {
    let Ok(python) = std::env::var("RLVR_MCP_PYTHON") else {
        eprintln!("skipped: RLVR_MCP_PYTHON names no Python with fastmcp");
        return;
    };
    let (_folder, path) = script(
        "server.py",
        r#"
from fastmcp import FastMCP

server = FastMCP("counter")
total = 0

@server.tool
def add(n: int, note: str = "") -> str:
    """Adds to the total."""
    global total
    total += n
    return f"total={total}"

@server.tool
def fail() -> str:
    """Fails."""
    raise ValueError("too bad")

server.run(show_banner=False)
"#,
    );
    let program = Program {
        time_limit: Duration::from_secs(30),
        ..program(&python, &path)
    };
    let server = McpServer::new(program).unwrap();
    let tools = server.tools().unwrap();
    assert_eq!(tools[0].description(), "Adds to the total.");
    assert_eq!(call(&tools, "add", json!({"n": 2})), Ok("total=2".into()));
    assert_eq!(
        call(&server.tools().unwrap(), "add", json!({"n": 3})),
        Ok("total=5".into())
    );
    let Err(ToolError::Refused(reason)) = call(&tools, "fail", json!({})) else {
        panic!("not refused");
    };
    assert!(reason.contains("too bad"), "{reason}");
    let wrong = call(&tools, "add", json!({"n": "x"}));
    assert!(matches!(wrong, Err(ToolError::Refused(_))), "{wrong:?}");
    let mut set = ToolSet::new();
    for tool in tools {
        set.add(tool).unwrap();
    }
    assert_eq!(set.names(), ["add", "fail"]);
    let own = server.per_episode().tools().unwrap();
    assert_eq!(call(&own, "add", json!({"n": 1})), Ok("total=1".into()));
}
