//! The request for one sample, its answer, and the validation of the answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::config::Protocol;
use super::http::{Client, Kind, Trouble};
use super::{sglang, vllm};
use crate::rollout::SamplingConfig;

/// A request for one sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    /// The name of the model or adapter.
    pub model: &'a str,
    /// Whether `model` is the name of an adapter.
    pub adapter: bool,
    /// Requests with different salts do not share cached keys and values.
    pub salt: &'a str,
    /// The prompt and the tokens that were already sampled.
    pub tokens: &'a [u32],
    pub max_tokens: usize,
    pub sampling: &'a SamplingConfig,
    pub stop: &'a [u32],
    pub seed: u64,
    pub stream: bool,
    /// The size of the policy's vocabulary.
    pub vocabulary: usize,
}

/// Why an engine ended a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    Stop,
    Length,
    /// Aborted by a client.
    Aborted,
}

/// The part of an answer that has arrived.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub tokens: Vec<u32>,
    pub log_probs: Vec<f32>,
    pub finish: Option<Finish>,
    /// The labels of the weights with the number of consecutive tokens that they sampled; `None` if
    /// the engine does not report them.
    pub spans: Option<Vec<(String, usize)>>,
    /// The label of the weights at the end, if the engine reports it.
    pub label: Option<String>,
}

/// Sends a request. Returns the part that arrived, and the failure if the rest did not arrive.
pub(super) fn ask(
    client: &Client,
    protocol: Protocol,
    order: &Order,
    limit: Duration,
) -> (Part, Option<Trouble>) {
    let (path, body) = match protocol {
        Protocol::Sglang => ("/generate", sglang::body(order)),
        _ => vllm::body(protocol, order),
    };
    let read = |chunk: &Value, part: &mut Part| match protocol {
        Protocol::Sglang => sglang::read(chunk, order, part),
        _ => vllm::read(chunk, protocol, order, part),
    };
    let mut part = Part::default();
    match receive(client, path, &body, order, limit, &mut part, read) {
        Ok(()) => (part, None),
        Err(trouble) if trouble.kind == Kind::Wrong => (Part::default(), Some(trouble)),
        Err(trouble) => {
            part.finish = None; // the finish reason may belong to a later token
            (part, Some(trouble))
        }
    }
}

/// Reads the answer, complete or as a stream, into `part`.
fn receive(
    client: &Client,
    path: &str,
    body: &Value,
    order: &Order,
    limit: Duration,
    part: &mut Part,
    read: impl Fn(&Value, &mut Part) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    if !order.stream {
        let reply = client.post(path, body, limit)?.accepted()?;
        read(&reply.json()?, part)?;
        return match part.finish {
            Some(_) => check(part, order),
            None => Err(Trouble::wrong("the answer has no finish reason")),
        };
    }
    let mut events = client.events(path, body, limit)?;
    loop {
        match events.next()? {
            Some(data) if data == "[DONE]" => break,
            Some(data) => {
                let broken = |e| Trouble::wrong(format!("a chunk is not valid JSON ({e})"));
                read(&serde_json::from_str(&data).map_err(broken)?, part)?;
                check_tokens(part, order)?;
            }
            None => break,
        }
    }
    match part.finish {
        Some(_) => check(part, order),
        None => Err(Trouble::new(
            Kind::Broken,
            "the stream ended without a finish reason",
            "see the engine's log and restart it",
        )),
    }
}

/// Checks a finished answer.
fn check(part: &mut Part, order: &Order) -> Result<(), Trouble> {
    check_tokens(part, order)?;
    let count = part.tokens.len();
    let stopped = part
        .tokens
        .last()
        .is_some_and(|last| order.stop.contains(last));
    match part.finish {
        Some(Finish::Stop) if !stopped => {
            let last = part.tokens.last();
            return Err(Trouble::new(
                Kind::Wrong,
                format!(
                    "it stopped at {last:?}, which is not one of the stop tokens {:?}",
                    order.stop
                ),
                "the engine must honour ignore_eos and stop_token_ids",
            ));
        }
        // The stop token is also the last token that the limit allows.
        Some(Finish::Length) if stopped => part.finish = Some(Finish::Stop),
        Some(Finish::Length) if count == 0 => {
            return Err(Trouble::wrong("it ended at the length limit with 0 tokens"));
        }
        _ => {}
    }
    if let Some(spans) = &part.spans {
        let covered: usize = spans.iter().map(|(_, tokens)| tokens).sum();
        if covered != count {
            return Err(Trouble::wrong(format!(
                "its weight_versions cover {covered} of {count} tokens"
            )));
        }
    }
    if order.sampling.temperature == 0.0 {
        // The distribution has one token; engines report the log-prob at temperature 1.
        part.log_probs.fill(0.0);
    }
    Ok(())
}

/// Checks the tokens so far.
fn check_tokens(part: &Part, order: &Order) -> Result<(), Trouble> {
    let (count, most) = (part.tokens.len(), order.max_tokens);
    if count > most {
        return Err(Trouble::new(
            Kind::Wrong,
            format!("it has {count} tokens, {most} were requested"),
            "the engine must honour the length limit; check that it is of the kind that the address says",
        ));
    }
    if part.log_probs.len() != count {
        let found = part.log_probs.len();
        return Err(Trouble::wrong(format!(
            "it has {found} log-probs for {count} tokens"
        )));
    }
    if let Some(id) = part
        .tokens
        .iter()
        .find(|&&id| id as usize >= order.vocabulary)
    {
        return Err(Trouble::new(
            Kind::Wrong,
            format!(
                "it sampled token {id}; the policy's vocabulary has {} tokens",
                order.vocabulary
            ),
            "serve the policy's own model: the unembedding of this one has more rows",
        ));
    }
    let before = part
        .tokens
        .split_last()
        .map_or(&[][..], |(_, before)| before);
    if let Some(at) = before.iter().position(|id| order.stop.contains(id)) {
        return Err(Trouble::new(
            Kind::Wrong,
            format!(
                "it continued after the stop token {} at {at}",
                part.tokens[at]
            ),
            "the engine must honour stop_token_ids",
        ));
    }
    Ok(())
}

/// Reads a list of token ids.
pub(super) fn ids(value: &Value, what: &str) -> Result<Vec<u32>, Trouble> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let all = value
        .as_array()
        .and_then(|list| list.iter().map(id).collect());
    all.ok_or_else(|| Trouble::wrong(format!("{what} is {}, expected token ids", brief(value))))
}

/// Reads a finite log-prob of at most 0.
pub(super) fn log_prob(value: &Value) -> Result<f32, Trouble> {
    match value.as_f64() {
        // vLLM writes -9999 for minus infinity and NaN.
        Some(number) if number > -9999.0 && number <= 1e-4 => Ok(number.min(0.0) as f32),
        _ => Err(Trouble::new(
            Kind::Wrong,
            format!("the log-prob of a sampled token is {}", brief(value)),
            "expected a finite number of at most 0: start vLLM with --logprobs-mode processed_logprobs",
        )),
    }
}

/// Returns an error if the engine reports a different prompt.
pub(super) fn check_prompt(told: &Value, counted: &Value, order: &Order) -> Result<(), Trouble> {
    let remedy =
        "the engine must read token ids as sent, without adding a template or a first token";
    if !told.is_null() && ids(told, "prompt_token_ids")? != order.tokens {
        return Err(Trouble::new(
            Kind::Wrong,
            "it read different prompt tokens than were sent",
            remedy,
        ));
    }
    match counted.as_u64() {
        Some(count) if count != order.tokens.len() as u64 => {
            let sent = order.tokens.len();
            let reason = format!("it read {count} prompt tokens, {sent} were sent");
            Err(Trouble::new(Kind::Wrong, reason, remedy))
        }
        _ => Ok(()),
    }
}

/// Reads a list of `{"version", "start", "end"}` as labels with numbers of tokens. Each entry must
/// start where the previous one ends.
pub(super) fn spans(value: &Value) -> Result<Option<Vec<(String, usize)>>, Trouble> {
    let Some(list) = value.as_array() else {
        return Ok(None);
    };
    let mut end = 0;
    let mut spans = Vec::with_capacity(list.len());
    for entry in list {
        let (from, to) = (entry["start"].as_u64(), entry["end"].as_u64());
        let (Some(label), Some(from), Some(to)) = (label(&entry["version"]), from, to) else {
            let reason = format!("an entry of weight_versions is {}", brief(entry));
            return Err(Trouble::wrong(reason));
        };
        if from != end || to < from {
            let reason = format!("weight_versions has {from}..{to} after 0..{end}");
            return Err(Trouble::wrong(reason));
        }
        end = to;
        if to > from {
            spans.push((label, (to - from) as usize));
        }
    }
    Ok(Some(spans))
}

/// Reads a label, a string or a number.
pub(super) fn label(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The beginning of a value, as text.
pub(super) fn brief(value: &Value) -> String {
    super::http::short(&value.to_string())
}

/// The sampling settings that vLLM and SGLang share.
pub(super) fn filters(sampling: &SamplingConfig) -> Value {
    json!({
        "temperature": sampling.temperature,
        "top_p": sampling.top_p.unwrap_or(1.0),
        "min_p": sampling.min_p.unwrap_or(0.0),
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "n": 1,
        "ignore_eos": true,
        "skip_special_tokens": false,
    })
}
