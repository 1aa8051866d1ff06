//! Where the engines are and how they are used.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ureq::http::Uri;

use super::http::Client;
use crate::rollout::InFlight;
use crate::{Error, Result};

/// How an engine is spoken to.
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

    /// What an address begins with.
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

/// The address of an engine with its protocol, read from text:
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
        let refuse = |expected: &str| Error::config("engine", format!("{text:?}"), expected);
        let Some((word, url)) = text.split_once('=') else {
            return Err(refuse(FORMS));
        };
        let known = |protocol: &Protocol| protocol.word() == word.trim();
        let Some(protocol) = Protocol::ALL.into_iter().find(known) else {
            return Err(refuse(FORMS));
        };
        let url = server_url(url, FORMS).map_err(refuse)?;
        Ok(Self { protocol, url })
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.protocol.word(), self.url)
    }
}

/// The address `http://HOST:PORT` of a server, perhaps with a path, without a slash at the end; or what was expected instead, for
/// which `forms` is a name.
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

/// Rejects a key that no header can carry; `field` names it.
pub(crate) fn check_key(field: &str, key: Option<&str>) -> Result<()> {
    let printable = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic());
    match key.is_none_or(printable) {
        true => Ok(()),
        false => Err(Error::config(
            field,
            "a text that no header can carry",
            "printable ASCII characters without spaces",
        )),
    }
}

/// How [`RemoteEngines`](super::RemoteEngines) generate.
#[derive(Clone, PartialEq)]
pub struct RemoteConfig {
    /// The engines; at least one. All serve the same model.
    pub engines: Vec<EngineAddress>,
    /// The folder that weights are written to, one folder a version. The engines must see it under the same path. It belongs to one
    /// run.
    pub weights: PathBuf,
    /// What becomes of requests in flight when new weights are loaded. Default: they go on, keys and values computed again. Requests
    /// to a LoRA adapter end with the adapter that they began with instead.
    pub in_flight: InFlight,
    /// The most samples that one engine works on at the same time; the others wait here. Default 64.
    pub max_in_flight: usize,
    /// Whether tokens are received one by one. What arrived before a connection breaks is then kept and continued from. Default
    /// false: with the end of the sample.
    pub stream: bool,
    /// Sent as `Authorization: Bearer ..`. Default: none.
    pub api_key: Option<String>,
    /// The longest that a connection may take to be made. Default 5 seconds.
    pub connect_timeout: Duration,
    /// The longest that one sample may take, waiting at the engine included. A sample that takes longer is asked of another engine
    /// once, and is an error after that. Default 30 minutes.
    pub request_timeout: Duration,
    /// The longest that an engine may take to load weights. Default 10 minutes.
    pub load_timeout: Duration,
    /// How long a request that fails is tried again, and how long requests wait for an engine when none is left. Default 5 minutes.
    pub retry_for: Duration,
    /// How far an engine's log-prob of a token may be from the policy's, in nats, in the examination after weights were loaded.
    /// Default 1e-3, for an engine in f32 and a policy in f32. In half precision 0.1 is usual.
    pub tolerance: f64,
}

impl RemoteConfig {
    /// The defaults for these engines and this folder for weights.
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

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
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
            let expected = "1 to 1024, as each is a thread";
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

    /// Speaks to the engine at `url`.
    pub(super) fn client(&self, url: &str) -> Client {
        Client::new(url, self.connect_timeout, self.api_key.as_deref())
    }
}

/// All fields but the key.
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
    fn an_address_is_a_protocol_and_a_url() {
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
    fn a_key_is_not_printed_and_bad_settings_are_named() {
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
