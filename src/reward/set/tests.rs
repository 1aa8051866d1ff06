//! Outcomes, limits and threads of a reward set.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, Once, OnceLock};
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::reward::{FnReward, Reward};
use crate::types::{Problem, RewardOutcome, RolloutGroup};

/// The default hook would print every expected panic, possibly with a backtrace: in a large program
/// this takes seconds, which would count against the time limit of the reward.
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

/// A reward whose outcome is named by the completion.
fn obedient(name: &str) -> impl Reward {
    FnReward::new(name, |input: &RewardInput| match input.completion() {
        "abstain" => Ok(None),
        "error" => Err("an error".into()),
        "panic" => panic!("a panic"),
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
fn invalid_sets_are_rejected() {
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
fn every_outcome_is_recorded_and_only_failures_drop_the_total() {
    quiet_panics();
    let set = RewardSet::builder()
        .add(2.0, obedient("a"))
        .add(-0.5, constant("b", Some(3.0)))
        .add(9.0, constant("c", None))
        .time_limit(Duration::from_secs(2))
        .threads(2)
        .build()
        .unwrap();
    assert_eq!(set.names(), ["a", "b", "c"]);
    assert_eq!(set.weights(), [2.0, -0.5, 9.0]);

    let scored = set.score(inputs(&[
        "hang", "4", "error", "panic", "NaN", "-inf", "x", "abstain", "0.25",
    ]));
    let failed = |text: &str| RewardOutcome::Failed(text.into());
    let expected = [
        (RewardOutcome::TimedOut(2.0), None),
        (RewardOutcome::Score(4.0), Some(6.5)),
        (failed("an error"), None),
        (RewardOutcome::Panicked("a panic".into()), None),
        (failed("the score is NaN; expected a finite number"), None),
        (failed("the score is -inf; expected a finite number"), None),
        (failed("invalid float literal"), None),
        (RewardOutcome::Abstained, Some(-1.5)),
        (RewardOutcome::Score(0.25), Some(-1.0)),
    ];
    assert_eq!(scored.len(), expected.len());
    for (one, (outcome, total)) in scored.iter().zip(expected) {
        assert_eq!(one.rewards[0].outcome, outcome);
        assert_eq!(one.reward, total, "{outcome:?}");
        // The other rewards are not affected.
        assert_eq!(one.rewards[1].outcome, RewardOutcome::Score(3.0));
        assert_eq!(one.rewards[2].outcome, RewardOutcome::Abstained);
        let named: Vec<_> = one.rewards.iter().map(|r| (&*r.name, r.weight)).collect();
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
    assert_eq!(scored[0].reward, None);
    assert!(!scored[0].rewards[0].outcome.is_failure());
    // A weight of 0 gives a number, which is 0.
    let set = RewardSet::builder()
        .add(0.0, constant("a", Some(5.0)))
        .add(1.0, constant("b", None));
    let scored = set.build().unwrap().score(inputs(&["x"]));
    assert_eq!(scored[0].reward, Some(0.0));
    // Finite terms, infinite sum.
    let set = RewardSet::builder()
        .add(1e200, constant("a", Some(1e200)))
        .add(1.0, constant("b", Some(1.0)));
    assert_eq!(set.build().unwrap().score(inputs(&["x"]))[0].reward, None);
    let set = RewardSet::builder().add(1.0, constant("a", Some(1.0)));
    assert_eq!(set.build().unwrap().score(vec![]), []);
}

#[test]
fn hanging_jobs_are_waited_for_in_parallel() {
    // 400 jobs, of which 4 hang, on 4 threads. When the last of them begins to hang, no thread has
    // been abandoned yet: the batch waits for one time limit, not for four.
    let shared: Arc<OnceLock<RewardSet>> = Arc::default();
    let (of_job, hanging) = (Arc::clone(&shared), AtomicUsize::new(0));
    let (report, abandoned) = mpsc::channel();
    let reward = FnReward::new("a", move |input: &RewardInput| {
        if input.completion() != "hang" {
            return Ok(Some(input.completion().parse()?));
        }
        if hanging.fetch_add(1, Ordering::SeqCst) == 3 {
            let _ = report.send(of_job.get().map(RewardSet::abandoned_threads));
        }
        loop {
            thread::park();
        }
    });
    let set = RewardSet::builder()
        .add(1.0, reward)
        .time_limit(Duration::from_secs(2))
        .threads(4);
    let set = shared.get_or_init(|| set.build().unwrap());
    let texts: Vec<String> = (0..400)
        .map(|i| match i % 100 {
            37 => "hang".into(),
            _ => i.to_string(),
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let scored = set.score(inputs(&texts));
    for (i, one) in scored.iter().enumerate() {
        assert_eq!(one.reward, (i % 100 != 37).then_some(i as f64));
    }
    assert_eq!(abandoned.try_recv(), Ok(Some(0)));
    assert_eq!(set.abandoned_threads(), 4);
}

#[test]
fn rollouts_are_scored_without_copies() {
    // The same allocations before, during and after scoring.
    let text = String::from("<answer>4</answer>");
    let address = text.as_ptr() as usize;
    let problem = Arc::new(Problem::new("2+2=", "4").with_metadata("tests", "many"));
    let of_problem = Arc::as_ptr(&problem) as usize;
    let seen = FnReward::plain("seen", move |input| {
        input.completion().as_ptr() as usize == address
            && Arc::as_ptr(&input.problem) as usize == of_problem
    });
    let rollout = Rollout::new(vec![1], vec![-0.5], text);
    let mut buffer = RolloutBuffer::new();
    buffer.push(RolloutGroup::new(problem, vec![1], vec![rollout]));
    let set = RewardSet::builder().add(1.0, seen).build().unwrap();
    set.score_rollouts(&mut buffer);
    let rollout = &buffer.groups[0].rollouts[0];
    assert_eq!(rollout.reward, Some(1.0));
    assert_eq!(rollout.text.as_ptr() as usize, address);
}

#[test]
fn two_threads_can_score_at_once() {
    let set = RewardSet::builder()
        .add(1.0, obedient("a"))
        .add(10.0, constant("b", Some(1.0)))
        .threads(3)
        .time_limit(Duration::from_secs(2));
    let set = set.build().unwrap();
    let clone = set.clone();
    let run = |set: &RewardSet, offset: usize| {
        let texts: Vec<String> = (0..500).map(|i| (i + offset).to_string()).collect();
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        texts[250] = "hang";
        let totals = set.score(inputs(&texts)).into_iter().map(|one| one.reward);
        let expected = (0..500).map(|i| (i != 250).then_some((i + offset) as f64 + 10.0));
        assert!(totals.eq(expected));
    };
    thread::scope(|scope| {
        scope.spawn(|| run(&set, 0));
        scope.spawn(|| run(&clone, 7000));
    });
    // One of each thread, counted together.
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
        set.score(inputs(&["x"]))[0].rewards[0].outcome,
        RewardOutcome::TimedOut(0.1)
    );
    // If dropping waited, this would not return: the job is released below.
    drop(set);
    // The job is still running, and may end at any time.
    assert!(returned.try_recv().is_err());
    release.send(()).unwrap();
    returned.recv_timeout(Duration::from_secs(20)).unwrap();
}

#[test]
fn jobs_fail_once_too_many_threads_are_stuck() {
    let set = RewardSet::builder()
        .add(1.0, obedient("a"))
        .time_limit(Duration::from_millis(50))
        .threads(40);
    let set = set.build().unwrap();
    let scored = set.score(inputs(&["hang"; 300]));
    let timed_out = scored
        .iter()
        .filter(|one| one.rewards[0].outcome == RewardOutcome::TimedOut(0.05));
    assert_eq!(timed_out.count(), set.abandoned_threads());
    assert!((MAX_ABANDONED..MAX_ABANDONED + 40).contains(&set.abandoned_threads()));
    let RewardOutcome::Failed(message) = &scored[299].rewards[0].outcome else {
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
            set.build().unwrap().score(inputs(&["x"]))[0].reward,
            Some(weight)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads(
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
            prop_assert!((one.reward.unwrap() - sum * f64::from(*score) / 3.0).abs() < 1e-12);
        }
    }
}

#[test]
fn a_reward_abstains_outside_its_domains() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let general = FnReward::new("general", move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(Some(2.0))
    });
    let options = || RewardOptions::new().with_domains(["writing", "safety"]);
    let set = RewardSet::builder()
        .add(1.0, constant("rule", Some(1.0)))
        .add_with(0.5, general, options())
        .build()
        .unwrap();
    let of = |domain: &str| RewardInput::new("", "", "x").with_metadata("domain", domain);
    let scored = set.score(vec![
        of("math"),
        of("safety"),
        RewardInput::new("", "", "x"),
    ]);
    let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
    assert_eq!(totals, [Some(1.0), Some(2.0), Some(1.0)]);
    assert_eq!(scored[0].rewards[1].outcome, RewardOutcome::Abstained);
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    let nowhere = RewardOptions::new().with_domains(Vec::<String>::new());
    let set = RewardSet::builder().add_with(1.0, constant("one", None), nowhere);
    assert!(message(set).contains("rewards[0].domains"));
}

#[test]
fn a_rollout_with_a_failed_environment_has_no_total() {
    use crate::types::{EpisodeEnd, EpisodeRecord};

    let set = RewardSet::builder()
        .add(1.0, FnReward::plain("one", |_: &RewardInput| 1.0))
        .build()
        .unwrap();
    let ended = |end| Rollout {
        episode: Some(EpisodeRecord {
            turns: Vec::new(),
            end,
        }),
        ..Rollout::new(vec![1], vec![-0.5], "x")
    };
    let rollouts = vec![
        ended(EpisodeEnd::Failed("no service".into())),
        ended(EpisodeEnd::Done),
    ];
    let mut buffer = RolloutBuffer::new();
    buffer.push(RolloutGroup::new(Problem::new("", ""), vec![1], rollouts));
    set.score_rollouts(&mut buffer);
    let totals: Vec<_> = buffer.rollouts().map(|rollout| rollout.reward).collect();
    assert_eq!(totals, [None, Some(1.0)]);
    assert_eq!(buffer.rollouts().next().unwrap().score("one"), Some(1.0));
}
