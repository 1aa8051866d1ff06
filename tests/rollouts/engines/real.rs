//! The same points against a real vLLM, where there is one:
//!
//! ```text
//! scripts/vllm-cpu.sh serve MODEL --enable-lora --max-lora-rank 16 --max-loras 2 &
//! RLVR_VLLM_URL=http://127.0.0.1:8000 RLVR_VLLM_MODEL=MODEL cargo test --features remote --test rollouts engines::real -- --nocapture
//! ```

use std::env;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::policy::hf::{LoadOptions, load};
use rlvr::prompt::Tokenizer;
use rlvr::prompt::hf::HfTokenizer;
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{AsyncEngine, GenerationConfig, GenerationRequest};

use super::bench::{ask, mismatch};
use super::conformance::Subject;
use crate::common::{report, until};

/// The number of requests that the server runs.
fn running(url: &str) -> usize {
    let text = ureq::get(format!("{url}/metrics"))
        .call()
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("vllm:num_requests_running"));
    let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    lines.map(count).sum::<f64>() as usize
}

#[test]
fn a_real_server_conforms() {
    let Ok(url) = env::var("RLVR_VLLM_URL") else {
        return;
    };
    let model = PathBuf::from(
        env::var("RLVR_VLLM_MODEL").expect("RLVR_VLLM_MODEL, the folder that is served"),
    );
    let device = Device::flex().autodiff();
    let policy = load(&model, &LoadOptions::f32(), &device).unwrap();
    let mut other = policy.clone();
    // Half the logits, and other keys and values.
    other.norm.gamma = other.norm.gamma.map(|gamma| gamma * 0.5);
    let norm = &mut other.layers[0].input_layernorm;
    norm.gamma = norm.gamma.clone().map(|gamma| gamma * 0.9);
    let tokenizer = HfTokenizer::from_folder(&model).unwrap();
    let text = |text: &str| tokenizer.encode(text).unwrap();

    let root = tempfile::tempdir().unwrap();
    let kinds = env::var("RLVR_VLLM_KINDS").unwrap_or_else(|_| "vllm,vllm-generate".into());
    for (index, kind) in kinds.split(',').enumerate() {
        let running = || running(&url);
        let config = RemoteConfig {
            max_in_flight: 16,
            ..RemoteConfig::new(
                vec![format!("{kind}={url}").parse().unwrap()],
                root.path().join(index.to_string()),
            )
        };
        let mut subject = Subject::new(config.clone(), [policy.clone(), other.clone()], &running);
        subject.prompt = text("The capital of");
        let words = ["one", "two", "three", "four", "five", "six", "seven"];
        subject.long = text(
            &(0..300)
                .map(|at| words[at * 5 % 7])
                .collect::<Vec<_>>()
                .join(" "),
        );
        subject.long.truncate(300);
        subject.ending = text("<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.");
        subject.draws = 300;
        report(&format!("== {kind}"));
        subject.run();
        report(&format!(
            "log-probs are up to {:.6} nats from the trainer's",
            subject.worst
        ));
        drop(subject);
        report(&format!("== {kind}, adapters"));
        adapters(&policy, config.clone(), &text("The capital of"));
        killed(&policy, config, &text("The capital of"), &running);
    }
}

/// The last point, with `RLVR_VLLM_RESTART`, a command that kills the server (-9) and starts
/// another one: requests in flight are answered.
fn killed(policy: &CausalModel, config: RemoteConfig, prompt: &[u32], running: &dyn Fn() -> usize) {
    let Ok(command) = env::var("RLVR_VLLM_RESTART") else {
        return;
    };
    let start = std::time::Instant::now();
    let config = RemoteConfig {
        stream: true,
        retry_for: Duration::from_secs(15 * 60),
        ..config
    };
    let mut engines = RemoteEngines::connect(config).unwrap();
    let (sender, receiver) = mpsc::channel();
    let request = GenerationRequest::new(prompt.to_vec(), 4, [17]);
    AsyncEngine::<CausalModel>::load(&mut engines, policy, 17).unwrap();
    let config = GenerationConfig::new(60, vec![]);
    AsyncEngine::<CausalModel>::submit(&mut engines, request, &config, &sender).unwrap();
    until("all samples run", || running() >= 4);
    std::thread::sleep(Duration::from_secs(2));
    let status = std::process::Command::new("sh")
        .args(["-c", &command])
        .status();
    assert!(status.unwrap().success());
    let answer = receiver.recv_timeout(Duration::from_secs(15 * 60)).unwrap();
    assert_eq!(answer.completions.len(), 4);
    for completion in answer.completions {
        let completion = completion.unwrap();
        assert_eq!(completion.tokens.len(), 60);
        assert!(mismatch(policy, prompt, &completion, 1.0) < 1e-4);
    }
    let metrics = AsyncEngine::<CausalModel>::metrics(&mut engines);
    let seconds = start.elapsed().as_secs_f64();
    report(&format!(
        "17: killed in the middle, nothing is lost: ok ({seconds:.1} s); {metrics:?}"
    ));
}

/// Nonzero adapters, over three versions.
fn adapters(policy: &CausalModel, config: RemoteConfig, prompt: &[u32]) {
    let mut engines = RemoteEngines::connect(config).unwrap();
    for version in 1..4 {
        let lora = LoraConfig {
            rank: 8,
            alpha: 11.0,
            seed: version,
            ..LoraConfig::default()
        };
        let mut adapted = policy.clone().with_lora(&lora).unwrap();
        for block in &mut adapted.layers {
            let lora = block.mlp.down_proj.lora.as_mut().unwrap();
            lora.b = lora.b.clone().map(|b| {
                let shape = b.dims();
                let count = shape.iter().product::<usize>();
                let wave = |at: usize| ((at as f32 + version as f32) * 1.7).sin() * 0.02;
                let values: Vec<f32> = (0..count).map(wave).collect();
                Tensor::<1>::from_floats(values.as_slice(), &b.device()).reshape(shape)
            });
        }
        let request = GenerationRequest::new(prompt.to_vec(), 2, [version]);
        let start = std::time::Instant::now();
        let found = ask(
            &mut engines,
            &adapted,
            version,
            &[request],
            &GenerationConfig::new(6, vec![]),
        )
        .unwrap();
        let worst = found[0]
            .iter()
            .map(|c| mismatch(&adapted, prompt, c, 1.0))
            .fold(0.0, f64::max);
        let base = found[0]
            .iter()
            .map(|c| mismatch(policy, prompt, c, 1.0))
            .fold(0.0, f64::max);
        let seconds = start.elapsed().as_secs_f64();
        report(&format!(
            "version {version}: {worst:.6} from the trainer's, {base:.4} from the base model's ({seconds:.1} s)"
        ));
        assert!(worst < 1e-4 && base > 10.0 * worst);
    }
    std::thread::sleep(Duration::from_secs(5));
}
