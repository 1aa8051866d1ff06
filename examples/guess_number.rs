//! A game of several turns, learned with rewards of turns and with the outcome only:
//! `cargo run --release --example guess_number`.

#[path = "common/allocator.rs"]
mod allocator;
#[path = "common/backend.rs"]
mod backend;
#[path = "common/files.rs"]
#[allow(dead_code)] // shared with the larger examples
mod files;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use backend::Backend;
use clap::Parser;
use files::write_json;
use rlvr::advantage::{Estimator, GroupMean, TurnReturns};
use rlvr::environment::{
    AgentLoop, AgentLoopConfig, Environment, EnvironmentError, EpisodeReward, FnEpisode, Message,
    Opening, Reply, Step, StepEnd,
};
use rlvr::loss::PolicyObjective;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::{EpisodeEnd, GenerationConfig, Rollout};
use rlvr::train::observer::{MetricsFile, Observer, ProgressBar};
use rlvr::train::{EvaluationConfig, OptimizerConfig, RunConfig, Schedule, Trainer, TrainerConfig};
use rlvr::{Error, Result};
use serde_json::{Value, json};

/// Guess a number from 0 to 31 in at most six turns, told after each guess whether it is lower or
/// higher.
///
/// The policy begins with random weights. It is trained twice on the same games: once every guess
/// is rewarded by how far it narrows the numbers down, and once only the outcome is. Leaves
/// metrics.jsonl of both and summary.json in the output folder.
#[derive(Parser, Debug)]
#[command(name = "guess_number", version)]
struct Args {
    /// Reinforcement steps of each run
    #[arg(long, default_value_t = 150, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// All randomness derives from it: weights, order, sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for everything that is left behind
    #[arg(long, default_value = "runs/guess_number")]
    out: PathBuf,
    /// Where tensors live: one of the backends compiled in (features of the same names)
    #[arg(long, value_enum, default_value_t = Backend::default())]
    device: Backend,
}

const NUMBERS: u32 = 32;
const TURNS: usize = 6;

/// The game. The secret number is the problem's answer.
struct Game;

impl Environment for Game {
    fn name(&self) -> &str {
        "guess_number"
    }

    fn open(&self, problem: &Problem, _seed: u64) -> Result<Opening, EnvironmentError> {
        let secret: u32 = problem.answer.parse()?;
        // What is still possible.
        let (mut low, mut high) = (0, NUMBERS - 1);
        Ok(Opening::new(FnEpisode(move |reply: &Reply<'_>| {
            let Ok(guess) = reply.text.parse::<u32>() else {
                // Not a number: the game is lost.
                return Ok(Step {
                    reward: Some(0.0),
                    end: Some(StepEnd::Done),
                    ..Step::default()
                });
            };
            let before = high - low + 1;
            if guess == secret {
                return Ok(Step::done(bits(before) + 1.0));
            }
            let (answer, from, to) = match guess < secret {
                true => (">", low.max(guess + 1), high),
                false => ("<", low, high.min(guess.saturating_sub(1))),
            };
            (low, high) = (from, to);
            let gained = bits(before) - bits(high - low + 1);
            let step = Step::observe(Message::new("user", answer)).with_reward(gained);
            Ok(Step {
                end: (reply.turn + 1 == TURNS).then_some(StepEnd::Done),
                state: Some(u64::from(low * NUMBERS + high)),
                ..step
            })
        })))
    }
}

/// The share of all there is to know that is unknown with so many numbers left.
fn bits(numbers: u32) -> f64 {
    f64::from(numbers).log2() / f64::from(NUMBERS).log2()
}

/// Whether the last guess of an episode was right.
fn won(rollout: &Rollout, secret: &str) -> bool {
    let done = rollout
        .episode
        .as_ref()
        .is_some_and(|episode| episode.end == EpisodeEnd::Done);
    done && rollout.text.trim_start_matches('0') == secret.trim_start_matches('0')
}

fn main() -> ExitCode {
    allocator::keep_memory();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
    let turns = learn(args, "turns", TurnReturns::default().into(), 0.0)?;
    let outcome = learn(args, "outcome", GroupMean::default().into(), 1.0)?;
    let summary =
        json!({ "seed": args.seed, "steps": args.steps, "turns": turns, "outcome": outcome });
    write_json(&args.out.join("summary.json"), &summary)?;
    println!(
        "\n{:16}  {:>16}  {:>16}  {:>8}",
        "rewarded", "won, before", "won, after", "guesses"
    );
    for (name, run) in [("every guess", &turns), ("the outcome", &outcome)] {
        let percent = |key: &str| format!("{:.1}%", 100.0 * run[key].as_f64().unwrap_or(f64::NAN));
        println!(
            "{name:16}  {:>16}  {:>16}  {:8.2}",
            percent("won_before"),
            percent("won_after"),
            run["guesses_after"].as_f64().unwrap_or(f64::NAN),
        );
    }
    println!("\neverything is in {}", args.out.display());
    Ok(())
}

/// One run: what it won before and after, and how many guesses an episode takes.
fn learn(args: &Args, name: &str, advantage: Estimator, outcome_weight: f64) -> Result<Value> {
    let started = Instant::now();
    let mut trainer = trainer(args, advantage, outcome_weight)?;
    let problems = problems();
    let before = measure(&trainer, &problems)?;
    let config = RunConfig {
        steps: args.steps,
        title: format!("guess a number, rewarded by {name}"),
        ..RunConfig::default()
    };
    let metrics = args.out.join(format!("{name}.jsonl"));
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(ProgressBar::new()),
        Box::new(MetricsFile::create(replaced(&metrics)?)?),
    ];
    trainer.run(&config, &mut observers, &AtomicBool::new(false))?;
    let after = measure(&trainer, &problems)?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{name}: {:.1}% of the games won before, {:.1}% after, in {:.2} guesses a game; {seconds:.0} s",
        100.0 * before.0,
        100.0 * after.0,
        after.1,
    );
    Ok(json!({
        "won_before": before.0, "won_after": after.0,
        "guesses_before": before.1, "guesses_after": after.1, "seconds": seconds,
    }))
}

/// The path, without what an earlier run left there.
fn replaced(path: &Path) -> Result<&Path> {
    if path.exists() {
        fs::remove_file(path).map_err(|e| Error::io(path, e))?;
    }
    Ok(path)
}

/// One game for each secret number.
fn problems() -> Vec<Problem> {
    (0..NUMBERS)
        .map(|secret| Problem::new("?", secret.to_string()))
        .collect()
}

/// The share of games that greedy play wins, and the guesses a game.
fn measure(trainer: &Trainer<CausalModel>, problems: &[Problem]) -> Result<(f64, f64)> {
    let config = EvaluationConfig {
        reward: "won".into(),
        ..EvaluationConfig::default()
    };
    let found = trainer.evaluate(problems, &config)?;
    let turns = found
        .greedy
        .rollouts()
        .filter_map(|rollout| rollout.episode.as_ref());
    let turns: usize = turns.map(|episode| episode.turns.len()).sum();
    Ok((found.accuracy, turns as f64 / problems.len() as f64))
}

fn trainer(args: &Args, advantage: Estimator, outcome_weight: f64) -> Result<Trainer<CausalModel>> {
    // Every number is one token.
    let numbers: Vec<String> = (0..NUMBERS).map(|number| format!("{number:02}")).collect();
    let specials: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let tokenizer = CharTokenizer::new("?<>", &specials)?;
    let device = args.device.device(0).autodiff();
    let policy = CausalConfig {
        hidden_size: 64,
        intermediate_size: 192,
        num_hidden_layers: 3,
        max_position_embeddings: 16,
        ..CausalConfig::new(tokenizer.vocab_size())
    }
    .init(args.seed, &device)?;
    // A number ends a guess.
    let mut stop_tokens = tokenizer.stop_tokens();
    stop_tokens.extend(
        specials
            .iter()
            .filter_map(|number| tokenizer.token_id(number)),
    );
    let limits = AgentLoopConfig {
        max_turns: TURNS,
        ..AgentLoopConfig::default()
    };
    let config = TrainerConfig {
        seed: args.seed,
        problems_per_step: 16,
        group_size: 8,
        generation: GenerationConfig::new(1, stop_tokens),
        objective: PolicyObjective::dapo(),
        advantage,
        optimizer: OptimizerConfig::new(Schedule::constant(1e-3).with_warmup(5)),
        ..TrainerConfig::default()
    };
    let won = FnReward::plain("won", |input| won(&input.rollout, input.answer()));
    let rewards = RewardSet::builder()
        .add(outcome_weight, won)
        .add(0.0, EpisodeReward::new("gained"))
        .build()?;
    Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(rewards)
        .problems(problems())
        .agent_loop(AgentLoop::new(Game).with_config(limits)?)
        .build()
}
