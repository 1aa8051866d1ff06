//! The two token endpoints of vLLM.

use serde_json::{Value, json};

use super::config::Protocol;
use super::http::{Kind, Trouble};
use super::protocol::{self, Finish, Order, Part, brief, log_prob};

/// The path and the body of a request. The body has every field that affects the distribution,
/// since absent fields would be read from the model folder.
pub(super) fn body(protocol: Protocol, order: &Order) -> (&'static str, Value) {
    let mut sampling = protocol::filters(order.sampling);
    let more = json!({
        "top_k": order.sampling.top_k.unwrap_or(0),
        "max_tokens": order.max_tokens,
        "min_tokens": 0,
        "seed": order.seed,
        "logprobs": 0,
        "stop_token_ids": order.stop,
    });
    merge(&mut sampling, more);
    let rest = json!({
        "model": order.model,
        "stream": order.stream,
        "cache_salt": order.salt,
        "return_weight_versions": true,
    });
    match protocol {
        Protocol::Generate => {
            let mut body = json!({"token_ids": order.tokens, "sampling_params": sampling});
            merge(&mut body, rest);
            ("/inference/v1/generate", body)
        }
        _ => {
            merge(&mut sampling, rest);
            let own = json!({"prompt": order.tokens, "return_token_ids": true, "echo": false});
            merge(&mut sampling, own);
            ("/v1/completions", sampling)
        }
    }
}

/// Adds the fields of `more`.
pub(super) fn merge(body: &mut Value, more: Value) {
    if let (Value::Object(body), Value::Object(more)) = (body, more) {
        body.extend(more);
    }
}

/// Reads a complete answer, or one chunk of a stream, into `part`.
pub(super) fn read(
    value: &Value,
    protocol: Protocol,
    order: &Order,
    part: &mut Part,
) -> Result<(), Trouble> {
    if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
        let reason = format!("it returned the error {}", brief(error));
        return Err(Trouble::new(
            Kind::Failing,
            reason,
            "see the engine's log and restart it",
        ));
    }
    let Some(choices) = value["choices"].as_array() else {
        let reason = format!("it has no choices: {}", brief(value));
        return Err(Trouble::wrong(reason));
    };
    let choice = match choices.as_slice() {
        [choice] => choice,
        // The last chunk, with the token counts.
        [] if order.stream => {
            return protocol::check_prompt(&Value::Null, &value["usage"]["prompt_tokens"], order);
        }
        _ => {
            let reason = format!("it has {} choices, 1 was requested", choices.len());
            return Err(Trouble::wrong(reason));
        }
    };
    let told = match &choice["prompt_token_ids"] {
        Value::Null => &value["prompt_token_ids"],
        told => told,
    };
    protocol::check_prompt(told, &value["usage"]["prompt_tokens"], order)?;
    let tokens = match &choice["token_ids"] {
        Value::Null if order.stream => Vec::new(),
        tokens => protocol::ids(tokens, "token_ids (vLLM 0.10.2 and later)")?,
    };
    let log_probs = match protocol {
        Protocol::Generate => content(&choice["logprobs"]["content"], &tokens)?,
        _ => listed(&choice["logprobs"]["token_logprobs"])?,
    };
    if log_probs.len() != tokens.len() {
        let (found, count) = (log_probs.len(), tokens.len());
        return Err(Trouble::wrong(format!(
            "it has {found} log-probs for {count} tokens"
        )));
    }
    part.tokens.extend(tokens);
    part.log_probs.extend(log_probs);
    let versions = match &choice["weight_versions"] {
        Value::Null => &value["weight_versions"],
        versions => versions,
    };
    if let Some(spans) = protocol::spans(versions)? {
        part.spans = Some(spans);
    }
    match &choice["finish_reason"] {
        Value::Null => {}
        reason => part.finish = Some(finish(reason)?),
    }
    Ok(())
}

fn finish(reason: &Value) -> Result<Finish, Trouble> {
    match reason.as_str() {
        Some("stop") => Ok(Finish::Stop),
        Some("length") => Ok(Finish::Length),
        Some("abort") => Ok(Finish::Aborted),
        _ => Err(Trouble::wrong(format!(
            "its finish reason is {}; expected stop, length or abort",
            brief(reason)
        ))),
    }
}

/// Reads `token_logprobs` of `/v1/completions`.
fn listed(value: &Value) -> Result<Vec<f32>, Trouble> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(log_prob).collect(),
        other => Err(Trouble::wrong(format!(
            "token_logprobs is {}",
            brief(other)
        ))),
    }
}

/// Reads `content` of `/inference/v1/generate`. Each entry names its token by a number or, before
/// 0.32, by `token_id:N`.
fn content(value: &Value, tokens: &[u32]) -> Result<Vec<f32>, Trouble> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        other => {
            return Err(Trouble::wrong(format!(
                "logprobs.content is {}",
                brief(other)
            )));
        }
    };
    for (entry, &token) in list.iter().zip(tokens) {
        let spelt = entry["token"]
            .as_str()
            .and_then(|text| text.strip_prefix("token_id:")?.parse().ok());
        let named = entry["token_id"].as_u64().or(spelt);
        if named.is_some_and(|id| id != u64::from(token)) {
            let reason = format!("the log-prob of token {token} belongs to {}", brief(entry));
            return Err(Trouble::wrong(reason));
        }
    }
    list.iter()
        .map(|entry| log_prob(&entry["logprob"]))
        .collect()
}
