//! A model that learns one-digit sums, first from a few demonstrations and then from rewards:
//! `cargo run --release --example from_scratch`.

use burn::tensor::Device;
use rlvr::prelude::*;
use rlvr::prompt::Arithmetic;
use rlvr::train::{Demonstration, SftConfig, supervise};

fn main() -> rlvr::Result<()> {
    // Problems such as `3+8=`, and a tokenizer of their characters.
    let task = Arithmetic {
        digits: 1,
        terms: 2,
    };
    let problems = task.problems(100, 0)?;
    let tokenizer = CharTokenizer::new(task.alphabet(), &[])?;

    // A small transformer with random weights. The device decides where everything runs.
    let device = Device::flex().autodiff();
    let mut policy = CausalConfig::new(tokenizer.vocab_size()).init(0, &device)?;

    // A short warm start, so that some answers are right: rewards need something to reward.
    let shown = problems
        .iter()
        .map(|problem| Demonstration::new(&problem.prompt, &problem.answer));
    let shown: Vec<Demonstration> = shown.collect();
    let warm_start = SftConfig {
        steps: 12,
        optimizer: OptimizerConfig::new(Schedule::constant(1e-3)),
        ..SftConfig::default()
    };
    supervise(&mut policy, &tokenizer, &shown, &warm_start, |_| true)?;

    let right = |input: &RewardInput| input.completion() == input.problem.answer;
    let rewards = RewardSet::builder().add(1.0, FnReward::plain("accuracy", right));
    let config = TrainerConfig {
        // From scratch; 1e-6 suits pretrained weights, 1e-5 adapters.
        optimizer: OptimizerConfig::new(Schedule::constant(3e-4).with_warmup(10)),
        ..TrainerConfig::default() // GRPO
    };
    let mut trainer = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(rewards.build()?)
        .problems(problems.clone())
        .build()?;
    for steps in (0..=150).step_by(30) {
        trainer.train(steps)?;
        let found = trainer.evaluate(&problems, &Default::default())?;
        println!("step {steps:>3}: {:>3.0} % right", 100.0 * found.accuracy);
    }
    Ok(())
}
