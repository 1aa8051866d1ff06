//! Generation with the tiny model, token by token.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;

use burn::module::Module;
use burn::tensor::Device;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rlvr::policy::causal::CausalModel;
use rlvr::policy::hf::{LoadOptions, load, load_adapters};
use rlvr::policy::{PolicyCache, PolicyModel, TokenBatch};

use super::{Inner, Options, lock};

pub fn read(folder: &Path) -> CausalModel {
    load(folder, &LoadOptions::f32(), &Device::flex()).unwrap()
}

pub fn try_read(folder: &Path) -> rlvr::Result<CausalModel> {
    load(folder, &LoadOptions::f32(), &Device::flex())
}

pub fn read_adapter(base: &CausalModel, folder: &Path) -> rlvr::Result<CausalModel> {
    Ok(load_adapters(base.clone(), folder)?.0.valid())
}

/// The settings of a request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub model: Option<String>,
    pub salt: String,
    pub prompt: Vec<u32>,
    pub max_tokens: usize,
    pub temperature: f64,
    pub top_k: usize,
    pub top_p: f64,
    pub min_p: f64,
    pub seed: u64,
    pub stop: Vec<u32>,
    pub ignore_eos: bool,
    /// Whether log-probs are of what top-k, top-p and min-p leave; SGLang's are not.
    pub truncated: bool,
}

/// One token of an answer.
#[derive(Clone, Debug)]
pub struct Drawn {
    pub token: u32,
    pub log_prob: f64,
    /// The label of the weights.
    pub label: String,
}

/// Generates to the end and returns the reason: `stop`, `length`, `abort`. `take` gets each token
/// and returns whether to continue.
pub fn generate(
    inner: &Inner,
    asked: &Asked,
    alive: &mut dyn FnMut() -> bool,
    take: &mut dyn FnMut(&Drawn) -> bool,
) -> &'static str {
    let options = lock(&inner.options).clone();
    let gauges = &inner.gauges;
    let running = gauges.running.fetch_add(1, Ordering::SeqCst) + 1;
    gauges.most_running.fetch_max(running, Ordering::SeqCst);
    let end = tokens(inner, asked, &options, alive, take);
    gauges.running.fetch_sub(1, Ordering::SeqCst);
    if end == "closed" {
        gauges.closed.fetch_add(1, Ordering::SeqCst);
    }
    end
}

fn tokens(
    inner: &Inner,
    asked: &Asked,
    options: &Options,
    alive: &mut dyn FnMut() -> bool,
    take: &mut dyn FnMut(&Drawn) -> bool,
) -> &'static str {
    let mut rng = rlvr::random::generator(&[asked.seed]);
    let adapter = |world: &super::World| {
        let named = asked
            .model
            .as_ref()
            .and_then(|name| world.adapters.get(name));
        named.cloned()
    };
    // A request to a paused server waits.
    let (mut model, mut label, mut epoch, aborts, pinned) = {
        let mut world = lock(&inner.world);
        while world.paused {
            if !alive() {
                return "closed";
            }
            world = inner
                .changed
                .wait_timeout(world, std::time::Duration::from_millis(20))
                .unwrap()
                .0;
        }
        let adapter = adapter(&world);
        let pinned = adapter.is_some();
        let model = adapter.unwrap_or_else(|| world.model.clone());
        (
            model,
            world.label.clone(),
            world.epoch,
            world.aborts,
            pinned,
        )
    };
    let mut all = asked.prompt.clone();
    let key = (asked.salt.clone(), all[..all.len() - 1].to_vec());
    let known = lock(&inner.world).prefixes.get(&key).cloned();
    let mut cache = known.unwrap_or_else(|| {
        let mut cache = model.empty_cache(1);
        if all.len() > 1 {
            forward(&model, &all[..all.len() - 1], &mut cache);
        }
        cache
    });
    // Only prompts of the base model are cached.
    if !pinned {
        lock(&inner.world).prefixes.insert(key, cache.clone());
    }
    let mut count = 0;
    loop {
        if !options.pace.is_zero() {
            thread::sleep(options.pace);
        }
        {
            let mut world = lock(&inner.world);
            loop {
                if !alive() {
                    return "closed";
                }
                if world.aborts != aborts {
                    return "abort";
                }
                if !world.paused {
                    break;
                }
                world = inner
                    .changed
                    .wait_timeout(world, std::time::Duration::from_millis(20))
                    .unwrap()
                    .0;
            }
            if world.epoch != epoch && !pinned {
                (model, label, epoch) = (world.model.clone(), world.label.clone(), world.epoch);
                if world.recompute {
                    drop(world);
                    cache = model.empty_cache(1);
                    if all.len() > 1 {
                        forward(&model, &all[..all.len() - 1], &mut cache);
                    }
                }
            }
        }
        let logits = forward(&model, &all[all.len() - 1..], &mut cache);
        let (token, log_prob) = draw(&logits, asked, options, &mut rng);
        all.push(token);
        count += 1;
        inner.gauges.tokens.fetch_add(1, Ordering::SeqCst);
        let label = label.clone();
        if !take(&Drawn {
            token,
            log_prob,
            label,
        }) {
            return "closed";
        }
        if asked.stop.contains(&token) || (!asked.ignore_eos && options.eos.contains(&token)) {
            return "stop";
        }
        if count >= asked.max_tokens || all.len() >= options.max_model_len {
            return "length";
        }
    }
}

/// Reads tokens and gives the logits after the last.
fn forward(model: &CausalModel, tokens: &[u32], cache: &mut rlvr::policy::KvCache) -> Vec<f64> {
    assert_eq!(cache.rows(), 1);
    let batch = TokenBatch::from_rows(&[tokens], &model.device()).unwrap();
    let hidden = model.forward(&batch, cache).unwrap();
    let [_, width, size] = hidden.dims();
    let last = hidden
        .reshape([width, size])
        .slice([width - 1..width, 0..size]);
    let logits = last.matmul(model.unembedding()).into_data();
    logits
        .convert::<f32>()
        .try_to_vec::<f32>()
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect()
}

/// Draws a token; its log-prob is that of the sampling distribution, or raw.
fn draw(logits: &[f64], asked: &Asked, options: &Options, rng: &mut ChaCha8Rng) -> (u32, f64) {
    let softmax = |scale: f64| {
        let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|l| ((l - top) / scale).exp()).collect();
        let total: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / total).collect::<Vec<f64>>()
    };
    let raw = softmax(1.0);
    let greedy = asked.temperature == 0.0;
    let temperature = if greedy { 1.0 } else { asked.temperature };
    let p = softmax(temperature * options.secret_temperature);
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    if asked.top_k > 0 {
        order.truncate(asked.top_k);
    }
    let mut sum = 0.0;
    let reached = order.iter().position(|&id| {
        sum += p[id];
        sum >= asked.top_p
    });
    if asked.top_p < 1.0 {
        order.truncate(reached.map_or(order.len(), |at| at + 1));
    }
    let least = asked.min_p * p[order[0]];
    order.retain(|&id| p[id] >= least);
    if greedy {
        return (order[0] as u32, raw[order[0]].ln());
    }
    let mass: f64 = order.iter().map(|&id| p[id]).sum();
    let mut left = rng.random::<f64>() * mass;
    let mut token = order[0];
    for &id in &order {
        token = id;
        if left < p[id] {
            break;
        }
        left -= p[id];
    }
    let log_prob = match options.raw {
        true => raw[token].ln(),
        false if !asked.truncated => p[token].ln(),
        false => (p[token] / mass).ln(),
    };
    (token as u32, log_prob)
}
