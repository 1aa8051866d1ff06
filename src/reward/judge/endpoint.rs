//! A judge behind the chat protocol of OpenAI.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Judge;
use crate::reward::RewardError;
use crate::rollout::remote::{Client, FAILURES, Kind, Trouble, check_key, server_url, wait_after};
use crate::{Error, Result};

const PATH: &str = "/v1/chat/completions";

/// The settings of a [`ChatEndpoint`].
#[derive(Clone, PartialEq)]
pub struct ChatConfig {
    /// The address of the server, `http://HOST:PORT`. The path `/v1/chat/completions` is appended.
    pub url: String,
    /// The name of the model on the server.
    pub model: String,
    /// The key, sent as `Authorization: Bearer ..`. Default: none.
    pub api_key: Option<String>,
    /// The system message before the question. Default: none.
    pub system: Option<String>,
    /// The sampling temperature, at least 0. Default: 0.
    pub temperature: f64,
    /// The maximum number of tokens of an answer, including reasoning. Default: 1024.
    pub max_tokens: usize,
    /// The number of concurrent requests per call, 1 to 1024. Default: 16.
    pub max_in_flight: usize,
    /// The timeout for connecting. Default: 5 seconds.
    pub connect_timeout: Duration,
    /// The timeout for one answer. Default: 2 minutes.
    pub request_timeout: Duration,
    /// How long a failed request is retried. Default: 2 minutes.
    pub retry_for: Duration,
}

impl ChatConfig {
    /// Creates the default settings for this server and model.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key: None,
            system: None,
            temperature: 0.0,
            max_tokens: 1024,
            max_in_flight: 16,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(120),
            retry_for: Duration::from_secs(120),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid. It names the field, its value and the
    /// expected value.
    pub fn validate(&self) -> Result<()> {
        self.server()?;
        if self.model.is_empty() {
            let expected = "the name of the model at the server";
            return Err(Error::config("judge.model", "\"\"", expected));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let expected = "a finite number of at least 0";
            return Err(Error::config(
                "judge.temperature",
                self.temperature,
                expected,
            ));
        }
        if self.max_tokens == 0 {
            return Err(Error::config("judge.max_tokens", 0, "at least 1"));
        }
        if !(1..=1024).contains(&self.max_in_flight) {
            let expected = "1 to 1024, as each is a thread";
            return Err(Error::config(
                "judge.max_in_flight",
                self.max_in_flight,
                expected,
            ));
        }
        for (field, value) in [
            ("judge.connect_timeout", self.connect_timeout),
            ("judge.request_timeout", self.request_timeout),
        ] {
            if value.is_zero() {
                return Err(Error::config(field, "0 s", "more than 0 seconds"));
            }
        }
        check_key("judge.api_key", self.api_key.as_deref())
    }

    /// The address without a trailing slash.
    fn server(&self) -> Result<String> {
        let given = format!("{:?}", self.url);
        let invalid = |expected: &str| Error::config("judge.url", given, expected);
        server_url(&self.url, "http://HOST:PORT").map_err(invalid)
    }
}

/// Shows all fields except the key.
impl fmt::Debug for ChatConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatConfig")
            .field("url", &self.url)
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_| "[hidden]"))
            .field("system", &self.system)
            .field("temperature", &self.temperature)
            .field("max_tokens", &self.max_tokens)
            .field("max_in_flight", &self.max_in_flight)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("retry_for", &self.retry_for)
            .finish()
    }
}

/// A judge on a server with the route `/v1/chat/completions`, such as vLLM, SGLang, llama.cpp or a
/// commercial service.
///
/// The question is the user's message. The `seed` is part of the request; a server that ignores it
/// may answer the same question differently the next time, unless
/// [`CachedJudge`](super::CachedJudge) keeps the first answer. Without the feature `remote-tls`,
/// texts and the key are sent unencrypted.
///
/// ```no_run
/// use std::time::Duration;
/// use rlvr::reward::judge::{CachedJudge, ChatConfig, ChatEndpoint, JudgeReward};
/// use rlvr::reward::{RewardOptions, RewardSet};
///
/// let config = ChatConfig::new("http://127.0.0.1:8000", "Qwen/Qwen3-32B");
/// let judge = CachedJudge::open(ChatEndpoint::new(config)?, "run/judge.jsonl")?;
/// let helpful = JudgeReward::new(
///     judge,
///     "A good response is correct, answers what was asked \
///      and is no longer than it needs to be.",
/// );
/// let patient = RewardOptions::new()
///     .with_concurrency(32)
///     .with_time_limit(Duration::from_secs(300));
/// let rewards = RewardSet::builder().add_with(1.0, helpful, patient).build()?;
/// # let _ = rewards;
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # Errors
/// | failure | reaction |
/// |---|---|
/// | no connection, a broken one, 429, 502, 503 | retried after `Retry-After` or 50 ms to 5 s, for [`ChatConfig::retry_for`] |
/// | 500, no answer within [`ChatConfig::request_timeout`] | the same, at most three attempts |
/// | any other 4xx, an invalid answer, or one that was cut off at [`ChatConfig::max_tokens`] | an error |
#[derive(Debug)]
pub struct ChatEndpoint {
    config: ChatConfig,
    client: Client,
}

impl ChatEndpoint {
    /// Creates a judge. No request is sent yet.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid.
    pub fn new(config: ChatConfig) -> Result<Self> {
        config.validate()?;
        let key = config.api_key.as_deref();
        let client = Client::new(&config.server()?, config.connect_timeout, key);
        Ok(Self { config, client })
    }

    /// Sends one request.
    fn request(&self, question: &str, seed: u64) -> Result<String, Trouble> {
        let config = &self.config;
        let system = config
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text}));
        let messages: Vec<Value> = system
            .chain([json!({"role": "user", "content": question})])
            .collect();
        let body = json!({
            "model": config.model,
            "messages": messages,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            // Some servers parse it as a signed number.
            "seed": seed & (i64::MAX as u64),
        });
        let reply = self.client.post(PATH, &body, config.request_timeout)?;
        let answer = reply.accepted()?.json()?;
        let choice = &answer["choices"][0];
        if choice["finish_reason"] == "length" {
            let reason = format!("the answer was cut off at {} tokens", config.max_tokens);
            return Err(Trouble::new(Kind::Refused, reason, ""));
        }
        match choice["message"]["content"].as_str() {
            Some(text) => Ok(text.to_string()),
            None => Err(Trouble::wrong(
                "the answer has no choices[0].message.content",
            )),
        }
    }

    fn failure(&self, trouble: &Trouble, tries: u32) -> RewardError {
        let config = &self.config;
        let remedy = match trouble.kind {
            Kind::Away => "is the server running, and is this its address?",
            Kind::Busy(_) => "send fewer requests at a time, or raise retry_for",
            Kind::Broken | Kind::Failing => "the server's log says why",
            Kind::TimedOut => "raise request_timeout, or lower max_tokens",
            Kind::Refused => "check model, api_key and max_tokens",
            Kind::Wrong | Kind::Stale => "expected an answer of OpenAI's chat protocol",
        };
        let (model, url, reason) = (&config.model, &config.url, &trouble.reason);
        format!("judge {model} at {url}, asked {tries} times: {reason}; {remedy}").into()
    }
}

impl Judge for ChatEndpoint {
    /// Describes the model and its settings. The address is left out, since another server may
    /// serve the same model.
    fn describe(&self) -> String {
        let config = &self.config;
        format!(
            "{}, {:?}, {}, {}",
            config.model, config.system, config.temperature, config.max_tokens
        )
    }

    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError> {
        let begin = Instant::now();
        for tries in 1.. {
            let trouble = match self.request(question, seed) {
                Ok(answer) => return Ok(answer),
                Err(trouble) => trouble,
            };
            let again = match trouble.kind {
                Kind::Away | Kind::Broken | Kind::Busy(_) => true,
                Kind::Failing | Kind::TimedOut => tries < FAILURES,
                Kind::Refused | Kind::Wrong | Kind::Stale => false,
            };
            let wait = wait_after(trouble.kind, tries);
            if !again || begin.elapsed() + wait > self.config.retry_for {
                return Err(self.failure(&trouble, tries));
            }
            thread::sleep(wait);
        }
        Err("the judge was not asked".into())
    }

    /// Sends up to [`ChatConfig::max_in_flight`] requests at the same time.
    fn answer_all(&self, questions: &[(String, u64)]) -> Vec<Result<String, RewardError>> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut answers = Vec::new();
            while let at = next.fetch_add(1, Ordering::Relaxed)
                && let Some((question, seed)) = questions.get(at)
            {
                answers.push((at, self.answer(question, *seed)));
            }
            answers
        };
        let mut all: Vec<Option<Result<String, RewardError>>> =
            questions.iter().map(|_| None).collect();
        let threads = questions.len().min(self.config.max_in_flight);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for (at, answer) in workers
                .into_iter()
                .filter_map(|worker| worker.join().ok())
                .flatten()
            {
                all[at] = Some(answer);
            }
        });
        let none = || Err("the thread that asked the judge panicked".into());
        all.into_iter()
            .map(|one| one.unwrap_or_else(none))
            .collect()
    }
}
