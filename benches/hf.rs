//! Generation and a GRPO training step with real weights, as `peer_hf.py` measures them with
//! transformers and PyTorch.
//!
//! `cargo bench --features hf --bench hf -- --model DIR --prompts FILE.json`, where the file is
//! `{"prompts": [[token ids], ...]}`. `--create SHAPE` writes both, with random weights and tokens,
//! if DIR does not exist.

#[path = "../examples/common/allocator.rs"]
mod allocator;
#[path = "../examples/common/backend.rs"]
mod backend;

use std::path::{Path, PathBuf};
use std::time::Instant;

use backend::Backend;
use burn::module::Module;
use burn::tensor::{Device, FloatDType};
use clap::{Parser, ValueEnum};
use rlvr::loss::{LossInput, PolicyObjective, StepCounts};
use rlvr::plan::{AttentionShape, Hardware, ModelFlops, ModelShape, Tokens};
use rlvr::policy::causal::{CausalConfig, CausalModel, LoraConfig};
use rlvr::policy::hf::{LoadOptions, SaveOptions, load, save};
use rlvr::policy::{GradientSum, LogProbConfig, PolicyModel, ScoredTokens, WeightFormat};
use rlvr::prompt::{CharTokenizer, Problem};
use rlvr::rollout::{
    GenerationConfig, GenerationRequest, RolloutBatch, RolloutBuffer, RolloutView, generate,
    sample_group,
};
use rlvr::train::{Optimizer, OptimizerConfig, Schedule};
use rlvr::types::PerToken;
use rlvr::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Parser)]
struct Args {
    /// The model's folder
    #[arg(long)]
    model: Option<PathBuf>,
    /// The prompts' tokens
    #[arg(long)]
    prompts: Option<PathBuf>,
    /// The shape of a model to create: `tiny`, or the name of an open model such as qwen2.5-0.5b
    #[arg(long)]
    create: Option<String>,
    /// The number of prompts that `--create` writes
    #[arg(long, default_value_t = 4)]
    prompt_count: usize,
    /// Tokens of each prompt that `--create` writes
    #[arg(long, default_value_t = 64)]
    prompt_tokens: usize,
    #[arg(long, value_enum, default_value_t)]
    device: Backend,
    /// The type of the weights
    #[arg(long, value_enum, default_value_t)]
    dtype: Type,
    /// The hardware whose peak the MFU refers to, such as h100
    #[arg(long)]
    hardware: Option<String>,
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
    /// Further training steps, to see whether the device's memory grows
    #[arg(long, default_value_t = 0)]
    memory_steps: usize,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Types of weights.
#[derive(Clone, Copy, Default, ValueEnum)]
enum Type {
    #[default]
    F32,
    Bf16,
}

impl Type {
    fn options(self) -> LoadOptions {
        LoadOptions {
            dtype: Some(match self {
                Self::F32 => FloatDType::F32,
                Self::Bf16 => FloatDType::BF16,
            }),
        }
    }
}

#[derive(Serialize, Deserialize)]
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
    let device = args.device.device(0);
    if let Some(shape) = &args.create
        && !folder.exists()
    {
        create(shape, &args, folder, file, &device)?;
    }
    let device = device.autodiff();
    let text = std::fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
    let prompts: Prompts =
        serde_json::from_str(&text).map_err(|reason| Error::model_file(file, reason))?;
    let started = Instant::now();
    let mut model = load(folder, &args.dtype.options(), &device)?
        .with_gradient_checkpointing(args.gradient_checkpointing);
    if let Some(rank) = args.lora {
        model = model.with_lora(&LoraConfig {
            rank,
            ..LoraConfig::default()
        })?;
    }
    let model_shape = ModelShape::from(model.config());
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
        let mut step = || {
            training_step(&mut model, &mut optimizer, &buffer, args.micro_batch)?;
            device.sync().map_err(|reason| Error::Device {
                what: "an update".into(),
                reason: reason.to_string(),
            })
        };
        let (seconds, _) = timed(args.rounds, &mut step)?;
        report["training"] = figures(&seconds, tokens);
        if let Some(name) = &args.hardware {
            let flops = update_flops(&model_shape, &prompts.prompts, &args);
            let peak = Hardware::named(name)?.tflops * 1e12;
            report["training"]["mfu"] = json!(flops / median(&seconds) / peak);
        }
        if args.memory_steps > 0 {
            let before = device_mib(&device);
            for _ in 0..args.memory_steps {
                step()?;
            }
            report["memory"] = json!({
                "steps": args.memory_steps,
                "device_mib_before": before,
                "device_mib_after": device_mib(&device),
                "host_peak_mib": status_mib("VmHWM"),
            });
        }
    }
    println!("{report:#}");
    Ok(())
}

/// Writes a model of a shape with random weights, and random prompts.
fn create(shape: &str, args: &Args, folder: &Path, file: &Path, device: &Device) -> Result<()> {
    let config = match shape {
        "tiny" => CausalConfig {
            hidden_size: 64,
            num_hidden_layers: 2,
            ..CausalConfig::new(512)
        },
        name => {
            let shape = ModelShape::named(name)?;
            let (AttentionShape::Grouped { kv_heads, head_dim }, None) =
                (shape.attention, shape.experts)
            else {
                return Err(Error::config("create", name, "a dense model"));
            };
            CausalConfig {
                hidden_size: shape.hidden_size as usize,
                intermediate_size: shape.intermediate_size as usize,
                num_hidden_layers: shape.layers as usize,
                num_attention_heads: shape.heads as usize,
                num_key_value_heads: kv_heads as usize,
                head_dim: Some(head_dim as usize),
                tie_word_embeddings: shape.tied,
                ..CausalConfig::new(shape.vocab_size as usize)
            }
        }
    };
    let config = CausalConfig {
        max_position_embeddings: 32_768,
        ..config
    };
    let tokens = config.vocab_size as u32;
    let prompt = |index: usize| {
        let token = |at: usize| (index * 7919 + at * 104_729) as u32 % tokens;
        (0..args.prompt_tokens).map(token).collect()
    };
    let prompts = Prompts {
        prompts: (0..args.prompt_count).map(prompt).collect(),
    };
    save(&config.init(0, device)?, folder, &SaveOptions::default())?;
    let text = serde_json::to_string(&prompts).map_err(|e| Error::model_file(file, e))?;
    std::fs::write(file, text).map_err(|e| Error::io(file, e))
}

/// The FLOPs of an update that reads each prompt once.
fn update_flops(shape: &ModelShape, prompts: &[Vec<u32>], args: &Args) -> f64 {
    let mut read = Tokens::default();
    for prompt in prompts {
        let prompt = prompt.len() as f64;
        read += Tokens::sequence(prompt);
        for _ in 0..args.samples {
            read += Tokens::continuation(prompt, args.new_tokens as f64);
        }
    }
    let adapters = args.lora.map(|rank| shape.adapter_parameters(rank as u64));
    ModelFlops::new(shape, adapters).update(read)
}

/// The memory that the device has reserved, if it reports that.
fn device_mib(device: &Device) -> Option<u64> {
    let usage = device.clone().inner().memory_pool_usage()?;
    Some(usage.bytes_reserved >> 20)
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

fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn figures(seconds: &[f64], tokens: usize) -> Value {
    let median = median(seconds);
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
