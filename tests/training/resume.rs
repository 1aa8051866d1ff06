//! Checkpoints: a resumed run equals an uninterrupted one, and checkpoints are written atomically.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use rlvr::loss::{KlEstimator, KlPenalty};
use rlvr::policy::ReferenceSync;
use rlvr::prompt::Problem;
use rlvr::train::observer::StepRecord;
use rlvr::train::{AdaptiveTarget, KlInReward, TrainerConfig, latest_checkpoint};

use crate::common;
use crate::common::devices;
use crate::common::toy::{self, Rl};

/// The step and its metrics without times, bit by bit.
fn bits(record: &StepRecord) -> (u64, BTreeMap<String, u64>) {
    (record.step, toy::bits(record))
}

/// GRPO with other moving state: a moving reference, a decaying learning rate.
fn grpo() -> TrainerConfig {
    let mut config = TrainerConfig {
        seed: 7,
        reference_sync: ReferenceSync::MovingAverage {
            steps: 2,
            alpha: 0.6,
        },
        ..toy::config()
    };
    // Of the four problems three a step, so that steps straddle epochs.
    config.problems_per_step = 3;
    config.optimizer.weight_decay = 0.01;
    config.optimizer.schedule =
        config
            .optimizer
            .schedule
            .with_warmup(2)
            .with_decay(rlvr::train::Decay::Cosine {
                updates: 20,
                floor: 0.1,
            });
    config
}

/// PPO with a critic, several passes in shuffled mini-batches, and an adaptive KL in the reward.
fn ppo() -> TrainerConfig {
    TrainerConfig {
        seed: 8,
        passes: 2,
        updates_per_pass: 2,
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

fn assert_same(a: &Rl, b: &Rl, what: &str) {
    assert_eq!(a.steps_done(), b.steps_done(), "{what}");
    assert_eq!(a.last_rollouts(), b.last_rollouts(), "{what}");
    let (a, b) = (toy::weights(a.policy()), toy::weights(b.policy()));
    assert!(
        a == b,
        "{what}: weights differ by {}",
        toy::distance(&a, &b)
    );
}

fn device() -> Device {
    toy::device()
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one_bit_for_bit() {
    for (backend, device) in devices() {
        for (name, config) in [("grpo", grpo()), ("ppo", ppo())] {
            let what = format!("{backend} {name}");
            let folder = tempfile::tempdir().unwrap();
            let mut straight = toy::trainer(&config, 0, &device);
            let early = toy::steps(&mut straight, 3);
            let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
            let middle = toy::weights(straight.policy());

            // Other weights, another critic, other parameter ids: only the files are shared.
            let mut resumed = toy::trainer(&config, 99, &device);
            assert!(toy::distance(&toy::weights(resumed.policy()), &middle) > 0.1);
            resumed.load_checkpoint(&saved).unwrap();
            assert_same(&straight, &resumed, &what);

            for _ in 0..3 {
                let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
                assert_eq!(bits(&a), bits(&b), "{what}");
                assert_same(&straight, &resumed, &what);
            }
            assert!(toy::distance(&toy::weights(resumed.policy()), &middle) > 1e-3);
            // Saving has no effect on the run.
            let mut unsaved = toy::trainer(&config, 0, &device);
            let again = toy::steps(&mut unsaved, 6);
            for (a, b) in early.iter().zip(&again) {
                assert_eq!(bits(a), bits(b), "{what}");
            }
            assert_same(&straight, &unsaved, &what);
        }
    }
}

#[test]
fn a_run_resumed_twice_equals_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut straight = toy::trainer(&ppo(), 0, &device());
    let start = straight.save_checkpoint(folder.path(), 9).unwrap();
    toy::steps(&mut straight, 3);
    let mut path = start;
    let mut resumed = toy::trainer(&ppo(), 50, &device());
    for hop in 0..3 {
        resumed = toy::trainer(&ppo(), 50 + hop, &device());
        resumed.load_checkpoint(&path).unwrap();
        resumed.step().unwrap();
        path = resumed.save_checkpoint(folder.path(), 9).unwrap();
    }
    assert_same(&straight, &resumed, "three hops");
}

#[test]
fn a_checkpoint_can_be_loaded_on_another_backend() {
    let all = devices();
    let folder = tempfile::tempdir().unwrap();
    let mut first = toy::trainer(&ppo(), 0, &all[0].1);
    toy::steps(&mut first, 2);
    let saved = first.save_checkpoint(folder.path(), 1).unwrap();
    let next = toy::metric(&first.step().unwrap(), "grad_norm");
    for (backend, device) in &all {
        let mut other = toy::trainer(&ppo(), 9, device);
        other.load_checkpoint(&saved).unwrap();
        let got = toy::metric(&other.step().unwrap(), "grad_norm");
        common::assert_close(got, next, 1e-3, 1e-6, backend);
    }
}

#[test]
fn a_kl_in_the_reward_without_a_target_can_be_resumed() {
    let mut config = ppo();
    config.kl_in_reward.as_mut().unwrap().adaptive = None;
    let folder = tempfile::tempdir().unwrap();
    let mut straight = toy::trainer(&config, 0, &device());
    toy::steps(&mut straight, 1);
    let saved = straight.save_checkpoint(folder.path(), 1).unwrap();
    let mut resumed = toy::trainer(&config, 9, &device());
    resumed.load_checkpoint(&saved).unwrap();
    let (a, b) = (straight.step().unwrap(), resumed.step().unwrap());
    assert_eq!(bits(&a), bits(&b));
}

// ---- whole or absent ----------------------------------------------------------------------------

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    names.sort();
    names
}

/// An incomplete checkpoint, as a killed process leaves it.
fn leave_half(folder: &Path, step: u64) -> PathBuf {
    let half = folder.join(format!(".writing-step-{step:08}-4711"));
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("policy.bpk"), b"half of a file").unwrap();
    half
}

#[test]
fn an_incomplete_checkpoint_is_ignored_and_removed_by_the_next_save() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(latest_checkpoint(folder.path()).unwrap(), None);
    assert_eq!(latest_checkpoint(folder.path().join("none")).unwrap(), None);
    let mut trainer = toy::trainer(&grpo(), 0, &device());
    toy::steps(&mut trainer, 1);
    let first = trainer.save_checkpoint(folder.path(), 5).unwrap();
    toy::steps(&mut trainer, 1);
    let half = leave_half(folder.path(), 2);
    assert_eq!(latest_checkpoint(folder.path()).unwrap(), Some(first));
    let second = trainer.save_checkpoint(folder.path(), 5).unwrap();
    assert!(!half.exists());
    assert_eq!(latest_checkpoint(folder.path()).unwrap(), Some(second));
    assert_eq!(names(folder.path()), ["step-00000001", "step-00000002"]);
}

#[test]
fn an_incomplete_checkpoint_of_another_step_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&grpo(), 0, &device());
    let half = leave_half(folder.path(), 7);
    toy::steps(&mut trainer, 1);
    trainer.save_checkpoint(folder.path(), 5).unwrap();
    assert!(!half.exists());
}

#[test]
fn old_checkpoints_are_removed_and_other_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    let mut trainer = toy::trainer(&grpo(), 0, &device());
    for _ in 0..4 {
        toy::steps(&mut trainer, 1);
        trainer.save_checkpoint(folder.path(), 2).unwrap();
    }
    let left = ["notes.txt", "step-00000003", "step-00000004"];
    assert_eq!(names(folder.path()), left);
    let none = trainer.save_checkpoint(folder.path(), 0).unwrap_err();
    assert!(none.to_string().contains("keep`: 0"), "{none}");
}

#[test]
fn saving_the_same_step_twice_is_idempotent() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&ppo(), 0, &device());
    toy::steps(&mut trainer, 1);
    let first = trainer.save_checkpoint(folder.path(), 1).unwrap();
    let second = trainer.save_checkpoint(folder.path(), 1).unwrap();
    assert_eq!(first, second);
    assert_eq!(names(folder.path()), ["step-00000001"]);
    let mut other = toy::trainer(&ppo(), 9, &device());
    other.load_checkpoint(second).unwrap();
    assert_same(&trainer, &other, "saved twice");
}

#[test]
fn checkpoints_saved_after_going_back_to_an_earlier_step_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&grpo(), 0, &device());
    toy::steps(&mut trainer, 1);
    let early = trainer.save_checkpoint(folder.path(), 9).unwrap();
    toy::steps(&mut trainer, 3);
    trainer.save_checkpoint(folder.path(), 9).unwrap();
    trainer.load_checkpoint(early).unwrap();
    toy::steps(&mut trainer, 1);
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    assert!(saved.exists(), "{:?}", names(folder.path()));
}

#[test]
fn a_truncated_missing_or_empty_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&ppo(), 0, &device());
    toy::steps(&mut trainer, 1);
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    let mut files = names(&saved);
    let mut expected = vec![
        "critic.bpk",
        "critic.m.bpk",
        "critic.v.bpk",
        "manifest.json",
        "policy.m.bpk",
        "policy.v.bpk",
        "reference.bpk",
        "rollouts.jsonl",
    ];
    if cfg!(feature = "hf") {
        files.retain(|name| name != "policy");
        let within = names(&saved.join("policy")).into_iter();
        files.extend(within.map(|name| format!("policy/{name}")));
        expected.extend(["policy/config.json", "policy/model.safetensors"]);
    } else {
        expected.insert(4, "policy.bpk");
    }
    assert_eq!(files, expected);
    for file in files {
        let path = saved.join(&file);
        let whole = fs::read(&path).unwrap();
        let refused = |what: &str| {
            let mut other = toy::trainer(&ppo(), 1, &device());
            let result = other.load_checkpoint(&saved);
            let error = result
                .expect_err(&format!("{file} {what} was read"))
                .to_string();
            assert!(error.contains("step-00000001"), "{file} {what}: {error}");
        };
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        refused("cut in half");
        fs::remove_file(&path).unwrap();
        refused("missing");
        // An empty file of rollouts is valid: it has no rollouts.
        if file != "rollouts.jsonl" {
            fs::write(&path, b"").unwrap();
            refused("empty");
        }
        fs::write(&path, &whole).unwrap();
    }
    let mut other = toy::trainer(&ppo(), 1, &device());
    other.load_checkpoint(&saved).unwrap();
    assert_same(&trainer, &other, "whole again");
}

#[test]
fn rollouts_truncated_at_a_line_end_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&grpo(), 0, &device());
    toy::steps(&mut trainer, 1);
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    let path = saved.join("rollouts.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let first = text.lines().next().unwrap();
    for cut in [format!("{first}\n"), String::new()] {
        fs::write(&path, cut).unwrap();
        let mut other = toy::trainer(&grpo(), 1, &device());
        assert!(other.load_checkpoint(&saved).is_err());
    }
}

#[test]
fn a_checkpoint_of_another_run_is_an_error_that_names_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let save = |config: &TrainerConfig, name: &str| {
        let mut trainer = toy::trainer(config, 0, &device());
        toy::steps(&mut trainer, 1);
        let path = folder.path().join(name);
        trainer.save_checkpoint(path, 1).unwrap()
    };
    let (with_critic, plain) = (save(&ppo(), "ppo"), save(&grpo(), "grpo"));
    let refuse = |config: &TrainerConfig, problems: Vec<Problem>, path: &Path, what: &[&str]| {
        let rewards = toy::rewards();
        let mut trainer = toy::build(config, 0, &device(), rewards, problems).unwrap();
        let start = toy::weights(trainer.policy());
        let error = trainer.load_checkpoint(path).unwrap_err().to_string();
        assert!(what.iter().all(|part| error.contains(part)), "{error}");
        // The error comes before anything is overwritten.
        assert_eq!(toy::weights(trainer.policy()), start);
        assert_eq!(trainer.steps_done(), 0);
    };
    let seed = TrainerConfig { seed: 1, ..grpo() };
    refuse(
        &seed,
        toy::problems(),
        &plain,
        &["seed is 7", "this run's 1"],
    );
    let size = TrainerConfig {
        problems_per_step: 2,
        ..grpo()
    };
    let said = ["problems_per_step is 3", "this run's 2"];
    refuse(&size, toy::problems(), &plain, &said);

    let fewer = toy::problems()[..3].to_vec();
    refuse(&grpo(), fewer, &plain, &["problems is 4", "this run's 3"]);
    let mut swapped = toy::problems();
    swapped.swap(0, 1);
    let mut answers = toy::problems();
    answers[0].answer = "b".into();
    for problems in [swapped, answers] {
        refuse(&grpo(), problems, &plain, &["fingerprint of the problems"]);
    }

    let no_critic = TrainerConfig {
        seed: 8,
        advantage: rlvr::advantage::GroupMean::default().into(),
        ..ppo()
    };
    let said = ["critic is present", "this run's absent"];
    refuse(&no_critic, toy::problems(), &with_critic, &said);
    let no_reference = TrainerConfig {
        objective: rlvr::loss::PolicyObjective::dapo(),
        reference_sync: ReferenceSync::Never,
        ..grpo()
    };
    refuse(
        &no_reference,
        toy::problems(),
        &plain,
        &["reference is policy", "this run's absent"],
    );
    let no_controller = TrainerConfig {
        measure_kl: true,
        kl_in_reward: None,
        ..ppo()
    };
    refuse(
        &no_controller,
        toy::problems(),
        &with_critic,
        &["KL in the reward"],
    );
}

#[test]
fn a_checkpoint_of_another_shape_or_a_newer_format_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut trainer = toy::trainer(&grpo(), 0, &device());
    toy::steps(&mut trainer, 1);
    let saved = trainer.save_checkpoint(folder.path(), 1).unwrap();
    for change in [
        |c: &mut rlvr::policy::causal::CausalConfig| c.hidden_size = 24,
        |c: &mut rlvr::policy::causal::CausalConfig| c.num_hidden_layers = 2,
    ] {
        let mut shape = toy::shape(6);
        change(&mut shape);
        let policy = shape.init(0, &device().autodiff()).unwrap();
        let builder = Rl::builder(policy, toy::tokenizer())
            .config(grpo())
            .rewards(toy::rewards())
            .problems(toy::problems());
        let mut other = builder.build().unwrap();
        let result = other.load_checkpoint(&saved);
        assert!(result.is_err(), "weights of another shape were read");
    }
    let file = saved.join("manifest.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"format\": 2", "\"format\": 3")).unwrap();
    let error = trainer.load_checkpoint(&saved).unwrap_err().to_string();
    assert!(error.contains("format is 3"), "{error}");
}
