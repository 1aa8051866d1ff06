//! Evaluation: accuracy, pass@1 and pass@k against counting by hand.

use std::sync::{Arc, Mutex};

use rlvr::prompt::Problem;
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::SamplingConfig;
use rlvr::train::{Evaluation, EvaluationConfig, evaluate};

use crate::common::assert_close;
use crate::common::toy;

/// Prompts and verdicts in the order in which they were given.
type Verdicts = Arc<Mutex<Vec<(String, bool)>>>;

/// A reward that accepts completions by their first character and records every verdict.
fn judge(likes: &'static [char]) -> (RewardSet, Verdicts) {
    let verdicts = Verdicts::default();
    let pen = verdicts.clone();
    let reward = FnReward::new("accuracy", move |input| {
        let right = input.completion().starts_with(likes);
        pen.lock()
            .unwrap()
            .push((input.prompt().to_string(), right));
        // A score above 1 counts as right; one just below does not.
        Ok(Some(if right { 1.5 } else { 0.999 }))
    });
    // One thread, so that verdicts are in order: the greedy answers first, then the samples.
    let set = RewardSet::builder().add(1.0, reward).threads(1);
    (set.build().unwrap(), verdicts)
}

fn examine(rewards: &RewardSet, problems: &[Problem], config: &EvaluationConfig) -> Evaluation {
    let policy = toy::policy(5, &toy::device());
    let generation = toy::config().generation;
    evaluate(
        &policy,
        &toy::tokenizer(),
        rewards,
        problems,
        &generation,
        config,
    )
    .unwrap()
}

/// The share of all subsets of k verdicts that contain a right one.
fn by_counting(verdicts: &[bool], k: usize) -> f64 {
    let (mut all, mut found) = (0.0, 0.0);
    for subset in 0u32..1 << verdicts.len() {
        if subset.count_ones() as usize == k {
            all += 1.0;
            let one = |i: usize| subset >> i & 1 == 1 && verdicts[i];
            found += f64::from((0..verdicts.len()).any(one));
        }
    }
    found / all
}

#[test]
fn accuracy_pass_at_1_and_pass_at_k_by_counting() {
    let (rewards, verdicts) = judge(&['a', 'c']);
    let problems = toy::problems();
    let config = EvaluationConfig {
        samples: 6,
        k: vec![1, 2, 4, 6],
        ..EvaluationConfig::default()
    };
    let found = examine(&rewards, &problems, &config);
    let verdicts = verdicts.lock().unwrap().clone();
    assert_eq!(verdicts.len(), 4 + 4 * 6);
    let (greedy, sampled) = verdicts.split_at(4);
    let share = greedy.iter().filter(|(_, right)| *right).count() as f64 / 4.0;
    assert_eq!(found.accuracy, share);
    let right = sampled.iter().filter(|(_, right)| *right).count();
    assert!(right > 3 && right < 21, "too uniform a case: {right}");
    assert_close(
        found.pass_at_1.unwrap(),
        right as f64 / 24.0,
        1e-12,
        0.0,
        "@1",
    );
    for (at, &k) in config.k.iter().enumerate() {
        let each = problems.iter().map(|problem| {
            let own = sampled
                .iter()
                .filter(|(prompt, _)| *prompt == problem.prompt);
            let own: Vec<bool> = own.map(|(_, right)| *right).collect();
            assert_eq!(own.len(), 6);
            by_counting(&own, k)
        });
        let want = each.sum::<f64>() / 4.0;
        assert_eq!(found.pass_at_k[at].0, k);
        assert_close(found.pass_at_k[at].1, want, 1e-12, 0.0, &format!("@{k}"));
    }
    assert_eq!(found.greedy.len(), 4);
    assert_eq!(found.mean_length, found.greedy.tokens() as f64 / 4.0);
}

#[test]
fn evaluation_is_deterministic_in_its_seed() {
    let samples = |seed| {
        let (rewards, verdicts) = judge(&['a', 'b']);
        let config = EvaluationConfig {
            samples: 8,
            seed,
            ..EvaluationConfig::default()
        };
        examine(&rewards, &toy::problems(), &config);
        let verdicts = verdicts.lock().unwrap();
        verdicts.clone()
    };
    let (first, again, other) = (samples(0), samples(0), samples(1));
    assert_eq!(first, again);
    // Greedy decoding has no seed, sampling has.
    assert_eq!(first[..4], other[..4]);
    assert_ne!(first[4..], other[4..]);
}

#[test]
fn every_reward_has_a_mean_and_a_standard_error() {
    let (rewards, _) = judge(&['a', 'b']);
    let config = EvaluationConfig {
        samples: 4,
        maj: vec![1, 3],
        ..EvaluationConfig::default()
    };
    let found = examine(&rewards, &toy::problems(), &config);
    let by_hand = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / 4.0;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 3.0;
        (mean, (variance / 4.0).sqrt())
    };
    let greedy = found.greedy.rollouts();
    let scores: Vec<f64> = greedy.map(|r| r.score("accuracy").unwrap()).collect();
    let right: Vec<f64> = scores.iter().map(|&x| x.floor()).collect();
    let accuracy = found.greedy_rewards.rewards["accuracy"];
    let (mean, error) = by_hand(&scores);
    assert_close(accuracy.mean, mean, 1e-12, 0.0, "mean");
    assert_close(accuracy.standard_error, error, 1e-12, 0.0, "its error");
    let (mean, error) = by_hand(&right);
    assert_eq!(found.accuracy, mean);
    let got = found.accuracy_standard_error;
    assert_close(got, error, 1e-12, 0.0, "error of the accuracy");
    let shares: Vec<f64> = found
        .sampled
        .groups
        .iter()
        .map(|group| {
            let scores = group.rollouts.iter().map(|r| r.score("accuracy").unwrap());
            scores.map(f64::floor).sum::<f64>() / 4.0
        })
        .collect();
    let (mean, error) = by_hand(&shares);
    assert_eq!(found.pass_at_1, Some(mean));
    let got = found.pass_at_1_standard_error.unwrap();
    assert_close(got, error, 1e-12, 0.0, "error of pass@1");
    assert_eq!(found.sampled.len(), 16);
    // A vote of one sample is that sample.
    let first = found.sampled.groups.iter().map(|group| &group.rollouts[0]);
    let right = first.filter(|rollout| rollout.score("accuracy") >= Some(1.0));
    assert_eq!(found.maj_at_n[0], (1, right.count() as f64 / 4.0));
    assert_eq!(found.maj_at_n[1].0, 3);

    // Every score is at least 0.
    let lenient = EvaluationConfig {
        threshold: 0.0,
        ..EvaluationConfig::default()
    };
    assert_eq!(examine(&rewards, &toy::problems(), &lenient).accuracy, 1.0);
}

#[test]
fn samples_of_a_greedy_sampler_are_all_the_greedy_answer() {
    let (rewards, _) = judge(&['a', 'c', 'd']);
    let config = EvaluationConfig {
        samples: 3,
        k: vec![3],
        sampling: SamplingConfig::greedy(),
        ..EvaluationConfig::default()
    };
    let found = examine(&rewards, &toy::problems(), &config);
    assert_eq!(found.pass_at_1, Some(found.accuracy));
    assert_eq!(found.pass_at_k, [(3, found.accuracy)]);
    let none = examine(&rewards, &toy::problems(), &EvaluationConfig::default());
    assert_eq!((none.pass_at_1, none.pass_at_k.len()), (None, 0));
    assert_eq!(none.greedy, found.greedy);
}

#[test]
fn invalid_evaluations_are_errors() {
    let trainer = toy::trainer(&toy::config(), 0, &toy::device());
    let refused = |problems: &[Problem], config: EvaluationConfig, expected: [&str; 2]| {
        let got = trainer.evaluate(problems, &config).unwrap_err().to_string();
        assert!(expected.iter().all(|part| got.contains(part)), "{got}");
    };
    let default = EvaluationConfig::default();
    refused(&[], default.clone(), ["problems", "at least one"]);
    let k = EvaluationConfig {
        samples: 2,
        k: vec![3],
        ..default.clone()
    };
    refused(&toy::problems(), k, ["evaluation.k`: 3", "samples = 2"]);
    let maj = EvaluationConfig {
        maj: vec![1],
        ..default.clone()
    };
    refused(&toy::problems(), maj, ["evaluation.maj`: 1", "samples = 0"]);
    let unknown = EvaluationConfig {
        reward: "exactness".into(),
        ..default
    };
    let expected = ["exactness", r#""accuracy", "short""#];
    refused(&toy::problems(), unknown, expected);
}
