//! The same points against a real vLLM, where there is one:
//!
//! ```text
//! scripts/vllm-cpu.sh serve MODEL --enable-lora --max-lora-rank 16 --max-loras 2 &
//! RLVR_VLLM_URL=http://127.0.0.1:8000 RLVR_VLLM_MODEL=MODEL cargo test --features remote --test engines real -- --nocapture
//! ```

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::{Device, Tensor};
use rlvr::policy::causal::{CausalModel, LoraConfig};
use rlvr::policy::hf::{LoadOptions, load};
use rlvr::prompt::Tokenizer;
use rlvr::prompt::hf::HfTokenizer;
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{GenerationConfig, GenerationRequest};

use crate::bench::{ask, mismatch, report};
use crate::conformance::Subject;

/// How many requests the server is working on.
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
fn a_real_server_keeps_every_point() {
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
        (subject.draws, subject.tolerance) = (300, 2e-3);
        report(&format!("== {kind}"));
        subject.run();
        drop(subject);
        report(&format!("== {kind}, adapters"));
        adapters(&policy, config, &text("The capital of"));
    }
}

/// Adapters that do something, over three versions.
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
        assert!(worst < 2e-3 && base > 10.0 * worst);
    }
    std::thread::sleep(Duration::from_secs(5));
}
