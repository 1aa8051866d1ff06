//! JSON over HTTP, and its failures.

use std::fmt;
use std::io::{self, BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::{Agent, Body, Timeout};

use super::sse::Events;

/// The first and the longest wait after a failure.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(5)];
/// How often a reachable server may fail one request.
pub(crate) const FAILURES: u32 = 3;

/// The wait after a request has failed `tries` times: the server's `Retry-After`, or exponential
/// back-off.
pub(crate) fn wait_after(kind: Kind, tries: u32) -> Duration {
    let [first, longest] = BACK_OFF;
    match kind {
        Kind::Busy(Some(told)) => told,
        _ => first
            .saturating_mul(1 << tries.saturating_sub(1).min(10))
            .min(longest),
    }
}

/// The maximum size of an answer, in bytes.
const LONGEST_ANSWER: u64 = 1 << 30;

/// The kind of a failure, which determines its handling.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// The connection failed.
    Away,
    /// The connection ended before the answer did.
    Broken,
    /// The answer took too long.
    TimedOut,
    /// The engine asks to retry, optionally after a given time.
    Busy(Option<Duration>),
    /// The engine reports an internal error.
    Failing,
    /// The engine rejects the request; a retry does not help.
    Refused,
    /// The answer is invalid.
    Wrong,
    /// The engine has unexpected weights.
    Stale,
}

/// The failure of a request to an engine, and its remedy.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub kind: Kind,
    pub reason: String,
    pub remedy: String,
}

impl Trouble {
    pub(crate) fn new(kind: Kind, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }

    /// The failure of an invalid answer.
    pub(crate) fn wrong(reason: impl Into<String>) -> Self {
        let remedy = "check that the engine is a supported version";
        Self::new(Kind::Wrong, reason, remedy)
    }

    /// Whether the failure is one of the connection, not of the engine's answer.
    pub(super) fn is_of_transport(&self) -> bool {
        matches!(
            self.kind,
            Kind::Away | Kind::Broken | Kind::TimedOut | Kind::Busy(_)
        )
    }
}

/// An answer with any status.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub retry_after: Option<Duration>,
    pub text: String,
}

impl Reply {
    /// Parses the answer as JSON.
    pub(crate) fn json(&self) -> Result<Value, Trouble> {
        let broken = |e| {
            Trouble::wrong(format!(
                "the answer is not valid JSON ({e}): {}",
                short(&self.text)
            ))
        };
        serde_json::from_str(&self.text).map_err(broken)
    }

    /// Returns the answer if its status is 2xx, and the failure that the status means otherwise.
    pub(crate) fn accepted(self) -> Result<Self, Trouble> {
        match self.status {
            200..=299 => Ok(self),
            status => Err(refusal(status, self.retry_after, &self.text)),
        }
    }
}

/// The failure that a status means.
pub(super) fn refusal(status: u16, retry_after: Option<Duration>, text: &str) -> Trouble {
    let (kind, remedy) = match status {
        429 | 502 | 503 => (
            Kind::Busy(retry_after),
            "the engine is overloaded, paused or starting: lower max_in_flight, or raise retry_for",
        ),
        500..=599 => (Kind::Failing, "see the engine's log and restart it"),
        401 | 403 => (
            Kind::Refused,
            "set api_key to the key that the engine was started with; /inference/v1/generate needs --enable-scale-out as well",
        ),
        404 => (
            Kind::Refused,
            "the engine does not have this endpoint: check its kind and version against the address",
        ),
        _ => (Kind::Refused, "see the engine's message"),
    };
    Trouble::new(kind, format!("status {status}: {}", message(text)), remedy)
}

/// The message of a JSON error, or the beginning of the text.
fn message(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    let found = [
        &value["error"]["message"],
        &value["message"],
        &value["detail"],
        &value["error"],
    ];
    match found.iter().find_map(|value| value.as_str()) {
        Some(message) => short(message),
        None => short(text),
    }
}

/// The first 300 characters, on one line.
pub(super) fn short(text: &str) -> String {
    let mut characters = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    let start: String = characters.by_ref().take(300).collect();
    match (start.is_empty(), characters.next()) {
        (true, _) => "an empty answer".into(),
        (false, None) => start,
        (false, Some(_)) => start + "..",
    }
}

/// A client of one engine. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    bearer: Option<String>,
}

impl Client {
    /// Creates a client of the server at `url`.
    pub(crate) fn new(url: &str, connect_timeout: Duration, api_key: Option<&str>) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Engines are local; prompts must not go through the proxy of the environment.
            .proxy(None)
            .user_agent(concat!("rlvr/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(connect_timeout))
            .max_idle_connections_per_host(2)
            .input_buffer_size(16 * 1024)
            .output_buffer_size(16 * 1024)
            .build()
            .into();
        Self {
            agent,
            url: url.to_string(),
            bearer: api_key.map(|key| format!("Bearer {key}")),
        }
    }

    /// Aborts all requests of this client and its clones, and fails later ones.
    pub(super) fn shut_down(&self) {
        self.agent.clone().shutdown();
    }

    pub(super) fn get(&self, path: &str, limit: Duration) -> Result<Reply, Trouble> {
        reply(self.send(path, None, limit)?)
    }

    pub(crate) fn post(&self, path: &str, body: &Value, limit: Duration) -> Result<Reply, Trouble> {
        reply(self.send(path, Some(body), limit)?)
    }

    /// Requests an event stream.
    pub(super) fn events(
        &self,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Result<Events<impl BufRead + use<>>, Trouble> {
        let response = self.send(path, Some(body), limit)?;
        if response.status() != 200 {
            return Err(match reply(response)?.accepted() {
                Ok(_) => Trouble::wrong("the answer is not an event stream"),
                Err(trouble) => trouble,
            });
        }
        let body = response
            .into_body()
            .into_with_config()
            .limit(LONGEST_ANSWER);
        Ok(Events::new(BufReader::new(body.reader())))
    }

    fn send(
        &self,
        path: &str,
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Response<Body>, Trouble> {
        let url = format!("{}{path}", self.url);
        let sent = match body {
            None => {
                let mut request = self.agent.get(&url);
                if let Some(bearer) = &self.bearer {
                    request = request.header("Authorization", bearer);
                }
                let limited = request.config().timeout_global(Some(limit)).build();
                limited.call()
            }
            Some(body) => {
                let mut request = self
                    .agent
                    .post(&url)
                    .header("Content-Type", "application/json");
                if let Some(bearer) = &self.bearer {
                    request = request.header("Authorization", bearer);
                }
                let limited = request.config().timeout_global(Some(limit)).build();
                limited.send(body.to_string())
            }
        };
        sent.map_err(|error| fault(&error, true))
    }
}

/// Prints no key.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

fn reply(response: Response<Body>) -> Result<Reply, Trouble> {
    let status = response.status().as_u16();
    let seconds = response.headers().get("retry-after");
    let seconds = seconds.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = response
        .into_body()
        .into_with_config()
        .limit(LONGEST_ANSWER);
    let bytes = body.read_to_vec().map_err(|error| fault(&error, false))?;
    Ok(Reply {
        status,
        retry_after: seconds.map(Duration::from_secs),
        text: String::from_utf8_lossy(&bytes).into_owned(),
    })
}

/// Converts an error of the HTTP client, before (`connecting`) or after the head of the answer
/// arrived.
fn fault(error: &ureq::Error, connecting: bool) -> Trouble {
    let away = "check that the engine is running and that its address is correct";
    match error {
        ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => Trouble::new(Kind::Away, error.to_string(), away),
        ureq::Error::Timeout(_) => Trouble::new(
            Kind::TimedOut,
            format!("no answer in time ({error})"),
            "raise request_timeout or load_timeout, or see the engine's log",
        ),
        ureq::Error::Io(source) if connecting && refused(source) => {
            Trouble::new(Kind::Away, source.to_string(), away)
        }
        ureq::Error::Io(_) | ureq::Error::Protocol(_) | ureq::Error::BodyStalled => Trouble::new(
            Kind::Broken,
            format!("the connection broke ({error})"),
            "see the engine's log and restart it",
        ),
        ureq::Error::BodyExceedsLimit(_) => Trouble::wrong(format!("{error}")),
        other => Trouble::new(
            Kind::Refused,
            other.to_string(),
            "check the engine's address",
        ),
    }
}

/// Whether the connection failed.
fn refused(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable, NotConnected,
    };
    matches!(
        error.kind(),
        AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkUnreachable | NotConnected
    )
}

/// Converts an error while a body is read.
pub(super) fn reading(error: &io::Error) -> Trouble {
    let inner = error
        .get_ref()
        .map(|inner| inner as &(dyn std::error::Error + 'static));
    let found = inner.and_then(|inner| {
        inner
            .downcast_ref()
            .or_else(|| inner.source()?.downcast_ref())
    });
    match found {
        Some(error) => fault(error, false),
        None => Trouble::new(
            Kind::Broken,
            format!("the connection broke ({error})"),
            "see the engine's log and restart it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_map_to_kinds_and_messages_are_extracted() {
        let busy = refusal(503, Some(Duration::from_secs(2)), "");
        assert_eq!(busy.kind, Kind::Busy(Some(Duration::from_secs(2))));
        assert!(busy.reason.contains("an empty answer"));
        let refused = refusal(400, None, r#"{"error":{"message":"top_p must be"}}"#);
        assert_eq!(refused.kind, Kind::Refused);
        assert_eq!(refused.reason, "status 400: top_p must be");
        assert_eq!(refusal(500, None, "x").kind, Kind::Failing);
        assert_eq!(short(&"a\n".repeat(400)).len(), 302);
    }
}
