//! OpenEnv environments over WebSocket, against scripted servers. With `RLVR_OPENENV_URL` set, also
//! against the environment that `openenv init` makes.
//!
//! A binary of its own, because it needs the feature `openenv`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rlvr::environment::openenv::{
    ActionMapping, ObservationMapping, OpenEnvEnvironment, OpenEnvTools,
};
use rlvr::environment::tools::{ReplyParser, ToolSet};
use rlvr::environment::{Environment, Message, Opening, Reply, Step, StepEnd, ToolEnvironment};
use rlvr::prompt::Problem;
use rlvr::types::FinishReason;
use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message as Frame, WebSocket};

/// An action of a scripted server.
enum Act {
    /// Waits for this message.
    Hear(Value),
    Say(Value),
    SayText(&'static str),
    /// Sends a ping, and waits for its answer.
    Ping,
    Close,
    /// Reports that the script has come this far.
    Signal(mpsc::Sender<()>),
    /// Waits until the client is gone.
    Wait,
}

use Act::{Close, Hear, Ping, Say, SayText, Signal, Wait};

fn base64(bytes: &[u8]) -> String {
    let digits: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let padded = format!("{bits}{}", "0".repeat((6 - bits.len() % 6) % 6));
    let digit = |at: usize| digits[usize::from_str_radix(&padded[at..at + 6], 2).unwrap()];
    let text: String = (0..padded.len()).step_by(6).map(digit).collect();
    format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4))
}

fn accept(mut stream: TcpStream) -> WebSocket<TcpStream> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0] as char);
    }
    assert!(
        head.starts_with("GET /ws HTTP/1.1\r\nHost: 127.0.0.1:"),
        "{head}"
    );
    let key = head.split("Sec-WebSocket-Key: ").nth(1).unwrap();
    let key = key.split("\r\n").next().unwrap();
    let hash = sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = base64(&hash.digest().bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).unwrap();
    WebSocket::from_raw_socket(stream, Role::Server, None)
}

/// A server that plays one script for each connection, in order. Joining it propagates its panics.
fn serve(scripts: Vec<Vec<Act>>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for script in scripts {
            let mut socket = accept(listener.accept().unwrap().0);
            for act in script {
                match act {
                    Hear(expected) => {
                        let Ok(Frame::Text(text)) = socket.read() else {
                            panic!("no text; expected {expected}");
                        };
                        let heard: Value = serde_json::from_str(&text).unwrap();
                        assert_eq!(heard, expected);
                    }
                    Say(message) => socket.send(Frame::text(message.to_string())).unwrap(),
                    SayText(text) => socket.send(Frame::text(text)).unwrap(),
                    Ping => {
                        socket.send(Frame::Ping("are you there".into())).unwrap();
                        let Ok(Frame::Pong(bytes)) = socket.read() else {
                            panic!("no pong");
                        };
                        assert_eq!(&bytes[..], b"are you there");
                    }
                    Close => {
                        let _ = socket.close(None);
                        while socket.read().is_ok() {}
                    }
                    Signal(sender) => sender.send(()).unwrap(),
                    Wait => while socket.read().is_ok() {},
                }
            }
        }
    });
    (url, server)
}

fn environment(url: &str) -> OpenEnvEnvironment {
    let action = ActionMapping::template(json!({"message": "{reply}"})).unwrap();
    with_action(url, action)
}

fn with_action(url: &str, action: ActionMapping) -> OpenEnvEnvironment {
    let observation = ObservationMapping::pointers(["/question", "/echoed_message"]).unwrap();
    let environment = OpenEnvEnvironment::new("echo", url, action, observation).unwrap();
    environment
        .with_time_limit(Duration::from_secs(60))
        .unwrap()
}

/// A problem whose `reset` is all that is sent.
fn problem() -> Problem {
    Problem::new("", "").with_metadata(
        "reset",
        json!({"seed": 3, "episode_id": "e1", "unknown_arg": 5}),
    )
}

fn reset() -> Act {
    Hear(json!({"type": "reset", "data": {"seed": 3, "episode_id": "e1", "unknown_arg": 5}}))
}

fn observed(text: &str, reward: Value, done: bool) -> Act {
    Say(json!({"type": "observation", "data": {
        "observation": {"metadata": {}, "echoed_message": text, "message_length": text.len()}, "reward": reward, "done": done}}))
}

fn action(text: &str) -> Act {
    Hear(json!({"type": "step", "data": {"message": text}}))
}

fn error(code: &str, message: &str) -> Act {
    Say(json!({"type": "error", "data": {"message": message, "code": code}}))
}

fn goodbye() -> Act {
    Hear(json!({"type": "close"}))
}

fn step(opening: &mut Opening, text: &str) -> Result<Step, String> {
    let reply = Reply {
        text,
        finish: FinishReason::Stop,
        turn: 0,
    };
    opening
        .episode
        .step(&reply)
        .map_err(|error| error.to_string())
}

fn refusal(environment: &OpenEnvEnvironment, problem: &Problem) -> String {
    match environment.open(problem, 0) {
        Ok(_) => panic!("opened"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_episode_is_a_connection_and_null_is_no_reward() {
    let script = vec![
        reset(),
        observed("Hello!", json!(0.0), false),
        action("a"),
        observed("b", Value::Null, false),
        action("c\n\"d\""),
        observed("e", json!(true), false),
        action("f"),
        Say(
            json!({"type": "observation", "data": {"observation": {"metadata": {"x": 1}}, "reward": 2, "done": true, "metadata": {}}}),
        ),
        goodbye(),
    ];
    let (url, server) = serve(vec![script]);
    let environment = environment(&url);
    let mut opening = environment.open(&problem(), 7).unwrap();
    assert_eq!(opening.messages, [Message::user("Hello!")]);
    assert!(opening.tools.is_none());
    let first = step(&mut opening, "a").unwrap();
    assert_eq!(
        (&first.observation[..], first.reward),
        (&[Message::user("b")][..], None)
    );
    let second = step(&mut opening, "c\n\"d\"").unwrap();
    assert_eq!((second.reward, second.end), (Some(1.0), None));
    let last = step(&mut opening, "f").unwrap();
    assert_eq!((last.reward, last.end), (Some(2.0), Some(StepEnd::Done)));
    assert!(last.observation.is_empty());
    // The server would score it again.
    let after = step(&mut opening, "g").unwrap_err();
    assert!(after.contains("a step after the end"), "{after}");
    drop(opening);
    server.join().unwrap();
}

#[test]
fn the_seed_and_the_prompt_are_sent_in_their_fields() {
    let data = json!({"seed": 7, "episode_id": "8000000000000007-0"});
    let script = vec![
        Hear(json!({"type": "reset", "data": data})),
        observed("Hello!", Value::Null, false),
        goodbye(),
    ];
    let (url, server) = serve(vec![script]);
    let opening = environment(&url)
        .open(&Problem::new("Say it back.", ""), (1 << 63) + 7)
        .unwrap();
    assert_eq!(opening.messages, [Message::user("Say it back.\n\nHello!")]);
    drop(opening);
    server.join().unwrap();
    let strange = Problem::new("", "").with_metadata("reset", 3);
    let error = refusal(&environment(&url), &strange);
    assert!(error.contains("`reset` = 3; expected an object"), "{error}");
}

#[test]
fn errors_fail_the_rollout_unless_the_policy_writes_the_action() {
    let invalid = || {
        let errors = json!([{"type": "missing", "loc": ["answer"], "msg": "Field required"}]);
        Say(
            json!({"type": "error", "data": {"message": "Invalid message", "code": "VALIDATION_ERROR", "errors": errors}}),
        )
    };
    let raised = || error("EXECUTION_ERROR", "division by zero");
    let step_with = |data: Value| Hear(json!({"type": "step", "data": data}));
    let script = vec![
        vec![
            reset(),
            observed("a", Value::Null, false),
            action("x"),
            invalid(),
            action("y"),
            raised(),
            goodbye(),
        ],
        vec![
            reset(),
            observed("a", Value::Null, false),
            step_with(json!({"wrong": "1"})),
            invalid(),
            step_with(json!({"answer": "1"})),
            observed("b", json!(0.5), false),
            step_with(json!({"answer": "2"})),
            raised(),
            goodbye(),
        ],
    ];
    let (url, server) = serve(script);
    let text = "VALIDATION_ERROR: Invalid message; `answer`: Field required";
    let mut opening = environment(&url).open(&problem(), 0).unwrap();
    assert_eq!(
        step(&mut opening, "x").unwrap_err(),
        format!("{url}: step: {text}")
    );
    let error = step(&mut opening, "y").unwrap_err();
    assert_eq!(
        error,
        format!("{url}: step: EXECUTION_ERROR: division by zero")
    );
    drop(opening);

    let mut opening = with_action(&url, ActionMapping::json())
        .open(&problem(), 0)
        .unwrap();
    let said = step(&mut opening, "no JSON").unwrap();
    assert!(
        said.observation[0]
            .content
            .starts_with("error: the reply is not a JSON object")
    );
    let said = step(&mut opening, r#"{"wrong": "1"}"#).unwrap();
    assert_eq!(said, Step::observe(Message::user(format!("error: {text}"))));
    let said = step(&mut opening, r#"{"answer": "1"}"#).unwrap();
    assert_eq!(
        (said.reward, &*said.observation[0].content),
        (Some(0.5), "b")
    );
    step(&mut opening, r#"{"answer": "2"}"#).unwrap_err();
    drop(opening);
    server.join().unwrap();
}

#[test]
fn a_full_server_is_retried() {
    let full = || {
        let message = "Server at capacity: 1/1 sessions active. ";
        let data = json!({"message": message, "code": "CAPACITY_REACHED", "active_sessions": 1, "max_sessions": 1});
        vec![Say(json!({"type": "error", "data": data})), Close]
    };
    let playing = vec![reset(), observed("a", Value::Null, false), goodbye(), Wait];
    let (url, server) = serve(vec![full(), full(), playing]);
    drop(environment(&url).open(&problem(), 0).unwrap());
    server.join().unwrap();

    let (url, server) = serve(vec![full(), full()]);
    let environment = environment(&url).with_capacity_wait(Duration::from_millis(60));
    let error = refusal(&environment, &problem());
    assert!(
        error.contains("reset: CAPACITY_REACHED: Server at capacity: 1/1"),
        "{error}"
    );
    assert!(
        error.contains("0 sessions belonged to this environment"),
        "{error}"
    );
    assert!(error.contains("`max_concurrent_envs`"), "{error}");
    drop(TcpStream::connect(&url[5..url.len() - 3]));
    let _ = server.join();
}

#[test]
fn protocol_errors_are_reported() {
    let begin = || vec![reset(), observed("a", Value::Null, false), action("x")];
    let play = |act: Act| {
        let limit = match act {
            Wait => Duration::from_secs(3),
            _ => Duration::from_secs(60),
        };
        let mut script = begin();
        script.push(act);
        script.push(Wait);
        let (url, server) = serve(vec![script]);
        let environment = environment(&url).with_time_limit(limit).unwrap();
        let mut opening = environment.open(&problem(), 0).unwrap();
        let error = step(&mut opening, "x").unwrap_err();
        drop(opening);
        server.join().unwrap();
        error
    };
    assert!(play(Close).ends_with("step: the server closed the connection"));
    assert!(play(Wait).ends_with("step: no answer within 3 s"));
    assert!(play(SayText("{bad")).contains("in the server's message \"{bad\""));
    assert!(play(Say(json!({"type": "dance"}))).contains("the unexpected type \"dance\""));
    let worth = json!({"observation": {"question": "a"}, "reward": "much", "done": false});
    let error = play(Say(json!({"type": "observation", "data": worth})));
    assert!(
        error.contains("the reward is \"much\"; expected a number"),
        "{error}"
    );
    let other = json!({"observation": {"board": 1, "moves": 2}, "reward": null, "done": false});
    let error = play(Say(json!({"type": "observation", "data": other})));
    assert!(
        error.contains("nothing at /question, /echoed_message; it has /board, /moves"),
        "{error}"
    );

    let (url, server) = serve(vec![vec![reset(), observed("a", Value::Null, true), Wait]]);
    let error = refusal(&environment(&url), &problem());
    assert!(error.contains("over before the first reply"), "{error}");
    server.join().unwrap();
}

#[test]
fn pings_are_answered_between_steps() {
    let (sender, signals) = mpsc::channel();
    let script = vec![
        reset(),
        observed("a", Value::Null, false),
        Ping,
        Ping,
        Signal(sender.clone()),
        action("x"),
        observed("b", Value::Null, false),
        error("SESSION_ERROR", "the session has expired"),
        Ping,
        Signal(sender),
        goodbye(),
    ];
    let wait = || signals.recv_timeout(Duration::from_secs(60)).unwrap();
    let (url, server) = serve(vec![script]);
    let environment = environment(&url);
    let mut opening = environment.open(&problem(), 0).unwrap();
    // Two pings are answered, with nothing asked in between.
    wait();
    assert_eq!(
        step(&mut opening, "x").unwrap().observation,
        [Message::user("b")]
    );
    // The ping that follows the error is answered.
    wait();
    let error = step(&mut opening, "y").unwrap_err();
    assert!(
        error.ends_with("SESSION_ERROR: the session has expired"),
        "{error}"
    );
    drop(opening);
    server.join().unwrap();
}

#[test]
fn a_cut_off_reply_is_not_sent() {
    let (url, server) = serve(vec![vec![
        reset(),
        observed("a", Value::Null, false),
        goodbye(),
    ]]);
    let mut opening = environment(&url).open(&problem(), 0).unwrap();
    let cut = Reply {
        text: "x",
        finish: FinishReason::Length,
        turn: 0,
    };
    assert_eq!(opening.episode.step(&cut).unwrap(), Step::default());
    drop(opening);
    server.join().unwrap();
}

#[test]
fn an_address_without_a_server_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let web = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream
            .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    let error = refusal(&environment(&format!("ws://{address}/ws")), &problem());
    assert!(
        error.contains(
            "did not accept the WebSocket handshake (it answered \"HTTP/1.1 404 Not Found\")"
        ),
        "{error}"
    );
    web.join().unwrap();
    let error = refusal(&environment(&format!("ws://{address}/ws")), &problem());
    assert!(error.contains("refused"), "{error}");
    let none = OpenEnvEnvironment::new(
        "x",
        "wss://a/ws",
        ActionMapping::json(),
        ObservationMapping::pointers([""]).unwrap(),
    );
    assert!(none.err().unwrap().to_string().contains("`openenv.url`"));
}

#[test]
fn a_real_server() {
    let Ok(url) = std::env::var("RLVR_OPENENV_URL") else {
        eprintln!(
            "skipped: RLVR_OPENENV_URL names no server of the environment that `openenv init` makes"
        );
        return;
    };
    let environment = environment(&url)
        .with_time_limit(Duration::from_secs(60))
        .unwrap();
    for (seed, text) in [(1, "hello"), (2, "a text")] {
        let mut opening = environment.open(&Problem::new("Echo:", ""), seed).unwrap();
        assert!(
            opening.messages[0].content.starts_with("Echo:\n\n"),
            "{:?}",
            opening.messages
        );
        let said = step(&mut opening, text).unwrap();
        assert_eq!(said.observation, [Message::user(text)]);
        let expected = 0.1 * text.len() as f64;
        assert!((said.reward.unwrap() - expected).abs() < 1e-9);
        assert_eq!(said.end, None);
    }
    // An invalid action is an error, and the session continues.
    let strict = with_action(&url, ActionMapping::json());
    let mut opening = strict.open(&Problem::new("", ""), 0).unwrap();
    let said = step(&mut opening, r#"{"wrong": 1}"#).unwrap();
    let said = &said.observation[0].content;
    assert!(
        said.starts_with("error: VALIDATION_ERROR") && said.contains("message"),
        "{said}"
    );
    let said = step(&mut opening, r#"{"message": "again"}"#).unwrap();
    assert_eq!(said.observation, [Message::user("again")]);
    // It has room for one session: the next one times out.
    let full = strict.with_capacity_wait(Duration::from_millis(300));
    let error = refusal(&full, &Problem::new("", ""));
    assert!(error.contains("CAPACITY_REACHED"), "{error}");
}

fn with_tools(url: &str) -> OpenEnvTools {
    let parser = ReplyParser::named("hermes").unwrap();
    let observation = ObservationMapping::pointers(["/metadata/prompt"]).unwrap();
    let tools = ToolEnvironment::new(ToolSet::new(), parser).with_name("counter");
    let environment = OpenEnvTools::new(url, tools).unwrap();
    environment
        .with_observation(observation)
        .with_time_limit(Duration::from_secs(60))
        .unwrap()
}

fn call(name: &str, arguments: Value) -> String {
    format!(
        "<tool_call>\n{}\n</tool_call>",
        json!({"name": name, "arguments": arguments})
    )
}

#[test]
fn tool_calls_are_steps() {
    let listed = r#"{"type":"observation","data":{"observation":{"metadata":{},"tools":[
        {"name":"add","description":"Adds.","input_schema":{"properties":{"n":{"type":"integer"}},"required":["n"],"type":"object"}},
        {"name":"fail","description":"Fails.","input_schema":{"type":"object"}}]},"reward":null,"done":false}}"#;
    let calls = |name: &str, arguments: Value| {
        Hear(
            json!({"type": "step", "data": {"type": "call_tool", "tool_name": name, "arguments": arguments}}),
        )
    };
    let total = |text: &str, reward: Value, done: bool| {
        let result = json!({"content": [{"type": "text", "text": text}], "structured_content": {"result": text}, "data": text, "is_error": false});
        let observation =
            json!({"metadata": {}, "tool_name": "add", "result": result, "error": null});
        Say(
            json!({"type": "observation", "data": {"observation": observation, "reward": reward, "done": done}}),
        )
    };
    let message = "Error calling tool 'fail': too bad";
    let failed = json!({"metadata": {}, "tool_name": "fail", "result": null, "error": {"error_type": "execution_error", "message": message}});
    let script = vec![
        reset(),
        Say(
            json!({"type": "observation", "data": {"observation": {"metadata": {"prompt": "Count."}}, "reward": null, "done": false}}),
        ),
        Hear(json!({"type": "step", "data": {"type": "list_tools"}})),
        SayText(listed),
        calls("fail", json!({})),
        Say(
            json!({"type": "observation", "data": {"observation": failed, "reward": null, "done": false}}),
        ),
        calls("add", json!({"n": 1})),
        total("total=1", Value::Null, false),
        calls("add", json!({"n": 2})),
        total("total=3", json!(0.5), false),
        calls("add", json!({"n": 3})),
        total("total=6", json!(0.25), true),
        goodbye(),
    ];
    let (url, server) = serve(vec![script]);
    let mut opening = with_tools(&url).open(&problem(), 0).unwrap();
    assert_eq!(opening.messages, [Message::user("Count.")]);
    let tools = opening.tools.clone().unwrap();
    let expected = r#"[{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {"properties": {"n": {"type": "integer"}}, "required": ["n"], "type": "object"}}},"#;
    assert!(tools.starts_with(expected), "{tools}");
    // Invalid calls and calls of unknown tools are not sent.
    let text = [
        call("add", json!({"n": "x"})),
        call("sub", json!({})),
        call("fail", json!({})),
    ]
    .join("\n");
    let said = step(&mut opening, &text).unwrap();
    let texts: Vec<&str> = said
        .observation
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert!(
        texts[0].starts_with("error: the arguments of add do not match"),
        "{texts:?}"
    );
    assert!(
        texts[1].starts_with("error: there is no tool \"sub\""),
        "{texts:?}"
    );
    assert_eq!(texts[2], format!("error: {message}"));
    assert_eq!((said.reward, said.end), (None, None));
    assert_eq!(said.calls.values().sum::<usize>(), 3);
    let said = step(&mut opening, &call("add", json!({"n": 1}))).unwrap();
    assert_eq!(
        (&*said.observation[0].content, said.reward),
        ("total=1", None)
    );
    assert_eq!(said.message.unwrap().tool_calls[0].name, "add");
    // The rewards of a reply's steps add up, and nothing is called after the end.
    let add = |n: u64| call("add", json!({"n": n}));
    let said = step(&mut opening, &[add(2), add(3), add(4)].join("\n")).unwrap();
    let texts: Vec<&str> = said
        .observation
        .iter()
        .map(|message| message.content.as_str())
        .collect();
    assert_eq!(
        texts,
        ["total=3", "total=6", "error: not run; the episode is over"]
    );
    assert_eq!((said.reward, said.end), (Some(0.75), Some(StepEnd::Done)));
    drop(opening);
    server.join().unwrap();
}

#[test]
fn a_real_server_with_tools() {
    let Ok(url) = std::env::var("RLVR_OPENENV_TOOLS_URL") else {
        eprintln!(
            "skipped: RLVR_OPENENV_TOOLS_URL names no server of tests/fixtures/environments/openenv_tools.py"
        );
        return;
    };
    let environment = with_tools(&url);
    let mut opening = environment.open(&Problem::new("", ""), 1).unwrap();
    let mut other = environment.open(&Problem::new("", ""), 1).unwrap();
    assert_eq!(opening.messages, [Message::user("Count to five.")]);
    assert!(
        opening
            .tools
            .as_ref()
            .unwrap()
            .contains("\"Adds to the total.\"")
    );
    let said = step(&mut opening, &call("add", json!({"n": 2}))).unwrap();
    assert_eq!(
        (&*said.observation[0].content, said.reward, said.end),
        ("total=2", Some(0.5), None)
    );
    let said = step(&mut opening, &call("fail", json!({}))).unwrap();
    assert!(said.observation[0].content.contains("too bad"), "{said:?}");
    assert_eq!((said.reward, said.end), (None, None));
    let said = step(&mut other, &call("add", json!({"n": 1}))).unwrap();
    assert_eq!(said.observation[0].content, "total=1");
    let said = step(&mut opening, &call("add", json!({"n": 3}))).unwrap();
    assert_eq!(
        (&*said.observation[0].content, said.reward),
        ("total=5", Some(0.5))
    );
    assert_eq!(said.end, Some(StepEnd::Done));
    let said = step(&mut other, "I give up.").unwrap();
    assert_eq!((said.reward, said.end), (None, Some(StepEnd::Done)));
}
