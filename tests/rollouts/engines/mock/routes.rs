//! The routes of the mock server.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{self, Exchange, Request};
use super::{Fault, Inner, answers, lock, model};

const MODEL: &str = "tiny";

pub fn answer(exchange: &mut Exchange, request: &Request) {
    let inner = exchange.inner;
    let options = lock(&inner.options).clone();
    match exchange.fault.clone() {
        Some(Fault::Status(status)) => return exchange.error(status, "by script"),
        Some(Fault::RetryAfter(seconds)) => {
            return exchange.reply(429, &format!("Retry-After: {seconds}\r\n"), "{}");
        }
        Some(Fault::Hang(time)) => {
            let mut left = time;
            while !left.is_zero()
                && server::is_open(exchange.stream)
                && !inner.down.load(Ordering::SeqCst)
            {
                thread::sleep(Duration::from_millis(10));
                left = left.saturating_sub(Duration::from_millis(10));
            }
            return exchange.hang_up();
        }
        Some(Fault::CloseBefore) => return exchange.hang_up(),
        Some(Fault::Die) => {
            let port = exchange.stream.local_addr().unwrap().port();
            return server::stop(inner, port);
        }
        Some(Fault::Garbage) => return exchange.reply(200, "", "<html>"),
        _ => {}
    }
    let guarded = request.path.starts_with("/v1") || request.path.starts_with("/inference");
    if guarded && options.key.is_some() && request.bearer.as_deref() != options.key {
        return exchange.error(401, "Unauthorized");
    }
    let dev = [
        "/pause",
        "/resume",
        "/is_paused",
        "/collective_rpc",
        "/reset_prefix_cache",
        "/update_weight_version",
        "/weight_info",
    ];
    if dev.contains(&request.path.as_str()) && !options.dev_mode {
        return exchange.json(404, &json!({"detail": "Not Found"}));
    }
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/health" | "/health_generate") => exchange.reply(200, "", ""),
        ("GET", "/v1/models") => {
            let own = json!({"id": MODEL, "root": inner.root, "parent": null, "max_model_len": options.max_model_len});
            let mut data = vec![own];
            for name in lock(&inner.world).adapters.keys() {
                data.insert(
                    0,
                    json!({"id": name, "root": "x", "parent": MODEL, "max_model_len": null}),
                );
            }
            exchange.json(200, &json!({"object": "list", "data": data}));
        }
        ("GET", "/weight_info" | "/model_info") => match options.labels {
            true => {
                let label = lock(&inner.world).label.clone();
                exchange.json(200, &json!({"weight_version": label}));
            }
            false => exchange.json(404, &json!({"detail": "Not Found"})),
        },
        ("POST", "/pause") => {
            let mode = |name: &str| request.query.contains(&format!("mode={name}"));
            pause(
                inner,
                !mode("keep"),
                request.query.contains("clear_cache=true"),
            );
            exchange.json(200, &json!({"status": "paused"}));
        }
        ("POST", "/pause_generation") => {
            let mode = request.body["mode"].as_str().unwrap_or("abort");
            pause(inner, mode == "abort", mode == "retract");
            exchange.json(200, &json!({"success": true}));
        }
        ("POST", "/resume" | "/continue_generation") => {
            lock(&inner.world).paused = false;
            inner.changed.notify_all();
            exchange.json(200, &json!({"status": "resumed"}));
        }
        ("POST", "/collective_rpc") => {
            assert_eq!(request.body["method"], "reload_weights");
            let folder = request.body["kwargs"]["weights_path"]
                .as_str()
                .unwrap_or_default();
            match reload(exchange, folder) {
                Ok(()) => exchange.json(200, &json!({"results": [null]})),
                Err(message) => exchange.error(500, &message),
            }
        }
        ("POST", "/update_weights_from_disk") => {
            let folder = request.body["model_path"]
                .as_str()
                .unwrap_or_default()
                .to_string();
            match reload(exchange, &folder) {
                Ok(()) => {
                    let mut world = lock(&inner.world);
                    world.label = request.body["weight_version"]
                        .as_str()
                        .unwrap_or("default")
                        .into();
                    if request.body["flush_cache"] == true && options.resets {
                        world.prefixes.clear();
                    }
                    drop(world);
                    exchange.json(
                        200,
                        &json!({"success": true, "message": "done", "num_paused_requests": 0}),
                    );
                }
                Err(message) => exchange.json(400, &json!({"success": false, "message": message})),
            }
        }
        ("POST", "/update_weight_version") if options.labels => {
            let label = request.body["new_version"].as_str().unwrap_or_default();
            lock(&inner.world).label = label.into();
            exchange.json(200, &json!({"success": true}));
        }
        ("POST", "/reset_prefix_cache") => {
            if options.resets {
                lock(&inner.world).prefixes.clear();
            }
            exchange.json(200, &json!({"success": options.resets}));
        }
        ("POST", "/v1/load_lora_adapter" | "/load_lora_adapter") if options.lora => {
            let name = request.body["lora_name"]
                .as_str()
                .unwrap_or_default()
                .to_string();
            let folder = request.body["lora_path"].as_str().unwrap_or_default();
            let base = lock(&inner.world).model.clone();
            match model::read_adapter(&base, Path::new(folder)) {
                _ if lock(&inner.world).adapters.contains_key(&name) => {
                    exchange.error(400, "has already been loaded")
                }
                Ok(adapter) => {
                    lock(&inner.world).adapters.insert(name.clone(), adapter);
                    exchange.reply(
                        200,
                        "",
                        &format!("Success: LoRA adapter '{name}' added successfully."),
                    );
                }
                Err(error) => exchange.error(404, &error.to_string()),
            }
        }
        ("POST", "/v1/unload_lora_adapter" | "/unload_lora_adapter") if options.lora => {
            let name = request.body["lora_name"].as_str().unwrap_or_default();
            match lock(&inner.world).adapters.remove(name) {
                Some(_) => exchange.reply(200, "", "Success"),
                None => exchange.error(404, "no such adapter"),
            }
        }
        ("POST", "/v1/completions" | "/generate") => complete(exchange, request),
        ("POST", "/inference/v1/generate") => match options.scale_out {
            true => complete(exchange, request),
            false => exchange.json(403, &json!({"error": "scale-out endpoints are disabled"})),
        },
        _ => exchange.json(404, &json!({"detail": "Not Found"})),
    }
}

fn pause(inner: &Inner, abort: bool, recompute: bool) {
    let mut world = lock(&inner.world);
    world.paused = true;
    world.recompute = recompute;
    world.aborts += u64::from(abort);
    drop(world);
    inner.changed.notify_all();
    // The engine answers when its requests have ended.
    let before = std::time::Instant::now();
    while abort
        && inner.gauges.running.load(Ordering::SeqCst) > 0
        && before.elapsed() < Duration::from_millis(200)
    {
        thread::sleep(Duration::from_millis(1));
    }
}

fn reload(exchange: &Exchange, folder: &str) -> Result<(), String> {
    let inner = exchange.inner;
    assert!(
        lock(&inner.world).paused,
        "weights are changed while it generates"
    );
    if exchange.fault == Some(Fault::Tear) {
        lock(&inner.world).torn = true;
        return Err("shapes do not match".into());
    }
    let new = model::try_read(Path::new(folder)).map_err(|error| {
        lock(&inner.world).torn = true;
        error.to_string()
    })?;
    let mut world = lock(&inner.world);
    let old = world.model.clone();
    world.model = new;
    if exchange.fault == Some(Fault::KeepOneTensor) {
        world.model.embed_tokens = old.embed_tokens;
    }
    world.torn = false;
    world.epoch += 1;
    Ok(())
}

fn complete(exchange: &mut Exchange, request: &Request) {
    let inner = exchange.inner;
    let options = lock(&inner.options).clone();
    if lock(&inner.world).torn {
        let port = exchange.stream.local_addr().unwrap().port();
        return server::stop(inner, port);
    }
    let kind = answers::Kind::of(&request.path);
    let asked = match answers::read(kind, &request.body, &options.ignores) {
        Ok(asked) => asked,
        Err(message) => return exchange.error(400, &message),
    };
    let known = |name: &String| name == MODEL || lock(&inner.world).adapters.contains_key(name);
    if let Some(name) = asked.one.model.as_ref().filter(|name| !known(name)) {
        let message = format!("The model `{name}` does not exist.");
        return exchange.error(
            if kind == answers::Kind::Sglang {
                400
            } else {
                404
            },
            &message,
        );
    }
    let vocabulary = {
        use rlvr::policy::PolicyModel;
        lock(&inner.world).model.vocab_size()
    };
    let prompt = &asked.one.prompt;
    if prompt.is_empty()
        || prompt.len() >= options.max_model_len
        || prompt.iter().any(|&id| id as usize >= vocabulary)
    {
        return exchange.error(
            400,
            "the prompt is empty, too long, or has a token out of vocabulary",
        );
    }
    answers::answer(exchange, kind, &asked, &options);
}

/// The value of a field, unless it is one that this server does not know.
pub fn field<'a>(body: &'a Value, name: &str, ignores: &[&str]) -> &'a Value {
    match ignores.contains(&name) {
        true => &Value::Null,
        false => &body[name],
    }
}
