//! A connection to a server, which runs one episode at a time.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::super::json_text::shortened;
use super::socket::{Address, Socket};
use crate::types::Problem;
use crate::{Error, Result};

/// The time limit of the closing message.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);
/// The interval at which pings are answered while the policy generates. Servers close connections
/// after about 40 s without an answer.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// The failure of a request.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server returned an error with this code. The session continues, unless the code concerns
    /// the session.
    Refused { code: String, reason: String },
    /// The session has ended.
    Lost(String),
}

impl Fault {
    pub fn has_code(&self, code: &str) -> bool {
        matches!(self, Self::Refused { code: other, .. } if other == code)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused { code, reason } => write!(f, "{code}: {reason}"),
            Self::Lost(reason) => f.write_str(reason),
        }
    }
}

/// The server's answer to `reset` and `step`, with the observation as `T`.
#[derive(Deserialize)]
pub(super) struct Observed<T = Value> {
    pub observation: T,
    #[serde(default, deserialize_with = "reward")]
    pub reward: Option<f64>,
    #[serde(default)]
    pub done: bool,
}

/// Reads a reward: a number, a boolean, or null for none.
fn reward<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Bool(given) => Ok(Some(f64::from(u8::from(given)))),
        other => match other.as_f64() {
            Some(number) => Ok(Some(number)),
            None => Err(serde::de::Error::custom(format!(
                "the reward is {other}; expected a number, a boolean or null"
            ))),
        },
    }
}

/// Reads a message of the server.
fn read<T: DeserializeOwned>(line: &str) -> Result<Observed<T>, Fault> {
    #[derive(Deserialize)]
    struct Kind {
        r#type: String,
    }
    #[derive(Deserialize)]
    struct Message<D> {
        data: D,
    }
    #[derive(Deserialize)]
    struct Refusal {
        message: String,
        #[serde(default)]
        code: String,
        #[serde(default)]
        errors: Vec<Value>,
    }

    let strange = |what: String| {
        Fault::Lost(format!(
            "{what} in the server's message {:?}",
            shortened(line, 200)
        ))
    };
    let kind: Kind = serde_json::from_str(line).map_err(|error| strange(error.to_string()))?;
    match kind.r#type.as_str() {
        "observation" => serde_json::from_str::<Message<Observed<T>>>(line)
            .map(|message| message.data)
            .map_err(|error| strange(error.to_string())),
        "error" => {
            let refusal: Message<Refusal> =
                serde_json::from_str(line).map_err(|error| strange(error.to_string()))?;
            let refusal = refusal.data;
            let mut reason = refusal.message;
            for error in refusal.errors {
                let place: Vec<String> = error["loc"]
                    .as_array()
                    .map(|parts| parts.iter().map(part).collect())
                    .unwrap_or_default();
                let what = error["msg"].as_str().or(error["type"].as_str());
                reason += &format!("; `{}`: {}", place.join("."), what.unwrap_or("wrong"));
            }
            Err(Fault::Refused {
                code: refusal.code,
                reason,
            })
        }
        other => Err(strange(format!("the unexpected type {other:?}"))),
    }
}

/// A component of a location in an action.
fn part(part: &Value) -> String {
    match part {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    }
}

/// A server and the state that its sessions share.
pub(super) struct Server {
    pub address: Address,
    pub capacity_wait: Duration,
    time_limit: Duration,
    episodes: AtomicU64,
    sessions: Arc<AtomicUsize>,
    tended: Sender<Weak<Mutex<Socket>>>,
}

impl Server {
    /// Checks the URL; does not connect.
    pub fn new(url: &str) -> Result<Self> {
        let address = Address::new(url)?;
        let (tended, sockets) = mpsc::channel::<Weak<Mutex<Socket>>>();
        let tend = move || {
            let mut open: Vec<Weak<Mutex<Socket>>> = Vec::new();
            loop {
                match sockets.recv_timeout(PING_INTERVAL) {
                    Ok(socket) => open.push(socket),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        open.retain(|socket| socket.strong_count() > 0);
                        for socket in open.iter().filter_map(Weak::upgrade) {
                            // A socket in use answers pings itself.
                            if let Ok(mut socket) = socket.try_lock() {
                                socket.answer_pings();
                            }
                        }
                    }
                }
            }
        };
        let spawned = thread::Builder::new().spawn(tend);
        spawned.map_err(|error| Error::io(&address.url, error))?;
        Ok(Self {
            address,
            time_limit: Duration::from_secs(20),
            capacity_wait: Duration::from_secs(10),
            episodes: AtomicU64::new(0),
            sessions: Arc::default(),
            tended,
        })
    }

    pub fn set_time_limit(&mut self, limit: Duration) -> Result<()> {
        if limit.is_zero() {
            return Err(Error::config("openenv.time_limit", "0 s", "more than 0 s"));
        }
        self.time_limit = limit;
        Ok(())
    }

    /// Creates the arguments of `reset`.
    fn arguments(&self, problem: &Problem, seed: u64) -> Result<Value, String> {
        let number = self.episodes.fetch_add(1, Ordering::Relaxed);
        let mut arguments = Map::new();
        // Servers may pass it to generators with signed 32-bit seeds.
        arguments.insert("seed".into(), Value::from(seed & 0x7fff_ffff));
        arguments.insert("episode_id".into(), format!("{seed:016x}-{number}").into());
        match problem.metadata.get("reset") {
            None | Some(Value::Null) => {}
            Some(Value::Object(given)) => arguments.extend(given.clone()),
            Some(other) => {
                let reason = format!("the problem's metadata has `reset` = {other}");
                return Err(format!("{reason}; expected an object of arguments"));
            }
        }
        Ok(Value::Object(arguments))
    }

    /// Opens and resets a session, and returns it with its first observation. Retries a full server
    /// for a while.
    pub fn open(&self, problem: &Problem, seed: u64) -> Result<(Session, Observed), String> {
        let reset = &self.arguments(problem, seed)?;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let fault = match self.try_open(reset) {
                Ok((_, observed)) if observed.done => {
                    let url = &self.address.url;
                    return Err(format!("{url}: the episode is over before the first reply"));
                }
                Ok(opened) => return Ok(opened),
                Err(fault) if fault.has_code("CAPACITY_REACHED") => fault,
                Err(fault) => return Err(format!("{}: reset: {fault}", self.address.url)),
            };
            if begun.elapsed() + pause > self.capacity_wait {
                return Err(format!(
                    "{}: reset: {fault}; retried for {} s, while {} sessions belonged to this environment; expected a server with `max_concurrent_envs` of at least the number of concurrent episodes",
                    self.address.url,
                    self.capacity_wait.as_secs_f64(),
                    self.sessions.load(Ordering::Relaxed),
                ));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn try_open(&self, reset: &Value) -> Result<(Session, Observed), Fault> {
        let socket = Socket::connect(&self.address, self.time_limit).map_err(Fault::Lost)?;
        let socket = Arc::new(Mutex::new(socket));
        let _ = self.tended.send(Arc::downgrade(&socket));
        let mut session = Session {
            socket,
            time_limit: self.time_limit,
            count: None,
        };
        let observed = session.request("reset", reset)?;
        self.sessions.fetch_add(1, Ordering::Relaxed);
        session.count = Some(self.sessions.clone());
        Ok((session, observed))
    }
}

/// A connection, closed on drop.
pub(super) struct Session {
    socket: Arc<Mutex<Socket>>,
    time_limit: Duration,
    /// The number of sessions, including this one once it has been reset.
    count: Option<Arc<AtomicUsize>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(count) = &self.count {
            count.fetch_sub(1, Ordering::Relaxed);
            let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
            socket.send(r#"{"type":"close"}"#, CLOSE_LIMIT);
        }
    }
}

impl Session {
    /// Sends a message of this type and waits for the observation.
    pub fn request<T: DeserializeOwned>(
        &self,
        kind: &str,
        data: &Value,
    ) -> Result<Observed<T>, Fault> {
        let message = json!({"type": kind, "data": data}).to_string();
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let line = socket.request(&message, self.time_limit);
        read(&line.map_err(Fault::Lost)?)
    }
}
