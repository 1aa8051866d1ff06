//! A policy from scratch learns that asking a calculator pays:
//! `cargo run --release --example tool_use`. See `--help`.

#[path = "common/allocator.rs"]
mod allocator;
#[path = "common/backend.rs"]
mod backend;
#[path = "common/files.rs"]
#[allow(dead_code)] // shared with the larger examples
mod files;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use backend::Backend;
use burn::module::Module;
use clap::Parser;
use files::write_json;
use rand::RngExt;
use rlvr::environment::tools::formats::CallBlock;
use rlvr::environment::tools::{
    Calculator, CallStatus, ReplyParser, ToolCall, ToolCallFormat, ToolSet,
};
use rlvr::environment::{AgentLoop, AgentLoopConfig, ToolEnvironment};
use rlvr::loss::PolicyObjective;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::{CharTokenizer, Problem, Split, Tokenizer, split};
use rlvr::reward::{AccuracyReward, RewardSet};
use rlvr::rollout::{GenerationConfig, Rollout};
use rlvr::train::observer::{Chart, MetricsFile, Observer, ProgressBar, StepRecord};
use rlvr::train::{
    Collected, Collector, Decay, Demonstration, Evaluation, EvaluationConfig, OptimizerConfig,
    PolicyState, RolloutSource, RunConfig, RunEnd, RunEvaluation, Schedule, SftConfig, Trainer,
    TrainerConfig, supervise,
};
use rlvr::{Error, Result, random};
use serde_json::{Value, json};

/// A small transformer that mostly guesses products is rewarded when it is right, and finds out
/// that asking a calculator pays.
///
/// The warm start shows both: guesses, and calls with their results. Leaves metrics.jsonl,
/// summary.json and curve.svg in the output folder.
#[derive(Parser, Debug)]
#[command(name = "tool_use", version)]
struct Args {
    /// Reinforcement steps
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Updates of the warm start
    #[arg(long, default_value_t = 600)]
    warm_start: u64,
    /// All randomness derives from it: problems, weights, order, sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// For comparison: train on the calculator's results as if the policy had written them
    #[arg(long)]
    train_observations: bool,
    /// Folder for everything that is left behind
    #[arg(long, default_value = "runs/tool_use")]
    out: PathBuf,
    /// Where tensors live: one of the backends compiled in (features of the same names)
    #[arg(long, value_enum, default_value_t = Backend::default())]
    device: Backend,
}

const CALL: [&str; 2] = ["<call>", "</call>"];
const RESULT: [&str; 2] = ["<result>", "</result>"];
const ANSWER: [&str; 2] = ["<answer>", "</answer>"];
/// The share of demonstrations that guess. Above one half, so that guessing is what the warm start
/// leaves.
const GUESSED: f64 = 0.65;
/// The word that keeps the demonstrations' random streams apart from the run's other ones.
const DEMONSTRATIONS: u64 = 1;

/// Rollouts without the mask that tells the policy's tokens from those of the calculator.
struct Unmasked;

impl RolloutSource<CausalModel> for Unmasked {
    fn next(
        &mut self,
        collector: &mut Collector<CausalModel>,
        state: PolicyState<'_, CausalModel>,
    ) -> Result<Collected> {
        let mut collected = collector.collect(state)?;
        let groups = &mut collected.rollouts.groups;
        for rollout in groups.iter_mut().flat_map(|group| &mut group.rollouts) {
            rollout.mask.clear();
            for turn in rollout
                .episode
                .iter_mut()
                .flat_map(|episode| &mut episode.turns)
            {
                turn.tokens += std::mem::take(&mut turn.observation_tokens);
            }
        }
        Ok(collected)
    }
}

/// `<call>37*48</call>`: the expression and nothing around it.
struct BareCall;

impl ToolCallFormat for BareCall {
    fn name(&self) -> &str {
        "bare"
    }

    fn find(&self, text: &str) -> Option<usize> {
        text.find(CALL[0])
    }

    fn read(&self, text: &str, _tools: &ToolSet) -> CallBlock {
        let [open, close] = CALL;
        let Some(end) = text.find(close) else {
            let fault = (CallStatus::Unclosed, format!("the call has no {close}"));
            return CallBlock::one(text.len(), Err(fault));
        };
        let arguments = json!({ "expression": &text[open.len()..end] }).to_string();
        let call = ToolCall {
            id: String::new(),
            name: "calculator".into(),
            arguments,
        };
        CallBlock::one(end + close.len(), Ok(call))
    }

    fn render(&self, calls: &[ToolCall]) -> String {
        let [open, close] = CALL;
        let expression = |call: &ToolCall| {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            format!(
                "{open}{}{close}",
                arguments["expression"].as_str().unwrap_or_default()
            )
        };
        calls.iter().map(expression).collect()
    }
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
    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    // A second handler cannot be installed; without one Ctrl-C simply ends the process.
    let _ = ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed));
    fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;

    let tags: Vec<&str> = [CALL, RESULT, ANSWER].concat();
    // The error of a call is returned to the model as text.
    let printable: String = (' '..='~').collect();
    let tokenizer = Arc::new(CharTokenizer::new(&printable, &tags)?);
    let problems = products(args.seed)?;
    let device = args.device.device(0).autodiff();
    let mut policy = CausalConfig {
        max_position_embeddings: 128,
        ..CausalConfig::new(tokenizer.vocab_size())
    }
    .init(args.seed, &device)?;
    println!(
        "products of two-digit numbers | seed {} | {} parameters | {} problems, {} held out",
        args.seed,
        policy.num_params(),
        problems.train.len(),
        problems.held_out.len(),
    );
    if !warm_start(args, &problems.train, &tokenizer, &mut policy, &stop)? {
        return Ok(());
    }

    let mut trainer = trainer(args, policy, tokenizer, &problems)?;
    let held_out = &problems.held_out;
    let before = trainer.evaluate(held_out, &EvaluationConfig::default())?;
    println!(
        "before: {:.1}% of the held-out problems right, {:.2} calls an answer",
        100.0 * before.accuracy,
        calls(&before),
    );
    let config = RunConfig {
        steps: args.steps,
        title: "Asking pays: products with a calculator".into(),
        evaluation: Some(RunEvaluation {
            problems: held_out.clone(),
            every: 10,
            config: EvaluationConfig::default(),
        }),
        ..RunConfig::default()
    };
    let start = StepRecord::new(0)
        .with("eval/accuracy", before.accuracy)
        .with("eval/mean_length", before.mean_length);
    let chart = Chart::new(args.out.join("curve.svg"), config.title.clone());
    let mut observers: Vec<Box<dyn Observer>> = vec![
        Box::new(ProgressBar::new()),
        Box::new(MetricsFile::create(args.out.join("metrics.jsonl"))?),
        Box::new(chart.with_history(vec![start])),
    ];
    if trainer.run(&config, &mut observers, &stop)? == RunEnd::Stopped {
        println!("stopped after step {}", trainer.steps_done());
        return Ok(());
    }
    let after = trainer.evaluate(held_out, &EvaluationConfig::default())?;
    let seconds = started.elapsed().as_secs_f64();
    let summary = json!({
        "seed": args.seed,
        "steps": args.steps,
        "held_out_before": before.accuracy,
        "held_out_after": after.accuracy,
        "calls_before": calls(&before),
        "calls_after": calls(&after),
        "seconds": seconds,
    });
    write_json(&args.out.join("summary.json"), &summary)?;
    side_by_side(&before, &after, 6);
    println!(
        "\nheld-out accuracy {:.1}% -> {:.1}% | calls an answer {:.2} -> {:.2} | {} steps in {seconds:.0} s",
        100.0 * before.accuracy,
        100.0 * after.accuracy,
        calls(&before),
        calls(&after),
        args.steps,
    );
    println!("everything is in {}", args.out.display());
    Ok(())
}

/// `37*48=` with `1776`.
fn products(seed: u64) -> Result<Split> {
    let numbers = || 11u32..100;
    let all: Vec<Problem> = numbers()
        .flat_map(|a| numbers().map(move |b| (a, b)))
        .map(|(a, b)| Problem::new(format!("{a}*{b}="), (a * b).to_string()))
        .collect();
    split(all, 300, seed)
}

/// Guesses, and calls with the answers that follow them.
fn demonstrations(problems: &[Problem], seed: u64) -> Vec<Demonstration> {
    let mut all = Vec::new();
    for (index, problem) in problems.iter().enumerate() {
        let mut rng = random::generator(&[seed, DEMONSTRATIONS, index as u64]);
        let expression = problem.prompt.trim_end_matches('=');
        let answer = |text: &str| format!("{}{text}{}", ANSWER[0], ANSWER[1]);
        let call = format!("{}{expression}{}", CALL[0], CALL[1]);
        if rng.random_bool(GUESSED) {
            // The right size and the right first digit, more or less.
            let digits = problem.answer.len() as u32;
            let random = rng.random_range(0..10u32.pow(digits - 1));
            let guess = format!(
                "{}{random:0width$}",
                &problem.answer[..1],
                width = digits as usize - 1
            );
            all.push(Demonstration::new(&problem.prompt, answer(&guess)));
        } else {
            let asked = format!(
                "{}{call}{}{}{}",
                problem.prompt, RESULT[0], problem.answer, RESULT[1]
            );
            all.push(Demonstration::new(&problem.prompt, call));
            all.push(Demonstration::new(asked, answer(&problem.answer)));
        }
    }
    all
}

/// Teaches guessing, and calling; `false` if it was stopped.
fn warm_start(
    args: &Args,
    problems: &[Problem],
    tokenizer: &CharTokenizer,
    policy: &mut CausalModel,
    stop: &AtomicBool,
) -> Result<bool> {
    let started = Instant::now();
    let config = SftConfig {
        steps: args.warm_start,
        batch_size: 64,
        optimizer: OptimizerConfig {
            beta_2: 0.95,
            ..OptimizerConfig::new(Schedule::constant(3e-3).with_warmup(20))
        },
        seed: args.seed,
        ..SftConfig::default()
    };
    let demonstrations = demonstrations(problems, args.seed);
    let mut loss = f64::NAN;
    supervise(policy, tokenizer, &demonstrations, &config, |report| {
        loss = report.loss;
        !stop.load(Ordering::Relaxed)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "warm start: {} updates, loss {loss:.3}, {seconds:.0} s",
        args.warm_start
    );
    Ok(!stop.load(Ordering::Relaxed))
}

fn trainer(
    args: &Args,
    policy: CausalModel,
    tokenizer: Arc<CharTokenizer>,
    problems: &Split,
) -> Result<Trainer<CausalModel>> {
    let tools = ToolSet::new().with(Calculator)?;
    let environment = ToolEnvironment::new(tools, ReplyParser::new(BareCall))
        .without_description()
        .with_result_tags(RESULT[0], RESULT[1]);
    let limits = AgentLoopConfig {
        max_turns: 4,
        ..AgentLoopConfig::default()
    };
    let agent_loop = AgentLoop::new(environment).with_config(limits)?;
    // A call ends a reply as well: the result follows it.
    let mut stop_tokens = tokenizer.stop_tokens();
    stop_tokens.extend(tokenizer.token_id(CALL[1]));
    let optimizer =
        OptimizerConfig {
            beta_2: 0.95,
            ..OptimizerConfig::new(Schedule::constant(4e-4).with_warmup(5).with_decay(
                Decay::Linear {
                    updates: args.steps.max(6),
                    floor: 0.1,
                },
            ))
        };
    let config = TrainerConfig {
        seed: args.seed,
        problems_per_step: 24,
        group_size: 8,
        generation: GenerationConfig::new(10, stop_tokens),
        objective: PolicyObjective::dapo(),
        optimizer,
        ..TrainerConfig::default()
    };
    let rewards = RewardSet::builder()
        .add(1.0, AccuracyReward::new())
        .build()?;
    let builder = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(rewards)
        .problems(problems.train.clone())
        .agent_loop(agent_loop);
    match args.train_observations {
        true => builder.source(Unmasked).build(),
        false => builder.build(),
    }
}

/// Attempts to call a tool, an answer.
fn calls(evaluation: &Evaluation) -> f64 {
    let count = |rollout: &Rollout| -> usize {
        let turns = rollout.episode.iter().flat_map(|episode| &episode.turns);
        turns.flat_map(|turn| turn.calls.values()).sum()
    };
    let sum: usize = evaluation.greedy.rollouts().map(count).sum();
    sum as f64 / evaluation.greedy.len().max(1) as f64
}

/// The same problems before and after, side by side: those first that were wrong before.
fn side_by_side(before: &Evaluation, after: &Evaluation, count: usize) {
    let rollout = |evaluation: &Evaluation, i: usize| {
        let rollout = evaluation.greedy.groups[i].rollouts.first().cloned();
        rollout.unwrap_or_else(|| Rollout::new(Vec::new(), Vec::new(), ""))
    };
    let text = |evaluation: &Evaluation, i: usize| {
        let rollout = rollout(evaluation, i);
        let mark = match rollout.score("accuracy") {
            Some(1.0) => "✓",
            _ => "✗",
        };
        let turns = rollout.episode.iter().flat_map(|episode| &episode.turns);
        let spoken: String = turns
            .map(|turn| {
                let observed = turn
                    .observation
                    .iter()
                    .map(|message| message.content.as_str());
                format!("{}{}", turn.text, observed.collect::<String>())
            })
            .collect();
        format!("{mark} {spoken}")
    };
    let mut order: Vec<usize> = (0..before.greedy.groups.len()).collect();
    order.sort_by_key(|&i| rollout(before, i).score("accuracy") == Some(1.0));
    println!("\n{:8}  {:30}  after", "problem", "before");
    println!("{:─<8}  {:─<30}  {:─<56}", "", "", "");
    for i in order.into_iter().take(count) {
        let problem = &before.greedy.groups[i].problem.prompt;
        println!("{problem:8}  {:30}  {}", text(before, i), text(after, i));
    }
}
