//! Diagnoses of runs that fail, and none for runs that learn.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::{GenerationConfig, RolloutBuffer};
use rlvr::train::diagnosis::{Diagnosis, Finding, Verdict, Watchdog};
use rlvr::train::observer::{Observer, StepRecord, read_metrics};
use rlvr::train::{EvaluationConfig, RunConfig, RunEvaluation, TrainerConfig};

use crate::common::toy::{self, Rl};

/// The calls of observers, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Told {
    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> rlvr::Result<()> {
        let text = format!("{} rollouts of step {step}", rollouts.len());
        self.0.lock().unwrap().push(text);
        Ok(())
    }

    fn on_finding(&mut self, finding: &Finding) -> rlvr::Result<()> {
        let text = format!("{} {}", finding.severity, finding.name);
        self.0.lock().unwrap().push(text);
        Ok(())
    }

    fn on_step(&mut self, record: &StepRecord) -> rlvr::Result<()> {
        self.0.lock().unwrap().push(format!("step {}", record.step));
        Ok(())
    }
}

/// Runs `steps` steps; returns the final diagnosis and the calls.
fn watched(mut trainer: Rl, steps: u64) -> (Diagnosis, Vec<String>) {
    let told = Told::default();
    let mut watchdog = Watchdog::new(told.clone());
    let config = RunConfig {
        steps,
        evaluation: Some(RunEvaluation {
            problems: toy::problems(),
            every: 10,
            config: EvaluationConfig::default(),
        }),
        ..RunConfig::default()
    };
    let stop = AtomicBool::new(false);
    trainer.run(&config, &mut watchdog, &stop).unwrap();
    (watchdog.diagnosis().clone(), told.all())
}

fn names(diagnosis: &Diagnosis) -> Vec<&str> {
    let findings = diagnosis.findings().iter();
    findings.map(|finding| finding.name.as_str()).collect()
}

/// The task with room for its completions, small steps, and the KL measured.
fn config() -> TrainerConfig {
    TrainerConfig {
        generation: with_room_for(12),
        optimizer: toy::optimizer(0.005),
        measure_kl: true,
        ..toy::config()
    }
}

fn with_room_for(tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: tokens,
        ..toy::config().generation
    }
}

#[test]
fn a_successful_run_is_healthy_at_every_step() {
    // Of the example `r1_zero`, seed 0: from 19% to 97% of the held-out problems.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runs/r1_zero.jsonl");
    let records = read_metrics(path).unwrap();
    assert_eq!(records.len(), 240);
    assert!(records[239].get("eval/accuracy").unwrap() > 0.95);
    // The file has the metrics of the findings.
    for name in [
        "advantages/rms",
        "kl",
        "entropy",
        "num_tokens",
        "learning_rate",
    ] {
        assert!(
            records.iter().all(|record| record.finite(name).is_some()),
            "{name}"
        );
    }
    for steps in 1..=records.len() {
        let diagnosis = Diagnosis::of(&records[..steps]);
        assert_eq!(
            diagnosis.verdict(),
            Verdict::Healthy,
            "{steps} steps: {diagnosis}"
        );
    }
}

#[test]
fn a_successful_run_has_no_findings_and_rollouts_precede_their_record() {
    let trainer = toy::trainer(&config(), 0, &toy::device());
    let (diagnosis, mut told) = watched(trainer, 12);
    // At first a quarter of the completions is truncated, which is fine.
    told.retain(|text| text != "warning truncation");
    assert_eq!(diagnosis.verdict(), Verdict::Healthy, "{diagnosis}");
    assert_eq!(diagnosis.step(), 12);
    let in_order = |step| {
        [
            format!("32 rollouts of step {step}"),
            format!("step {step}"),
        ]
    };
    assert_eq!(told, (1..=12).flat_map(in_order).collect::<Vec<_>>());
}

#[test]
fn unsolved_problems_are_reported_as_no_signal() {
    let never = FnReward::new("accuracy", |_| Ok(Some(0.0)));
    let rewards = RewardSet::builder().add(1.0, never).build().unwrap();
    let trainer = toy::build(&config(), 0, &toy::device(), rewards, toy::problems()).unwrap();
    let (diagnosis, told) = watched(trainer, 6);
    assert_eq!(names(&diagnosis), ["no_signal/too_hard"]);
    assert_eq!(diagnosis.verdict(), Verdict::Failing);
    // As soon as there are enough steps, and before their record.
    let at = told
        .iter()
        .position(|text| text == "failing no_signal/too_hard");
    assert_eq!(told[at.unwrap() + 1], "step 5");
    assert_eq!(
        told.iter()
            .filter(|text| text.contains("no_signal"))
            .count(),
        1
    );
}

#[test]
fn truncated_completions_are_reported() {
    let config = TrainerConfig {
        generation: with_room_for(1),
        ..config()
    };
    let trainer = toy::trainer(&config, 0, &toy::device());
    let (diagnosis, _) = watched(trainer, 6);
    assert!(names(&diagnosis).contains(&"truncation"), "{diagnosis}");
}

#[test]
fn a_learning_rate_that_is_much_too_high_is_reported() {
    let config = TrainerConfig {
        optimizer: toy::optimizer(10.0),
        ..config()
    };
    let trainer = toy::trainer(&config, 0, &toy::device());
    let (diagnosis, _) = watched(trainer, 12);
    assert_eq!(diagnosis.verdict(), Verdict::Failing, "{diagnosis}");
    assert!(
        names(&diagnosis).contains(&"entropy_collapse"),
        "{diagnosis}"
    );
}

#[test]
fn a_learning_rate_that_is_much_too_low_is_reported() {
    let config = TrainerConfig {
        optimizer: toy::optimizer(1e-12),
        ..config()
    };
    let trainer = toy::trainer(&config, 0, &toy::device());
    let (diagnosis, _) = watched(trainer, 30);
    assert_eq!(names(&diagnosis), ["no_effect"], "{diagnosis}");
    assert_eq!(diagnosis.verdict(), Verdict::Failing);
}

#[test]
fn a_failing_reward_is_named() {
    let fragile = FnReward::new("fragile", |input| match input.completion().chars().next() {
        Some('a' | 'b') => Err("no a, no b".into()),
        _ => Ok(Some(1.0)),
    });
    let rewards = RewardSet::builder().add(1.0, fragile);
    let right = FnReward::new("accuracy", |input| {
        Ok(Some(f64::from(
            input.completion().starts_with(input.answer()),
        )))
    });
    let rewards = rewards.add(1.0, right).build().unwrap();
    let config = TrainerConfig {
        max_reward_failures: 1.0,
        ..config()
    };
    let trainer = toy::build(&config, 0, &toy::device(), rewards, toy::problems()).unwrap();
    let (diagnosis, told) = watched(trainer, 3);
    assert!(
        names(&diagnosis).contains(&"reward_fails/fragile"),
        "{diagnosis}"
    );
    // At the first step.
    assert!(told[1].ends_with("reward_fails/fragile"), "{told:?}");
}
