//! Batches, concurrency and time limits of rewards.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use rlvr::reward::{
    FnReward, Gate, Missing, Reward, RewardError, RewardInput, RewardOptions, RewardSet,
};
use rlvr::rollout::RewardOutcome;

use super::{inputs, totals, word};
use crate::common::quiet_reward_panics;

/// A reward with a batch method that records its inputs.
struct Batched {
    calls: Arc<Mutex<Vec<Vec<String>>>>,
    size: usize,
}

impl Reward for Batched {
    fn name(&self) -> &str {
        "batched"
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let mut scores = self.score_batch(&[input]);
        scores.pop().unwrap_or(Ok(None))
    }

    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        let texts: Vec<String> = inputs.iter().map(|i| i.completion().to_string()).collect();
        if texts.iter().any(|text| text == "panic") {
            panic!("told to panic");
        }
        self.calls.lock().unwrap().push(texts.clone());
        if texts.iter().any(|text| text == "lose") {
            return vec![];
        }
        let score = |text: String| match &*text {
            "error" => Err("told to".into()),
            text => Ok(text.parse().ok()),
        };
        texts.into_iter().map(score).collect()
    }

    fn batch_size(&self) -> usize {
        self.size
    }
}

#[test]
fn batches_have_the_configured_size_and_keep_the_order() {
    for (own, option, sizes) in [
        (1, None, vec![1; 10]),
        (4, None, vec![4, 4, 2]),
        (4, Some(3), vec![3, 3, 3, 1]),
        (1, Some(100), vec![10]),
    ] {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let reward = Batched {
            calls: Arc::clone(&calls),
            size: own,
        };
        let options = option.map_or(RewardOptions::new(), |size| {
            RewardOptions::new().with_batch(size)
        });
        let set = RewardSet::builder()
            .add_with(1.0, reward, options)
            .threads(1);
        let texts: Vec<String> = (0..10).map(|i| i.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let expected: Vec<_> = (0..10).map(|i| Some(f64::from(i))).collect();
        assert_eq!(totals(set, &texts), expected);
        let calls = calls.lock().unwrap();
        assert_eq!(calls.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
        assert_eq!(calls.concat(), texts);
    }
}

#[test]
fn a_failed_batch_fails_only_its_completions() {
    quiet_reward_panics();
    let reward = Batched {
        calls: Arc::default(),
        size: 2,
    };
    let set = RewardSet::builder().add(1.0, reward).build().unwrap();
    let scored = set.score(inputs(&[
        "1", "panic", "2", "error", "x", "3", "4", "lose", "5",
    ]));
    let found: Vec<_> = scored
        .iter()
        .map(|one| one.rewards[0].outcome.clone())
        .collect();
    let panicked = RewardOutcome::Panicked("told to panic".into());
    let lost = RewardOutcome::Failed("0 results for 2 completions; expected one for each".into());
    let expected = [
        panicked.clone(),
        panicked,
        RewardOutcome::Score(2.0),
        RewardOutcome::Failed("told to".into()),
        RewardOutcome::Abstained,
        RewardOutcome::Score(3.0),
        lost.clone(),
        lost,
        RewardOutcome::Score(5.0),
    ];
    assert_eq!(found, expected);
}

#[test]
fn batches_skip_gated_completions() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let reward = Batched {
        calls: Arc::clone(&calls),
        size: 2,
    };
    let odd = FnReward::new("odd", |input: &RewardInput| {
        let number: i32 = input.completion().parse()?;
        Ok(Some(f64::from(number % 2)))
    });
    let set = RewardSet::builder()
        .add(0.0, odd)
        .add_with(1.0, reward, RewardOptions::new().with_gate(Gate::on("odd")))
        .threads(1);
    let found = totals(set, &["1", "2", "3", "4", "5"]);
    assert_eq!(found, [1.0, 0.0, 3.0, 0.0, 5.0].map(Some));
    assert_eq!(*calls.lock().unwrap(), [vec!["1", "3"], vec!["5"]]);
}

/// Counts how many calls run at once. A call returns when `together` calls have begun.
fn crowd(name: &'static str, together: usize, most: &Arc<AtomicUsize>) -> impl Reward + use<> {
    let (now, most) = (AtomicUsize::new(0), Arc::clone(most));
    let barrier = Barrier::new(together);
    FnReward::new(name, move |_| {
        let count = now.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(count, Ordering::SeqCst);
        barrier.wait();
        now.fetch_sub(1, Ordering::SeqCst);
        Ok(Some(1.0))
    })
}

#[test]
fn concurrency_is_per_reward() {
    let (slow, shared) = (Arc::default(), Arc::default());
    let set = RewardSet::builder()
        .add(1.0, crowd("shared", 2, &shared))
        .add_with(
            1.0,
            crowd("slow", 16, &slow),
            RewardOptions::new().with_concurrency(16),
        )
        .threads(2)
        .time_limit(Duration::from_secs(60))
        .build()
        .unwrap();
    let scored = set.score(inputs(&["x"; 32]));
    assert!(scored.iter().all(|one| one.reward == Some(2.0)));
    assert_eq!(slow.load(Ordering::SeqCst), 16);
    assert_eq!(shared.load(Ordering::SeqCst), 2);
}

#[test]
fn time_limits_are_per_reward_and_records_hold_the_time() {
    let ms = Duration::from_millis;
    let wait = |name: &'static str, wait| {
        FnReward::new(name, move |_| {
            thread::sleep(wait);
            Ok(Some(1.0))
        })
    };
    let set = RewardSet::builder()
        .add(1.0, word("quick", 0))
        .add_with(
            1.0,
            wait("patient", ms(150)),
            RewardOptions::new().with_time_limit(ms(60_000)),
        )
        .add_with(
            1.0,
            wait("hasty", ms(600_000)),
            RewardOptions::new()
                .with_time_limit(ms(30))
                .with_on_failure(Missing::Value(-1.0)),
        )
        .build()
        .unwrap();
    for one in set.score(inputs(&["1", "2"])) {
        let [quick, patient, hasty] = &one.rewards[..] else {
            panic!("{one:?}")
        };
        assert_eq!(patient.outcome, RewardOutcome::Score(1.0));
        assert_eq!(hasty.outcome, RewardOutcome::TimedOut(0.03));
        assert_eq!(one.reward, quick.outcome.score());
        assert!((0.0..60.0).contains(&quick.seconds), "{}", quick.seconds);
        let patient = patient.seconds;
        assert!((0.15..60.0).contains(&patient), "{patient}");
        assert_eq!(hasty.seconds, 0.03);
    }
    // The time of a batch is divided evenly.
    let options = RewardOptions::new().with_batch(4);
    let set = RewardSet::builder().add_with(1.0, wait("batch", ms(10)), options);
    let scored = set.build().unwrap().score(inputs(&["x"; 4]));
    let seconds: Vec<f64> = scored.iter().map(|one| one.rewards[0].seconds).collect();
    assert!(
        seconds.iter().all(|&s| s == seconds[0] && s >= 0.01),
        "{seconds:?}"
    );
}
