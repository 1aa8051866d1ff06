//! Custom parts, one per file: a policy, a reward with data, an environment, an engine and an
//! observer; and saving and loading a policy. `cargo run --release --example bring_your_own`
//!
//! A GRU learns to name a multiple of a digit that is itself a digit. `problems.jsonl` has the
//! digits and their multiples.

mod engine;
mod environment;
mod observer;
mod policy;
mod reward;
mod saved;

use std::path::Path;
use std::sync::atomic::AtomicBool;

use engine::Timed;
use environment::SecondTry;
use observer::Completions;
use policy::GruPolicy;
use reward::Accepted;
use rlvr::burn::tensor::Device;
use rlvr::environment::{AgentLoop, EpisodeReward};
use rlvr::policy::check_model;
use rlvr::prelude::*;
use rlvr::reward::{Missing, RewardOptions};
use rlvr::rollout::LocalEngine;

fn main() -> Result<()> {
    for (prompt, answer) in learn(60)? {
        println!("the saved policy: {prompt:?} -> {answer:?}");
    }
    println!("with a second try: reward {:.2}", play(60)?);
    Ok(())
}

/// Trains for `steps` steps, saves and loads the policy, and returns its answers.
fn learn(steps: u64) -> Result<Vec<(&'static str, String)>> {
    let (policy, tokenizer) = policy()?;
    let mut trainer = Trainer::builder(policy, tokenizer.clone())
        .config(config(&tokenizer))
        .rewards(RewardSet::builder().add(1.0, Accepted).build()?)
        .problems(problems()?)
        .engine(Timed::new(LocalEngine))
        .build()?;
    let run = RunConfig {
        steps,
        ..RunConfig::default()
    };
    let mut observer = Completions { every: 20 };
    trainer.run(&run, &mut observer, &AtomicBool::new(false))?;

    let file = std::env::temp_dir().join(format!("gru_{}.bpk", std::process::id()));
    saved::save(trainer.policy(), &file)?;
    let policy = saved::load(&file, tokenizer.vocab_size(), &Device::flex())?;
    std::fs::remove_file(&file).map_err(|error| Error::io(&file, error))?;
    let prompts = ["3:", "4:", "7:"];
    let answers = saved::ask(&policy, &tokenizer, &prompts)?;
    Ok(prompts.into_iter().zip(answers).collect())
}

/// Trains in an environment for `steps` steps, and returns the mean reward of the last step.
fn play(steps: u64) -> Result<f64> {
    let (policy, tokenizer) = policy()?;
    let config = config(&tokenizer);
    // A reply that is cut off ends the episode without a reward: that counts as 0.
    let cut_off = RewardOptions::new().with_on_abstain(Missing::Value(0.0));
    let game = EpisodeReward::new("game");
    let mut trainer = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(RewardSet::builder().add_with(1.0, game, cut_off).build()?)
        .problems(problems()?)
        .agent_loop(AgentLoop::new(SecondTry))
        .build()?;
    let mut reward = 0.0;
    for _ in 0..steps {
        reward = trainer.step()?.get("reward").unwrap_or_default();
    }
    Ok(reward)
}

fn policy() -> Result<(GruPolicy, CharTokenizer)> {
    let tokenizer = CharTokenizer::new("0123456789:", &[])?;
    let device = Device::flex();
    device.seed(0);
    let policy = GruPolicy::new(tokenizer.vocab_size(), &device.autodiff());
    check_model(&policy)?;
    Ok((policy, tokenizer))
}

fn problems() -> Result<Vec<Problem>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/bring_your_own");
    JsonLines::default().read(folder.join("problems.jsonl"))
}

fn config(tokenizer: &CharTokenizer) -> TrainerConfig {
    TrainerConfig {
        problems_per_step: 9,
        group_size: 8,
        generation: GenerationConfig::new(3, tokenizer.stop_tokens()),
        optimizer: OptimizerConfig::new(Schedule::constant(0.01)),
        ..TrainerConfig::default()
    }
}

// One test: both runs initialize their weights from the device's generator.
#[test]
fn it_learns_from_rewards_and_in_the_environment() {
    for (prompt, answer) in learn(60).unwrap() {
        let digit = |text: &str| text.parse::<u32>().unwrap();
        let (of, multiple) = (digit(&prompt[..1]), digit(&answer));
        assert!(
            multiple > 0 && multiple < 10 && multiple % of == 0,
            "{prompt} -> {answer}"
        );
    }
    let reward = play(60).unwrap();
    assert!(reward > 0.7, "{reward}");
}
