//! GRPO on open weights:
//! `cargo run --release --features hf --example open_weights -- MODEL PROBLEMS.jsonl OUT`.
//!
//! `MODEL` is a Hugging Face folder, `PROBLEMS.jsonl` has the fields `question` and `answer`, and
//! `OUT` becomes a folder that `transformers` and vLLM load.

use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use rlvr::policy::hf::{LoadOptions, SaveOptions, load, save};
use rlvr::prelude::*;
use rlvr::prompt::hf::ChatTokenizer;
use rlvr::reward::MathReward;
use rlvr::train::observer::Transcript;

fn main() -> rlvr::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, problems, out] = args.as_slice() else {
        panic!("usage: open_weights MODEL PROBLEMS.jsonl OUT");
    };
    let policy = load(model, &LoadOptions::f32(), &Device::flex().autodiff())?;
    let system = "Think first, then put the answer into \\boxed{}.";
    let tokenizer = ChatTokenizer::from_folder(model)?.with_system(system);
    let problems = split(JsonLines::default().read(problems)?, 4, 0)?;

    let config = TrainerConfig {
        problems_per_step: 4,
        group_size: 4,
        micro_batch: 4,
        generation: GenerationConfig {
            max_new_tokens: 64,
            ..GenerationConfig::default()
        },
        // Pretrained weights; 1e-3 suits a model from scratch.
        optimizer: OptimizerConfig::new(Schedule::constant(1e-6)),
        ..TrainerConfig::default()
    };
    let rewards = RewardSet::builder()
        .add(1.0, MathReward::default())
        .build()?;
    let mut trainer = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(rewards)
        .problems(problems.train)
        .build()?;

    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(Transcript::new(std::io::stdout(), 10)),
        Box::new(MetricsFile::create("metrics.jsonl")?),
    ];
    let run = RunConfig {
        steps: 20,
        ..RunConfig::default()
    };
    trainer.run(&run, &mut observers, &AtomicBool::new(false))?;
    save(
        &trainer.into_policy(),
        out,
        &SaveOptions::from_folder(model),
    )?;
    Ok(())
}
