//! Missing scores, gates and clamps.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rlvr::reward::{FnReward, Gate, GroupInput, Missing, RewardOptions, RewardSet};
use rlvr::rollout::RewardOutcome;

use super::{OfGroup, inputs, message, totals, word};

#[test]
fn a_missing_score_counts_as_configured() {
    let texts = ["1 1", "1 abstain", "1 error", "abstain abstain"];
    for (missing, without) in [
        (Missing::LeaveOut, Some(1.0)),
        (Missing::DropRollout, None),
        // 1 * (1 + 3) / 1
        (Missing::Renormalise, Some(4.0)),
        (Missing::Value(-0.5), Some(-0.5)),
    ] {
        let nothing = match missing {
            Missing::Value(_) => Some(-1.5),
            _ => None,
        };
        let set = |options| {
            let set = RewardSet::builder().add(1.0, word("a", 0));
            set.add_with(3.0, word("b", 1), options)
        };
        // Abstentions and failures are configured separately.
        let found = totals(set(RewardOptions::new().with_on_abstain(missing)), &texts);
        assert_eq!(found, [Some(4.0), without, None, nothing], "{missing:?}");
        let found = totals(set(RewardOptions::new().with_on_failure(missing)), &texts);
        assert_eq!(found, [Some(4.0), Some(1.0), without, None], "{missing:?}");
    }
}

#[test]
fn renormalising_keeps_the_scale() {
    // Weights 1, -2 and 5; missing ones are compensated by the absolute values of the others.
    let made_up = || RewardOptions::new().with_on_abstain(Missing::Renormalise);
    let set = RewardSet::builder()
        .add_with(1.0, word("a", 0), made_up())
        .add_with(-2.0, word("b", 1), made_up())
        .add_with(5.0, word("c", 2), made_up());
    let found = totals(
        set,
        &[
            "1 1 1",
            "1 1 abstain",
            "abstain abstain 0.1",
            "",
            "1 abstain 1",
        ],
    );
    let expected = [Some(4.0), Some(-8.0 / 3.0), Some(0.8), None, Some(8.0)];
    for (found, expected) in found.iter().zip(expected) {
        match (found, expected) {
            (Some(a), Some(b)) => assert!((a - b).abs() < 1e-12, "{a} {b}"),
            (a, b) => assert_eq!(*a, b),
        }
    }
    // Only a weight of 0 is left: nothing can be rescaled.
    let set = RewardSet::builder()
        .add(0.0, word("a", 0))
        .add_with(5.0, word("c", 1), made_up());
    assert_eq!(totals(set, &["1 abstain"]), [Some(0.0)]);
}

#[test]
fn a_gated_reward_is_not_run_and_has_the_configured_score() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let accuracy = FnReward::new("accuracy", move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
        Ok(Some(1.0))
    });
    let gate = Gate::on("format").with_at_least(0.5).with_otherwise(-2.0);
    // Added before its gate: the order of adding is only the order of the records.
    let set = RewardSet::builder()
        .add_with(1.0, accuracy, RewardOptions::new().with_gate(gate))
        .add(0.25, word("format", 0))
        .build()
        .unwrap();
    let scored = set.score(inputs(&["1", "0.5", "0.4", "abstain", "error", "NaN"]));
    let outcome = |i: usize| scored[i].rewards[0].outcome.clone();
    let found: Vec<_> = scored.iter().map(|one| one.reward).collect();
    let expected = [Some(1.25), Some(1.125), Some(-1.9), Some(1.0), None, None];
    assert_eq!(found, expected);
    assert_eq!(outcome(1), RewardOutcome::Score(1.0));
    assert_eq!(outcome(2), RewardOutcome::Gated(-2.0));
    assert_eq!(outcome(3), RewardOutcome::Score(1.0));
    let failed = "not run: the reward in its gate, `format`, failed";
    assert_eq!(outcome(4), RewardOutcome::Failed(failed.into()));
    assert_eq!(outcome(5), RewardOutcome::Failed(failed.into()));
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(scored[2].rewards[0].seconds, 0.0);
}

#[test]
fn a_gate_reads_the_configured_value_of_a_missing_score() {
    let options = || RewardOptions::new().with_gate(Gate::on("format").with_otherwise(-1.0));
    let format = RewardOptions::new()
        .with_on_abstain(Missing::Value(0.0))
        .with_on_failure(Missing::Value(1.0));
    let set = RewardSet::builder()
        .add_with(0.0, word("format", 0), format)
        .add_with(1.0, word("a", 1), options());
    assert_eq!(
        totals(set, &["abstain 5", "error 5"]),
        [Some(-1.0), Some(5.0)]
    );
    // A failed gate that is left out of the sum gives the gated reward no score, and its own policy
    // applies.
    let set = RewardSet::builder()
        .add_with(
            0.0,
            word("format", 0),
            RewardOptions::new().with_on_failure(Missing::LeaveOut),
        )
        .add_with(
            1.0,
            word("a", 1),
            options().with_on_failure(Missing::Value(-3.0)),
        );
    assert_eq!(totals(set, &["error 5"]), [Some(-3.0)]);
}

#[test]
fn gates_can_depend_on_gated_rewards() {
    let behind = |name: &str| RewardOptions::new().with_gate(Gate::on(name));
    let set = RewardSet::builder()
        .add_with(100.0, word("c", 2), behind("b"))
        .add_with(10.0, word("b", 1), behind("a"))
        .add(1.0, word("a", 0));
    let found = totals(set, &["1 1 1", "1 0 1", "0 1 1"]);
    assert_eq!(found, [Some(111.0), Some(1.0), Some(0.0)]);
}

#[test]
fn the_gate_of_the_total_replaces_it_and_the_clamp_is_last() {
    let set = RewardSet::builder()
        .add(1.0, word("format", 0))
        .add(1.0, word("a", 1))
        .gate_total(Gate::on("format").with_otherwise(-9.0))
        .clamp(-2.0, 3.0);
    // Only the gate counts, even if other rewards failed.
    let texts = [
        "1 1",
        "0 error",
        "1 5",
        "1 -5",
        "abstain 1",
        "error 1",
        "1 error",
    ];
    let expected = [
        Some(2.0),
        Some(-2.0),
        Some(3.0),
        Some(-2.0),
        Some(1.0),
        None,
        None,
    ];
    assert_eq!(totals(set, &texts), expected);
    let half = RewardSet::builder()
        .add(1.0, word("a", 0))
        .clamp(0.0, f64::INFINITY);
    assert_eq!(totals(half, &["-1", "7"]), [Some(0.0), Some(7.0)]);
}

#[test]
fn invalid_sets_are_rejected() {
    let a = || RewardSet::builder().add(1.0, word("a", 0));
    let with = |options: RewardOptions| a().add_with(1.0, word("b", 1), options);
    let new = RewardOptions::new;
    let reads = |name: &'static str, read: &'static str| OfGroup {
        name,
        reads: vec![read],
        score: |_: &GroupInput| Ok(vec![]),
    };
    for (set, start) in [
        (
            with(new().with_time_limit(Duration::ZERO)),
            "rewards[1].time_limit`: 0 s",
        ),
        (
            with(new().with_concurrency(0)),
            "rewards[1].concurrency`: 0",
        ),
        (with(new().with_batch(0)), "rewards[1].batch`: 0"),
        (
            with(new().with_on_abstain(Missing::Value(f64::NAN))),
            "rewards[1].on_abstain`: NaN",
        ),
        (
            with(new().with_on_failure(Missing::Value(f64::INFINITY))),
            "rewards[1].on_failure`: inf",
        ),
        (
            with(new().with_gate(Gate::on("c"))),
            "rewards[1].gate.reward`: \"c\"; expected one of [\"a\", \"b\"]",
        ),
        (
            with(new().with_gate(Gate::on("a").with_at_least(f64::NAN))),
            "rewards[1].gate.at_least`: NaN",
        ),
        (
            with(new().with_gate(Gate::on("a").with_otherwise(f64::NAN))),
            "rewards[1].gate.otherwise`: NaN",
        ),
        (with(new().with_gate(Gate::on("b"))), "rewards[1]`: \"b\""),
        (
            a().add_group(1.0, reads("b", "c")),
            "rewards[1].reads`: \"c\"",
        ),
        (a().add_group(1.0, reads("b", "b")), "rewards[1]`: \"b\""),
        (
            a().add_group(1.0, reads("b", "c"))
                .add_group(1.0, reads("c", "b")),
            "rewards[1]`: \"b\"",
        ),
        (
            a().add_group_with(1.0, reads("b", "a"), new().with_batch(2)),
            "rewards[1].batch`: 2",
        ),
        (a().gate_total(Gate::on("x")), "gate_total.reward`: \"x\""),
        (a().clamp(1.0, 0.0), "clamp`: 1 to 0"),
        (a().clamp(f64::NAN, 0.0), "clamp`: NaN to 0"),
    ] {
        let text = message(set);
        assert!(text.starts_with(&format!("invalid `{start}")), "{text}");
    }
}
