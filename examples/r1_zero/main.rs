//! R1-Zero in miniature, end to end: `cargo run --release --example r1_zero`. See `--help`.

#[path = "../common/allocator.rs"]
mod allocator;
mod args;
#[path = "../common/backend.rs"]
mod backend;
#[path = "../common/cost.rs"]
mod cost;
#[path = "../common/files.rs"]
mod files;
#[path = "../common/learners.rs"]
mod learners;
mod report;
mod task;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use args::Args;
use burn::module::Module;
use clap::Parser;
use files::{read_before, resume_from, write_json};
use indicatif::{ProgressBar as Bar, ProgressStyle};
use learners::Team;
use report::{Before, Summary, pass_at, percent, side_by_side};
use rlvr::advantage::{AdvantageEstimator, Group};
use rlvr::loss::PolicyObjective;
use rlvr::policy::ValueHead;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::rollout::GenerationConfig;
use rlvr::train::diagnosis::Watchdog;
use rlvr::train::observer::{
    Chart, MetricsFile, Observer, ProgressBar, Report, RolloutFiles, StepRecord, read_metrics,
};
use rlvr::train::{
    CriticConfig, Decay, EvaluationConfig, OptimizerConfig, RunCheckpoints, RunConfig, RunEnd,
    RunEvaluation, Schedule, SftConfig, Trainer, TrainerConfig, latest_checkpoint, supervise,
};
use rlvr::{Error, Result};
use serde_json::{Value, json};
use task::Task;

// Tensors of a few megabytes come and go every millisecond; the system's allocator gives them back
// to the kernel each time.
fn main() -> ExitCode {
    allocator::keep_memory();
    let args = Args::parse();
    args.learners.run(|team| run(&args, &team))
}

fn run(args: &Args, team: &Team) -> Result<()> {
    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    // A second handler cannot be installed; without one Ctrl-C simply ends the process.
    let _ = ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed));
    team.stop_by_file(args.out.join("stop"), stop.clone());

    let task = Task::new(args)?;
    let device = args.device.device(team.local_rank).autodiff();
    let checkpoints = args.out.join("checkpoints");
    let before_file = args.out.join("before.json");
    let evaluation = EvaluationConfig {
        samples: 4,
        k: vec![4],
        seed: args.seed,
        ..EvaluationConfig::default()
    };

    let mut policy = CausalConfig {
        max_position_embeddings: task.longest_prompt()? + task.max_new_tokens,
        ..CausalConfig::new(task.tokenizer.vocab_size())
    }
    .init(args.seed, &device)?;
    let parameters = policy.num_params();
    let first = team.is_first();
    if first {
        println!(
            "{} | {} | seed {} | {parameters} parameters | {} problems, {} held out{}",
            task.name,
            args.algorithm.clone(),
            args.seed,
            task.train.len(),
            task.held_out.len(),
            match team.learners.size() {
                1 => String::new(),
                count => format!(" | {count} learners"),
            },
        );
    }

    // The first learner finds what is there, and writes everything.
    let mut metrics = None;
    let resume = team.first(|| match args.resume {
        true => resume_from(&checkpoints).map(Some),
        false => {
            metrics = Some(start_afresh(args, &checkpoints)?);
            Ok(None)
        }
    })?;
    if resume.is_none() && !warm_start(args, team, &task, &mut policy, &stop)? {
        if first {
            println!("stopped during the warm start: nothing to resume from");
        }
        return Ok(());
    }

    let mut trainer = trainer(args, team, &task, policy)?;
    let mut before = match resume {
        None => Before {
            evaluation: Some(trainer.evaluate(&task.held_out, &evaluation)?),
            seconds: 0.0,
        },
        Some(path) => {
            trainer.load_checkpoint(path)?;
            if first {
                let file = args.out.join(METRICS);
                metrics = Some(MetricsFile::resume(file, trainer.steps_done())?);
            }
            let before = first.then(|| read_before(&before_file)).flatten();
            before.unwrap_or_default()
        }
    };
    if first {
        write_json(&before_file, &before)?;
    }
    if let Some(evaluation) = before.evaluation.as_ref().filter(|_| first) {
        println!(
            "before: {} of the held-out problems right (sampled {}), {:.1} tokens an answer",
            percent(Some(evaluation.accuracy)),
            percent(evaluation.pass_at_1),
            evaluation.mean_length,
        );
    }

    let config = RunConfig {
        steps: args.steps,
        title: format!("R1-Zero in miniature: {}", task.name),
        evaluation: Some(RunEvaluation {
            problems: task.held_out.clone(),
            every: 20,
            config: EvaluationConfig::default(),
        }),
        checkpoints: Some(RunCheckpoints {
            folder: checkpoints,
            every: args.checkpoint_every,
            keep: 2,
        }),
        ledger: args.cost.ledger(),
    };
    let settings = json!({
        "task": task.name,
        "algorithm": args.algorithm,
        "steps": args.steps,
        "device": format!("{:?}", args.device).to_lowercase(),
        "trainer": trainer.config(),
    });
    let mut watchdog = match metrics {
        Some(metrics) => observers(args, &config, metrics, &before, settings)?,
        None => Watchdog::new(Vec::new()),
    };
    let end = trainer.run(&config, &mut watchdog, &stop);
    if first {
        println!("{}", watchdog.diagnosis());
    }
    let end = end?;
    before.seconds += started.elapsed().as_secs_f64();
    if first {
        write_json(&before_file, &before)?;
    }
    if end == RunEnd::Stopped {
        if first {
            println!(
                "stopped after step {}; the same command with --resume continues",
                trainer.steps_done()
            );
        }
        return Ok(());
    }

    let after = trainer.evaluate(&task.held_out, &evaluation)?;
    if !first {
        return Ok(());
    }
    let first = before.evaluation.as_ref();
    let summary = Summary {
        task: task.name.clone(),
        algorithm: args.algorithm.clone(),
        seed: args.seed,
        steps: trainer.steps_done(),
        parameters,
        device: format!("{:?}", args.device).to_lowercase(),
        held_out_before: first.map(|first| first.accuracy),
        held_out_after: after.accuracy,
        held_out_problems: task.held_out.len(),
        pass_at_1_before: first.and_then(|first| first.pass_at_1),
        pass_at_1_after: after.pass_at_1.unwrap_or(0.0),
        pass_at_4_before: first.map(|first| pass_at(first, 4)),
        pass_at_4_after: pass_at(&after, 4),
        length_before: first.map(|first| first.mean_length),
        length_after: after.mean_length,
        seconds: before.seconds,
    };
    write_json(&args.out.join("summary.json"), &summary)?;
    if let Some(first) = first {
        side_by_side(first, &after, 5);
    }
    println!(
        "\nheld-out accuracy {} -> {} | sampled {} -> {} | length {} -> {:.1} | {} steps in {:.0} s",
        percent(summary.held_out_before),
        percent(Some(summary.held_out_after)),
        percent(summary.pass_at_1_before),
        percent(Some(summary.pass_at_1_after)),
        summary
            .length_before
            .map_or("-".into(), |length| format!("{length:.1}")),
        summary.length_after,
        summary.steps,
        summary.seconds,
    );
    println!("everything is in {}", args.out.display());
    Ok(())
}

/// What a run leaves in its folder beside the checkpoints.
const LEFT: [&str; 6] = [
    METRICS,
    "summary.json",
    "curve.svg",
    "before.json",
    "report.html",
    CONFIG,
];
const METRICS: &str = "metrics.jsonl";
const CONFIG: &str = "config.json";
const ROLLOUTS: &str = "rollouts";

/// Makes the output folder and its metrics file. A run that is there already is an error, or
/// removed with --overwrite.
fn start_afresh(args: &Args, checkpoints: &Path) -> Result<MetricsFile> {
    let out = &args.out;
    fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let is_there = |name: &&str| fs::metadata(out.join(name)).is_ok_and(|file| file.len() > 0);
    let mut found: Vec<&str> = LEFT.into_iter().filter(is_there).collect();
    if latest_checkpoint(checkpoints)?.is_some() {
        found.push("checkpoints");
    }
    if !found.is_empty() && !args.overwrite {
        let expected = format!(
            "a folder without {} of another run, --resume to continue it, or --overwrite to delete it",
            found.join(", ")
        );
        return Err(Error::config("--out", out.display(), expected));
    }
    // Nobody else can write this file from here on: it comes before anything is deleted.
    let metrics = MetricsFile::create(out.join(METRICS))?;
    for folder in [checkpoints, &out.join(ROLLOUTS)] {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
    }
    for name in &LEFT[1..] {
        let file = out.join(name);
        if file.exists() {
            fs::remove_file(&file).map_err(|e| Error::io(&file, e))?;
        }
    }
    Ok(metrics)
}

/// Teaches form and some arithmetic by demonstration; `false` if it was stopped.
fn warm_start(
    args: &Args,
    team: &Team,
    task: &Task,
    policy: &mut CausalModel,
    stop: &AtomicBool,
) -> Result<bool> {
    let config = SftConfig {
        steps: task.warm_start_steps,
        batch_size: 64,
        optimizer: OptimizerConfig {
            beta_2: 0.95,
            ..OptimizerConfig::new(Schedule::constant(3e-3).with_warmup(20))
        },
        seed: args.seed,
        ..SftConfig::default()
    };
    // Every learner does the same: there is nothing to be sent.
    let bar = match team.is_first() {
        true => Bar::new(config.steps),
        false => Bar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template(
        "warm start [{bar:20}] {pos}/{len} | loss {msg} | {elapsed} < {eta}",
    ) {
        bar.set_style(style.progress_chars("##-"));
    }
    let mut loss = f64::NAN;
    let demonstrations = &task.demonstrations;
    let started = Instant::now();
    supervise(
        policy,
        task.tokenizer.as_ref(),
        demonstrations,
        &config,
        |report| {
            bar.set_message(format!("{:.3}", report.loss));
            bar.set_position(report.step);
            loss = report.loss;
            !stop.load(Ordering::Relaxed)
        },
    )?;
    bar.finish_and_clear();
    if team.is_first() {
        println!(
            "warm start: {} demonstrations a step, {} steps, loss {loss:.3}, {:.0} s",
            config.batch_size,
            bar.position(),
            started.elapsed().as_secs_f64(),
        );
    }
    team.first(|| Ok(!stop.load(Ordering::Relaxed)))
}

/// The trainer that the command line asks for.
fn trainer(
    args: &Args,
    team: &Team,
    task: &Task,
    policy: CausalModel,
) -> Result<Trainer<CausalModel>> {
    let optimizer =
        |peak: f64| OptimizerConfig {
            beta_2: 0.95,
            ..OptimizerConfig::new(Schedule::constant(peak).with_warmup(10).with_decay(
                Decay::Linear {
                    updates: args.steps.max(11),
                    floor: 0.1,
                },
            ))
        };
    let config = TrainerConfig {
        seed: args.seed,
        problems_per_step: 24,
        group_size: 8,
        generation: GenerationConfig::new(task.max_new_tokens, task.tokenizer.stop_tokens()),
        // No KL to the warm start: its direct answers are what is to be unlearned. The KL is
        // measured.
        objective: PolicyObjective::dapo(),
        advantage: Group::default().into(),
        optimizer: optimizer(4e-4),
        measure_kl: true,
        critic: CriticConfig {
            optimizer: optimizer(1e-3),
            ..CriticConfig::default()
        },
        ..TrainerConfig::default()
    };
    let config = match args.algorithm.as_str() {
        "grpo" => config,
        "ppo" => TrainerConfig {
            passes: 2,
            ..config.with_recipe("ppo")?
        },
        name => config.with_recipe(name)?,
    };
    let config = args.learners.apply(config);
    let critic = (config.advantage.needs_values()).then(|| ValueHead::new(policy.clone()));
    let builder = Trainer::builder(policy, task.tokenizer.clone())
        .config(config)
        .rewards(task.rewards.as_ref().clone())
        .problems(task.train.clone())
        .learners(team.learners.clone());
    match critic {
        Some(critic) => builder.critic(critic).build(),
        None => builder.build(),
    }
}

/// Progress bar, metrics file, chart and report, continuing what a resumed run left, and who
/// watches over the run.
fn observers(
    args: &Args,
    config: &RunConfig,
    metrics: MetricsFile,
    before: &Before,
    settings: Value,
) -> Result<Watchdog<Vec<Box<dyn Observer>>>> {
    let (out, title) = (&args.out, &config.title);
    let mut history: Vec<StepRecord> = Vec::new();
    if let Some(evaluation) = &before.evaluation {
        history.push(
            StepRecord::new(0)
                .with("eval/accuracy", evaluation.accuracy)
                .with("eval/mean_length", evaluation.mean_length),
        );
    }
    history.extend(read_metrics(out.join(METRICS))?);
    write_json(&out.join(CONFIG), &settings)?;
    let chart = Chart::new(out.join("curve.svg"), title).with_history(history.clone());
    let mut all: Vec<Box<dyn Observer>> = vec![
        Box::new(ProgressBar::new()),
        Box::new(metrics),
        Box::new(chart),
    ];
    if let Some(keep) = args.keep_rollouts {
        all.push(Box::new(RolloutFiles::create(out.join(ROLLOUTS), keep)?));
    }
    #[cfg(feature = "tensorboard")]
    all.push(Box::new(rlvr::train::observer::EventFile::create(
        out.join("tensorboard"),
    )?));
    let report = Report::new(out.join("report.html"), title)
        .with_history(history.clone())
        .with_configuration(settings)
        .with_rollouts(out.join(ROLLOUTS));
    all.push(Box::new(report));
    Ok(Watchdog::new(all).with_history(history))
}
