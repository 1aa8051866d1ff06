//! A GRPO step of a small model from random weights, as `peer_step.py` measures it with TRL.
//!
//! `cargo bench --features hf --bench step -- [--steps 8] [--dim 128] [--layers 4] [--prompts 8] [--group 8] [--prompt-length 16] [--completion 48]`
//!
//! Prints one JSON object: median seconds of a step and of its parts, processor seconds and the
//! part of them that the kernel took.

#[path = "../examples/common/allocator.rs"]
mod allocator;

use std::collections::BTreeMap;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use rlvr::Result;
use rlvr::loss::PolicyObjective;
use rlvr::policy::causal::CausalConfig;
use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::GenerationConfig;
use rlvr::train::{OptimizerConfig, Schedule, Trainer, TrainerConfig};
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// Steps; the first is not counted
    #[arg(long, default_value_t = 8)]
    steps: usize,
    /// Width of the model
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Layers of the model
    #[arg(long, default_value_t = 4)]
    layers: usize,
    /// Problems of a step
    #[arg(long, default_value_t = 8)]
    prompts: usize,
    /// Completions of a problem
    #[arg(long, default_value_t = 8)]
    group: usize,
    /// Tokens of a prompt
    #[arg(long, default_value_t = 16)]
    prompt_length: usize,
    /// Tokens of a completion
    #[arg(long, default_value_t = 48)]
    completion: usize,
    /// Completions that are trained on together; all, unless given
    #[arg(long)]
    micro_batch: Option<usize>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    allocator::keep_memory();
    let args = Args::parse();
    let alphabet = "0123456789+-*/()= abcdefghijklmnopqrstuvwxyz<>?.,:#|\nABCDEFGHI";
    let tokenizer = CharTokenizer::new(alphabet, &[])?;
    let shape = CausalConfig {
        hidden_size: args.dim,
        intermediate_size: 4 * args.dim,
        num_hidden_layers: args.layers,
        max_position_embeddings: args.prompt_length + args.completion + 8,
        attention_bias: true,
        tie_word_embeddings: false,
        initializer_range: Some(0.02),
        ..CausalConfig::new(tokenizer.vocab_size().max(64))
    };
    let policy = shape.init(0, &Device::flex().autodiff())?;
    let parameters = policy.num_params();

    let mut state = 12345u64;
    let mut digit = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"0123456789+-"[(state % 12) as usize])
    };
    let mut problem = || {
        Problem::new(
            (0..args.prompt_length).map(|_| digit()).collect::<String>(),
            "",
        )
    };
    let problems: Vec<Problem> = (0..args.prompts * (args.steps + 2))
        .map(|_| problem())
        .collect();
    let ones = FnReward::new("ones", |input| {
        let count = |digit: char| input.completion().matches(digit).count() as f64;
        Ok(Some(count('1') - 0.1 * count('2')))
    });
    let config = TrainerConfig {
        problems_per_step: args.prompts,
        group_size: args.group,
        generation: GenerationConfig::new(args.completion, tokenizer.stop_tokens()),
        objective: PolicyObjective {
            kl: None,
            ..PolicyObjective::grpo()
        },
        micro_batch: args.micro_batch.unwrap_or(args.prompts * args.group),
        optimizer: OptimizerConfig::new(Schedule::constant(1e-4)),
        ..TrainerConfig::default()
    };
    let mut trainer = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(RewardSet::builder().add(1.0, ones).build()?)
        .problems(problems)
        .build()?;

    let mut seconds: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut processor = (0.0, 0.0);
    for step in 0..args.steps {
        if step == 1 {
            processor = processor_seconds();
        }
        let started = Instant::now();
        let report = trainer.step()?;
        let whole = ("step".to_string(), started.elapsed().as_secs_f64());
        let parts = report.metrics.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("time/").filter(|name| *name != "step")?;
            Some((name.to_string(), *value))
        });
        if step > 0 {
            for (name, value) in parts.chain([whole]) {
                seconds.entry(name).or_default().push(value);
            }
        }
    }
    let (user, kernel) = processor_seconds();
    let (user, kernel) = (user - processor.0, kernel - processor.1);
    let wall: f64 = seconds["step"].iter().sum();
    let medians: BTreeMap<&String, f64> = seconds
        .iter()
        .map(|(name, values)| {
            let mut values = values.clone();
            values.sort_by(f64::total_cmp);
            (name, values[values.len() / 2])
        })
        .collect();
    let report = json!({
        "parameters": parameters,
        "median_seconds": medians,
        "cores_busy": (user + kernel) / wall,
        "kernel_share": kernel / (user + kernel),
    });
    println!("{report:#}");
    Ok(())
}

/// Seconds of processor time of this process so far, in user mode and in the kernel.
fn processor_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    // The 14th and 15th fields of the file, in hundredths of a second.
    let field = |index: usize| fields.get(index).copied().unwrap_or(0.0) / 100.0;
    (field(11), field(12))
}
