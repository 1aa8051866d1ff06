//! Every fault of an engine, once and permanently.

use std::time::Duration;

use rlvr::policy::causal::CausalModel;
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{AsyncEngine, GenerationConfig};

use super::bench::{Bench, ask, assert_true, policy, requests};
use super::mock::{Fault, Options};

fn path(kind: &str) -> &'static str {
    match kind {
        "vllm" => "/v1/completions",
        "vllm-generate" => "/inference",
        _ => "/generate",
    }
}

/// The fault happens once, and the answers are what they would have been without it.
fn recovers(bench: &Bench, kind: &str, stream: bool, faults: &[Fault]) {
    let config = RemoteConfig {
        stream,
        ..bench.config(kind)
    };
    let mut engines = RemoteEngines::connect(config).unwrap();
    let config = GenerationConfig::new(9, vec![]);
    let asked = requests(2, 2);
    let expected = ask(&mut engines, &policy(0), 0, &asked, &config).unwrap();
    for fault in faults {
        bench.mocks[0].script(path(kind), fault.clone(), 1);
        let answers = ask(&mut engines, &policy(0), 0, &asked, &config);
        let answers = answers.unwrap_or_else(|error| panic!("{kind}, {fault:?}: {error}"));
        assert!(bench.mocks[0].script_is_done(), "{fault:?} did not happen");
        assert_true(&policy(0), &asked, &answers, &config.sampling);
        let whole = !matches!(fault, Fault::CloseInside(_)) || !stream;
        for (found, expected) in answers.iter().flatten().zip(expected.iter().flatten()) {
            assert_eq!(found.tokens.len(), expected.tokens.len());
            // The continued part has another seed.
            assert!(
                !whole || found.tokens == expected.tokens,
                "{kind}, {fault:?}"
            );
        }
    }
}

/// The faults of every protocol.
fn common() -> Vec<Fault> {
    vec![
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::RetryAfter(1),
        Fault::CloseBefore,
        Fault::CloseInside(1),
        Fault::ErrorInside,
        Fault::ShortLogProbs,
        Fault::NullLogProb,
        Fault::MinusInfinity,
        Fault::PositiveLogProb,
        Fault::UnknownToken,
        Fault::OtherPrompt,
        Fault::Label("default"),
        Fault::ShortSpans,
        Fault::AbortEmpty,
        Fault::StrangeFinish,
        Fault::Garbage,
    ]
}

#[test]
fn completions_recover_from_every_fault() {
    let faults = [common(), vec![Fault::Choices(2), Fault::Choices(0)]].concat();
    recovers(&Bench::new(1, Options::default()), "vllm", false, &faults);
}

#[test]
fn streams_of_completions_recover_from_every_fault() {
    recovers(&Bench::new(1, Options::default()), "vllm", true, &common());
}

#[test]
fn generate_recovers_from_every_fault() {
    let bench = Bench::new(
        1,
        Options {
            closes: true,
            ..Options::default()
        },
    );
    recovers(&bench, "vllm-generate", false, &common());
}

#[test]
fn sglang_recovers_from_every_fault() {
    recovers(
        &Bench::new(1, Options::default()),
        "sglang",
        false,
        &common(),
    );
    recovers(
        &Bench::new(1, Options::default()),
        "sglang",
        true,
        &common(),
    );
}

#[test]
fn lasting_faults_are_errors_with_location_and_remedy() {
    let bench = Bench::new(1, Options::default());
    for (fault, words) in [
        (Fault::Status(400), ["status 400", "by script"]),
        (Fault::Status(404), ["status 404", "kind and version"]),
        (Fault::Status(403), ["status 403", "--enable-scale-out"]),
        (Fault::Status(500), ["status 500", "log"]),
        (Fault::Status(503), ["status 503", "retry_for"]),
        (Fault::CloseBefore, ["connection", "restart"]),
        (Fault::NullLogProb, ["null", "processed_logprobs"]),
        (Fault::OtherPrompt, ["prompt", "without adding a template"]),
        (Fault::UnknownToken, ["999999", "policy's own model"]),
    ] {
        let config = RemoteConfig {
            retry_for: Duration::from_secs(2),
            ..bench.config("vllm")
        };
        let mut engines = RemoteEngines::connect(config).unwrap();
        AsyncEngine::<CausalModel>::load(&mut engines, &policy(0), 0).unwrap();
        bench.mocks[0].script("/v1/completions", fault.clone(), usize::MAX);
        let refused = ask(
            &mut engines,
            &policy(0),
            0,
            &requests(1, 2),
            &GenerationConfig::new(4, vec![]),
        );
        let message = refused.unwrap_err().to_string();
        let always = [
            bench.mocks[0].address("vllm"),
            "sample ".into(),
            "[9, 0]".into(),
        ];
        for word in words
            .iter()
            .copied()
            .chain(always.iter().map(String::as_str))
        {
            assert!(message.contains(word), "{fault:?}, {word}: {message}");
        }
        drop(engines);
        bench.mocks[0].clear_script();
    }
}
