//! Errors for misconfigured servers.

use burn::module::Module;
use rlvr::policy::causal::CausalModel;
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{AsyncEngine, GenerationConfig, InFlight, SamplingConfig};

use super::bench::{Bench, ask, generation, policy, requests};
use super::mock::Options;

/// The error for an engine of this kind, on connecting or on loading weights.
fn refusal(kind: &str, options: Options, edit: impl Fn(&mut RemoteConfig)) -> String {
    let bench = Bench::new(1, options);
    let mut config = bench.config(kind);
    edit(&mut config);
    let loaded = RemoteEngines::connect(config)
        .and_then(|mut engines| AsyncEngine::<CausalModel>::load(&mut engines, &policy(0), 0));
    let message = loaded.expect_err("it was accepted").to_string();
    assert!(message.contains(&bench.mocks[0].address(kind)), "{message}");
    message
}

#[test]
fn a_misconfigured_server_is_an_error_that_names_the_flag() {
    let base = Options::default;
    let ignoring = |field| Options {
        ignores: vec![field],
        ..base()
    };
    let cases: Vec<(&str, Options, &str)> = vec![
        (
            "vllm",
            Options {
                raw: true,
                ..base()
            },
            "--logprobs-mode processed_logprobs",
        ),
        (
            "vllm-generate",
            Options {
                raw: true,
                ..base()
            },
            "--logprobs-mode processed_logprobs",
        ),
        (
            "vllm",
            Options {
                dev_mode: false,
                ..base()
            },
            "VLLM_SERVER_DEV_MODE=1",
        ),
        (
            "vllm-generate",
            Options {
                scale_out: false,
                ..base()
            },
            "--enable-scale-out",
        ),
        (
            "vllm",
            Options {
                key: Some("k"),
                ..base()
            },
            "api_key",
        ),
        (
            "vllm",
            Options {
                secret_temperature: 1.3,
                ..base()
            },
            "--generation-config vllm",
        ),
        (
            "sglang",
            Options {
                secret_temperature: 1.3,
                ..base()
            },
            "SGLANG_RETURN_ORIGINAL_LOGPROB",
        ),
        ("vllm", ignoring("max_tokens"), "16 tokens, 1"),
        ("vllm", ignoring("temperature"), "--logprobs-mode"),
        ("vllm", ignoring("stop_token_ids"), "stop_token_ids"),
        ("vllm", ignoring("seed"), "nine seeds"),
        ("vllm", ignoring("top_k"), "top_k"),
    ];
    for (kind, options, word) in cases {
        let message = refusal(kind, options, |_| {});
        assert!(message.contains(word), "expected {word:?}: {message}");
    }
    let no_reports = Options {
        reports: false,
        ..base()
    };
    let in_place =
        |config: &mut RemoteConfig| config.in_flight = InFlight::Continue { recompute: false };
    let message = refusal("vllm", no_reports, in_place);
    assert!(message.contains("recompute: false"), "{message}");
}

#[test]
fn another_model_is_an_error_before_the_engine_is_changed() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    let other = rlvr::policy::causal::CausalConfig {
        num_hidden_layers: 1,
        ..policy(0).config().clone()
    };
    let other = other
        .init(
            0,
            &policy(0).valid().embed_tokens.weight.device().autodiff(),
        )
        .unwrap();
    let message = AsyncEngine::<CausalModel>::load(&mut engines, &other, 0)
        .unwrap_err()
        .to_string();
    assert!(message.contains("missing: model.layers.1."), "{message}");
    assert!(
        bench.mocks[0].asked("/pause").is_empty()
            && bench.mocks[0].asked("/collective_rpc").is_empty()
    );
    // The correct model still loads.
    ask(&mut engines, &policy(0), 1, &requests(1, 1), &generation(3)).unwrap();
}

#[test]
fn the_api_key_is_sent() {
    let bench = Bench::new(
        1,
        Options {
            key: Some("secret"),
            ..Options::default()
        },
    );
    let config = RemoteConfig {
        api_key: Some("secret".into()),
        ..bench.config("vllm")
    };
    let mut engines = RemoteEngines::connect(config).unwrap();
    ask(&mut engines, &policy(0), 0, &requests(1, 1), &generation(3)).unwrap();
}

#[test]
fn an_unreachable_server_is_an_error() {
    let bench = Bench::new(1, Options::default());
    bench.mocks[0].kill();
    let message = RemoteEngines::connect(bench.config("vllm"))
        .unwrap_err()
        .to_string();
    assert!(
        message.contains(&bench.mocks[0].address("vllm")),
        "{message}"
    );
    assert!(
        message.contains("check that the engine is running"),
        "{message}"
    );
}

#[test]
fn invalid_requests_are_errors() {
    let bench = Bench::new(
        1,
        Options {
            max_model_len: 100,
            ..Options::default()
        },
    );
    let mut engines = bench.connect("vllm");
    let (sender, _receiver) = std::sync::mpsc::channel();
    let submit = |engines: &mut RemoteEngines,
                  edit: fn(&mut rlvr::rollout::GenerationRequest),
                  config: GenerationConfig| {
        let mut request = requests(1, 1).remove(0);
        edit(&mut request);
        AsyncEngine::<CausalModel>::submit(engines, request, &config, &sender)
            .map_err(|error| error.to_string())
    };
    let early = submit(&mut engines, |_| {}, generation(3)).unwrap_err();
    assert!(early.contains("no weights"), "{early}");
    AsyncEngine::<CausalModel>::load(&mut engines, &policy(0), 0).unwrap();
    submit(&mut engines, |_| {}, generation(97)).unwrap();
    for (edit, config, word) in [
        (
            (|r| r.prompt.clear()) as fn(&mut rlvr::rollout::GenerationRequest),
            generation(3),
            "0 tokens",
        ),
        (|r| r.prompt.push(61), generation(3), "token id 61"),
        (|_| {}, GenerationConfig::new(3, vec![70]), "stop_tokens"),
        (|_| {}, generation(0), "max_new_tokens"),
        (|_| {}, generation(98), "--max-model-len"),
    ] {
        let message = submit(&mut engines, edit, config).unwrap_err();
        assert!(message.contains(word), "{word}: {message}");
    }
    // Greedy completions have log-probs of 0, as in the local engine.
    let greedy = generation(4).with_sampling(SamplingConfig::greedy());
    let found = ask(&mut engines, &policy(0), 0, &requests(1, 2), &greedy).unwrap();
    assert_eq!(found[0][0].tokens, found[0][1].tokens);
    assert!(
        found[0][0]
            .log_probs
            .iter()
            .all(|&log_prob| log_prob == 0.0)
    );
}
