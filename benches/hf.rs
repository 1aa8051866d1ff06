//! Generation and a GRPO training step with real weights, as `peer_hf.py` measures them with
//! transformers and PyTorch.
//!
//! `cargo bench --features hf --bench hf -- --model DIR --prompts FILE.json`, where the file is
//! `{"prompts": [[token ids], ...]}`.

#[path = "../examples/common/allocator.rs"]
mod allocator;

use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use rlvr::Result;
use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::policy::hf::{LoadOptions, load};
use rlvr::policy::{GradientSum, LogProbConfig, PolicyModel, ScoredTokens, WeightFormat};
use rlvr::prompt::{CharTokenizer, Problem};
use rlvr::rollout::{
    GenerationConfig, GenerationRequest, RolloutBatch, RolloutBuffer, RolloutView, generate,
    sample_group,
};
use rlvr::train::{Optimizer, OptimizerConfig, Schedule};
use rlvr::types::PerToken;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    /// The model's folder
    #[arg(long)]
    model: Option<PathBuf>,
    /// The prompts' tokens
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// Completions of each prompt
    #[arg(long, default_value_t = 4)]
    samples: usize,
    /// Tokens of each completion
    #[arg(long, default_value_t = 48)]
    new_tokens: usize,
    /// Rounds; one more is run first and not counted
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Completions that are trained on together
    #[arg(long, default_value_t = 4)]
    micro_batch: usize,
    /// Train adapters of this rank only
    #[arg(long)]
    lora: Option<usize>,
    /// How the weights are stored during generation: trained, bf16 or int8
    #[arg(long, default_value = "trained")]
    weights: WeightFormat,
    /// Recompute blocks in the backward pass
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Only generation, or only training
    #[arg(long, value_parser = ["generation", "training"])]
    only: Option<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Deserialize)]
struct Prompts {
    prompts: Vec<Vec<u32>>,
}

fn main() -> Result<()> {
    allocator::keep_memory();
    let args = Args::parse();
    let (Some(folder), Some(file)) = (&args.model, &args.prompts) else {
        println!("nothing to measure: give --model DIR --prompts FILE.json");
        return Ok(());
    };
    let text = std::fs::read_to_string(file).map_err(|e| rlvr::Error::io(file, e))?;
    let prompts: Prompts =
        serde_json::from_str(&text).map_err(|reason| rlvr::Error::model_file(file, reason))?;
    let device = Device::flex().autodiff();
    let started = Instant::now();
    let mut model = load(folder, &LoadOptions::f32(), &device)?
        .with_gradient_checkpointing(args.gradient_checkpointing);
    if let Some(rank) = args.lora {
        model = model.with_lora(&LoraConfig {
            rank,
            ..LoraConfig::default()
        })?;
    }
    let mut report = json!({
        "parameters": model.num_params(),
        "loading_seconds": started.elapsed().as_secs_f64(),
        "resident_mib_after_loading": status_mib("VmRSS"),
    });

    let requests: Vec<GenerationRequest> = prompts
        .prompts
        .iter()
        .enumerate()
        .map(|(index, prompt)| GenerationRequest::new(prompt.clone(), args.samples, [index as u64]))
        .collect();
    let config = GenerationConfig {
        weights: args.weights,
        ..GenerationConfig::new(args.new_tokens, Vec::new())
    };
    let tokens = requests.len() * args.samples * args.new_tokens;
    let only = |what: &str| args.only.as_deref().is_none_or(|only| only == what);
    let rounds = if only("generation") { args.rounds } else { 0 };
    let (seconds, answers) = timed(rounds, || generate(&model.valid(), &requests, &config))?;
    if only("generation") {
        report["generation"] = figures(&seconds, tokens);
    }
    if only("training") {
        let mut buffer = RolloutBuffer::new();
        // Only tokens matter here: nothing is decoded that has to be read.
        let alphabet: String = (char::from(32)..).take(model.vocab_size()).collect();
        let tokenizer = CharTokenizer::new(&alphabet, &[])?;
        for (request, completions) in requests.iter().zip(answers) {
            let problem = Problem::new("", "");
            let prompt = request.prompt.clone();
            buffer.push(sample_group(problem, prompt, completions, &tokenizer, 0)?);
        }
        let mut optimizer = Optimizer::new(OptimizerConfig::new(Schedule::constant(1e-6)))?;
        let step = || training_step(&mut model, &mut optimizer, &buffer, args.micro_batch);
        let (seconds, _) = timed(args.rounds, step)?;
        report["training"] = figures(&seconds, tokens);
    }
    println!("{report:#}");
    Ok(())
}

/// One update on all rollouts: clipped surrogate, every second completion better than its
/// neighbour.
fn training_step(
    model: &mut CausalModel,
    optimizer: &mut Optimizer,
    buffer: &RolloutBuffer,
    micro_batch: usize,
) -> Result<()> {
    let objective = PolicyObjective::dapo();
    let counts = StepCounts::of(&buffer.lengths());
    let mut gradients = GradientSum::default();
    let all: Vec<usize> = (0..buffer.len()).collect();
    for part in all.chunks(micro_batch) {
        let batch = RolloutBatch::new(&RolloutView::new(buffer), part, &model.device())?;
        let scored = ScoredTokens::new(
            batch.forward_pass(model)?,
            model.unembedding(),
            batch.targets.clone(),
            &LogProbConfig::default(),
        )?;
        let advantages: PerToken = buffer
            .lengths()
            .iter()
            .enumerate()
            .map(|(row, &length)| vec![if row % 2 == 0 { 1.0 } else { -1.0 }; length])
            .collect();
        let input = LossInput::new(
            scored.log_probs.clone(),
            batch.per_token(&advantages, "advantages")?,
            batch.mask.clone(),
        );
        let loss = objective.loss(&input, counts)?;
        gradients.add(model, scored.backward(loss.loss, model)?);
    }
    optimizer.step(model, gradients.finish())?;
    Ok(())
}

/// Seconds of each round after the first, and what the last one gave.
fn timed<T>(rounds: usize, mut work: impl FnMut() -> Result<T>) -> Result<(Vec<f64>, T)> {
    let mut result = work()?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        result = work()?;
        seconds.push(started.elapsed().as_secs_f64());
    }
    Ok((seconds, result))
}

fn figures(seconds: &[f64], tokens: usize) -> Value {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    json!({
        "seconds": seconds,
        "median_seconds": median,
        "completion_tokens_per_second": tokens as f64 / median,
        "peak_mib": status_mib("VmHWM"),
    })
}

/// A field of Linux's `/proc/self/status`: what is resident now, or was at most.
fn status_mib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
