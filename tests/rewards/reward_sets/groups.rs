//! Rewards that compare the completions of a group.

use std::thread;
use std::time::Duration;

use rlvr::prompt::Problem;
use rlvr::reward::{
    FnReward, Gate, GroupInput, KimiLengthReward, RewardInput, RewardOptions, RewardSet,
};
use rlvr::rollout::{RewardOutcome, Rollout, RolloutBuffer, RolloutGroup};

use super::{OfGroup, inputs, score_groups, word};
use crate::common::quiet_reward_panics;

#[test]
fn a_group_reward_gets_its_group_and_the_scores_it_reads() {
    // The score minus the mean of the group; completions without a score abstain.
    let centred = OfGroup {
        name: "centred",
        reads: vec!["a"],
        score: |group: &GroupInput| {
            let scores = group.scores("a")?;
            let known: Vec<f64> = scores.iter().flatten().copied().collect();
            let mean = known.iter().sum::<f64>() / known.len() as f64;
            assert!(group.scores("b").is_err());
            Ok(scores.iter().map(|score| score.map(|s| s - mean)).collect())
        },
    };
    // Reads a group reward in turn, and is added before it.
    let doubled = OfGroup {
        name: "doubled",
        reads: vec!["centred"],
        score: |group: &GroupInput| {
            let scores = group.scores("centred")?.iter();
            Ok(scores.map(|score| score.map(|s| 2.0 * s)).collect())
        },
    };
    let set = RewardSet::builder()
        .add_group(1.0, doubled)
        .add(0.0, word("a", 0))
        .add(0.0, word("b", 1))
        .add_group(0.0, centred)
        .build()
        .unwrap();
    let groups = vec![
        inputs(&["1", "3"]),
        vec![],
        inputs(&["10"]),
        inputs(&["1", "abstain", "4", "4"]),
    ];
    let scored = score_groups(&set, groups);
    let found: Vec<Vec<Option<f64>>> = scored
        .iter()
        .map(|group| {
            group
                .iter()
                .map(|one| one.rewards[0].outcome.score())
                .collect()
        })
        .collect();
    let expected = [
        vec![Some(-2.0), Some(2.0)],
        vec![],
        vec![Some(0.0)],
        vec![Some(-4.0), None, Some(2.0), Some(2.0)],
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_failed_group_reward_fails_its_group() {
    quiet_reward_panics();
    let fragile = OfGroup {
        name: "fragile",
        reads: vec![],
        score: |group: &GroupInput| match group.inputs()[0].completion() {
            "1 error" => Err("told to".into()),
            "1 panic" => panic!("told to panic"),
            "1 short" => Ok(vec![Some(1.0)]),
            "1 NaN" => Ok(vec![Some(f64::NAN), Some(1.0)]),
            "1 hang" => loop {
                thread::park();
            },
            _ => Ok(vec![Some(1.0); group.inputs().len()]),
        },
    };
    let options = RewardOptions::new().with_time_limit(Duration::from_secs(2));
    let set = RewardSet::builder()
        .add(1.0, word("a", 0))
        .add_group_with(1.0, fragile, options)
        .build()
        .unwrap();
    let kinds = ["1 error", "1 panic", "1 short", "1 NaN", "1 hang", "1"];
    let groups = kinds.map(|kind| inputs(&[kind, "1"])).to_vec();
    let scored = score_groups(&set, groups);
    let failed = |text: &str| RewardOutcome::Failed(text.into());
    let twice = |outcome: RewardOutcome| [outcome.clone(), outcome];
    let expected = [
        twice(failed("told to")),
        twice(RewardOutcome::Panicked("told to panic".into())),
        twice(failed("1 results for 2 completions; expected one for each")),
        [
            failed("the score is NaN; expected a finite number"),
            RewardOutcome::Score(1.0),
        ],
        twice(RewardOutcome::TimedOut(2.0)),
        twice(RewardOutcome::Score(1.0)),
    ];
    for (group, expected) in scored.iter().zip(expected) {
        for (one, expected) in group.iter().zip(expected) {
            assert_eq!(one.rewards[1].outcome, expected);
            assert_eq!(one.rewards[0].outcome, RewardOutcome::Score(1.0));
            assert_eq!(one.reward, expected.score().map(|score| 1.0 + score));
        }
    }
}

#[test]
fn a_gated_group_reward_sees_only_completions_with_an_open_gate() {
    let set = RewardSet::builder()
        .add(0.0, word("accuracy", 0))
        .add(0.0, word("format", 1))
        .add_group_with(
            1.0,
            KimiLengthReward::new(),
            RewardOptions::new().with_gate(Gate::on("format").with_otherwise(-0.75)),
        );
    let set = set.build().unwrap();
    let input = |text: &str, tokens| RewardInput::new("", "", text).with_tokens(vec![7; tokens]);
    let scored = score_groups(
        &set,
        vec![
            vec![
                input("1 1", 10),
                input("1 0", 1),
                input("1 1", 30),
                input("1 1", 20),
            ],
            vec![input("1 0", 10), input("1 0", 20)],
        ],
    );
    let totals: Vec<_> = scored.iter().flatten().map(|one| one.reward).collect();
    let expected = [0.5, -0.75, -0.5, 0.0, -0.75, -0.75].map(Some);
    assert_eq!(totals, expected);
}

#[test]
fn rollouts_are_scored_by_their_groups_and_tokens() {
    let rollout = |text: &str, tokens: Vec<u32>| {
        let log_probs = vec![-0.5; tokens.len()];
        Rollout::new(tokens, log_probs, text)
    };
    let group = |rollouts| RolloutGroup::new(Problem::new("?", "!"), vec![3], rollouts);
    let mut buffer = RolloutBuffer {
        groups: vec![
            group(vec![rollout("1", vec![7, 7, 1]), rollout("1", vec![1])]),
            group(vec![rollout("1", vec![9; 40]), rollout("0", vec![9; 60])]),
        ],
    };
    let first = FnReward::new("first", |input: &RewardInput| {
        assert_eq!((input.prompt(), input.answer()), ("?", "!"));
        assert_eq!(input.length(), input.rollout.tokens.len());
        Ok(input.rollout.tokens.first().map(|&id| f64::from(id)))
    });
    let set = RewardSet::builder()
        .add(1.0, word("accuracy", 0))
        .add(0.0, first)
        .add_group(1.0, KimiLengthReward::new());
    set.build().unwrap().score_rollouts(&mut buffer);
    let scores = |name: &str| buffer.rollouts().map(|r| r.score(name)).collect::<Vec<_>>();
    assert_eq!(scores("first"), [7.0, 1.0, 9.0, 9.0].map(Some));
    assert_eq!(scores("length"), [-0.5, 0.5, 0.5, -0.5].map(Some));
    assert_eq!(buffer.rewards(), [0.5, 1.5, 1.5, -0.5].map(Some));
}
