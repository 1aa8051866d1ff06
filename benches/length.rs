//! How time and memory grow with the length: an update and generation of completions of 128 tokens
//! and more.
//!
//! `cargo bench --bench length -- [--lengths 128,512,2048,4096] [--rows 4] [--dim 256] [--layers 4]
//! [--device DEVICE] [--gradient-checkpointing]`
//!
//! Prints one JSON object a length: seconds and bytes a token of an update (forward, log-probs,
//! loss, backward), where the bytes are what the peak of the process grew by, and seconds a token
//! of generation.

#[path = "../examples/common/backend.rs"]
mod backend;

use std::time::Instant;

use backend::Backend;
use clap::Parser;
use rlvr::Result;
use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
use rlvr::policy::causal::CausalConfig;
use rlvr::policy::{LogProbConfig, PolicyModel, ScoredTokens};
use rlvr::prompt::Problem;
use rlvr::rollout::{
    GenerationConfig, GenerationRequest, Rollout, RolloutBatch, RolloutBuffer, RolloutGroup,
    generate,
};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    /// Tokens of a completion
    #[arg(long, value_delimiter = ',', default_values_t = [128, 512, 2048, 4096])]
    lengths: Vec<usize>,
    /// Completions
    #[arg(long, default_value_t = 4)]
    rows: usize,
    /// Width of the model
    #[arg(long, default_value_t = 256)]
    dim: usize,
    /// Layers of the model
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, value_enum, default_value_t)]
    device: Backend,
    /// Recompute blocks in the backward pass
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let longest = args.lengths.iter().max().copied().unwrap_or(0);
    let shape = CausalConfig {
        hidden_size: args.dim,
        intermediate_size: 3 * args.dim,
        num_hidden_layers: args.layers,
        max_position_embeddings: longest + 16,
        ..CausalConfig::new(256)
    };
    let device = args.device.device(0).autodiff();
    let model = shape.init(0, &device)?;
    let model = model.with_gradient_checkpointing(args.gradient_checkpointing);
    for &length in &args.lengths {
        let tokens = |row: usize| {
            (0..length)
                .map(|t| ((t * 31 + row * 7) % 256) as u32)
                .collect::<Vec<_>>()
        };
        let rollouts = (0..args.rows)
            .map(|row| Rollout::new(tokens(row), vec![-1.0; length], ""))
            .collect();
        let mut buffer = RolloutBuffer::new();
        buffer.push(RolloutGroup::new(
            Problem::new("", ""),
            vec![1, 2, 3, 4],
            rollouts,
        ));
        let count = (args.rows * length) as f64;

        reset_peak();
        let before = status_kib("VmRSS");
        let started = Instant::now();
        let batch = RolloutBatch::all(&buffer, &device)?;
        let pass = batch.forward_pass(&model)?;
        let scored = ScoredTokens::new(
            pass,
            model.unembedding(),
            batch.targets.clone(),
            &LogProbConfig::default(),
        )?;
        let input = LossInput::new(
            scored.log_probs.clone(),
            batch.mask.clone(),
            batch.mask.clone(),
        );
        let loss = PolicyObjective::reinforce().loss(&input, StepCounts::of(&buffer.lengths()))?;
        drop(scored.backward(loss.loss, &model)?);
        let update = started.elapsed().as_secs_f64();
        let grown = status_kib("VmHWM").saturating_sub(before);

        let requests = [GenerationRequest::new(
            vec![1, 2, 3, 4],
            args.rows,
            [length as u64],
        )];
        let started = Instant::now();
        let plain = burn::module::Module::valid(&model);
        generate(
            &plain,
            &requests,
            &GenerationConfig::new(length, Vec::new()),
        )?;
        let generation = started.elapsed().as_secs_f64();
        println!(
            "{}",
            json!({
                "tokens_of_a_completion": length,
                "update_microseconds_a_token": (1e6 * update / count).round(),
                "update_peak_bytes_a_token": (1024.0 * grown as f64 / count).round(),
                "generation_microseconds_a_token": (1e6 * generation / count).round(),
            })
        );
    }
    Ok(())
}

/// Sets the peak of the process to what it uses now.
fn reset_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// A field of Linux's `/proc/self/status`: `VmRSS` is resident now, `VmHWM` was at most.
fn status_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
