//! Weight updates: whole models and adapters, over updates, failures and restarts.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use burn::tensor::Tensor;
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{
    Answer, AsyncEngine, Completion, GenerationConfig, GenerationRequest, InFlight,
};

use super::bench::{
    Bench, ask, assert_true, generation, log_probs, mismatch, policy, requests, versions,
};
use super::mock::{Fault, Options};
use crate::common::until;

fn slow() -> Options {
    Options {
        pace: Duration::from_millis(5),
        ..Options::default()
    }
}

fn load(engines: &mut RemoteEngines, policy: &CausalModel, version: u64) -> rlvr::Result<()> {
    AsyncEngine::<CausalModel>::load(engines, policy, version)
}

fn submit(
    engines: &mut RemoteEngines,
    request: GenerationRequest,
    config: &GenerationConfig,
) -> Receiver<Answer> {
    let (sender, receiver) = mpsc::channel();
    AsyncEngine::<CausalModel>::submit(engines, request, config, &sender).unwrap();
    receiver
}

fn completions(receiver: &Receiver<Answer>) -> Vec<Completion> {
    let answer = receiver.recv_timeout(Duration::from_secs(60)).unwrap();
    answer.completions.into_iter().map(Result::unwrap).collect()
}

/// Adapters with a nonzero effect.
fn adapted(seed: u64) -> CausalModel {
    let config = LoraConfig {
        rank: 3,
        alpha: 5.0,
        seed,
        ..LoraConfig::default()
    };
    let mut model = policy(0).with_lora(&config).unwrap();
    for block in &mut model.layers {
        for projection in [&mut block.self_attn.q_proj, &mut block.mlp.down_proj] {
            let lora = projection.lora.as_mut().unwrap();
            let b = lora.b.clone().map(|b| {
                let count = b.dims().iter().product::<usize>();
                let values: Vec<f32> = (0..count)
                    .map(|at| ((at as f32 + seed as f32) * 1.7).sin() * 0.5)
                    .collect();
                let shape = b.dims();
                Tensor::<1>::from_floats(values.as_slice(), &b.device()).reshape(shape)
            });
            lora.b = b;
        }
    }
    model
}

#[test]
fn weights_are_updated_and_two_versions_stay_on_disk() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    let config = generation(6);
    for version in 0..4 {
        let policy = policy(version);
        let requests = requests(3, 2);
        let answers = ask(&mut engines, &policy, version, &requests, &config).unwrap();
        assert_true(&policy, &requests, &answers, &config.sampling);
        let spans = answers
            .iter()
            .flatten()
            .flat_map(|completion| &completion.versions);
        assert!(spans.clone().all(|span| span.version == version));
    }
    assert_eq!(versions(&bench.weights()), ["v000002", "v000003"]);
    let commands = [
        "/pause",
        "/collective_rpc",
        "/update_weight_version",
        "/reset_prefix_cache",
        "/resume",
    ];
    let paths = bench.mocks[0].paths();
    let asked: Vec<&String> = paths
        .iter()
        .filter(|path| commands.iter().any(|c| path.starts_with(c)))
        .collect();
    assert_eq!(asked.len(), 4 * commands.len());
    for (path, command) in asked.iter().zip(commands.iter().cycle()) {
        assert!(path.starts_with(command), "{asked:?}");
    }
}

#[test]
fn a_loaded_version_is_not_loaded_again() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm-generate");
    for _ in 0..2 {
        ask(&mut engines, &policy(0), 7, &requests(1, 1), &generation(2)).unwrap();
    }
    assert_eq!(bench.mocks[0].asked("/collective_rpc").len(), 1);
    assert_eq!(AsyncEngine::<CausalModel>::version(&engines), Some(7));
}

#[test]
fn adapters_get_new_names_and_requests_in_flight_keep_theirs() {
    for kind in ["vllm", "vllm-generate", "sglang"] {
        let bench = Bench::new(1, slow());
        let mut engines = bench.connect(kind);
        let (first, second) = (adapted(1), adapted(2));
        let prompt: Vec<u32> = (0..9).collect();
        load(&mut engines, &first, 1).unwrap();
        let config = GenerationConfig::new(60, vec![]);
        let long = submit(
            &mut engines,
            GenerationRequest::new(prompt.clone(), 2, [1]),
            &config,
        );
        let mock = &bench.mocks[0];
        until("both samples run", || {
            mock.gauges()
                .running
                .load(std::sync::atomic::Ordering::SeqCst)
                >= 2
        });
        load(&mut engines, &second, 2).unwrap();
        assert_eq!(
            mock.adapters().len(),
            2,
            "the first was unloaded while it was used"
        );
        for completion in completions(&long) {
            assert!(mismatch(&first, &prompt, &completion, 1.0) < 1e-4);
            assert!(
                mismatch(&policy(0), &prompt, &completion, 1.0) > 1e-2,
                "the adapter does nothing"
            );
            assert_eq!(
                completion
                    .versions
                    .iter()
                    .map(|span| span.version)
                    .collect::<Vec<_>>(),
                [1]
            );
        }
        let asked = requests(2, 2);
        let answers = ask(&mut engines, &second, 2, &asked, &generation(6)).unwrap();
        assert_true(&second, &asked, &answers, &generation(6).sampling);
        until("the first is unloaded", || mock.adapters().len() == 1);
        load(&mut engines, &first, 3).unwrap();
        load(&mut engines, &second, 4).unwrap();
        until("old adapters are unloaded", || mock.adapters().len() == 1);
        assert!(mock.asked("/pause").is_empty() && mock.asked("/collective_rpc").is_empty());
        load(&mut engines, &first, 5).unwrap();
        let kept: BTreeSet<String> = versions(&bench.weights()).into_iter().collect();
        assert_eq!(
            kept,
            BTreeSet::from(["v000004".to_string(), "v000005".to_string()]),
            "{kind}"
        );
    }
}

#[test]
fn a_server_without_adapters_is_an_error_with_the_flag() {
    let bench = Bench::new(
        1,
        Options {
            lora: false,
            ..Options::default()
        },
    );
    let message = load(&mut bench.connect("vllm"), &adapted(1), 0)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("--enable-lora") && message.contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        "{message}"
    );
}

#[test]
fn redo_restarts_requests_in_flight() {
    for (kind, whole) in [
        ("vllm", true),
        ("vllm-generate", true),
        ("sglang", true),
        ("vllm", false),
    ] {
        let bench = Bench::new(1, slow());
        let mut engines = RemoteEngines::connect(RemoteConfig {
            in_flight: InFlight::Redo,
            ..bench.config(kind)
        })
        .unwrap();
        let [old, new] = match whole {
            true => [policy(0), policy(1)],
            false => [adapted(1), adapted(2)],
        };
        load(&mut engines, &old, 1).unwrap();
        let config = GenerationConfig::new(40, vec![]);
        let request = GenerationRequest::new(vec![4, 2], 3, [5, 5]);
        let answers = submit(&mut engines, request.clone(), &config);
        let gauges = bench.mocks[0].gauges();
        until("all samples run", || {
            gauges.running.load(std::sync::atomic::Ordering::SeqCst) >= 3
        });
        std::thread::sleep(Duration::from_millis(50));
        load(&mut engines, &new, 2).unwrap();
        let redone = completions(&answers);
        let again = ask(
            &mut engines,
            &new,
            2,
            std::slice::from_ref(&request),
            &config,
        )
        .unwrap()
        .remove(0);
        for (redone, again) in redone.iter().zip(&again) {
            assert!(
                mismatch(&new, &request.prompt, redone, 1.0) < 1e-4,
                "{kind}"
            );
            assert_eq!(
                redone
                    .versions
                    .iter()
                    .map(|span| span.version)
                    .collect::<Vec<_>>(),
                [2]
            );
            assert_eq!(redone.tokens, again.tokens, "the seed is the same");
        }
    }
}

#[test]
fn finish_completes_requests_in_flight_first() {
    for kind in ["vllm", "sglang"] {
        let bench = Bench::new(1, slow());
        let mut engines = RemoteEngines::connect(RemoteConfig {
            in_flight: InFlight::Finish,
            ..bench.config(kind)
        })
        .unwrap();
        let [old, new] = [policy(0), policy(1)];
        load(&mut engines, &old, 1).unwrap();
        let config = GenerationConfig::new(40, vec![]);
        let request = GenerationRequest::new(vec![4, 2], 3, [5, 5]);
        let answers = submit(&mut engines, request.clone(), &config);
        load(&mut engines, &new, 2).unwrap();
        for completion in completions(&answers) {
            let off = mismatch(&old, &request.prompt, &completion, 1.0);
            assert!(off < 1e-4, "{kind}: {off}");
            assert!(completion.versions.iter().all(|span| span.version == 1));
        }
    }
}

#[test]
fn an_engine_that_fails_to_load_gets_its_last_weights_back() {
    let bench = Bench::new(2, slow());
    let mut engines = bench.connect("vllm");
    load(&mut engines, &policy(0), 0).unwrap();
    let config = GenerationConfig::new(60, vec![]);
    let prompts: Vec<Vec<u32>> = (0..2).map(|at| vec![at, 7]).collect();
    let waiting: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            submit(
                &mut engines,
                GenerationRequest::new(prompt.clone(), 2, [u64::from(prompt[0])]),
                &config,
            )
        })
        .collect();
    until("all samples run", || {
        let running = |mock: &super::mock::Mock| {
            mock.gauges()
                .running
                .load(std::sync::atomic::Ordering::SeqCst)
        };
        bench.mocks.iter().map(running).sum::<usize>() >= 4
    });
    bench.mocks[0].script("/collective_rpc", Fault::Tear, 1);
    load(&mut engines, &policy(1), 1).unwrap();
    // The first engine went back to version 0. Its completions are of version 0 or 1, as they
    // report.
    let folders: Vec<String> = bench.mocks[0]
        .asked("/collective_rpc")
        .iter()
        .map(|body| {
            body["kwargs"]["weights_path"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_string()
        })
        .collect();
    assert_eq!(folders[..3], ["v000000", "v000001", "v000000"]);
    for (prompt, receiver) in prompts.iter().zip(&waiting) {
        for completion in completions(receiver) {
            assert_eq!(completion.tokens.len(), 60);
            let mut from = 0;
            for span in &completion.versions {
                let own = log_probs(&policy(span.version), prompt, &completion.tokens, 1.0);
                let range = from..from + span.tokens;
                let pairs = own[range.clone()].iter().zip(&completion.log_probs[range]);
                let worst = pairs
                    .map(|(own, theirs)| (own - theirs).abs())
                    .fold(0.0, f32::max);
                assert!(worst < 1e-4, "{span:?}: {worst}");
                from += span.tokens;
            }
        }
    }
    let asked = requests(4, 2);
    let answers = ask(&mut engines, &policy(1), 1, &asked, &generation(5)).unwrap();
    assert_true(&policy(1), &asked, &answers, &generation(5).sampling);
    until("it is back", || {
        AsyncEngine::<CausalModel>::metrics(&mut engines)["engine/ready"] == 2.0
    });
    let last = bench.mocks[0].asked("/collective_rpc");
    assert!(
        last.last().unwrap()["kwargs"]["weights_path"]
            .as_str()
            .unwrap()
            .ends_with("v000001")
    );
}

#[test]
fn an_engine_with_half_loaded_weights_is_an_error_until_restarted() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    ask(&mut engines, &policy(0), 0, &requests(1, 1), &generation(2)).unwrap();
    bench.mocks[0].script("/collective_rpc", Fault::Tear, 2);
    let message = load(&mut engines, &policy(1), 1).unwrap_err().to_string();
    assert!(
        message.contains("v000001") && message.contains("shapes do not match"),
        "{message}"
    );
    assert_eq!(AsyncEngine::<CausalModel>::version(&engines), None);
    let (sender, _receiver) = mpsc::channel();
    let refused = AsyncEngine::<CausalModel>::submit(
        &mut engines,
        requests(1, 1).remove(0),
        &generation(2),
        &sender,
    );
    assert!(refused.unwrap_err().to_string().contains("no weights"));
    bench.mocks[0].restart();
    let asked = requests(2, 2);
    let answers = ask(&mut engines, &policy(1), 1, &asked, &generation(4)).unwrap();
    assert_true(&policy(1), &asked, &answers, &generation(4).sampling);
}

#[test]
fn a_load_that_keeps_an_old_tensor_is_an_error() {
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    load(&mut engines, &policy(0), 0).unwrap();
    bench.mocks[0].script("/collective_rpc", Fault::KeepOneTensor, 1);
    let message = load(&mut engines, &policy(1), 1).unwrap_err().to_string();
    assert!(message.contains("nats from the policy's"), "{message}");
}

#[test]
fn a_prefix_cache_that_is_neither_reset_nor_salted_is_an_error() {
    let stale = Options {
        resets: false,
        ignores: vec!["cache_salt"],
        ..Options::default()
    };
    let bench = Bench::new(1, stale);
    let mut engines = bench.connect("vllm");
    load(&mut engines, &policy(0), 0).unwrap();
    let message = load(&mut engines, &policy(1), 1).unwrap_err().to_string();
    assert!(message.contains("nats from the policy's"), "{message}");
}

#[test]
fn a_restarted_server_gets_the_current_weights_first() {
    let labelled = Options {
        reports: false,
        ..Options::default()
    };
    for (kind, options) in [
        ("vllm", Options::default()),
        ("vllm", labelled),
        ("vllm-generate", Options::default()),
        ("sglang", Options::default()),
    ] {
        let bench = Bench::new(1, options);
        let mut engines = bench.connect(kind);
        let asked = requests(3, 2);
        ask(&mut engines, &policy(3), 1, &asked, &generation(6)).unwrap();
        // Restarted before its absence was noticed.
        bench.mocks[0].restart();
        let answers = ask(&mut engines, &policy(3), 1, &asked, &generation(6)).unwrap();
        assert_true(&policy(3), &asked, &answers, &generation(6).sampling);
    }
    let bench = Bench::new(1, Options::default());
    let mut engines = bench.connect("vllm");
    let asked = requests(3, 2);
    ask(&mut engines, &adapted(3), 1, &asked, &generation(6)).unwrap();
    bench.mocks[0].restart();
    let answers = ask(&mut engines, &adapted(3), 1, &asked, &generation(6)).unwrap();
    assert_true(&adapted(3), &asked, &answers, &generation(6).sampling);
}

#[test]
fn a_folder_of_weights_belongs_to_one_run() {
    let bench = Bench::new(1, Options::default());
    let _first = bench.connect("vllm");
    let message = RemoteEngines::connect(bench.config("vllm"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("another run"), "{message}");
}
