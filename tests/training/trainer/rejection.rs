//! Rejection sampling: kept rollouts pass every condition, each rejection has its reason, and a
//! stopped run resumes.

use std::fs;

use rlvr::prompt::{Problem, Tokenizer};
use rlvr::rollout::LocalEngine;
use rlvr::train::{
    Demonstration, DemonstrationFile, DemonstrationSet, RejectionConfig, RejectionReport,
    RejectionSampler, read_kept,
};

use crate::common::toy;

fn config() -> RejectionConfig {
    RejectionConfig {
        samples: 16,
        batch: 3,
        min_reward: 0.25,
        ..RejectionConfig::default()
    }
}

fn problems() -> Vec<Problem> {
    let prompts = ["a", "ab", "c", "cad", "b", "d", "bd"];
    prompts
        .map(|prompt| Problem::new(prompt, &prompt[prompt.len() - 1..]))
        .to_vec()
}

fn run(sampler: &RejectionSampler, count: usize, file: &std::path::Path) -> RejectionReport {
    let policy = toy::policy(0, &toy::device());
    let generation = toy::config().generation;
    sampler
        .run(
            &mut LocalEngine,
            &policy,
            &toy::tokenizer() as &dyn Tokenizer,
            &toy::rewards(),
            &problems()[..count],
            &generation,
            file,
        )
        .unwrap()
}

#[test]
fn kept_rollouts_pass_and_rejections_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.jsonl");
    let sampler = RejectionSampler::new(RejectionConfig {
        most_per_problem: Some(2),
        ..config()
    })
    .unwrap()
    .rule("no_d", |_, rollout| !rollout.text.contains('d'))
    .keep_out(["c"]);
    let report = run(&sampler, 7, &file);
    assert_eq!(report.problems, 7);
    assert_eq!(report.sampled, 6 * 16, "one problem is contaminated");
    assert_eq!(report.rejected["contaminated"], 16);
    for reason in ["truncated", "no_d", "duplicate", "surplus"] {
        assert!(report.rejected[reason] > 0, "{reason}: {report:?}");
    }
    let rejected: usize = report.rejected.values().sum();
    assert_eq!(report.kept + rejected, 7 * 16);
    let kept = read_kept(&file).unwrap();
    assert_eq!(kept.len(), report.kept);
    // The file is a set of demonstrations.
    let shown = DemonstrationFile::open(&file).unwrap();
    assert_eq!(shown.len(), kept.len());
    for (index, one) in kept.iter().enumerate() {
        let expected = Demonstration::new(&one.question, &one.response);
        assert_eq!(shown.get(index).unwrap(), expected.into());
    }
    for (index, one) in kept.iter().enumerate() {
        assert!(one.reward >= 0.25 && !one.response.contains('d') && one.question != "c");
        let same = |other: &&rlvr::train::KeptCompletion| {
            other.problem == one.problem && other.response == one.response
        };
        assert!(!kept[..index].iter().any(|other| same(&other)));
        assert!(
            kept.iter()
                .filter(|other| other.problem == one.problem)
                .count()
                <= 2
        );
        assert_eq!(one.question, problems()[one.problem].prompt);
    }
}

#[test]
fn a_stopped_run_resumes_after_its_last_complete_batch() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let sampler = RejectionSampler::new(config()).unwrap();
    let want = run(&sampler, 7, &whole);
    run(&sampler, 3, &parts);
    // A partial batch, as a killed process leaves it.
    let mut text = fs::read_to_string(&parts).unwrap();
    text += "{\"question\":\"b\",\"response\":\"x\",\"answer\":\"\",\"problem\":4,\"sample\":0,\"reward\":1.0}\n{\"ques";
    fs::write(&parts, text).unwrap();
    assert_eq!(run(&sampler, 7, &parts), want);
    assert_eq!(read_kept(&whole).unwrap(), read_kept(&parts).unwrap());
    // A second resume has nothing to do.
    assert_eq!(run(&sampler, 7, &parts), want);
    fs::write(&parts, "not a line\n").unwrap();
    let policy = toy::policy(0, &toy::device());
    let (tokenizer, rewards) = (toy::tokenizer(), toy::rewards());
    let generation = toy::config().generation;
    let refused = sampler.run(
        &mut LocalEngine,
        &policy,
        &tokenizer,
        &rewards,
        &problems(),
        &generation,
        &parts,
    );
    assert!(refused.unwrap_err().to_string().contains(":1:"));
}

#[test]
fn the_control_keeps_the_same_number_at_random() {
    let folder = tempfile::tempdir().unwrap();
    let [right, random] = ["right", "random"].map(|name| folder.path().join(name));
    let sampler = |random_control| {
        RejectionSampler::new(RejectionConfig {
            random_control,
            ..config()
        })
        .unwrap()
    };
    let (a, b) = (
        run(&sampler(false), 7, &right),
        run(&sampler(true), 7, &random),
    );
    assert_eq!(a.kept, b.kept);
    let mean = |file| {
        let kept = read_kept(file).unwrap();
        kept.iter().map(|one| one.reward).sum::<f64>() / kept.len() as f64
    };
    assert!(mean(&random) < mean(&right) - 0.1);
    assert!(
        RejectionSampler::new(RejectionConfig {
            samples: 0,
            ..config()
        })
        .is_err()
    );
}
