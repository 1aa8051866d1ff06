//! Engines that stop, hang and restart: no sample is lost or duplicated, and nothing waits forever.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rlvr::policy::causal::CausalModel;
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{AsyncEngine, Completion, GenerationConfig};

use super::bench::{Bench, ask, assert_true, policy, requests};
use super::mock::{Fault, Mock, Options};
use crate::common::metric_table::table;
use crate::common::until;

fn slow() -> Options {
    Options {
        pace: Duration::from_millis(4),
        ..Options::default()
    }
}

fn running(mock: &Mock) -> usize {
    mock.gauges().running.load(Ordering::SeqCst)
}

fn tokens(answers: &[Vec<Completion>]) -> Vec<Vec<Vec<u32>>> {
    let group = |group: &Vec<Completion>| group.iter().map(|c| c.tokens.clone()).collect();
    answers.iter().map(group).collect()
}

#[test]
fn a_killed_engine_loses_no_sample() {
    let bench = Bench::new(2, slow());
    let mut engines = bench.connect("vllm");
    let config = GenerationConfig::new(30, vec![]);
    let asked = requests(8, 4);
    let expected = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("it is busy", || running(&bench.mocks[1]) >= 4);
            bench.mocks[1].kill();
        });
        let answers = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
        assert_eq!(tokens(&answers), tokens(&expected));
        assert_true(&policy(0), &asked, &answers, &config.sampling);
    });
    let metrics = AsyncEngine::<CausalModel>::metrics(&mut engines);
    assert_eq!(
        (metrics["engine/ready"], metrics["engine/outages"]),
        (1.0, 1.0)
    );
}

#[test]
fn the_only_engine_can_be_restarted_during_a_request() {
    for stream in [false, true] {
        let bench = Bench::new(1, slow());
        let mut engines = RemoteEngines::connect(RemoteConfig {
            stream,
            ..bench.config("vllm")
        })
        .unwrap();
        let config = GenerationConfig::new(30, vec![]);
        let asked = requests(3, 3);
        ask(&mut engines, &policy(2), 5, &asked[..1], &config).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                until("it is busy", || running(&bench.mocks[0]) >= 4);
                std::thread::sleep(Duration::from_millis(30));
                bench.mocks[0].kill();
                std::thread::sleep(Duration::from_millis(500));
                bench.mocks[0].restart();
            });
            let answers = ask(&mut engines, &policy(2), 5, &asked, &config).unwrap();
            assert_true(&policy(2), &asked, &answers, &config.sampling);
        });
    }
}

#[test]
fn engines_that_stay_down_are_errors_and_can_return_later() {
    let bench = Bench::new(2, Options::default());
    let mut engines = RemoteEngines::connect(RemoteConfig {
        retry_for: Duration::from_secs(1),
        ..bench.config("vllm")
    })
    .unwrap();
    let config = GenerationConfig::new(4, vec![]);
    ask(&mut engines, &policy(0), 0, &requests(1, 1), &config).unwrap();
    bench.mocks.iter().for_each(Mock::kill);
    let (sender, receiver) = mpsc::channel();
    let asked = requests(3, 2);
    for request in &asked {
        AsyncEngine::<CausalModel>::submit(&mut engines, request.clone(), &config, &sender)
            .unwrap();
    }
    let mut tickets = BTreeSet::new();
    for _ in &asked {
        let answer = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        assert!(tickets.insert(answer.ticket));
        assert_eq!(answer.completions.len(), 2);
        for failed in answer.completions {
            let message = failed.unwrap_err().to_string();
            for word in [
                &bench.mocks[0].address("vllm")[..],
                "no engine has been available",
                "restart the engines",
                "sample ",
            ] {
                assert!(message.contains(word), "{message}");
            }
        }
    }
    let refused = AsyncEngine::<CausalModel>::check(&mut engines)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("no engine has been available"),
        "{refused}"
    );
    assert!(
        AsyncEngine::<CausalModel>::submit(&mut engines, asked[0].clone(), &config, &sender)
            .is_err()
    );
    bench.mocks[0].restart();
    until("it is back", || {
        AsyncEngine::<CausalModel>::check(&mut engines).is_ok()
    });
    let answers = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    assert_true(&policy(0), &asked, &answers, &config.sampling);
}

#[test]
fn loading_waits_for_an_engine_that_is_restarted() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    let config = GenerationConfig::new(4, vec![]);
    ask(&mut engines, &policy(0), 0, &requests(1, 1), &config).unwrap();
    bench.mocks[0].kill();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(700));
            bench.mocks[0].restart();
        });
        let asked = requests(2, 2);
        let answers = ask(&mut engines, &policy(1), 1, &asked, &config).unwrap();
        assert_true(&policy(1), &asked, &answers, &config.sampling);
    });
}

#[test]
fn a_hanging_engine_times_out_once() {
    let bench = Bench::new(2, Options::default());
    let patience = |count: usize| {
        let mut config = bench.config("vllm");
        config.engines.truncate(count);
        config.request_timeout = Duration::from_secs(3);
        config.weights = bench.root.path().join(format!("weights-{count}"));
        config
    };
    let config = GenerationConfig::new(4, vec![]);
    let asked = requests(2, 1);
    let mut engines = RemoteEngines::connect(patience(2)).unwrap();
    let expected = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    bench.mocks[0].script("/v1/completions", Fault::Hang(Duration::from_secs(600)), 1);
    let answers = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    assert_eq!(tokens(&answers), tokens(&expected));
    assert_eq!(
        AsyncEngine::<CausalModel>::metrics(&mut engines)["engine/timeouts"],
        1.0
    );
    drop(engines);

    let mut engines = RemoteEngines::connect(patience(1)).unwrap();
    ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    bench.mocks[0].script("/v1/completions", Fault::Hang(Duration::from_secs(600)), 1);
    let message = ask(&mut engines, &policy(0), 0, &asked, &config)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("no answer in time") && message.contains("request_timeout"),
        "{message}"
    );
}

#[test]
fn a_broken_stream_continues_from_the_received_tokens() {
    let bench = Bench::new(1, Options::default());
    let mut engines = RemoteEngines::connect(RemoteConfig {
        stream: true,
        ..bench.config("vllm")
    })
    .unwrap();
    let config = GenerationConfig::new(9, vec![]);
    let asked = requests(1, 1);
    let whole = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    bench.mocks[0].forget();
    bench.mocks[0].script("/v1/completions", Fault::CloseInside(2), 1);
    let answers = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    assert_true(&policy(0), &asked, &answers, &config.sampling);
    let bodies = bench.mocks[0].asked("/v1/completions");
    assert_eq!(bodies.len(), 2);
    let prompt = bodies[1]["prompt"].as_array().unwrap();
    let sent: Vec<u32> = prompt
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect();
    assert_eq!(
        sent,
        [&asked[0].prompt[..], &whole[0][0].tokens[..4]].concat()
    );
    assert_eq!(answers[0][0].tokens[..4], whole[0][0].tokens[..4]);
    assert_eq!(
        (
            bodies[0]["max_tokens"].as_u64(),
            bodies[1]["max_tokens"].as_u64()
        ),
        (Some(9), Some(5))
    );
    assert_eq!(answers[0][0].tokens.len(), 9);
}

#[test]
fn a_request_that_kills_engines_is_not_retried_forever() {
    let bench = Bench::new(1, Options::default());
    let mut engines = RemoteEngines::connect(RemoteConfig {
        retry_for: Duration::from_secs(1),
        ..bench.config("vllm")
    })
    .unwrap();
    let config = GenerationConfig::new(4, vec![]);
    ask(&mut engines, &policy(0), 0, &requests(1, 1), &config).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    bench.mocks[0].script("/v1/completions", Fault::Die, 1000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(100));
                bench.mocks[0].restart();
            }
        });
        let message = ask(&mut engines, &policy(0), 0, &requests(1, 1), &config)
            .unwrap_err()
            .to_string();
        done.store(true, Ordering::SeqCst);
        assert!(
            message.contains(&bench.mocks[0].address("vllm")),
            "{message}"
        );
    });
}

#[test]
fn requests_in_flight_are_limited_and_groups_stay_together() {
    let bench = Bench::new(2, slow());
    let mut engines = RemoteEngines::connect(RemoteConfig {
        max_in_flight: 3,
        ..bench.config("vllm")
    })
    .unwrap();
    let config = GenerationConfig::new(5, vec![]);
    let asked = requests(6, 4);
    ask(&mut engines, &policy(0), 0, &asked[..1], &config).unwrap();
    bench.mocks.iter().for_each(Mock::forget);
    // Nothing is answered before everything was submitted.
    bench.mocks.iter().for_each(|mock| mock.hold(true));
    let (sender, receiver) = mpsc::channel();
    for request in &asked {
        AsyncEngine::<CausalModel>::submit(&mut engines, request.clone(), &config, &sender)
            .unwrap();
    }
    bench.mocks.iter().for_each(|mock| mock.hold(false));
    for _ in &asked {
        receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    let mut seen = BTreeSet::new();
    for mock in &bench.mocks {
        let most = mock.gauges().most_running.load(Ordering::SeqCst);
        assert!((1..=3).contains(&most), "{most}");
        let prompts: Vec<String> = mock
            .asked("/v1/completions")
            .iter()
            .map(|body| body["prompt"].to_string())
            .collect();
        assert_eq!(prompts.len(), 12, "half of the work each");
        let own: BTreeSet<String> = prompts.into_iter().collect();
        assert!(
            own.iter().all(|prompt| seen.insert(prompt.clone())),
            "a group is on two engines"
        );
    }
    assert_eq!(seen.len(), 6);
}

#[test]
fn dropping_cancels_requests_and_ends_threads() {
    let bench = Bench::new(
        1,
        Options {
            pace: Duration::from_millis(50),
            ..Options::default()
        },
    );
    let mut engines = bench.connect("vllm");
    AsyncEngine::<CausalModel>::load(&mut engines, &policy(0), 0).unwrap();
    let (sender, receiver) = mpsc::channel();
    let config = GenerationConfig::new(200, vec![]);
    AsyncEngine::<CausalModel>::submit(&mut engines, requests(1, 3).remove(0), &config, &sender)
        .unwrap();
    until("all samples run", || running(&bench.mocks[0]) == 3);
    bench.mocks[0].script("/v1/completions", Fault::Hang(Duration::from_secs(600)), 1);
    AsyncEngine::<CausalModel>::submit(&mut engines, requests(2, 1).remove(1), &config, &sender)
        .unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    drop(engines);
    // Far less than the duration of the last request.
    assert!(start.elapsed() < Duration::from_secs(60));
    drop(sender);
    let answers: Vec<_> = receiver.into_iter().collect();
    assert_eq!(answers.len(), 2, "every request is answered");
    assert!(
        answers
            .iter()
            .flat_map(|answer| &answer.completions)
            .all(Result::is_err)
    );
    until("the server noticed", || running(&bench.mocks[0]) == 0);
    assert_eq!(bench.mocks[0].gauges().closed.load(Ordering::SeqCst), 3);
}

#[test]
fn metrics_cover_the_time_since_the_last_call() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    let config = GenerationConfig::new(5, vec![]);
    ask(&mut engines, &policy(0), 0, &requests(1, 1), &config).unwrap();
    let first = AsyncEngine::<CausalModel>::metrics(&mut engines);
    assert_eq!(
        (first["engine/completions"], first["engine/tokens"]),
        (1.0, 5.0)
    );
    assert!(first["engine/load_seconds"] > 0.0);
    bench.mocks[0].script("/v1/completions", Fault::Status(503), 1);
    ask(&mut engines, &policy(0), 0, &requests(2, 2), &config).unwrap();
    let second = AsyncEngine::<CausalModel>::metrics(&mut engines);
    assert_eq!(
        (second["engine/completions"], second["engine/retries"]),
        (4.0, 1.0)
    );
    assert_eq!(
        (
            second["engine/in_flight"],
            second["engine/queued"],
            second["engine/ready"]
        ),
        (0.0, 0.0, 1.0)
    );
    assert_eq!(second["engine/load_seconds"], 0.0);

    // The table of metrics has these, and those of an engine in this process.
    let here = ["engine/running", "engine/waiting", "engine/idle_seconds"];
    let mut listed: Vec<&str> = table()
        .into_iter()
        .filter(|name| name.starts_with("engine/") && !here.contains(name))
        .collect();
    listed.sort_unstable();
    assert!(first.keys().eq(listed), "{:?}", first.keys());
}
