//! The token endpoint of SGLang.

use serde_json::{Value, json};

use super::http::{Kind, Trouble};
use super::protocol::{self, Finish, Order, Part, brief, log_prob};
use super::vllm::merge;

/// The body of a request to `/generate`.
pub(super) fn body(order: &Order) -> Value {
    let mut sampling = protocol::filters(order.sampling);
    let top_k = order.sampling.top_k.map_or(json!(-1), |k| json!(k));
    let more = json!({
        "top_k": top_k,
        "max_new_tokens": order.max_tokens,
        "min_new_tokens": 0,
        "stop_token_ids": order.stop,
        // The stop token stays in the answer.
        "no_stop_trim": true,
        "sampling_seed": order.seed,
    });
    merge(&mut sampling, more);
    let mut body = json!({
        "input_ids": order.tokens,
        "sampling_params": sampling,
        "return_logprob": true,
        "logprob_start_len": -1,
        "top_logprobs_num": 0,
        "stream": order.stream,
        "extra_key": order.salt,
    });
    if order.adapter {
        merge(&mut body, json!({"lora_path": order.model}));
    }
    body
}

/// Reads a complete answer, or one chunk of a stream, into `part`. A chunk has all tokens so far
/// or, with `--incremental-streaming-output`, the new ones.
pub(super) fn read(value: &Value, order: &Order, part: &mut Part) -> Result<(), Trouble> {
    if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
        let reason = format!("it returned the error {}", brief(error));
        return Err(Trouble::new(
            Kind::Failing,
            reason,
            "see the engine's log and restart it",
        ));
    }
    let meta = &value["meta_info"];
    if !meta.is_object() {
        let reason = format!("it has no meta_info: {}", brief(value));
        return Err(Trouble::wrong(reason));
    }
    protocol::check_prompt(&Value::Null, &meta["prompt_tokens"], order)?;
    let finish = match &meta["finish_reason"] {
        Value::Null => None,
        reason => Some(finish(reason)?),
    };
    let tokens = match &value["output_ids"] {
        Value::Null if finish == Some(Finish::Aborted) => Vec::new(),
        tokens => protocol::ids(tokens, "output_ids")?,
    };
    let log_probs = triples(&meta["output_token_logprobs"], &tokens)?;
    let held = part.tokens.len();
    let total = meta["completion_tokens"]
        .as_u64()
        .map_or(tokens.len(), |count| count as usize);
    if total == tokens.len() {
        if !tokens.starts_with(&part.tokens) {
            return Err(Trouble::wrong("a chunk changes tokens of the previous one"));
        }
        (part.tokens, part.log_probs) = (tokens, log_probs);
    } else if total == held + tokens.len() {
        part.tokens.extend(tokens);
        part.log_probs.extend(log_probs);
    } else {
        let count = tokens.len();
        let reason = format!(
            "a chunk counts {total} tokens; {held} were received before and it has {count}"
        );
        return Err(Trouble::wrong(reason));
    }
    if let Some(spans) = protocol::spans(&meta["weight_versions"])? {
        part.spans = Some(spans);
    }
    part.label = protocol::label(&meta["weight_version"]).or(part.label.take());
    part.finish = finish.or(part.finish);
    Ok(())
}

fn finish(reason: &Value) -> Result<Finish, Trouble> {
    match reason["type"].as_str() {
        Some("stop") => Ok(Finish::Stop),
        Some("length") => Ok(Finish::Length),
        Some("abort") => Ok(Finish::Aborted),
        _ => Err(Trouble::wrong(format!(
            "its finish reason is {}; expected the type stop, length or abort",
            brief(reason)
        ))),
    }
}

/// Reads the log-probs from lists of log-prob, token and text.
fn triples(value: &Value, tokens: &[u32]) -> Result<Vec<f32>, Trouble> {
    let list = match value {
        Value::Null => &[][..],
        Value::Array(list) => list,
        other => {
            return Err(Trouble::wrong(format!(
                "output_token_logprobs is {}",
                brief(other)
            )));
        }
    };
    if list.len() != tokens.len() {
        let (found, count) = (list.len(), tokens.len());
        return Err(Trouble::wrong(format!(
            "it has {found} log-probs for {count} tokens"
        )));
    }
    let pairs = list.iter().zip(tokens);
    pairs
        .map(
            |(entry, &token)| match entry[1].as_u64() == Some(u64::from(token)) {
                true => log_prob(&entry[0]),
                false => Err(Trouble::wrong(format!(
                    "the log-prob of token {token} belongs to {}",
                    brief(entry)
                ))),
            },
        )
        .collect()
}
