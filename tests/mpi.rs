//! Learners as processes of an MPI job: the same bits as one process, and every failure ends the
//! job.
//!
//! Needs the feature `mpi` and `mpirun`; without the latter the tests print a message and pass. A
//! binary of its own, because each test starts this program under `mpirun`.

#![cfg(feature = "mpi")]

#[path = "training/learners/cases.rs"]
mod cases;
mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio, exit};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cases::{Case, cases};
use common::toy;
use rlvr::policy::causal::CausalModel;
use rlvr::train::observer::{MetricsFile, Observer};
use rlvr::train::{Alone, Learners, Mpi, RunCheckpoints, RunConfig, Trainer, latest_checkpoint};
use rlvr::{Error, Result};

/// Environment variables of the processes of a job: the task and the folder.
const TASK: &str = "RLVR_MPI_TASK";
const FOLDER: &str = "RLVR_MPI_FOLDER";
const CHILD: &str = "the_processes_of_a_job";

/// The time limit between processes, in seconds; a step takes a fraction of one.
const LIMIT: u64 = 20;

/// Runs `task` in `size` processes; `None` if there is no `mpirun`.
fn job(size: usize, task: &str, folder: &Path) -> Option<Output> {
    let found = Command::new("mpirun").arg("--version").output();
    if found.is_err() {
        common::report("mpirun is missing: not tested");
        return None;
    }
    let child = Command::new("mpirun")
        .args([
            "--oversubscribe",
            "--bind-to",
            "none",
            "-n",
            &size.to_string(),
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", CHILD, "--nocapture"])
        .env(TASK, task)
        .env(FOLDER, folder)
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Some(child.wait_with_output().unwrap())
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Ends this process as the task says.
fn fail(task: &str) -> Result<()> {
    match task {
        "error" => return Err(Error::config("disk", "full", "space")),
        "panic" => panic!("on purpose"),
        "exit 0" => exit(0),
        "exit 3" => exit(3),
        "kill" => {
            let own = std::process::id().to_string();
            Command::new("kill").args(["-9", &own]).status().unwrap();
        }
        "hang" => sleep(Duration::from_secs(3600)),
        other => panic!("no task {other}"),
    }
    Ok(())
}

fn case(task: &str) -> Case {
    let name = match task {
        "grpo" | "lora" => task,
        _ => "ppo",
    };
    let mut case = cases().into_iter().find(|case| case.name == name).unwrap();
    case.config.sharded_optimizer = true;
    case
}

/// Trains `steps` steps in all, from the last checkpoint on.
fn train(trainer: &mut Trainer<CausalModel>, folder: &Path, steps: u64, first: bool) -> Result<()> {
    let checkpoints = folder.join("checkpoints");
    if let Some(latest) = latest_checkpoint(&checkpoints)? {
        trainer.load_checkpoint(latest)?;
    }
    let done = trainer.steps_done();
    let config = RunConfig {
        steps,
        checkpoints: Some(RunCheckpoints {
            folder: checkpoints,
            every: 1,
            keep: 1,
        }),
        ..RunConfig::default()
    };
    let mut observers: Vec<Box<dyn Observer>> = Vec::new();
    if first {
        let file = MetricsFile::resume(folder.join("metrics.jsonl"), done)?;
        observers.push(Box::new(file));
    }
    trainer.run(&config, &mut observers, &AtomicBool::new(false))?;
    Ok(())
}

/// The final weights of a run.
fn ending(trainer: &Trainer<CausalModel>) -> Vec<u64> {
    let weights = toy::weights(trainer.policy());
    weights.into_iter().map(f64::to_bits).collect()
}

#[test]
fn the_processes_of_a_job() {
    let (Ok(task), Ok(folder)) = (std::env::var(TASK), std::env::var(FOLDER)) else {
        return;
    };
    let folder = Path::new(&folder);
    let work = |learner: Mpi| {
        let rank = learner.rank();
        assert_eq!(learner.local_rank(), rank);
        if task == "collectives" {
            return collectives(&learner);
        }
        let mut trainer = case(&task).trainer(learner)?;
        if ["grpo", "ppo", "lora"].contains(&&*task) {
            train(&mut trainer, folder, 3, rank == 0)?;
        } else {
            train(&mut trainer, folder, 2, rank == 0)?;
            if rank == 1 {
                fail(&task)?;
            }
            train(&mut trainer, folder, 3, rank == 0)?;
        }
        if rank == 0 {
            let numbers = serde_json::to_vec(&ending(&trainer)).unwrap();
            fs::write(folder.join("weights.json"), numbers).unwrap();
        }
        Ok(())
    };
    let report = |error: &Error| eprintln!("error: {error}");
    Mpi::run(Duration::from_secs(LIMIT), work, report).unwrap();
}

/// Data of different lengths and kinds, and mismatched calls.
fn collectives(learner: &Mpi) -> Result<()> {
    let (rank, size) = (learner.rank(), learner.size());
    for round in 0..20 {
        let all = learner.gather(vec![rank as u8; rank * 1000 * round])?;
        for (from, bytes) in all.iter().enumerate() {
            assert_eq!(*bytes, vec![from as u8; from * 1000 * round]);
        }
    }
    for count in [0, 1, 2, 5, 1001] {
        let numbers: Vec<f32> = (0..count).map(|i| (rank * 10_000 + i) as f32).collect();
        let own = rank * count / size..(rank + 1) * count / size;
        let parts = learner.exchange(numbers.clone())?;
        for (from, part) in parts.iter().enumerate() {
            let expected = own.clone().map(|i| (from * 10_000 + i) as f32);
            assert_eq!(*part, expected.collect::<Vec<_>>());
        }
        let joined = learner.concat(numbers[own].to_vec())?;
        assert_eq!(joined.len(), count);
        let mut sums = vec![0.5f32; count];
        learner.sum(&mut sums)?;
        assert_eq!(sums, vec![0.5 * size as f32; count]);
    }
    let lengths = learner
        .exchange(vec![0.0; 3 + rank])
        .unwrap_err()
        .to_string();
    assert!(lengths.contains("numbers of learner"), "{lengths}");
    let mixed = match rank {
        0 => learner.gather(vec![1]).map(|_| ()),
        _ => learner.concat(vec![1.0]).map(|_| ()),
    };
    let mixed = mixed.unwrap_err().to_string();
    assert!(mixed.contains("it is at `"), "{mixed}");
    // After an error on all learners they continue together.
    learner.gather(Vec::new()).map(|_| ())
}

#[test]
fn collectives_exchange_data_and_mismatched_calls_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    for size in [2, 3] {
        let Some(output) = job(size, "collectives", folder.path()) else {
            return;
        };
        assert!(output.status.success(), "{}", text(&output));
    }
}

#[test]
fn any_number_of_processes_ends_with_the_same_bits() {
    for task in ["grpo", "ppo", "lora"] {
        let alone = tempfile::tempdir().unwrap();
        let mut trainer = case(task).trainer(Alone).unwrap();
        train(&mut trainer, alone.path(), 3, true).unwrap();
        let metrics = |folder: &Path| {
            let records = rlvr::train::observer::read_metrics(folder.join("metrics.jsonl"));
            let records = records.unwrap();
            records.iter().map(toy::bits).collect::<Vec<_>>()
        };
        for size in [1, 2, 4] {
            let folder = tempfile::tempdir().unwrap();
            let Some(output) = job(size, task, folder.path()) else {
                return;
            };
            assert!(output.status.success(), "{task}, {size}: {}", text(&output));
            let weights = fs::read(folder.path().join("weights.json")).unwrap();
            let weights: Vec<u64> = serde_json::from_slice(&weights).unwrap();
            assert_eq!(weights, ending(&trainer), "{task}, {size} processes");
            assert_eq!(
                metrics(folder.path()),
                metrics(alone.path()),
                "{task}, {size} processes"
            );
        }
    }
}

#[test]
fn a_failing_process_ends_the_job_and_the_checkpoint_can_be_continued() {
    let mut whole = case("ppo").trainer(Alone).unwrap();
    let alone = tempfile::tempdir().unwrap();
    train(&mut whole, alone.path(), 3, true).unwrap();
    for (task, code, reason) in [
        (
            "error",
            Some(2),
            "error: invalid `disk`: full; expected space",
        ),
        ("panic", Some(101), "on purpose"),
        ("exit 3", Some(3), ""),
        ("exit 0", None, ""),
        ("kill", None, ""),
        ("hang", Some(2), "one of them hangs"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let started = Instant::now();
        let Some(output) = job(2, task, folder.path()) else {
            return;
        };
        let seconds = started.elapsed().as_secs();
        let said = text(&output);
        assert!(!output.status.success(), "{task} succeeded: {said}");
        if let Some(code) = code {
            assert_eq!(output.status.code(), Some(code), "{task}: {said}");
        }
        assert!(said.contains(reason), "{task}: {said}");
        assert!(seconds < 3 * LIMIT, "{task} took {seconds} s");
        common::report(&format!("{task}: {:?} after {seconds} s", output.status));

        let left = latest_checkpoint(folder.path().join("checkpoints"))
            .unwrap()
            .unwrap();
        assert!(
            left.ends_with("step-00000002"),
            "{task}: {}",
            left.display()
        );
        let output = job(4, "ppo", folder.path()).unwrap();
        assert!(output.status.success(), "{task}: {}", text(&output));
        let weights = fs::read(folder.path().join("weights.json")).unwrap();
        let weights: Vec<u64> = serde_json::from_slice(&weights).unwrap();
        assert_eq!(weights, ending(&whole), "{task}");
    }
}
