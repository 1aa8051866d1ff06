//! A run whose process is killed repeatedly, at random moments, equals an uninterrupted one.
//!
//! 20 kills by default; `RLVR_CRASHES=200 cargo test --features ndarray,remote --test training
//! crash` for more.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::RngExt;
use rlvr::loss::{KlEstimator, KlPenalty};
use rlvr::policy::ReferenceSync;
use rlvr::policy::causal::CausalModel;
use rlvr::random;
use rlvr::train::observer::{MetricsFile, Observer, StepRecord, read_metrics};
use rlvr::train::{
    AdaptiveTarget, Demonstration, KlInReward, RunCheckpoints, RunConfig, RunEnd, SftConfig,
    SftRunConfig, SftTrainer, TrainerConfig, latest_checkpoint,
};

use crate::common::toy::Rl;
use crate::common::{self, toy};

/// Set in the child processes: the folder of the run.
const FOLDER: &str = "RLVR_CRASH_FOLDER";
const TEST: &str = "crash::a_run_that_is_killed_repeatedly_equals_an_uninterrupted_one";
const SFT_TEST: &str =
    "crash::a_supervised_job_that_is_killed_repeatedly_equals_an_uninterrupted_one";
/// More steps than a child lives.
const ENDLESS: u64 = 1_000_000;

/// PPO with every kind of state: a critic, a moving reference, an adaptive coefficient, epochs.
fn config() -> TrainerConfig {
    TrainerConfig {
        seed: 11,
        problems_per_step: 3,
        reference_sync: ReferenceSync::MovingAverage {
            steps: 2,
            alpha: 0.6,
        },
        kl_in_reward: Some(KlInReward {
            penalty: KlPenalty::new(0.1, KlEstimator::K1),
            adaptive: Some(AdaptiveTarget {
                target: 0.01,
                horizon: 100.0,
            }),
        }),
        ..toy::ppo_config()
    }
}

fn trainer(policy_seed: u64) -> Rl {
    toy::trainer(&config(), policy_seed, &toy::device())
}

/// Continues the run in `folder`, or starts it, until `steps` are done: a checkpoint every second
/// step, a record of each.
fn continue_run(trainer: &mut Rl, folder: &Path, steps: u64) {
    let checkpoints = folder.join("checkpoints");
    if let Some(path) = latest_checkpoint(&checkpoints).unwrap() {
        trainer.load_checkpoint(path).unwrap();
    }
    let mut metrics =
        MetricsFile::resume(folder.join("metrics.jsonl"), trainer.steps_done()).unwrap();
    let run = RunConfig {
        steps,
        checkpoints: Some(RunCheckpoints {
            folder: checkpoints,
            every: 2,
            keep: 2,
        }),
        ..RunConfig::default()
    };
    let end = trainer.run(&run, &mut metrics, &AtomicBool::new(false));
    assert_eq!(end.unwrap(), RunEnd::Finished);
}

/// Records of a run, by step.
#[derive(Default)]
struct Records(BTreeMap<u64, BTreeMap<String, u64>>);

impl Records {
    /// Adds a record; a step that was recorded before must be equal.
    fn add(&mut self, record: &StepRecord) {
        let new = toy::bits(record);
        let old = self.0.entry(record.step).or_insert_with(|| new.clone());
        assert_eq!(*old, new, "step {} has two different records", record.step);
    }
}

impl Observer for Records {
    fn on_step(&mut self, record: &StepRecord) -> rlvr::Result<()> {
        self.add(record);
        Ok(())
    }
}

/// Checks the folder of a killed process: its latest checkpoint loads, and its records have no
/// gaps. Returns the checkpoint's step.
fn examine(folder: &Path, records: &mut Records) -> u64 {
    let mut loaded = trainer(5);
    if let Some(path) = latest_checkpoint(folder.join("checkpoints")).unwrap() {
        loaded.load_checkpoint(path).unwrap();
    }
    let file = folder.join("metrics.jsonl");
    let found = match file.exists() {
        true => read_metrics(&file).unwrap(),
        false => Vec::new(),
    };
    let steps: Vec<u64> = found.iter().map(|record| record.step).collect();
    let expected: Vec<u64> = (1..=found.len() as u64).collect();
    assert_eq!(steps, expected, "the metrics file has holes");
    let step = loaded.steps_done();
    assert!(
        found.len() as u64 >= step,
        "{} records, but the checkpoint is of step {step}",
        found.len()
    );
    found.iter().for_each(|record| records.add(record));
    step
}

fn start(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The step of the newest checkpoint, by its name alone.
fn newest(folder: &Path) -> u64 {
    let path = latest_checkpoint(folder.join("checkpoints")).unwrap();
    let name = path.map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    name.map_or(0, |name| name.trim_start_matches("step-").parse().unwrap())
}

#[test]
fn a_run_that_is_killed_repeatedly_equals_an_uninterrupted_one() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return continue_run(&mut trainer(0), Path::new(&folder), ENDLESS);
    }
    let crashes = std::env::var("RLVR_CRASHES").map_or(20, |count| count.parse().unwrap());
    let root = tempfile::tempdir().unwrap();

    // The time of four steps and two checkpoints, so that kills are spread over all of their parts.
    let rehearsal = Instant::now();
    continue_run(&mut trainer(0), &root.path().join("rehearsal"), 4);
    let spread = rehearsal.elapsed().as_micros() as u64;

    let folder = root.path().join("run");
    let mut random = random::generator(&[11]);
    let (mut reached, mut records) = (0, Records::default());
    for crash in 0..crashes {
        let mut child = start(TEST, &folder);
        // Every fourth is killed while it starts and reads the checkpoint. The others write one
        // first, so that the run advances.
        while crash % 4 > 0 && newest(&folder) <= reached {
            assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(random.random_range(0..spread)));
        assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let step = examine(&folder, &mut records);
        assert!(step >= reached, "steps were lost: {reached}, then {step}");
        reached = step;
    }

    // An uninterrupted run of the same length, and the killed one run to its end.
    let steps = reached + 3;
    let mut finished = trainer(5);
    continue_run(&mut finished, &folder, steps);
    assert_eq!(examine(&folder, &mut records), steps);
    let mut whole = trainer(0);
    let mut expected = Records::default();
    let run = RunConfig {
        steps,
        ..RunConfig::default()
    };
    whole
        .run(&run, &mut expected, &AtomicBool::new(false))
        .unwrap();
    for (step, record) in &records.0 {
        // Steps after the last one are of children that were killed before they saved them.
        if let Some(expected) = expected.0.get(step) {
            assert_eq!(record, expected, "step {step}");
        }
    }
    assert_eq!(finished.last_rollouts(), whole.last_rollouts());
    assert!(toy::weights(finished.policy()) == toy::weights(whole.policy()));

    // No partial files are left.
    let mut left: Vec<String> = fs::read_dir(folder.join("checkpoints"))
        .unwrap()
        .chain(fs::read_dir(&folder).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("step-") && name != ".lock")
        .collect();
    left.sort();
    assert_eq!(left, ["checkpoints", "metrics.jsonl"]);
    common::report(&format!("{crashes} kills, {steps} steps"));
}

fn supervised(policy_seed: u64, steps: u64) -> SftTrainer<CausalModel> {
    let shown = ["a", "ab", "cad", "dd", "bca"].map(|prompt| Demonstration::new(prompt, "ab"));
    let config = SftConfig {
        steps,
        batch_size: 3,
        optimizer: toy::optimizer(0.02),
        ..SftConfig::default()
    };
    let policy = toy::policy(policy_seed, &toy::device());
    SftTrainer::new(policy, toy::tokenizer(), shown.to_vec(), config).unwrap()
}

/// Continues the job in `folder`, or starts it, until its steps are done.
fn continue_job(job: &mut SftTrainer<CausalModel>, folder: &Path) {
    let checkpoints = folder.join("checkpoints");
    if let Some(path) = latest_checkpoint(&checkpoints).unwrap() {
        job.load_checkpoint(path).unwrap();
    }
    let metrics = folder.join("metrics.jsonl");
    let mut metrics = MetricsFile::resume(metrics, job.steps_done()).unwrap();
    let run = SftRunConfig {
        checkpoints: Some(RunCheckpoints {
            folder: checkpoints,
            every: 2,
            keep: 2,
        }),
        ..SftRunConfig::default()
    };
    let end = job.run(&run, &mut metrics, &AtomicBool::new(false));
    assert_eq!(end.unwrap(), RunEnd::Finished);
}

#[test]
fn a_supervised_job_that_is_killed_repeatedly_equals_an_uninterrupted_one() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return continue_job(&mut supervised(0, ENDLESS), Path::new(&folder));
    }
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("run");
    let mut random = random::generator(&[12]);
    let mut reached = 0;
    for _ in 0..8 {
        let mut child = start(SFT_TEST, &folder);
        while newest(&folder) <= reached {
            assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_micros(random.random_range(0..50_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        reached = newest(&folder);
    }
    let steps = reached + 3;
    let mut finished = supervised(5, steps);
    continue_job(&mut finished, &folder);
    let mut whole = supervised(0, steps);
    let mut expected = Records::default();
    while whole.steps_done() < steps {
        expected.add(&whole.step().unwrap());
    }
    assert!(toy::weights(finished.policy()) == toy::weights(whole.policy()));
    let mut found = Records::default();
    let records = read_metrics(folder.join("metrics.jsonl")).unwrap();
    records.iter().for_each(|record| found.add(record));
    assert_eq!(found.0, expected.0);
}
