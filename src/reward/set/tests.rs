//! What rewards do to each other: nothing.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::reward::{FnReward, Reward};

/// The default hook would write every panic that is expected, with a backtrace where one is asked for: seconds, in a large
/// program, of which the reward is not to be blamed.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some("rlvr-reward") {
                default(info);
            }
        }));
    });
}

/// A reward that does what the completion says.
fn obedient(name: &str) -> impl Reward {
    FnReward::new(name, |input: &RewardInput| match &*input.completion {
        "abstain" => Ok(None),
        "error" => Err("told to".into()),
        "panic" => panic!("told to panic"),
        "hang" => loop {
            thread::park();
        },
        number => Ok(Some(number.parse()?)),
    })
}

fn constant(name: &'static str, score: Option<f64>) -> impl Reward {
    FnReward::new(name, move |_| Ok(score))
}

fn inputs(completions: &[&str]) -> Vec<RewardInput> {
    let input = |text: &&str| RewardInput::new("", "", *text);
    completions.iter().map(input).collect()
}

fn message(builder: RewardSetBuilder) -> String {
    builder.build().unwrap_err().to_string()
}

#[test]
fn meaningless_sets_are_refused() {
    let one = || RewardSet::builder().add(1.0, constant("one", Some(1.0)));
    assert!(message(RewardSet::builder()).starts_with("invalid `rewards`: none"));
    let twice = one().add(1.0, constant("one", Some(2.0)));
    assert!(message(twice).starts_with("invalid `rewards[1].name`: \"one\""));
    let nameless = one().add(1.0, constant("", Some(2.0)));
    assert!(message(nameless).starts_with("invalid `rewards[1].name`: \"\""));
    for weight in [f64::NAN, f64::INFINITY] {
        let text = message(one().add(weight, constant("two", None)));
        let start = format!("invalid `rewards[1].weight`: {weight}");
        assert!(text.starts_with(&start), "{text}");
    }
    assert!(message(one().time_limit(Duration::ZERO)).starts_with("invalid `time_limit`: 0 s"));
    assert!(message(one().threads(0)).starts_with("invalid `threads`: 0"));
}

#[test]
fn every_kind_of_outcome_is_recorded_and_only_the_broken_lose_their_total() {
    quiet_panics();
    let set = RewardSet::builder()
        .add(2.0, obedient("a"))
        .add(-0.5, constant("b", Some(3.0)))
        .add(9.0, constant("c", None))
        .time_limit(Duration::from_millis(500))
        .threads(2)
        .build()
        .unwrap();
    assert_eq!(set.names(), ["a", "b", "c"]);
    assert_eq!(set.weights(), [2.0, -0.5, 9.0]);

    let start = Instant::now();
    let scored = set.score(inputs(&[
        "hang", "4", "error", "panic", "NaN", "-inf", "x", "abstain", "0.25",
    ]));
    assert!(start.elapsed() < Duration::from_secs(20));

    let failed = |text: &str| RewardOutcome::Failed(text.into());
    let expected = [
        (RewardOutcome::TimedOut(0.5), None),
        (RewardOutcome::Score(4.0), Some(6.5)),
        (failed("told to"), None),
        (RewardOutcome::Panicked("told to panic".into()), None),
        (failed("the score is NaN; expected a finite number"), None),
        (failed("the score is -inf; expected a finite number"), None),
        (failed("invalid float literal"), None),
        (RewardOutcome::Abstained, Some(-1.5)),
        (RewardOutcome::Score(0.25), Some(-1.0)),
    ];
    assert_eq!(scored.len(), expected.len());
    for (one, (outcome, total)) in scored.iter().zip(expected) {
        assert_eq!(one.records[0].outcome, outcome);
        assert_eq!(one.total, total, "{outcome:?}");
        // The neighbours of whatever happened are right.
        assert_eq!(one.records[1].outcome, RewardOutcome::Score(3.0));
        assert_eq!(one.records[2].outcome, RewardOutcome::Abstained);
        let named: Vec<_> = one.records.iter().map(|r| (&*r.name, r.weight)).collect();
        assert_eq!(named, [("a", 2.0), ("b", -0.5), ("c", 9.0)]);
    }
    assert_eq!(set.abandoned_threads(), 1);
}

#[test]
fn without_any_number_there_is_no_total() {
    let set = RewardSet::builder()
        .add(1.0, constant("a", None))
        .add(1.0, constant("b", None));
    let scored = set.build().unwrap().score(inputs(&["x"]));
    assert_eq!(scored[0].total, None);
    assert!(!scored[0].records[0].outcome.is_failure());
    // A weight of 0 gives a number, which is 0.
    let set = RewardSet::builder()
        .add(0.0, constant("a", Some(5.0)))
        .add(1.0, constant("b", None));
    let scored = set.build().unwrap().score(inputs(&["x"]));
    assert_eq!(scored[0].total, Some(0.0));
    // Finite terms, infinite sum.
    let set = RewardSet::builder()
        .add(1e200, constant("a", Some(1e200)))
        .add(1.0, constant("b", Some(1.0)));
    assert_eq!(set.build().unwrap().score(inputs(&["x"]))[0].total, None);
    let set = RewardSet::builder().add(1.0, constant("a", Some(1.0)));
    assert_eq!(set.build().unwrap().score(vec![]), []);
}

#[test]
fn a_batch_waits_for_a_hanging_reward_no_longer_than_the_limit() {
    // 400 jobs, of which 4 hang, on 4 threads: they hang side by side, for one limit.
    let set = RewardSet::builder()
        .add(1.0, obedient("a"))
        .time_limit(Duration::from_secs(1))
        .threads(4);
    let set = set.build().unwrap();
    let texts: Vec<String> = (0..400)
        .map(|i| match i % 100 {
            37 => "hang".into(),
            _ => i.to_string(),
        })
        .collect();
    let start = Instant::now();
    let scored = set.score(inputs(
        &texts.iter().map(String::as_str).collect::<Vec<_>>(),
    ));
    assert!(
        start.elapsed() < Duration::from_millis(1900),
        "{:?}",
        start.elapsed()
    );
    for (i, one) in scored.iter().enumerate() {
        assert_eq!(one.total, (i % 100 != 37).then_some(i as f64));
    }
    assert_eq!(set.abandoned_threads(), 4);
}

#[test]
fn two_threads_may_score_at_once() {
    let set = RewardSet::builder()
        .add(1.0, obedient("a"))
        .add(10.0, constant("b", Some(1.0)))
        .threads(3)
        .time_limit(Duration::from_millis(500));
    let set = set.build().unwrap();
    let clone = set.clone();
    let run = |set: &RewardSet, offset: usize| {
        let texts: Vec<String> = (0..500).map(|i| (i + offset).to_string()).collect();
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        texts[250] = "hang";
        let totals = set.score(inputs(&texts)).into_iter().map(|one| one.total);
        let expected = (0..500).map(|i| (i != 250).then_some((i + offset) as f64 + 10.0));
        assert!(totals.eq(expected));
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&set, 0));
        scope.spawn(|| run(&clone, 7000));
    });
    // One each, counted together.
    assert_eq!(set.abandoned_threads(), 2);
}

#[test]
fn dropping_a_set_does_not_wait_for_a_stuck_job() {
    let (release, gate) = mpsc::channel::<()>();
    let (report, returned) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stuck = FnReward::new("stuck", move |_: &RewardInput| {
        let _ = gate.lock().unwrap().recv();
        let _ = report.send(());
        Ok(Some(1.0))
    });
    let set = RewardSet::builder()
        .add(1.0, stuck)
        .time_limit(Duration::from_millis(100));
    let set = set.build().unwrap();
    assert_eq!(
        set.score(inputs(&["x"]))[0].records[0].outcome,
        RewardOutcome::TimedOut(0.1)
    );
    let start = Instant::now();
    drop(set);
    assert!(start.elapsed() < Duration::from_secs(5));
    // The job is still there, can return into nothing, and takes nobody with it.
    assert!(returned.try_recv().is_err());
    release.send(()).unwrap();
    returned.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn more_stuck_jobs_than_threads_to_spare_are_refused() {
    let set = RewardSet::builder()
        .add(1.0, obedient("a"))
        .time_limit(Duration::from_millis(50))
        .threads(40);
    let set = set.build().unwrap();
    let scored = set.score(inputs(&["hang"; 300]));
    let timed_out = scored
        .iter()
        .filter(|one| one.records[0].outcome == RewardOutcome::TimedOut(0.05));
    assert_eq!(timed_out.count(), set.abandoned_threads());
    assert!((MAX_ABANDONED..MAX_ABANDONED + 40).contains(&set.abandoned_threads()));
    let RewardOutcome::Failed(message) = &scored[299].records[0].outcome else {
        panic!("{scored:?}")
    };
    assert!(message.contains("threads still busy"), "{message}");
}

#[test]
fn a_shared_reward_can_be_in_two_sets() {
    let shared: Arc<dyn Reward> = Arc::new(constant("one", Some(1.0)));
    for weight in [1.0, 2.0] {
        let set = RewardSet::builder().add(weight, Arc::clone(&shared));
        assert_eq!(
            set.build().unwrap().score(inputs(&["x"]))[0].total,
            Some(weight)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn the_result_does_not_depend_on_the_threads(
        scores in prop::collection::vec(-9i32..9, 0..40), weights in prop::collection::vec(-9i32..9, 1..4), threads in 2usize..9,
    ) {
        let scored = |threads| {
            let mut builder = RewardSet::builder().threads(threads);
            for (i, &weight) in weights.iter().enumerate() {
                builder = builder.add(f64::from(weight) / 7.0, obedient(&format!("reward {i}")));
            }
            let texts: Vec<String> = scores.iter().map(|score| (f64::from(*score) / 3.0).to_string()).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            builder.build().unwrap().score(inputs(&texts))
        };
        let one = scored(1);
        prop_assert_eq!(&scored(threads), &one);
        let sum: f64 = weights.iter().map(|&weight| f64::from(weight) / 7.0).sum();
        for (one, score) in one.iter().zip(&scores) {
            prop_assert!((one.total.unwrap() - sum * f64::from(*score) / 3.0).abs() < 1e-12);
        }
    }
}
