//! What you may bring yourself, a file each: a policy, a reward with data, an observer; and how a
//! policy outlives the program. `cargo run --release --example bring_your_own`
//!
//! A GRU learns to name a multiple of a digit that is itself a digit. `problems.jsonl` has the
//! digits and their multiples.

mod observer;
mod policy;
mod reward;
mod saved;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use observer::Completions;
use policy::GruPolicy;
use reward::Accepted;
use rlvr::burn::tensor::Device;
use rlvr::policy::check_model;
use rlvr::prelude::*;

fn main() -> Result<()> {
    for (prompt, answer) in learn(60)? {
        println!("read back: {prompt:?} -> {answer:?}");
    }
    Ok(())
}

/// Trains for so many steps; what the saved policy then answers, read back.
fn learn(steps: u64) -> Result<Vec<(&'static str, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bring_your_own");
    let problems = JsonLines::default().read(folder.join("problems.jsonl"))?;
    let tokenizer = CharTokenizer::new("0123456789:", &[])?;
    let vocabulary = tokenizer.vocab_size();
    let device = Device::flex();
    device.seed(0);
    let policy = GruPolicy::new(vocabulary, &device.clone().autodiff());
    check_model(&policy)?;

    let config = TrainerConfig {
        problems_per_step: 9,
        group_size: 8,
        generation: GenerationConfig::new(3, tokenizer.stop_tokens()),
        optimizer: OptimizerConfig::new(Schedule::constant(0.01)),
        ..TrainerConfig::default()
    };
    let mut trainer = Trainer::builder(policy, tokenizer.clone())
        .config(config)
        .rewards(RewardSet::builder().add(1.0, Accepted).build()?)
        .problems(problems)
        .build()?;
    let run = RunConfig {
        steps,
        ..RunConfig::default()
    };
    let mut observer = Completions { every: 20 };
    trainer.run(&run, &mut observer, &AtomicBool::new(false))?;

    let file = std::env::temp_dir().join(format!("gru_{}.bpk", std::process::id()));
    saved::save(trainer.policy(), &file)?;
    let policy = saved::load(&file, vocabulary, &device)?;
    std::fs::remove_file(&file).map_err(|error| Error::io(&file, error))?;
    let prompts = ["3:", "4:", "7:"];
    let answers = saved::ask(&policy, &tokenizer, &prompts)?;
    Ok(prompts.into_iter().zip(answers).collect())
}

#[test]
fn it_learns_and_is_read_back() {
    for (prompt, answer) in learn(60).unwrap() {
        let digit = |text: &str| text.parse::<u32>().unwrap();
        let (of, multiple) = (digit(&prompt[..1]), digit(&answer));
        assert!(
            multiple > 0 && multiple < 10 && multiple % of == 0,
            "{prompt} -> {answer}"
        );
    }
}
