//! DeepSeek-R1's pipeline, whole and in miniature: `cargo run --release --example r1`. See
//! `--help`.

#[path = "../common/allocator.rs"]
mod allocator;
#[path = "../common/backend.rs"]
mod backend;
#[path = "../common/files.rs"]
#[allow(dead_code)] // shared with the other examples
mod files;
mod picture;
mod stages;
mod table;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use backend::Backend;
use burn::module::Module;
use clap::Parser;
use rlvr::Result;
use rlvr::policy::causal::CausalModel;
use rlvr::prompt::Problem;
use rlvr::train::{Evaluation, Piecewise, StepSchedules};
use stages::{Lab, Reinforcement, rules, rules_and_model};
use table::Table;
use world::World;

/// All stages of DeepSeek-R1 on a model that is trained from scratch: R1-Zero, cold start,
/// reasoning with one language, rejection sampling, reinforcement for all domains with a reward
/// model, and a student.
///
/// The model adds, plays countdown and greets people, in English and Russian. Every stage leaves
/// its checkpoints and metrics in a folder of its own; the table is in table.json, the chart in
/// stages.svg. The same command continues where it was stopped or killed.
#[derive(Parser, Debug)]
#[command(name = "r1", version)]
struct Args {
    /// Folder for everything that is left behind
    #[arg(long, default_value = "runs/r1")]
    out: PathBuf,
    /// All randomness derives from it: problems, weights, order, sampling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Scale the length of every stage, for example 0.05 for a quick test
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Dollars for a device and hour, for the table of costs
    #[arg(long, default_value_t = 2.0)]
    price: f64,
    /// Where tensors live: one of the backends compiled in (features of the same names)
    #[arg(long, value_enum, default_value_t = Backend::default())]
    device: Backend,
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

/// Width and depth of the model, and of its student.
const MODEL: (usize, usize) = (128, 2);
const STUDENT: (usize, usize) = (64, 2);

fn run(args: &Args) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    // A second handler cannot be installed; without one Ctrl-C simply ends the process.
    let _ = ctrlc::set_handler(move || raised.store(true, Ordering::Relaxed));
    let world = World::new(args.seed)?;
    let lab = Lab {
        out: &args.out,
        world: &world,
        device: args.device.device(0).autodiff(),
        seed: args.seed,
        stop: &stop,
        scale: args.scale,
    };
    let model = lab.model(MODEL.0, MODEL.1)?;
    println!(
        "{} parameters, the student {} | {} sums, {} games, {} greetings, {} held out | seed {}",
        model.num_params(),
        lab.model(STUDENT.0, STUDENT.1)?.num_params(),
        world.arithmetic.len(),
        world.countdown.len(),
        world.greeting.len(),
        world.held_out.len(),
        args.seed,
    );
    match pipeline(&lab, model, args.price)? {
        Some(table) => {
            table.write(&args.out)?;
            println!("\n{table}");
            println!("everything is in {}", args.out.display());
        }
        None => println!("stopped; the same command continues"),
    }
    Ok(())
}

/// All stages; `None` if it was stopped.
fn pipeline(lab: &Lab<'_>, model: CausalModel, price: f64) -> Result<Option<Table>> {
    /// The policy of a stage, or the end.
    macro_rules! stage {
        ($result:expr) => {
            match $result? {
                Some(policy) => policy,
                None => return Ok(None),
            }
        };
    }
    let world = lab.world;
    let mut table = Table::new(price);
    let always = || Piecewise::linear([(0, 1.0)]);
    let thinking = |rewards| Reinforcement {
        problems: vec![
            (always(), world.arithmetic.as_slice()),
            (always(), world.countdown.as_slice()),
        ],
        rewards,
        schedules: StepSchedules::default(),
        steps: 240,
        rate: 4e-4,
    };

    let corpus = world.corpus()?;
    let base = stage!(lab.learn("base", model, corpus.clone(), 700, 3e-3));
    let base_answers = lab.examine(&base)?;
    let add = |table: &mut Table, stage: &str, policy: &CausalModel, started: Instant| {
        examine(lab, table, stage, policy, &base_answers, started)
    };
    let started = Instant::now();
    add(&mut table, "base", &base, started)?;

    // Rules alone: it learns to think, in whatever language.
    let started = Instant::now();
    let zero = stage!(lab.reinforce("zero", base.clone(), thinking(rules(false)?)));
    add(&mut table, "zero", &zero, started)?;

    // What it thought and was right with, in one language: a cold start for the base model.
    let started = Instant::now();
    let some: Vec<Problem> = every_third(&world.reasoning());
    let (cold, report) = lab.reject("cold_start", &zero, &some, 8)?;
    table.note(format!(
        "cold start: {} of {} completions of R1-Zero kept",
        cold.len(),
        report.sampled
    ));
    let dev1 = stage!(lab.learn("dev1", base.clone(), cold, 250, 1e-3));
    add(&mut table, "dev1", &dev1, started)?;

    // Reasoning again, now with a reward for one language.
    let started = Instant::now();
    let dev2 = stage!(lab.reinforce(
        "dev2",
        dev1,
        Reinforcement {
            steps: 200,
            ..thinking(rules(true)?)
        }
    ));
    add(&mut table, "dev2", &dev2, started)?;

    // Its best answers and small talk, for the base model once more.
    let started = Instant::now();
    let (mut kept, report) = lab.reject("rejection", &dev2, &world.reasoning(), 4)?;
    table.note(format!(
        "rejection sampling: {} of {} completions of Dev2 kept",
        kept.len(),
        report.sampled
    ));
    kept.extend(world.small_talk(8));
    let dev3 = stage!(lab.learn("dev3", base.clone(), kept, 350, 1e-3));
    add(&mut table, "dev3", &dev3, started)?;

    // What people prefer, and everything together. The reward model joins late.
    let started = Instant::now();
    let (judge, quality) = lab.reward_model(&base)?;
    table.note(format!(
        "reward model: prefers what people prefer in {:.1} % of {} held-out pairs",
        100.0 * quality.accuracy,
        quality.examples
    ));
    let all = |steps: u64, from: u64, weight| -> Result<Reinforcement<'_>> {
        let from_then_on = |weight: f64| match from {
            0 => Piecewise::linear([(0, weight)]),
            from => Piecewise::steps([(0, 0.0), (from, weight)]),
        };
        Ok(Reinforcement {
            problems: vec![
                (always(), world.arithmetic.as_slice()),
                (always(), world.countdown.as_slice()),
                (from_then_on(1.0), world.greeting.as_slice()),
            ],
            rewards: rules_and_model(&judge, lab.tokenizer(), weight)?,
            schedules: StepSchedules {
                reward_weights: [("liked".to_string(), from_then_on(weight))].into(),
                ..StepSchedules::default()
            },
            steps,
            rate: 2e-4,
        })
    };
    let joins = (lab.scale * 60.0) as u64;
    let r1 = stage!(lab.reinforce("r1", dev3.clone(), all(120, joins, 0.5)?));
    let r1_answers = add(&mut table, "r1", &r1, started)?;

    // The same reward model, for too long and alone.
    let started = Instant::now();
    let hacked = stage!(lab.reinforce(
        "hacked",
        r1.clone(),
        Reinforcement {
            problems: vec![(always(), world.greeting.as_slice())],
            rate: 1e-3,
            ..all(120, 0, 2.0)?
        }
    ));
    let hacked_answers = add(&mut table, "hacked", &hacked, started)?;
    table.judged(
        lab,
        &judge,
        [("r1", &r1_answers), ("hacked", &hacked_answers)],
    );

    // A smaller model: distilled from R1, and trained by rewards alone.
    let small = lab.model(STUDENT.0, STUDENT.1)?;
    let started = Instant::now();
    let small = stage!(lab.learn("student_base", small, corpus, 450, 3e-3));
    add(&mut table, "student_base", &small, started)?;
    let started = Instant::now();
    let (mut lessons, _) = lab.reject("lessons", &r1, &world.reasoning(), 2)?;
    lessons.extend(lab.imitate(&r1, &world.greeting, 16)?);
    let taught = stage!(lab.learn("student_sft", small.clone(), lessons, 250, 2e-3));
    add(&mut table, "student_sft", &taught, started)?;
    let started = Instant::now();
    let mut problems = world.reasoning();
    // A tenth of them are greetings.
    problems.extend(
        world
            .greeting
            .iter()
            .cycle()
            .take(problems.len() / 9)
            .cloned(),
    );
    let student = stage!(lab.distil("student_on_policy", taught, &r1, problems, 120, 5e-4));
    add(&mut table, "student_on_policy", &student, started)?;
    let started = Instant::now();
    let alone = stage!(lab.reinforce("student_rl", small, thinking(rules(false)?)));
    add(&mut table, "student_rl", &alone, started)?;
    table.conclude();
    Ok(Some(table))
}

fn every_third(problems: &[Problem]) -> Vec<Problem> {
    problems.iter().step_by(3).cloned().collect()
}

/// Adds a stage's row to the table, prints it, and gives the answers.
fn examine(
    lab: &Lab<'_>,
    table: &mut Table,
    stage: &str,
    policy: &CausalModel,
    base: &Evaluation,
    started: Instant,
) -> Result<Evaluation> {
    let found = lab.examine(policy)?;
    let seconds = lab.seconds(stage)?;
    let seconds = seconds.map_or(started.elapsed().as_secs_f64(), |steps| {
        steps.max(started.elapsed().as_secs_f64())
    });
    println!("{}", table.add(stage, &found, base, seconds));
    Ok(found)
}
