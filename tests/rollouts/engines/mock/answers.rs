//! Completion requests and their answers in three protocols, whole and as streams.

use serde_json::{Value, json};

use super::model::{Asked, Drawn, generate};
use super::routes::field;
use super::server::{Exchange, is_open};
use super::{Fault, Options};

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Completions,
    Generate,
    Sglang,
}

impl Kind {
    pub fn of(path: &str) -> Self {
        match path {
            "/v1/completions" => Self::Completions,
            "/inference/v1/generate" => Self::Generate,
            _ => Self::Sglang,
        }
    }
}

/// `n` times the same with consecutive seeds.
pub struct Many {
    pub one: Asked,
    n: usize,
    stream: bool,
    log_probs: bool,
    ids: bool,
    spans: bool,
}

pub fn read(kind: Kind, body: &Value, ignores: &[&str]) -> Result<Many, String> {
    let sampling = match kind {
        Kind::Completions => body,
        _ => &body["sampling_params"],
    };
    let prompt = match kind {
        Kind::Completions => &body["prompt"],
        Kind::Generate => &body["token_ids"],
        Kind::Sglang => &body["input_ids"],
    };
    let sglang = kind == Kind::Sglang;
    let get = |name: &str| field(sampling, name, ignores);
    let number = |name: &str, default: f64| get(name).as_f64().unwrap_or(default);
    let list = |value: &Value| -> Vec<u32> {
        let numbers = value.as_array().into_iter().flatten();
        numbers.filter_map(|id| Some(id.as_u64()? as u32)).collect()
    };
    let temperature = number("temperature", 1.0);
    let top_p = number("top_p", 1.0);
    if temperature < 0.0 || !(top_p > 0.0 && top_p <= 1.0) {
        return Err("temperature or top_p is out of range".into());
    }
    let (length, seed) = match sglang {
        true => ("max_new_tokens", "sampling_seed"),
        false => ("max_tokens", "seed"),
    };
    let model = if sglang {
        &body["lora_path"]
    } else {
        &body["model"]
    };
    let salt = if sglang {
        &body["extra_key"]
    } else {
        field(body, "cache_salt", ignores)
    };
    Ok(Many {
        one: Asked {
            model: model.as_str().map(String::from),
            salt: salt.as_str().unwrap_or_default().into(),
            prompt: list(prompt),
            max_tokens: number(length, 16.0) as usize,
            temperature,
            top_k: number("top_k", 0.0).max(0.0) as usize,
            top_p,
            min_p: number("min_p", 0.0),
            seed: get(seed).as_u64().unwrap_or(42),
            stop: list(get("stop_token_ids")),
            truncated: !sglang,
            ignore_eos: get("ignore_eos").as_bool().unwrap_or(false),
        },
        n: number("n", 1.0) as usize,
        stream: body["stream"].as_bool().unwrap_or(false),
        log_probs: match kind {
            Kind::Sglang => body["return_logprob"] == true,
            _ => !sampling["logprobs"].is_null(),
        },
        ids: kind != Kind::Completions || body["return_token_ids"] == true,
        spans: kind != Kind::Completions || body["return_weight_versions"] == true,
    })
}

/// One sample so far.
#[derive(Default)]
struct Sample {
    drawn: Vec<Drawn>,
    end: Option<&'static str>,
}

pub fn answer(exchange: &mut Exchange, kind: Kind, asked: &Many, options: &Options) {
    let socket = exchange.stream.try_clone().unwrap();
    let fault = exchange.fault.clone();
    if asked.stream {
        exchange.begin_events();
    }
    let mut samples = Vec::new();
    let mut chunks = 0;
    for index in 0..asked.n {
        let one = Asked {
            seed: asked.one.seed.wrapping_add(index as u64),
            ..asked.one.clone()
        };
        let mut sample = Sample::default();
        let mut told = 0;
        let ended = fault == Some(Fault::AbortEmpty);
        let end = match ended {
            true => "abort",
            false => generate(
                exchange.inner,
                &one,
                &mut || is_open(&socket),
                &mut |drawn| {
                    sample.drawn.push(drawn.clone());
                    let waiting = sample.drawn.len() - told;
                    if asked.stream && waiting >= options.chunk {
                        if fault == Some(Fault::CloseInside(chunks)) {
                            exchange.hang_up();
                            return false;
                        }
                        let value = value(kind, asked, options, &fault, index, &sample, told);
                        told = sample.drawn.len();
                        chunks += 1;
                        return exchange.event(&value.to_string(), chunks);
                    }
                    true
                },
            ),
        };
        if end == "closed" {
            return exchange.hang_up();
        }
        sample.end = Some(end);
        if asked.stream {
            let value = value(kind, asked, options, &fault, index, &sample, told);
            if fault == Some(Fault::CloseInside(chunks)) {
                return exchange.hang_up();
            }
            chunks += 1;
            exchange.event(&value.to_string(), chunks);
        }
        samples.push(sample);
    }
    if asked.stream {
        if kind != Kind::Sglang {
            let usage = json!({"prompt_tokens": asked.one.prompt.len()});
            exchange.event(&json!({"choices": [], "usage": usage}).to_string(), 0);
        }
        exchange.event("[DONE]", 1);
        return exchange.end_events();
    }
    let mut whole = value(kind, asked, options, &fault, 0, &samples[0], 0);
    if kind != Kind::Sglang {
        for (index, sample) in samples.iter().enumerate().skip(1) {
            let more = value(kind, asked, options, &fault, index, sample, 0);
            let choice = more["choices"][0].clone();
            whole["choices"].as_array_mut().unwrap().push(choice);
        }
    }
    exchange.json(200, &whole);
}

/// A whole answer, or a chunk with the tokens after the first `told`.
fn value(
    kind: Kind,
    asked: &Many,
    options: &Options,
    fault: &Option<Fault>,
    index: usize,
    sample: &Sample,
    told: usize,
) -> Value {
    if *fault == Some(Fault::ErrorInside) {
        return json!({"error": {"message": "EngineCore died", "code": 500}});
    }
    let cumulative = kind == Kind::Sglang && !options.incremental;
    let new = if cumulative {
        &sample.drawn[..]
    } else {
        &sample.drawn[told..]
    };
    let mut ids: Vec<u32> = new.iter().map(|drawn| drawn.token).collect();
    let mut log_probs: Vec<Value> = new.iter().map(|drawn| json!(drawn.log_prob)).collect();
    let mut prompt = asked.one.prompt.clone();
    let mut spans = spans(&sample.drawn);
    let mut end = sample.end;
    let mut label = sample
        .drawn
        .last()
        .map_or_else(String::new, |drawn| drawn.label.clone());
    match fault {
        Some(Fault::ShortLogProbs) => {
            log_probs.pop();
        }
        Some(Fault::NullLogProb) => log_probs[0] = Value::Null,
        Some(Fault::MinusInfinity) => log_probs[0] = json!(-9999.0),
        Some(Fault::PositiveLogProb) => log_probs[0] = json!(0.5),
        Some(Fault::UnknownToken) => ids[0] = 999_999,
        Some(Fault::OtherPrompt) => prompt.insert(0, 1),
        Some(Fault::Label(other)) => {
            spans
                .iter_mut()
                .for_each(|span| span["version"] = json!(other));
            label = other.to_string();
        }
        Some(Fault::ShortSpans) => {
            if let Some(last) = spans.last_mut() {
                last["end"] = json!(last["end"].as_u64().unwrap() - 1);
            }
        }
        Some(Fault::StrangeFinish) => end = end.map(|_| "repetition"),
        _ => {}
    }
    let reports = match kind {
        Kind::Completions => options.reports,
        _ => options.generate_reports,
    };
    let spans = match asked.spans && reports && (end.is_some() || cumulative) {
        true => json!(spans),
        false => Value::Null,
    };
    if kind == Kind::Sglang {
        let pairs = ids.iter().zip(&log_probs);
        let triples: Vec<Value> = pairs
            .map(|(id, log_prob)| json!([log_prob, id, null]))
            .collect();
        let finish = end.map(|end| json!({"type": end, "matched": ids.last()}));
        return json!({"text": "", "output_ids": ids, "meta_info": {
            "id": "x", "finish_reason": finish, "prompt_tokens": prompt.len(), "completion_tokens": sample.drawn.len(),
            "output_token_logprobs": triples, "weight_version": label, "weight_versions": spans,
        }});
    }
    let entry = |(id, log_prob): (&u32, &Value)| match options.old_shape {
        true => {
            json!({"token": format!("token_id:{id}"), "logprob": log_prob, "bytes": null, "top_logprobs": []})
        }
        false => json!({"token_id": id, "logprob": log_prob, "rank": 1, "top_logprobs": []}),
    };
    let listed = match kind {
        Kind::Generate => {
            json!({"content": ids.iter().zip(&log_probs).map(entry).collect::<Vec<_>>()})
        }
        _ => {
            json!({"text_offset": [], "token_logprobs": log_probs, "tokens": [], "top_logprobs": []})
        }
    };
    let first = told == 0 || !asked.stream;
    let echoed = match kind == Kind::Completions && asked.ids && first {
        true => json!(prompt),
        false => Value::Null,
    };
    let choice = json!({
        "index": index,
        "text": "",
        "finish_reason": end,
        "stop_reason": null,
        "token_ids": if asked.ids { json!(ids) } else { Value::Null },
        "prompt_token_ids": echoed,
        "logprobs": if asked.log_probs { listed } else { Value::Null },
        "weight_versions": spans,
    });
    let choices = match fault {
        Some(Fault::Choices(count)) => vec![choice; *count],
        _ => vec![choice],
    };
    let usage = match asked.stream {
        true => Value::Null,
        false => json!({"prompt_tokens": prompt.len(), "completion_tokens": ids.len()}),
    };
    json!({"id": "x", "object": "text_completion", "choices": choices, "usage": usage})
}

/// Runs of equal labels.
fn spans(drawn: &[Drawn]) -> Vec<Value> {
    let mut runs: Vec<(String, usize, usize)> = Vec::new();
    for (at, drawn) in drawn.iter().enumerate() {
        match runs.last_mut() {
            Some((label, _, end)) if *label == drawn.label => *end = at + 1,
            _ => runs.push((drawn.label.clone(), at, at + 1)),
        }
    }
    let span = |(version, start, end)| json!({"version": version, "start": start, "end": end});
    runs.into_iter().map(span).collect()
}
