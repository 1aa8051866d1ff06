//! Helpers of the engine tests: models on disk, connections to mock servers, and the trainer's own
//! forward pass.

use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::module::Module;
use burn::tensor::Device;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::hf::{SaveOptions, save};
use rlvr::policy::{LogProbConfig, PolicyModel, TokenBatch, token_log_probs};
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{
    Completion, GenerationConfig, GenerationRequest, SamplingConfig, generate_with,
};
use tempfile::TempDir;

use super::mock::{Mock, Options};

pub const VOCABULARY: usize = 61;

/// A policy with autodiff, as in a trainer, with distributions far from uniform.
pub fn policy(seed: u64) -> CausalModel {
    let config = CausalConfig {
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 256,
        tie_word_embeddings: false,
        ..CausalConfig::new(VOCABULARY)
    };
    let mut model = config.init(seed, &Device::flex().autodiff()).unwrap();
    model.norm.gamma = model.norm.gamma.map(|gamma| gamma * 2.0);
    model
}

/// Mocks that serve the policy of seed 0, and a folder for weights.
pub struct Bench {
    pub mocks: Vec<Mock>,
    pub root: TempDir,
}

impl Bench {
    pub fn new(count: usize, options: Options) -> Self {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("served");
        save(&policy(0).valid(), &folder, &SaveOptions::default()).unwrap();
        let mocks = (0..count)
            .map(|_| Mock::start(&folder, options.clone()))
            .collect();
        Self { mocks, root }
    }

    pub fn weights(&self) -> PathBuf {
        self.root.path().join("weights")
    }

    /// The settings for all mocks. Tests of a limit set their own.
    pub fn config(&self, kind: &str) -> RemoteConfig {
        let addresses = self
            .mocks
            .iter()
            .map(|mock| mock.address(kind).parse().unwrap());
        RemoteConfig {
            max_in_flight: 8,
            connect_timeout: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
            load_timeout: Duration::from_secs(60),
            retry_for: Duration::from_secs(60),
            ..RemoteConfig::new(addresses.collect(), self.weights())
        }
    }

    pub fn connect(&self, kind: &str) -> RemoteEngines {
        RemoteEngines::connect(self.config(kind)).unwrap()
    }
}

/// Requests with prompts of different lengths.
pub fn requests(count: usize, samples: usize) -> Vec<GenerationRequest> {
    let prompt = |index: usize| {
        (0..3 + 5 * index)
            .map(|at| ((7 * at + 3 * index) % VOCABULARY) as u32)
            .collect()
    };
    let request = |index: usize| GenerationRequest::new(prompt(index), samples, [9, index as u64]);
    (0..count).map(request).collect()
}

pub fn generation(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig::new(max_new_tokens, vec![5])
}

/// Completions of version `version` of the policy.
pub fn ask(
    engines: &mut RemoteEngines,
    policy: &CausalModel,
    version: u64,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
) -> rlvr::Result<Vec<Vec<Completion>>> {
    generate_with(engines, policy, version, requests, config)
}

/// The log-probs that a trainer computes for the tokens of a completion at a temperature.
pub fn log_probs(
    policy: &CausalModel,
    prompt: &[u32],
    tokens: &[u32],
    temperature: f64,
) -> Vec<f32> {
    let policy = policy.valid();
    let mut row = prompt.to_vec();
    row.extend(tokens);
    let targets: Vec<u32> = row[1..].to_vec();
    row.pop();
    let device = policy.device();
    let batch = TokenBatch::from_rows(&[&row], &device).unwrap();
    let hidden = policy.forward(&batch, &mut policy.empty_cache(1)).unwrap();
    let targets = TokenBatch::from_rows(&[&targets], &device).unwrap().ids;
    let config = LogProbConfig {
        temperature,
        ..LogProbConfig::default()
    };
    let scores = token_log_probs(hidden, policy.unembedding(), targets, &config).unwrap();
    let all = scores.log_probs.try_into_vec_as::<f32>().unwrap();
    all[prompt.len() - 1..].to_vec()
}

/// The largest difference between a completion's log-probs and the trainer's.
pub fn mismatch(
    policy: &CausalModel,
    prompt: &[u32],
    completion: &Completion,
    temperature: f64,
) -> f64 {
    let own = log_probs(policy, prompt, &completion.tokens, temperature);
    let pairs = own.iter().zip(&completion.log_probs);
    pairs
        .map(|(own, theirs)| f64::from((own - theirs).abs()))
        .fold(0.0, f64::max)
}

/// Panics unless every log-prob equals the trainer's to 1e-4.
pub fn assert_true(
    policy: &CausalModel,
    requests: &[GenerationRequest],
    answers: &[Vec<Completion>],
    sampling: &SamplingConfig,
) {
    for (request, completions) in requests.iter().zip(answers) {
        assert_eq!(completions.len(), request.samples);
        for completion in completions {
            assert!(!completion.tokens.is_empty());
            let found = mismatch(policy, &request.prompt, completion, sampling.temperature);
            assert!(found < 1e-4, "{found} in {completion:?}");
        }
    }
}

/// The folders of versions in a folder.
pub fn versions(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with('v')).collect();
    names.sort();
    names
}
