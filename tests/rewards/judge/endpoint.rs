//! A judge behind OpenAI's chat protocol, against a scripted server in this process.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rlvr::reward::judge::{ChatConfig, ChatEndpoint, Judge, JudgeReward};
use rlvr::reward::{RewardInput, RewardOptions, RewardSet};
use rlvr::rollout::RewardOutcome;
use serde_json::{Value, json};

/// What the server does with one request.
#[derive(Clone, Debug)]
enum Act {
    /// Answers with this status, these headers and this body.
    Reply(u16, &'static str, Value),
    /// Closes the connection.
    HangUp,
    /// Does not answer for this long.
    Sleep(Duration),
}

#[derive(Default)]
struct Log {
    script: VecDeque<Act>,
    /// The bodies and the keys of the requests.
    requests: Vec<(Value, Option<String>)>,
    /// Requests that are being answered, and the most there were at a time.
    now: usize,
    most: usize,
}

/// The server; its thread ends with the process.
struct Server {
    url: String,
    log: Arc<Mutex<Log>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Log::default()));
        let shared = log.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let log = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), &log));
            }
        });
        Self { url, log }
    }

    fn script(&self, acts: impl IntoIterator<Item = Act>) {
        let mut log = self.log.lock().unwrap();
        log.requests.clear();
        log.script = acts.into_iter().collect();
    }

    /// How many requests there were.
    fn count(&self) -> usize {
        self.log.lock().unwrap().requests.len()
    }

    fn config(&self) -> ChatConfig {
        ChatConfig {
            retry_for: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
            ..ChatConfig::new(format!("{}/", self.url), "referee")
        }
    }

    fn judge(&self) -> ChatEndpoint {
        ChatEndpoint::new(self.config()).unwrap()
    }

    /// A judge with a short timeout.
    fn hasty_judge(&self, limit: Duration) -> ChatEndpoint {
        let config = ChatConfig {
            request_timeout: limit,
            ..self.config()
        };
        ChatEndpoint::new(config).unwrap()
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream, log: &Mutex<Log>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut length, mut bearer, mut first) = (0, None, String::new());
    reader.read_line(&mut first).unwrap();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        match header.trim_end().split_once(": ") {
            None => break,
            Some((name, value)) => match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => bearer = Some(value.to_string()),
                _ => {}
            },
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    assert!(first.starts_with("POST /v1/chat/completions "), "{first}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    let act = {
        let mut log = log.lock().unwrap();
        log.requests.push((body.clone(), bearer));
        log.now += 1;
        log.most = log.most.max(log.now);
        log.script.pop_front()
    };
    let usual = || {
        let question = body["messages"].as_array().unwrap().last().unwrap();
        let said = question["content"].as_str().unwrap();
        Act::Reply(200, "", answer(&format!("{said}?"), "stop"))
    };
    let act = act.unwrap_or_else(usual);
    match &act {
        Act::Reply(..) => thread::sleep(Duration::from_millis(20)),
        Act::HangUp => {}
        Act::Sleep(time) => thread::sleep(*time),
    }
    // Before the answer, after which the client may send the next question.
    log.lock().unwrap().now -= 1;
    if let Act::Reply(status, headers, body) = act {
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
            body.len()
        );
        // A client that timed out does not read it.
        let _ = stream.write_all((head + &body).as_bytes());
    }
}

fn answer(text: &str, finish: &str) -> Value {
    json!({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})
}

fn error(status: u16, message: &str) -> Act {
    Act::Reply(status, "", json!({"error": {"message": message}}))
}

#[test]
fn a_question_is_sent_as_a_user_message() {
    let server = Server::start();
    assert_eq!(server.judge().answer("why", u64::MAX).unwrap(), "why?");
    let config = ChatConfig {
        system: Some("Be fair.".into()),
        api_key: Some("s3cret".into()),
        temperature: 0.5,
        max_tokens: 77,
        ..server.config()
    };
    let judge = ChatEndpoint::new(config).unwrap();
    assert_eq!(judge.answer("who", 3).unwrap(), "who?");
    assert!(!format!("{judge:?}").contains("s3cret"));
    let log = server.log.lock().unwrap();
    let (plain, key) = &log.requests[0];
    assert_eq!(key, &None);
    assert_eq!(
        plain["messages"],
        json!([{"role": "user", "content": "why"}])
    );
    assert_eq!(
        (&plain["temperature"], &plain["seed"]),
        (&json!(0.0), &json!(i64::MAX))
    );
    let (body, key) = &log.requests[1];
    assert_eq!(key.as_deref(), Some("Bearer s3cret"));
    let expected = json!({
        "model": "referee",
        "messages": [{"role": "system", "content": "Be fair."}, {"role": "user", "content": "who"}],
        "temperature": 0.5,
        "max_tokens": 77,
        "seed": 3,
    });
    assert_eq!(*body, expected);
    assert_ne!(judge.describe(), server.judge().describe());
}

#[test]
fn transient_failures_are_retried() {
    let server = Server::start();
    for acts in [
        vec![
            error(503, "loading"),
            error(429, "slow down"),
            error(502, "x"),
            error(503, "y"),
        ],
        vec![error(500, "oops"), error(500, "oops")],
        vec![Act::HangUp, Act::HangUp],
    ] {
        let tries = acts.len() + 1;
        server.script(acts.clone());
        assert_eq!(server.judge().answer("why", 0).unwrap(), "why?", "{acts:?}");
        assert_eq!(server.count(), tries, "{acts:?}");
    }
    server.script([Act::Sleep(Duration::from_secs(600))]);
    let hasty = server.hasty_judge(Duration::from_secs(3));
    assert_eq!(hasty.answer("why", 0).unwrap(), "why?");
    assert_eq!(server.count(), 2);
    // The server sets the delay.
    server.script([Act::Reply(503, "Retry-After: 1\r\n", json!({}))]);
    let begin = Instant::now();
    assert_eq!(server.judge().answer("why", 0).unwrap(), "why?");
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[test]
fn lasting_failures_are_errors_with_the_reason() {
    let server = Server::start();
    for (acts, tries, reason) in [
        (
            vec![error(500, "out of memory"); 9],
            3,
            "status 500: out of memory",
        ),
        (
            vec![error(400, "too long")],
            1,
            "status 400: too long; check model",
        ),
        (
            vec![error(401, "who are you")],
            1,
            "status 401: who are you",
        ),
        (
            vec![Act::Reply(200, "", json!({"choices": []}))],
            1,
            "choices[0].message.content",
        ),
        (
            vec![Act::Reply(200, "", answer("Verdict: 10", "length"))],
            1,
            "cut off at 1024 tokens",
        ),
    ] {
        server.script(acts);
        let message = server.judge().answer("why", 0).unwrap_err().to_string();
        let begin = format!("judge referee at {}/, asked {tries} times: ", server.url);
        assert!(
            message.starts_with(&begin) && message.contains(reason),
            "{message}"
        );
        assert_eq!(server.count(), tries, "{reason}");
    }
    server.script(vec![Act::Sleep(Duration::from_secs(600)); 9]);
    let hasty = server.hasty_judge(Duration::from_millis(200));
    let message = hasty.answer("why", 0).unwrap_err().to_string();
    assert!(
        message.contains("no answer in time") && message.contains("asked 3 times"),
        "{message}"
    );
    // No server answers within `retry_for`.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = ChatConfig {
        url: format!("http://{port}"),
        retry_for: Duration::from_millis(400),
        ..server.config()
    };
    let message = ChatEndpoint::new(config)
        .unwrap()
        .answer("why", 0)
        .unwrap_err()
        .to_string();
    assert!(message.contains("is the server running"), "{message}");
}

#[test]
fn questions_run_concurrently_and_answers_keep_their_order() {
    let server = Server::start();
    let judge = ChatEndpoint::new(ChatConfig {
        max_in_flight: 4,
        ..server.config()
    })
    .unwrap();
    let questions: Vec<(String, u64)> = (0..20).map(|n| (format!("q{n}"), n)).collect();
    let answers = judge.answer_all(&questions);
    for ((question, _), answer) in questions.iter().zip(answers) {
        assert_eq!(answer.unwrap(), format!("{question}?"));
    }
    let log = server.log.lock().unwrap();
    assert_eq!(log.requests.len(), 20);
    assert!((2..=4).contains(&log.most), "{} at a time", log.most);
}

#[test]
fn a_judge_that_fails_is_a_failed_reward_of_its_completion() {
    let server = Server::start();
    server.script([
        Act::Reply(200, "", answer("Good.\nVerdict: 10", "stop")),
        error(400, "too long"),
        Act::Reply(200, "", answer("Bad.\nVerdict: 1", "stop")),
    ]);
    let reward = JudgeReward::new(server.judge(), "Be right.");
    let one_by_one = RewardOptions::new().with_concurrency(1);
    let set = RewardSet::builder()
        .add_with(1.0, reward, one_by_one)
        .build()
        .unwrap();
    let score = |text| set.score(vec![RewardInput::new("q", "", text)]).remove(0);
    assert_eq!(score("a").reward, Some(1.0));
    let failed = score("b");
    assert_eq!(failed.reward, None);
    let outcome = &failed.rewards[0].outcome;
    assert!(
        matches!(outcome, RewardOutcome::Failed(why) if why.contains("too long")),
        "{outcome:?}"
    );
    assert_eq!(score("c").reward, Some(0.0));
}

#[test]
fn invalid_settings_are_errors() {
    let good = ChatConfig::new("http://127.0.0.1:1", "m");
    good.validate().unwrap();
    let with = |change: fn(&mut ChatConfig)| {
        let mut config = good.clone();
        change(&mut config);
        ChatEndpoint::new(config).unwrap_err().to_string()
    };
    for (message, field) in [
        (with(|c| c.url = "127.0.0.1:1".into()), "judge.url"),
        (
            with(|c| c.url = "http://me:secret@host".into()),
            "judge.url",
        ),
        (with(|c| c.model.clear()), "judge.model"),
        (with(|c| c.temperature = -1.0), "judge.temperature"),
        (with(|c| c.max_tokens = 0), "judge.max_tokens"),
        (with(|c| c.max_in_flight = 0), "judge.max_in_flight"),
        (
            with(|c| c.request_timeout = Duration::ZERO),
            "judge.request_timeout",
        ),
        (with(|c| c.api_key = Some("a b".into())), "judge.api_key"),
    ] {
        assert!(
            message.starts_with(&format!("invalid `{field}`")),
            "{message}"
        );
    }
}
