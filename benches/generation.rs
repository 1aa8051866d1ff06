//! Continuous generation beside generation batch by batch, with completions of very different
//! lengths.
//!
//! `cargo bench --bench generation -- [--requests 64] [--samples 4] [--mean 32] [--max-rows 32]`
//!
//! A model of the shape of SmolLM2-135M with fresh weights, whose tokens are close to uniform: with
//! one token in `mean` a stop token, lengths are close to geometric. Prints one JSON object a
//! round: seconds, tokens a second and the mean number of completions that a step had, first for
//! batches of `max-rows` completions that each wait for their longest, then for the same requests
//! continuously; and the most memory that was resident.

#[path = "../examples/common/allocator.rs"]
mod allocator;

use std::time::Instant;

use burn::tensor::Device;
use clap::Parser;
use rlvr::Result;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::rollout::{Decoder, GenerationConfig, GenerationRequest};
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    /// Prompts
    #[arg(long, default_value_t = 64)]
    requests: usize,
    /// Completions of each
    #[arg(long, default_value_t = 4)]
    samples: usize,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 64)]
    prompt: usize,
    /// Mean tokens of a completion
    #[arg(long, default_value_t = 32)]
    mean: usize,
    /// Most tokens of a completion
    #[arg(long, default_value_t = 256)]
    new_tokens: usize,
    /// Completions that are generated together
    #[arg(long, default_value_t = 32)]
    max_rows: usize,
    /// Layers of the model
    #[arg(long, default_value_t = 30)]
    layers: usize,
    /// Rounds of each kind
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    allocator::keep_memory();
    let args = Args::parse();
    let shape = CausalConfig {
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: args.layers,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        max_position_embeddings: args.prompt + args.new_tokens,
        tie_word_embeddings: true,
        ..CausalConfig::new(49152)
    };
    let vocabulary = shape.vocab_size;
    let model = shape.init(0, &Device::flex())?;
    let requests: Vec<GenerationRequest> = (0..args.requests)
        .map(|index| {
            let token = |at| ((at * 7919 + index * 104_729) % vocabulary) as u32;
            GenerationRequest::new(
                (0..args.prompt).map(token).collect(),
                args.samples,
                [index as u64],
            )
        })
        .collect();
    let config = GenerationConfig {
        max_rows: args.max_rows,
        ..GenerationConfig::new(
            args.new_tokens,
            (0..vocabulary as u32).step_by(args.mean).collect(),
        )
    };
    let together = (args.max_rows / args.samples).max(1);
    for round in 0..args.rounds {
        let batches = measure(&model, requests.chunks(together), &config)?;
        let continuous = measure(&model, requests.chunks(requests.len()), &config)?;
        println!(
            "{}",
            json!({"round": round, "batches": batches, "continuous": continuous, "peak_mib": peak_mib()})
        );
    }
    Ok(())
}

/// Answers one part after the other.
fn measure<'a>(
    model: &CausalModel,
    parts: impl Iterator<Item = &'a [GenerationRequest]>,
    config: &GenerationConfig,
) -> Result<Value> {
    let started = Instant::now();
    let (mut tokens, mut steps) = (0, 0);
    for part in parts {
        let mut decoder = Decoder::new(model.clone(), 0);
        for (id, request) in (0..).zip(part) {
            decoder.submit(id, request.clone(), config)?;
        }
        while !decoder.is_idle() {
            let finished = decoder.step()?;
            let completions = finished.iter().flat_map(|(_, completions)| completions);
            tokens += completions.map(|c| c.tokens.len()).sum::<usize>();
            steps += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({
        "seconds": seconds,
        "tokens_per_second": tokens as f64 / seconds,
        "completions_a_step": tokens as f64 / f64::from(steps),
    }))
}

/// The most memory that was resident, by Linux's `/proc/self/status`.
fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
