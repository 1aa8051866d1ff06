//! Several learners: the same bits for every number of them, correct sums, checkpoints that any
//! number of learners can continue, and failures that end the run.

mod cases;
mod failures;
mod sums;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cases::{Case, cases};
use rlvr::Result;
use rlvr::policy::causal::CausalModel;
use rlvr::train::observer::StepRecord;
use rlvr::train::{Alone, EvaluationConfig, Learners, Threads, Trainer, latest_checkpoint};
use rlvr::types::RolloutBuffer;

use crate::common::{self, toy};

/// Longer than any phase of these runs.
const LIMIT: Duration = Duration::from_secs(300);

/// The outcome of a learner.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// Bit by bit, without times.
    metrics: Vec<BTreeMap<String, u64>>,
    rollouts: Vec<RolloutBuffer>,
    weights: Vec<u64>,
}

fn bits(numbers: &[f64]) -> Vec<u64> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn steps(trainer: &mut Trainer<CausalModel>, count: usize) -> Result<Outcome> {
    let mut outcome = Outcome {
        metrics: Vec::new(),
        rollouts: Vec::new(),
        weights: Vec::new(),
    };
    for _ in 0..count {
        outcome.metrics.push(toy::bits(&trainer.step()?));
        outcome.rollouts.push(trainer.last_rollouts().clone());
    }
    outcome.weights = bits(&toy::weights(trainer.policy()));
    Ok(outcome)
}

/// Runs `work` on each of `size` learners with a trainer of `case`.
fn each<T: Send + 'static>(
    size: usize,
    case: &Case,
    work: impl Fn(&mut Trainer<CausalModel>, usize) -> Result<T> + Send + Sync + 'static,
) -> Result<Vec<T>> {
    let case = case.clone();
    Threads::run(size, LIMIT, move |learner| {
        let rank = learner.rank();
        work(&mut case.trainer(learner)?, rank)
    })
}

/// The outcome, which is the same for all learners.
fn run(size: usize, case: &Case, count: usize) -> Outcome {
    let all = each(size, case, move |trainer, _| steps(trainer, count));
    let mut all = all.unwrap_or_else(|error| panic!("{}, {size} learners: {error}", case.name));
    let first = all.remove(0);
    for other in &all {
        assert_eq!(
            *other, first,
            "{}, {size} learners differ from each other",
            case.name
        );
    }
    first
}

fn assert_same(a: &Outcome, b: &Outcome, what: &str) {
    for (step, (a, b)) in a.metrics.iter().zip(&b.metrics).enumerate() {
        for (name, value) in a {
            let (x, y) = (
                f64::from_bits(*value),
                b.get(name).map(|y| f64::from_bits(*y)),
            );
            assert_eq!(
                Some(value),
                b.get(name),
                "{what}: `{name}` of step {step}: {x} {y:?}"
            );
        }
    }
    assert_eq!(a.rollouts, b.rollouts, "{what}: rollouts");
    assert!(a == b, "{what}: weights");
}

#[test]
fn any_number_of_learners_ends_with_the_same_bits() {
    for mut case in cases() {
        let alone = run(1, &case, 3);
        let moved = bits(&toy::weights(case.trainer(Alone).unwrap().policy()));
        assert_ne!(alone.weights, moved, "{}: nothing was learned", case.name);
        for (size, sharded) in [(2, false), (4, false), (1, true), (4, true)] {
            case.config.sharded_optimizer = sharded;
            let several = run(size, &case, 3);
            let what = format!("{}, {size} learners, sharded {sharded}", case.name);
            assert_same(&alone, &several, &what);
        }
    }
}

#[test]
fn a_sharded_optimizer_holds_its_share_of_the_state() {
    let mut case = Case::ppo();
    case.config.sharded_optimizer = true;
    let held = |size| {
        let bytes = each(size, &case, |trainer, _| {
            trainer.step()?;
            Ok(trainer.optimizer_bytes())
        });
        bytes.unwrap()
    };
    let whole = held(1)[0];
    let policy = toy::policy(0, &toy::device());
    let numbers = toy::weights(&policy).len();
    // Two moments in f32 of the policy, and of the critic, which has a value head in addition.
    assert!(
        whole >= 2 * 2 * 4 * numbers,
        "{whole} bytes, {numbers} weights"
    );
    for size in [2, 4] {
        let parts = held(size);
        assert_eq!(parts.iter().sum::<usize>(), whole, "{parts:?}");
        // Slices of policy and critic differ by one number, of two moments of four bytes.
        let share = whole / size;
        assert!(
            parts.iter().all(|part| part.abs_diff(share) <= 2 * 2 * 4),
            "{parts:?}"
        );
    }
}

#[test]
fn a_checkpoint_can_be_continued_by_another_number_of_learners() {
    for (name, sharded) in [("whole", false), ("sharded", true)] {
        for case in [Case::ppo(), Case::grpo(), Case::lora()] {
            let mut case = case;
            case.config.sharded_optimizer = sharded;
            let straight = run(1, &case, 5);
            let folder = tempfile::tempdir().unwrap();
            for (done, size) in [2, 4, 1, 2].into_iter().enumerate() {
                let path = folder.path().to_path_buf();
                let all = each(size, &case, move |trainer, _| {
                    if done > 0 {
                        trainer.load_checkpoint(latest_checkpoint(&path)?.unwrap())?;
                    }
                    let outcome = steps(trainer, 1)?;
                    trainer.save_checkpoint(&path, 2)?;
                    Ok(outcome)
                });
                let outcome = all.unwrap().remove(0);
                let what = format!("{}, {name}, step {done} by {size}", case.name);
                assert_eq!(outcome.metrics[0], straight.metrics[done], "{what}");
                assert_eq!(outcome.rollouts[0], straight.rollouts[done], "{what}");
            }
            let mut last = case.trainer(Alone).unwrap();
            let latest = latest_checkpoint(folder.path()).unwrap().unwrap();
            last.load_checkpoint(latest).unwrap();
            let outcome = steps(&mut last, 1).unwrap();
            assert_eq!(outcome.metrics[0], straight.metrics[4], "{}", case.name);
            assert_eq!(outcome.weights, straight.weights, "{}, {name}", case.name);
        }
    }
}

#[test]
fn a_learner_without_the_folder_receives_the_checkpoint() {
    let case = Case::ppo();
    let straight = run(1, &case, 3);
    let folder = tempfile::tempdir().unwrap();
    let mut first = case.trainer(Alone).unwrap();
    steps(&mut first, 2).unwrap();
    let saved = first.save_checkpoint(folder.path(), 1).unwrap();
    let resumed = each(4, &case, move |trainer, rank| {
        // Only the first learner sees the folder.
        match rank {
            0 => trainer.load_checkpoint(&saved)?,
            _ => trainer.load_checkpoint(saved.join("on-another-machine"))?,
        }
        steps(trainer, 1)
    });
    for outcome in resumed.unwrap() {
        assert_eq!(outcome.metrics[0], straight.metrics[2]);
        assert_eq!(outcome.weights, straight.weights);
    }
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let prefix = format!("rlvr-{}-", std::process::id());
    let mut names = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(
        !names.any(|name| name.starts_with(&prefix)),
        "a copy is left"
    );
}

#[test]
fn a_distributed_evaluation_gives_the_same_result() {
    let case = Case::grpo();
    let evaluate = |size| {
        let all = each(size, &case, |trainer, _| {
            let config = EvaluationConfig {
                samples: 3,
                k: vec![2],
                ..EvaluationConfig::default()
            };
            trainer.evaluate(&toy::problems()[..3], &config)
        });
        all.unwrap()
    };
    let alone = evaluate(1).remove(0);
    assert_eq!(alone.greedy.groups.len(), 3);
    for size in [2, 4] {
        for evaluation in evaluate(size) {
            assert_eq!(evaluation, alone);
        }
    }
}

#[test]
fn only_the_first_learner_observes_and_any_stop_flag_stops_all() {
    use rlvr::train::observer::Observer;
    use rlvr::train::{RunCheckpoints, RunConfig, RunEnd, RunEvaluation};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    /// Counts records, and raises a flag after the second.
    struct Count(Arc<AtomicU64>);
    impl Observer for Count {
        fn on_step(&mut self, record: &StepRecord) -> Result<()> {
            assert!(record.get("eval/accuracy").is_some());
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().to_path_buf();
    let records = Arc::new(AtomicU64::new(0));
    let counted = records.clone();
    let ends = each(4, &Case::grpo(), move |trainer, rank| {
        let config = RunConfig {
            steps: 50,
            evaluation: Some(RunEvaluation {
                problems: toy::problems(),
                every: 1,
                config: EvaluationConfig::default(),
            }),
            checkpoints: Some(RunCheckpoints {
                folder: checkpoints.clone(),
                every: 1,
                keep: 2,
            }),
            ..RunConfig::default()
        };
        // The third learner has its stop flag set before it begins; the others never do.
        trainer.train(2)?;
        let stop = AtomicBool::new(rank == 2);
        let mut count = Count(counted.clone());
        let end = trainer.run(&config, &mut count, &stop)?;
        stop.store(false, Ordering::SeqCst);
        let more = RunConfig { steps: 4, ..config };
        let finished = trainer.run(&more, &mut count, &stop)?;
        Ok((end, finished, trainer.steps_done()))
    });
    for end in ends.unwrap() {
        assert_eq!(end, (RunEnd::Stopped, RunEnd::Finished, 4));
    }
    assert_eq!(records.load(Ordering::SeqCst), 2);
    let latest = latest_checkpoint(folder.path()).unwrap().unwrap();
    assert!(latest.ends_with("step-00000004"), "{}", latest.display());
}

/// Learners that implement only `gather`.
struct OnlyGather(Threads);

impl Learners for OnlyGather {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn size(&self) -> usize {
        self.0.size()
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.0.gather(bytes)
    }
}

#[test]
fn learners_that_can_only_gather_end_with_the_same_bits() {
    let mut case = Case::grpo();
    let alone = run(1, &case, 2);
    case.config.sharded_optimizer = true;
    let all = Threads::run(2, LIMIT, move |learner| {
        steps(&mut case.trainer(OnlyGather(learner))?, 2)
    });
    for outcome in all.unwrap() {
        assert_same(&alone, &outcome, "only gather");
    }
    let summed = Threads::run(3, LIMIT, |learner| {
        let mut numbers = vec![learner.rank() as f32, 0.5, -1.0, 2.0];
        OnlyGather(learner).sum(&mut numbers)?;
        Ok(numbers)
    });
    assert_eq!(summed.unwrap(), [[3.0, 1.5, -3.0, 6.0]; 3]);
    // Mismatched calls and lengths are errors as well.
    let mixed = Threads::run(2, LIMIT, |learner| {
        let learner = OnlyGather(learner);
        match learner.rank() {
            0 => learner.concat(vec![1.0]).map(|_| ()),
            _ => learner.exchange(vec![1.0]).map(|_| ()),
        }
    });
    let error = mixed.unwrap_err().to_string();
    assert!(error.contains("another collective call"), "{error}");
    let lengths = Threads::run(2, LIMIT, |learner| {
        let length = 2 + learner.rank();
        let learner = OnlyGather(learner);
        learner.exchange(vec![1.0; length]).map(|_| ())
    });
    let error = lengths.unwrap_err().to_string();
    assert!(error.contains("numbers of learner"), "{error}");
}

#[test]
fn any_number_of_learners_trains_with_an_all_reduce() {
    let mut case = Case::grpo();
    case.config.shards = 1;
    case.config.optimizer.epsilon = 1e-3;
    let alone = run(1, &case, 3);
    case.config.all_reduce = true;
    for sharded in [false, true] {
        case.config.sharded_optimizer = sharded;
        for size in [2, 3] {
            let several = run(size, &case, 3);
            let norm = |outcome: &Outcome| f64::from_bits(outcome.metrics[0]["grad_norm"]);
            common::assert_close(norm(&several), norm(&alone), 1e-5, 0.0, "grad_norm");
        }
    }
}
