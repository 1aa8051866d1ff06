//! Addresses and settings of remote engines.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ureq::http::Uri;

use super::http::Client;
use crate::rollout::InFlight;
use crate::{Error, Result};

/// The protocol of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// vLLM's `/v1/completions`.
    Completions,
    /// vLLM's `/inference/v1/generate`.
    Generate,
    /// SGLang's `/generate`.
    Sglang,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Completions, Self::Generate, Self::Sglang];

    /// The prefix of an address.
    fn word(self) -> &'static str {
        match self {
            Self::Completions => "vllm",
            Self::Generate => "vllm-generate",
            Self::Sglang => "sglang",
        }
    }

    /// Whether the server is vLLM.
    pub(super) fn is_vllm(self) -> bool {
        self != Self::Sglang
    }
}

/// The protocol and address of an engine, parsed from text:
///
/// | text | protocol |
/// |---|---|
/// | `vllm=http://127.0.0.1:8000` | vLLM, `/v1/completions` |
/// | `vllm-generate=http://127.0.0.1:8000` | vLLM, `/inference/v1/generate` (start it with `--enable-scale-out`) |
/// | `sglang=http://127.0.0.1:30000` | SGLang, `/generate` |
///
/// ```
/// use rlvr::rollout::remote::EngineAddress;
///
/// let address: EngineAddress = "vllm=http://127.0.0.1:8000/".parse()?;
/// assert_eq!(address.to_string(), "vllm=http://127.0.0.1:8000");
/// assert!("http://127.0.0.1:8000".parse::<EngineAddress>().is_err());
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineAddress {
    pub(super) protocol: Protocol,
    /// Without a slash at the end.
    pub(super) url: String,
}

const FORMS: &str = "vllm=URL, vllm-generate=URL or sglang=URL, where URL is http://HOST:PORT";

impl FromStr for EngineAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |expected: &str| Error::config("engine", format!("{text:?}"), expected);
        let Some((word, url)) = text.split_once('=') else {
            return Err(invalid(FORMS));
        };
        let known = |protocol: &Protocol| protocol.word() == word.trim();
        let Some(protocol) = Protocol::ALL.into_iter().find(known) else {
            return Err(invalid(FORMS));
        };
        let url = server_url(url, FORMS).map_err(invalid)?;
        Ok(Self { protocol, url })
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.protocol.word(), self.url)
    }
}

/// Parses the address `http://HOST:PORT` of a server, with an optional path, and removes the
/// trailing slash. The error is the expected form; `forms` describes it.
pub(crate) fn server_url<'a>(text: &str, forms: &'a str) -> Result<String, &'a str> {
    let url = text.trim().trim_end_matches('/');
    let uri: Uri = url.parse().map_err(|_| forms)?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") if cfg!(feature = "remote-tls") => {}
        Some("https") => return Err("http://, or a build with the feature remote-tls"),
        _ => return Err(forms),
    }
    let named = uri.authority().is_some_and(|host| {
        !host.host().is_empty() && !host.as_str().contains('@') // a password would be printed
    });
    match named && uri.query().is_none() && !url.contains('#') {
        true => Ok(url.to_string()),
        false => Err(forms),
    }
}

/// Returns an error if a key cannot be sent in a header. `field` names it.
pub(crate) fn check_key(field: &str, key: Option<&str>) -> Result<()> {
    let printable = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    match key.is_none_or(printable) {
        true => Ok(()),
        false => Err(Error::config(
            field,
            "text that cannot be sent in a header",
            "printable ASCII characters without spaces",
        )),
    }
}

/// The settings of [`RemoteEngines`](super::RemoteEngines).
#[derive(Clone, PartialEq)]
pub struct RemoteConfig {
    /// The engines; at least one. All must serve the same model.
    pub engines: Vec<EngineAddress>,
    /// The folder that weights are written to, with one subfolder per version. The engines must see
    /// it under the same path. It belongs to one run.
    pub weights: PathBuf,
    /// The handling of requests in flight when new weights are loaded. Default: they continue, with
    /// recomputed keys and values. Requests to a LoRA adapter finish with the adapter that they
    /// started with instead.
    pub in_flight: InFlight,
    /// The maximum number of samples that one engine works on at the same time, 1 to 1024; the
    /// others wait in this process. Default: 64.
    pub max_in_flight: usize,
    /// Whether tokens are streamed. Tokens that arrived before a connection breaks are then kept.
    /// Default: false, a sample arrives when it has ended.
    pub stream: bool,
    /// The key, sent as `Authorization: Bearer ..`. Default: none.
    pub api_key: Option<String>,
    /// The time limit of a connection attempt. Default: 5 seconds.
    pub connect_timeout: Duration,
    /// The time limit of one sample, including its wait at the engine. A sample that takes longer
    /// is retried once on another engine, and is an error after that. Default: 30 minutes.
    pub request_timeout: Duration,
    /// The time limit of an engine for loading weights. Default: 10 minutes.
    pub load_timeout: Duration,
    /// How long a failing request is retried, and how long requests wait when no engine is
    /// available. Default: 5 minutes.
    pub retry_for: Duration,
    /// The maximum difference between an engine's and the policy's log-prob of a token, in nats, in
    /// the check after weights were loaded. Default: 1e-3, for an engine and a policy in f32. In
    /// half precision 0.1 is usual.
    pub tolerance: f64,
}

impl RemoteConfig {
    /// Creates the default settings for these engines and this folder for weights.
    pub fn new(engines: Vec<EngineAddress>, weights: impl Into<PathBuf>) -> Self {
        Self {
            engines,
            weights: weights.into(),
            in_flight: InFlight::default(),
            max_in_flight: 64,
            stream: false,
            api_key: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30 * 60),
            load_timeout: Duration::from_secs(10 * 60),
            retry_for: Duration::from_secs(5 * 60),
            tolerance: 1e-3,
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] with the field, its value and the expected range.
    pub fn validate(&self) -> Result<()> {
        if self.engines.is_empty() {
            return Err(Error::config("remote.engines", "none", "at least one"));
        }
        for (index, engine) in self.engines.iter().enumerate() {
            if self.engines[..index]
                .iter()
                .any(|other| other.url == engine.url)
            {
                let field = format!("remote.engines[{index}]");
                return Err(Error::config(field, engine, "each engine once"));
            }
        }
        if !(1..=1024).contains(&self.max_in_flight) {
            let expected = "1 to 1024, since each is a thread";
            return Err(Error::config(
                "remote.max_in_flight",
                self.max_in_flight,
                expected,
            ));
        }
        for (field, value) in [
            ("connect_timeout", self.connect_timeout),
            ("request_timeout", self.request_timeout),
            ("load_timeout", self.load_timeout),
        ] {
            if value.is_zero() {
                let field = format!("remote.{field}");
                return Err(Error::config(field, "0 s", "more than 0 seconds"));
            }
        }
        if !(self.tolerance.is_finite() && self.tolerance > 0.0) {
            let expected = "a finite number of nats above 0";
            return Err(Error::config("remote.tolerance", self.tolerance, expected));
        }
        check_key("remote.api_key", self.api_key.as_deref())
    }

    /// Creates a client of the engine at `url`.
    pub(super) fn client(&self, url: &str) -> Client {
        Client::new(url, self.connect_timeout, self.api_key.as_deref())
    }
}

/// Prints all fields but the key.
impl fmt::Debug for RemoteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteConfig")
            .field("engines", &self.engines)
            .field("weights", &self.weights)
            .field("in_flight", &self.in_flight)
            .field("max_in_flight", &self.max_in_flight)
            .field("stream", &self.stream)
            .field("api_key", &self.api_key.as_ref().map(|_| "[hidden]"))
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("load_timeout", &self.load_timeout)
            .field("retry_for", &self.retry_for)
            .field("tolerance", &self.tolerance)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_and_printed() {
        for (text, protocol, url) in [
            (
                "vllm=http://127.0.0.1:8000",
                Protocol::Completions,
                "http://127.0.0.1:8000",
            ),
            (
                "vllm-generate=http://[::1]:8000/",
                Protocol::Generate,
                "http://[::1]:8000",
            ),
            (
                "sglang= http://gpu-3/engine/ ",
                Protocol::Sglang,
                "http://gpu-3/engine",
            ),
        ] {
            let address: EngineAddress = text.parse().unwrap();
            assert_eq!((address.protocol, address.url.as_str()), (protocol, url));
            assert_eq!(
                address.to_string().parse::<EngineAddress>().unwrap(),
                address
            );
        }
        for text in [
            "",
            "http://127.0.0.1:8000",
            "tgi=http://127.0.0.1:8000",
            "vllm=127.0.0.1:8000",
            "vllm=ftp://a",
            "vllm=http://",
            "vllm=http://me:secret@host:1",
            "vllm=http://host:1/?a=b",
        ] {
            let message = text.parse::<EngineAddress>().unwrap_err().to_string();
            assert!(message.contains("vllm-generate=URL"), "{text}: {message}");
        }
    }

    #[test]
    fn the_key_is_not_printed_and_errors_name_the_field() {
        let engine: EngineAddress = "vllm=http://a:1".parse().unwrap();
        let good = RemoteConfig::new(vec![engine.clone()], "w");
        good.validate().unwrap();
        let secret = RemoteConfig {
            api_key: Some("hush".into()),
            ..good.clone()
        };
        assert!(!format!("{secret:?}").contains("hush"));
        let also = |edit: fn(&mut RemoteConfig)| {
            let mut config = good.clone();
            edit(&mut config);
            config.validate().unwrap_err().to_string()
        };
        for (message, word) in [
            (also(|c| c.engines.clear()), "remote.engines"),
            (also(|c| c.engines.push(c.engines[0].clone())), "engines[1]"),
            (also(|c| c.max_in_flight = 0), "remote.max_in_flight"),
            (also(|c| c.load_timeout = Duration::ZERO), "load_timeout"),
            (also(|c| c.tolerance = f64::NAN), "remote.tolerance"),
            (also(|c| c.api_key = Some("a\nb".into())), "remote.api_key"),
        ] {
            assert!(message.contains(word), "{message}");
        }
    }
}
