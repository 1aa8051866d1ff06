//! A run: the order of observer calls, and every way in which it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rlvr::Result;
use rlvr::reward::{FnReward, RewardSet};
use rlvr::train::observer::{History, Observer, RunInfo, StepRecord};
use rlvr::train::{
    EvaluationConfig, RunCheckpoints, RunConfig, RunEnd, RunEvaluation, latest_checkpoint,
};

use crate::common::toy;

/// Records every call; sets the flag in one step, fails in another.
#[derive(Default)]
struct Witness {
    calls: Vec<String>,
    stop: Arc<AtomicBool>,
    stop_at: u64,
    fail_at: u64,
}

impl Observer for Witness {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let RunInfo {
            first_step,
            last_step,
            title,
            predicted_memory: _,
        } = run;
        self.calls
            .push(format!("start {first_step} {last_step} {title}"));
        Ok(())
    }

    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.calls.push(format!("step {}", record.step));
        if record.step == self.stop_at {
            self.stop.store(true, Ordering::Relaxed);
        }
        if record.step == self.fail_at {
            return Err(rlvr::Error::config("disk", "full", "room"));
        }
        Ok(())
    }

    fn on_end(&mut self) -> Result<()> {
        self.calls.push("end".into());
        Ok(())
    }
}

fn run(steps: u64) -> RunConfig {
    RunConfig {
        steps,
        title: "toy".into(),
        ..RunConfig::default()
    }
}

#[test]
fn observers_are_called_at_start_every_step_and_end() {
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let stop = AtomicBool::new(false);
    let mut witness = Witness::default();
    let end = trainer.run(&run(3), &mut witness, &stop).unwrap();
    assert_eq!(end, RunEnd::Finished);
    let expected = ["start 0 3 toy", "step 1", "step 2", "step 3", "end"];
    assert_eq!(witness.calls, expected);

    // The same trainer continues: steps are counted over all runs.
    let mut witness = Witness::default();
    trainer.run(&run(5), &mut witness, &stop).unwrap();
    assert_eq!(witness.calls, ["start 3 5 toy", "step 4", "step 5", "end"]);
    assert_eq!(trainer.steps_done(), 5);
    // Nothing is left to do.
    let mut witness = Witness::default();
    let end = trainer.run(&run(5), &mut witness, &stop).unwrap();
    assert_eq!(witness.calls, ["start 5 5 toy", "end"]);
    assert_eq!(end, RunEnd::Finished);
}

#[test]
fn a_stop_flag_ends_the_run_after_the_step_and_saves_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let stop = Arc::new(AtomicBool::new(false));
    let mut witness = Witness {
        stop: stop.clone(),
        stop_at: 3,
        ..Witness::default()
    };
    let config = RunConfig {
        checkpoints: Some(RunCheckpoints {
            folder: folder.path().into(),
            every: 100,
            keep: 1,
        }),
        ..run(10)
    };
    let end = trainer.run(&config, &mut witness, &stop).unwrap();
    assert_eq!(end, RunEnd::Stopped);
    let expected = ["start 0 10 toy", "step 1", "step 2", "step 3", "end"];
    assert_eq!(witness.calls, expected);
    let saved = latest_checkpoint(folder.path()).unwrap().unwrap();
    assert!(saved.ends_with("step-00000003"), "{saved:?}");
    let mut other = toy::trainer(&toy::config(), 9, &toy::device());
    other.load_checkpoint(saved).unwrap();
    assert_eq!(other.steps_done(), 3);
    assert_eq!(toy::weights(other.policy()), toy::weights(trainer.policy()));
}

#[test]
fn memory_is_predicted_for_the_longest_completions() {
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let predicted = trainer.predicted_memory().unwrap();
    let mut history = History::new();
    let stop = AtomicBool::new(false);
    trainer.run(&run(1), &mut history, &stop).unwrap();
    let stated = toy::metric(&history.records().lock().unwrap()[0], "memory/predicted");
    assert_eq!(stated, predicted.total().floor());

    let mut longer = toy::config();
    longer.generation.max_new_tokens += 4;
    let longer = toy::trainer(&longer, 0, &toy::device());
    let longer = longer.predicted_memory().unwrap();
    assert!(longer.activations > predicted.activations);
    assert_eq!(longer.optimizer, predicted.optimizer);

    let mut cut = toy::config();
    cut.micro_batch = 1;
    let cut = toy::trainer(&cut, 0, &toy::device());
    assert!(cut.predicted_memory().unwrap().activations < predicted.activations / 2.0);
}

#[test]
fn checkpoints_are_saved_at_the_interval_and_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let config = RunConfig {
        checkpoints: Some(RunCheckpoints {
            folder: folder.path().into(),
            every: 2,
            keep: 10,
        }),
        ..run(5)
    };
    let stop = AtomicBool::new(false);
    trainer.run(&config, &mut History::new(), &stop).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    assert_eq!(names, ["step-00000002", "step-00000004", "step-00000005"]);
}

#[test]
fn a_failing_observer_ends_the_run_and_gets_the_end_event() {
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let mut witness = Witness {
        fail_at: 2,
        ..Witness::default()
    };
    let stop = AtomicBool::new(false);
    let error = trainer.run(&run(9), &mut witness, &stop).unwrap_err();
    assert_eq!(error.to_string(), "invalid `disk`: full; expected room");
    assert_eq!(witness.calls, ["start 0 9 toy", "step 1", "step 2", "end"]);
}

#[test]
fn a_failing_step_ends_the_run_and_observers_get_the_error() {
    let mut trainer = failing_after(0);
    let mut witness = Witness::default();
    let stop = AtomicBool::new(false);
    assert!(trainer.run(&run(2), &mut witness, &stop).is_err());
    assert_eq!(witness.calls, ["start 0 2 toy", "end"]);
}

/// A trainer whose rewards fail in every step after the first `steps`.
fn failing_after(steps: usize) -> toy::Rl {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let reward = FnReward::new("accuracy", move |input| {
        let before = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match before < steps * 32 {
            true => Ok(Some(input.rollout.tokens.len() as f64)),
            false => Err("out of order".into()),
        }
    });
    let rewards = RewardSet::builder().add(1.0, reward).build().unwrap();
    toy::build(&toy::config(), 0, &toy::device(), rewards, toy::problems()).unwrap()
}

fn checkpoints(folder: &std::path::Path, every: u64) -> RunConfig {
    RunConfig {
        checkpoints: Some(RunCheckpoints {
            folder: folder.into(),
            every,
            keep: 10,
        }),
        ..run(6)
    }
}

#[test]
fn an_error_in_a_step_loses_no_step_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = failing_after(3);
    let stop = AtomicBool::new(false);
    let config = checkpoints(folder.path(), 100);
    let error = trainer.run(&config, &mut History::new(), &stop);
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("accuracy") && error.contains("out of order"),
        "{error}"
    );
    let saved = latest_checkpoint(folder.path()).unwrap().unwrap();
    assert!(saved.ends_with("step-00000003"), "{saved:?}");
    // The failed step consumed no problems: a trainer that continues uses the same ones.
    let mut other = toy::trainer(&toy::config(), 5, &toy::device());
    let refused = other.load_checkpoint(&saved).unwrap_err().to_string();
    assert!(refused.contains("list of rewards"), "{refused}");
    let mut other = failing_after(9);
    other.load_checkpoint(&saved).unwrap();
    assert_eq!(toy::weights(other.policy()), toy::weights(trainer.policy()));
}

#[test]
fn an_error_in_an_evaluation_loses_neither_step_nor_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let evaluation = RunEvaluation {
        problems: toy::problems(),
        every: 3,
        config: EvaluationConfig {
            reward: "colour".into(),
            ..EvaluationConfig::default()
        },
    };
    let config = RunConfig {
        evaluation: Some(evaluation),
        ..checkpoints(folder.path(), 100)
    };
    let (history, stop) = (History::new(), AtomicBool::new(false));
    let error = trainer
        .run(&config, &mut history.clone(), &stop)
        .unwrap_err();
    assert!(error.to_string().contains("colour"), "{error}");
    assert_eq!(history.records().lock().unwrap().len(), 3);
    let saved = latest_checkpoint(folder.path()).unwrap().unwrap();
    assert!(saved.ends_with("step-00000003"), "{saved:?}");
}

#[test]
fn held_out_prompts_are_checked_before_the_first_step() {
    let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let mut problems = toy::problems();
    problems[2].prompt = "abcdabcdabcdabcd".into();
    let config = RunConfig {
        evaluation: Some(RunEvaluation {
            problems,
            every: 9,
            config: EvaluationConfig::default(),
        }),
        ..run(9)
    };
    let stop = AtomicBool::new(false);
    let error = trainer
        .run(&config, &mut History::new(), &stop)
        .unwrap_err();
    assert!(error.to_string().contains("problems[2]"), "{error}");
    assert_eq!(trainer.steps_done(), 0);
}

#[test]
fn a_run_folder_is_locked() {
    let folder = tempfile::tempdir().unwrap();
    let stop = AtomicBool::new(false);
    let config = checkpoints(folder.path(), 2);
    let mut first = toy::trainer(&toy::config(), 0, &toy::device());
    first.run(&config, &mut History::new(), &stop).unwrap();
    let names = || {
        let entries = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    // A new trainer cannot use the folder.
    let mut second = toy::trainer(&toy::config(), 1, &toy::device());
    let refused = second.run(&config, &mut History::new(), &stop);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("another run") && refused.contains("step 6"),
        "{refused}"
    );
    second.step().unwrap();
    assert!(second.save_checkpoint(folder.path(), 1).is_err());
    assert_eq!(names(), before);

    // A resumed trainer can.
    let latest = latest_checkpoint(folder.path()).unwrap().unwrap();
    second.load_checkpoint(latest).unwrap();
    second.step().unwrap();
    second.save_checkpoint(folder.path(), 1).unwrap();

    // No other run can start while one is active.
    struct Nested(Option<rlvr::Error>, RunConfig);
    impl Observer for Nested {
        fn on_step(&mut self, _: &StepRecord) -> rlvr::Result<()> {
            let mut other = toy::trainer(&toy::config(), 2, &toy::device());
            let stop = AtomicBool::new(false);
            self.0 = other.run(&self.1, &mut History::new(), &stop).err();
            Ok(())
        }
    }
    let empty = tempfile::tempdir().unwrap();
    let config = checkpoints(empty.path(), 2);
    let mut nested = Nested(None, config.clone());
    let mut third = toy::trainer(&toy::config(), 0, &toy::device());
    third
        .run(&RunConfig { steps: 1, ..config }, &mut nested, &stop)
        .unwrap();
    let refused = nested.0.unwrap().to_string();
    assert!(refused.contains("another run is writing"), "{refused}");
}

#[test]
fn an_evaluation_is_recorded_in_its_step_and_changes_nothing() {
    let evaluation = RunEvaluation {
        problems: toy::problems(),
        every: 2,
        config: EvaluationConfig {
            samples: 3,
            k: vec![2, 3],
            ..EvaluationConfig::default()
        },
    };
    let go = |evaluation: Option<RunEvaluation>| {
        let mut trainer = toy::trainer(&toy::config(), 0, &toy::device());
        let history = History::new();
        let config = RunConfig {
            evaluation,
            ..run(5)
        };
        let stop = AtomicBool::new(false);
        trainer.run(&config, &mut history.clone(), &stop).unwrap();
        let records: Arc<Mutex<Vec<StepRecord>>> = history.records();
        let records = records.lock().unwrap().clone();
        (trainer, records)
    };
    let (trainer, records) = go(Some(evaluation.clone()));
    let examined: Vec<u64> = records
        .iter()
        .filter(|record| record.get("eval/accuracy").is_some())
        .map(|record| record.step)
        .collect();
    // Every second, and the last.
    assert_eq!(examined, [2, 4, 5]);
    let last = &records[4];
    let again = trainer
        .evaluate(&evaluation.problems, &evaluation.config)
        .unwrap();
    assert_eq!(last.get("eval/accuracy"), Some(again.accuracy));
    assert_eq!(last.get("eval/mean_length"), Some(again.mean_length));
    assert_eq!(last.get("eval/pass@1"), again.pass_at_1);
    let at_2_and_3 = [(2, last.get("eval/pass@2")), (3, last.get("eval/pass@3"))];
    let want: Vec<_> = again.pass_at_k.iter().map(|&(k, p)| (k, Some(p))).collect();
    assert_eq!(at_2_and_3.to_vec(), want);
    assert!(toy::metric(last, "time/eval") > 0.0);

    let (unexamined, records) = go(None);
    assert!(records.iter().all(|r| r.get("eval/accuracy").is_none()));
    assert_eq!(
        toy::weights(unexamined.policy()),
        toy::weights(trainer.policy())
    );
}
