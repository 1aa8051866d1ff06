//! Open weights in, a better reasoner out:
//! `cargo run --release --features hf --example grpo_hf -- --model DIR --data problems.jsonl --out DIR2`.
//! See `--help`.

#[path = "../common/allocator.rs"]
mod allocator;
mod args;
#[path = "../common/backend.rs"]
mod backend;
#[path = "../common/cost.rs"]
mod cost;
mod engines;
mod environments;
#[path = "../common/files.rs"]
mod files;
#[path = "../common/learners.rs"]
mod learners;
mod summary;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use args::Args;
use burn::module::Module;
use burn::tensor::Device;
use clap::Parser;
use files::{read_before, read_problems, resume_from, write_json};
use learners::Team;
use rlvr::environment::AgentLoop;
use rlvr::policy::causal::{CausalModel, LoraConfig, LoraTarget};
use rlvr::policy::hf::{LoadOptions, SaveOptions, load, save, save_adapters};
use rlvr::prompt::hf::{ChatTemplate, ChatTokenizer, HfTokenizer};
use rlvr::prompt::{JsonLines, Problem, Split, Tokenizer, split};
use rlvr::rollout::{GenerationConfig, SamplingConfig};
use rlvr::train::diagnosis::Watchdog;
use rlvr::train::observer::{
    Chart, History, MetricsFile, Observer, ProgressBar, Report, RolloutFiles, StepRecord,
    read_metrics,
};
use rlvr::train::{
    DemonstrationFile, Evaluation, EvaluationConfig, OptimizerConfig, RunCheckpoints, RunConfig,
    RunEnd, RunEvaluation, Schedule, SftConfig, SftRunConfig, SftTrainer, Trainer, TrainerConfig,
    latest_checkpoint,
};
use rlvr::{Error, Result};
use serde_json::{Value, json};
use summary::Summary;

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

    let folder = args.run_folder();
    let checkpoints = folder.join("checkpoints");
    team.stop_by_file(folder.join("stop"), stop.clone());
    // The first learner finds what is there, and writes everything.
    let first = team.is_first();
    let mut metrics = None;
    let resume = team.first(|| {
        check_folders(args, &folder, &checkpoints)?;
        match args.resume {
            true => resume_from(&checkpoints).map(Some),
            false => {
                metrics = Some(MetricsFile::create(folder.join(METRICS))?);
                Ok(None)
            }
        }
    })?;
    let fields = JsonLines {
        prompt_field: args.question_field.clone(),
        answer_field: args.answer_field.clone(),
        optional: args.environments.knows_answers(),
    };
    let problems = match args.environments.knows_answers() {
        true => fields.read(&args.data)?,
        false => read_problems(&args.data, &fields)?,
    };
    let held_out = args.held_out.unwrap_or((problems.len() / 5).clamp(1, 32));
    let problems = match args.environments.knows_answers() {
        // Prompts may all be empty: what is asked is in the metadata.
        true => last_held_out(problems, held_out)?,
        false => split(problems, held_out, args.seed)?,
    };
    let (tokenizer, agent_loop) = tokenizer(args)?;
    let device = args.device.device(team.local_rank).autodiff();
    if first {
        println!(
            "{} | {} | seed {} | {} problems, {} held out{}",
            args.model.display(),
            args.algorithm,
            args.seed,
            problems.train.len(),
            problems.held_out.len(),
            match team.learners.size() {
                1 => String::new(),
                count => format!(" | {count} learners"),
            },
        );
    }

    let mut base = args.model.clone();
    if let Some(file) = &args.sft {
        base = folder.join("sft");
        let learn = || cold_start(args, file, &tokenizer, &base, &device, &stop);
        if resume.is_none() && !team.first(learn)? {
            if first {
                println!("stopped during the supervised phase: nothing to resume from");
            }
            return Ok(());
        }
    }
    let (policy, lora) = policy(args, &base, &device)?;
    if first {
        println!(
            "{} parameters, {} of them trained",
            policy.num_params(),
            summary::trained_parameters(&policy)
        );
    }
    let mut trainer = trainer(
        args,
        team,
        policy,
        (Arc::new(tokenizer), agent_loop),
        &problems,
    )?;
    let before_file = folder.join("before.json");
    let before = match resume {
        None => Some(trainer.evaluate(&problems.held_out, &EvaluationConfig::default())?),
        Some(path) => {
            trainer.load_checkpoint(path)?;
            if first {
                let file = folder.join(METRICS);
                metrics = Some(MetricsFile::resume(file, trainer.steps_done())?);
            }
            first.then(|| read_before(&before_file)).flatten()
        }
    };
    if let Some(before) = before.as_ref().filter(|_| first) {
        write_json(&before_file, before)?;
        println!(
            "before: {:.1}% of the held-out problems right",
            100.0 * before.accuracy
        );
    }

    let config = RunConfig {
        steps: args.steps,
        title: format!("{} on {}", args.algorithm, name_of(&args.data)),
        evaluation: Some(RunEvaluation {
            problems: problems.held_out.clone(),
            every: args.steps,
            config: EvaluationConfig::default(),
        }),
        checkpoints: Some(RunCheckpoints {
            folder: checkpoints,
            every: args.checkpoint_every,
            keep: 1,
        }),
        ledger: args.cost.ledger(),
    };
    let settings = json!({
        "model": args.model,
        "data": args.data,
        "algorithm": args.algorithm,
        "steps": args.steps,
        "lora": args.lora,
        "device": format!("{:?}", args.device).to_lowercase(),
        "dtype": format!("{:?}", args.dtype).to_lowercase(),
        "trainer": trainer.config(),
    });
    let mut watchdog = match metrics {
        Some(metrics) => observers(args, &folder, &config, metrics, before.as_ref(), settings)?,
        None => Watchdog::new(Vec::new()),
    };
    let end = trainer.run(&config, &mut watchdog, &stop);
    if !first {
        return end.map(|_| ());
    }
    println!("{}", watchdog.diagnosis());
    if end? == RunEnd::Stopped {
        println!(
            "stopped after step {}; the same command with --resume continues",
            trainer.steps_done()
        );
        return Ok(());
    }

    let summary = Summary::new(
        before.as_ref(),
        &read_metrics(folder.join(METRICS))?,
        started,
    );
    write_json(&folder.join("summary.json"), &summary)?;
    let samples = trainer.last_rollouts().rollouts().take(3);
    for rollout in samples {
        println!("\n{}", rollout.text.trim());
    }
    let policy = trainer.into_policy().valid();
    if let Some(lora) = &lora {
        let name = base.display().to_string();
        save_adapters(&policy, lora, &name, folder.join("adapter"), true)?;
    }
    let options = SaveOptions::from_folder(&base);
    save(&policy.merge_lora(), &args.out, &options)?;
    println!("\n{summary}");
    println!(
        "the model is in {}, everything else in {}",
        args.out.display(),
        folder.display()
    );
    Ok(())
}

/// The last of the problems are held out.
fn last_held_out(mut problems: Vec<Problem>, held_out: usize) -> Result<Split> {
    let train = problems.len().saturating_sub(held_out);
    if train == 0 || held_out == 0 {
        let expected = format!(
            "1 to {}, less than all problems",
            problems.len().saturating_sub(1)
        );
        return Err(Error::config("--held-out", held_out, expected));
    }
    let held_out = problems.split_off(train);
    Ok(Split {
        train: problems,
        held_out,
    })
}

/// The last part of a path.
fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// The folder's tokenizer for conversations, or its tokenizer with another template; and what plays
/// them, if there are several turns.
fn tokenizer(args: &Args) -> Result<(ChatTokenizer, Option<AgentLoop>)> {
    let tokenizer = match &args.chat_template {
        None => ChatTokenizer::from_folder(&args.model)?,
        Some(file) => {
            let source = fs::read_to_string(file).map_err(|e| Error::io(file, e))?;
            let template = ChatTemplate::new(&source, &BTreeMap::new())?;
            ChatTokenizer::new(HfTokenizer::from_folder(&args.model)?, template)
        }
    };
    let tokenizer = tokenizer.with_system(&args.system);
    args.environments.prepare(tokenizer, &args.system)
}

const METRICS: &str = "metrics.jsonl";

/// Returns an error if a folder holds something else.
fn check_folders(args: &Args, folder: &Path, checkpoints: &Path) -> Result<()> {
    let occupied = fs::read_dir(&args.out).is_ok_and(|mut entries| entries.next().is_some());
    if occupied {
        let expected = "a new or an empty folder";
        return Err(Error::config("--out", args.out.display(), expected));
    }
    if !args.resume && latest_checkpoint(checkpoints)?.is_some() {
        let reason = "holds checkpoints of an earlier run; continue it with --resume, or remove it";
        return Err(Error::checkpoint(folder, reason));
    }
    Ok(())
}

/// The weights of `base`, or adapters on them.
fn policy(args: &Args, base: &Path, device: &Device) -> Result<(CausalModel, Option<LoraConfig>)> {
    let options = LoadOptions {
        dtype: Some(args.dtype.into()),
    };
    let model = load(base, &options, device)?;
    let model = model.with_gradient_checkpointing(args.gradient_checkpointing);
    let Some(rank) = args.lora else {
        return Ok((model, None));
    };
    let mut config = LoraConfig {
        rank,
        alpha: args.lora_alpha.unwrap_or(2.0 * rank as f64),
        seed: args.seed,
        ..LoraConfig::default()
    };
    if !args.lora_targets.is_empty() {
        let target = |name: &String| {
            let found = LoraTarget::ALL
                .into_iter()
                .find(|target| target.name() == name);
            let known = LoraTarget::ALL.map(LoraTarget::name).join(", ");
            found.ok_or_else(|| Error::config("--lora-targets", name, format!("some of {known}")))
        };
        config.targets = args
            .lora_targets
            .iter()
            .map(target)
            .collect::<Result<_>>()?;
    }
    Ok((model.with_lora(&config)?, Some(config)))
}

/// Teaches the form of an answer by demonstration and leaves the model in `to`; `false` if it was
/// stopped.
fn cold_start(
    args: &Args,
    file: &Path,
    tokenizer: &ChatTokenizer,
    to: &Path,
    device: &Device,
    stop: &AtomicBool,
) -> Result<bool> {
    let config = SftConfig {
        steps: args.sft_steps,
        batch_size: args.sft_batch,
        micro_batch: args.micro_batch,
        logit_chunk: 128,
        optimizer: OptimizerConfig::new(
            Schedule::constant(args.sft_learning_rate).with_warmup(args.sft_steps.div_ceil(10)),
        ),
        seed: args.seed,
        ..SftConfig::default()
    };
    let (model, lora) = policy(args, &args.model, device)?;
    let demonstrations = DemonstrationFile::open(file)?;
    let mut trainer = SftTrainer::new(model, tokenizer.clone(), demonstrations, config)?;
    let run = SftRunConfig {
        title: format!("cold start on {}", name_of(file)),
        ..SftRunConfig::default()
    };
    let started = Instant::now();
    let history = History::new();
    let records = history.records();
    let mut observers: Vec<Box<dyn Observer>> =
        vec![Box::new(ProgressBar::new()), Box::new(history)];
    if trainer.run(&run, &mut observers, stop)? == RunEnd::Stopped {
        return Ok(false);
    }
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    let loss = |record: Option<&StepRecord>| record.and_then(|r| r.get("loss")).unwrap_or(f64::NAN);
    println!(
        "cold start: {} demonstrations, {} steps, loss {:.3} -> {:.3}, {:.0} s",
        trainer.demonstrations(),
        trainer.steps_done(),
        loss(records.first()),
        loss(records.last()),
        started.elapsed().as_secs_f64(),
    );
    let mut model = trainer.into_policy();
    if lora.is_some() {
        model = model.merge_lora();
    }
    let replace = SaveOptions {
        replace: true,
        ..SaveOptions::from_folder(&args.model)
    };
    save(&model.valid(), to, &replace)?;
    Ok(true)
}

/// The trainer that the command line asks for.
fn trainer(
    args: &Args,
    team: &Team,
    policy: CausalModel,
    (tokenizer, agent_loop): (Arc<ChatTokenizer>, Option<AgentLoop>),
    problems: &Split,
) -> Result<Trainer<CausalModel>> {
    let usual = if args.lora.is_some() { 2e-4 } else { 1e-5 };
    let peak = args.learning_rate.unwrap_or(usual);
    let sampling = SamplingConfig {
        temperature: args.temperature,
        ..SamplingConfig::default()
    };
    let generation = GenerationConfig::new(args.max_new_tokens, tokenizer.stop_tokens());
    let mut config = TrainerConfig {
        seed: args.seed,
        problems_per_step: args.problems,
        group_size: args.group,
        generation: GenerationConfig {
            sampling,
            weights: args.generation_weights,
            ..generation
        },
        optimizer: OptimizerConfig {
            beta_2: 0.95,
            ..OptimizerConfig::new(Schedule::constant(peak).with_warmup(args.steps.div_ceil(10)))
        },
        micro_batch: args.micro_batch,
        logit_chunk: 128,
        measure_kl: true,
        ..TrainerConfig::default()
    }
    .with_recipe(&args.algorithm)?;
    match (args.kl, &mut config.objective.kl) {
        (Some(0.0), kl) => *kl = None,
        (Some(coef), Some(kl)) => kl.coef = coef,
        (Some(coef), kl) => {
            *kl = Some(rlvr::loss::KlPenalty::new(
                coef,
                rlvr::loss::KlEstimator::K3,
            ))
        }
        (None, _) => {}
    }
    args.engines.correct(&mut config);
    let config = args.learners.apply(config);
    let mut builder = Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(args.environments.rewards()?)
        .problems(problems.train.clone())
        .learners(team.learners.clone());
    if let Some(agent_loop) = agent_loop {
        builder = builder.agent_loop(agent_loop);
    }
    args.engines.attach(builder, &args.run_folder())?.build()
}

/// Progress bar, metrics file, chart and report, continuing what a resumed run left, and who
/// watches over the run.
fn observers(
    args: &Args,
    folder: &Path,
    config: &RunConfig,
    metrics: MetricsFile,
    before: Option<&Evaluation>,
    settings: Value,
) -> Result<Watchdog<Vec<Box<dyn Observer>>>> {
    let title = &config.title;
    let mut history: Vec<StepRecord> = Vec::new();
    if let Some(before) = before {
        history.push(
            StepRecord::new(0)
                .with("eval/accuracy", before.accuracy)
                .with("eval/mean_length", before.mean_length),
        );
    }
    history.extend(read_metrics(folder.join(METRICS))?);
    write_json(&folder.join("config.json"), &settings)?;
    let chart = Chart::new(folder.join("curve.svg"), title).with_history(history.clone());
    let mut all: Vec<Box<dyn Observer>> = vec![
        Box::new(ProgressBar::new()),
        Box::new(metrics),
        Box::new(chart),
    ];
    let rollouts = folder.join("rollouts");
    if let Some(keep) = args.keep_rollouts {
        all.push(Box::new(RolloutFiles::create(&rollouts, keep)?));
    }
    #[cfg(feature = "tensorboard")]
    all.push(Box::new(rlvr::train::observer::EventFile::create(
        folder.join("tensorboard"),
    )?));
    let report = Report::new(folder.join("report.html"), title)
        .with_history(history.clone())
        .with_configuration(settings)
        .with_rollouts(rollouts);
    all.push(Box::new(report));
    Ok(Watchdog::new(all).with_history(history))
}
