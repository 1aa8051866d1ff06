//! A failing learner ends the run of all learners with its error.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rlvr::policy::causal::CausalModel;
use rlvr::rollout::{Completion, GenerationConfig, GenerationRequest, LocalEngine, RolloutEngine};
use rlvr::train::{
    Learners, RunCheckpoints, RunConfig, Threads, Trainer, TrainerConfig, latest_checkpoint,
};
use rlvr::{Error, Result};

use super::cases::Case;
use super::{LIMIT, each, run, steps};
use crate::common::toy;

/// The failure of learner 1 at its third generation.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Error,
    Panic,
    Hang,
}

struct Failing {
    failure: Failure,
    calls: usize,
}

impl RolloutEngine<CausalModel> for Failing {
    fn generate(
        &mut self,
        policy: &CausalModel,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>> {
        self.calls += 1;
        // Two blocks of requests a step.
        if self.calls == 5 {
            match self.failure {
                Failure::Error => {
                    return Err(Error::config("engine", "out of memory", "memory"));
                }
                Failure::Panic => panic!("the engine panicked"),
                Failure::Hang => std::thread::sleep(Duration::from_secs(600)),
            }
        }
        LocalEngine.generate(policy, version, requests, config)
    }
}

#[test]
fn a_failing_learner_ends_the_run_and_the_checkpoint_can_be_continued() {
    let case = Case::grpo();
    let straight = run(1, &case, 4);
    for failure in [Failure::Error, Failure::Panic, Failure::Hang] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().to_path_buf();
        let limit = match failure {
            Failure::Hang => Duration::from_secs(10),
            _ => LIMIT,
        };
        let config = case.config.clone();
        let result = Threads::run(2, limit, move |learner| {
            let rank = learner.rank();
            let builder = Trainer::builder(toy::policy(3, &toy::device()), toy::tokenizer())
                .config(config.clone())
                .rewards(toy::rewards())
                .problems(toy::problems())
                .learners(learner);
            let builder = match rank {
                1 => builder.engine(Failing { failure, calls: 0 }),
                _ => builder,
            };
            let run = RunConfig {
                steps: 4,
                checkpoints: Some(RunCheckpoints {
                    folder: checkpoints.clone(),
                    // An error that all learners receive leaves a checkpoint of the last complete
                    // step.
                    every: if failure == Failure::Error { 100 } else { 1 },
                    keep: 1,
                }),
                ..RunConfig::default()
            };
            let mut nobody: Vec<Box<dyn rlvr::train::observer::Observer>> = Vec::new();
            builder
                .build()?
                .run(&run, &mut nobody, &AtomicBool::new(false))
        });
        let error = result.unwrap_err().to_string();
        let expected = match failure {
            Failure::Error => "invalid `engine`: out of memory; expected memory",
            Failure::Panic => "learner 1: panicked: the engine panicked",
            Failure::Hang => "learner 1: it did not join `gather` within 10s",
        };
        assert_eq!(error, expected);
        let latest = latest_checkpoint(folder.path()).unwrap().unwrap();
        assert!(latest.ends_with("step-00000002"), "{}", latest.display());
        let resumed = each(4, &case, move |trainer, _| {
            trainer.load_checkpoint(&latest)?;
            steps(trainer, 2)
        });
        for outcome in resumed.unwrap() {
            assert_eq!(outcome.metrics, straight.metrics[2..]);
            assert_eq!(outcome.weights, straight.weights);
        }
    }
}

/// The error of learners of which each has its own case.
fn refused(case_of: impl Fn(usize) -> Case + Send + Sync + 'static) -> String {
    let result = Threads::run(2, LIMIT, move |learner| {
        let case = case_of(learner.rank());
        case.trainer(learner)?.step()
    });
    result.unwrap_err().to_string()
}

#[test]
fn learners_with_different_settings_are_an_error() {
    let seeds = refused(|rank| {
        let mut case = Case::grpo();
        case.config.seed = rank as u64;
        case
    });
    assert!(seeds.contains("learner 1: its settings differ"), "{seeds}");
    let weights = refused(|rank| Case {
        policy_seed: rank as u64,
        ..Case::grpo()
    });
    assert!(
        weights.contains("learner 1: its weights of the policy differ"),
        "{weights}"
    );
    let shards = refused(|rank| {
        let mut case = Case::grpo();
        case.config.shards = 2 << rank;
        case
    });
    assert!(
        shards.contains("learner 1: its settings differ"),
        "{shards}"
    );
}

#[test]
fn a_number_of_learners_that_does_not_divide_the_shards_is_an_error() {
    let error = each(3, &Case::grpo(), |trainer, _| trainer.step())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`shards`") && error.contains("3 learners"),
        "{error}"
    );
    for (shards, all_reduce) in [(3, false), (0, false), (2, true)] {
        let config = TrainerConfig {
            shards,
            all_reduce,
            ..toy::config()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("`shards`"), "{error}");
    }
}
