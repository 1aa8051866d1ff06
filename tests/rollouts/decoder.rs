//! Continuous batching: completions do not depend on other requests or on limits, finished rows are
//! replaced at once, and versions record which weights sampled which token.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{PolicyModel, TokenBatch};
use rlvr::rollout::{
    Completion, Decoder, FinishReason, GenerationConfig, GenerationRequest, InFlight,
    SamplingConfig, VersionSpan, generate, generate_streaming,
};

use crate::common::{assert_close, devices, floats};

const VOCABULARY: usize = 12;
const STOP: [u32; 2] = [1, 5];

fn model(seed: u64, device: &Device) -> CausalModel {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        qk_norm: true,
        sliding_window: Some(9),
        windowed_layers: vec![1],
        ..CausalConfig::new(VOCABULARY)
    }
    .init(seed, device)
    .unwrap()
}

fn config(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        stop_tokens: STOP.to_vec(),
        ..GenerationConfig::default()
    }
}

/// Prompts of 1 to 19 tokens, with 1 to 5 samples.
fn requests(count: usize) -> Vec<GenerationRequest> {
    let prompt = |index: usize| {
        (0..1 + index * 7 % 19).map(move |at| ((at * 5 + index) % VOCABULARY) as u32)
    };
    (0..count)
        .map(|index| {
            let address = [3, index as u64];
            GenerationRequest::new(prompt(index).collect(), 1 + index * 3 % 5, address)
        })
        .collect()
}

/// Tokens and endings exactly, log-probs and entropies up to rounding.
fn assert_same(got: &[Completion], want: &[Completion], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.tokens, want.tokens, "{what}");
        assert_eq!(got.finish, want.finish, "{what}");
        for (got, want) in got.log_probs.iter().zip(&want.log_probs) {
            assert_close(f64::from(*got), f64::from(*want), 0.0, 1e-4, what);
        }
        assert_close(got.entropy.unwrap(), want.entropy.unwrap(), 0.0, 1e-3, what);
    }
}

/// The completions of each request alone.
fn alone(
    model: &CausalModel,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
) -> Vec<Vec<Completion>> {
    let one = |request: &GenerationRequest| {
        let request = std::slice::from_ref(request);
        generate(model, request, config).unwrap().remove(0)
    };
    requests.iter().map(one).collect()
}

/// Runs everything to its end.
fn finish(decoder: &mut Decoder<CausalModel>) -> BTreeMap<u64, Vec<Completion>> {
    let mut finished = BTreeMap::new();
    while !decoder.is_idle() {
        finished.extend(decoder.step().unwrap());
    }
    finished
}

// ---- the same completions ------------------------------------------------------------------------

#[test]
fn completions_do_not_depend_on_other_requests() {
    for (backend, device) in devices() {
        let model = model(4, &device);
        let requests = requests(10);
        let want = alone(&model, &requests, &config(12));
        for seed in 0..8 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let what = format!("{backend}, seed {seed}");
            let limited = GenerationConfig {
                max_rows: rng.random_range(1..20),
                max_cache_tokens: (seed % 2 == 0).then(|| rng.random_range(75..200)),
                ..config(12)
            };
            let mut order: Vec<usize> = (0..requests.len()).collect();
            order.shuffle(&mut rng);
            let cancelled: Vec<u64> = order[..4].iter().map(|&index| index as u64).collect();
            order.shuffle(&mut rng);

            let mut decoder = Decoder::new(model.clone(), 9);
            let mut finished: BTreeMap<u64, Vec<Completion>> = BTreeMap::new();
            while !(order.is_empty() && decoder.is_idle()) {
                // Some more requests, one fewer, one token.
                for _ in 0..rng.random_range(0..4) {
                    if let Some(index) = order.pop() {
                        let request = requests[index].clone();
                        decoder.submit(index as u64, request, &limited).unwrap();
                    }
                }
                if rng.random_bool(0.3) {
                    decoder.cancel(cancelled[rng.random_range(0..cancelled.len())]);
                }
                let before = decoder.running();
                for (id, completions) in decoder.step().unwrap() {
                    assert!(finished.insert(id, completions).is_none(), "{what}");
                }
                // One request may be larger than the limit, by itself.
                let largest = decoder.running().max(before);
                assert!(largest <= limited.max_rows.max(5), "{what}");
                if let Some(most) = limited.max_cache_tokens {
                    assert!(decoder.reserved_tokens() <= most, "{what}");
                }
            }
            for (index, want) in want.iter().enumerate() {
                match finished.get(&(index as u64)) {
                    Some(got) => {
                        assert_same(got, want, &what);
                        for completion in got {
                            let tokens = completion.tokens.len();
                            let span = VersionSpan { version: 9, tokens };
                            assert_eq!(completion.versions, [span], "{what}");
                        }
                    }
                    None => assert!(cancelled.contains(&(index as u64)), "{what} {index}"),
                }
            }
            assert_eq!((decoder.running(), decoder.reserved_tokens()), (0, 0));
        }
    }
}

#[test]
fn completions_do_not_depend_on_limits() {
    for (backend, device) in devices() {
        let model = model(5, &device);
        let requests = requests(10);
        let want = alone(&model, &requests, &config(12));
        for (max_rows, max_cache_tokens) in
            [(512, Some(75)), (3, Some(90)), (7, Some(150)), (9, None)]
        {
            let limited = GenerationConfig {
                max_rows,
                max_cache_tokens,
                ..config(12)
            };
            let what = format!("{backend} {max_rows} {max_cache_tokens:?}");
            let answers = generate(&model, &requests, &limited).unwrap();
            let streamed = generate_streaming(&model, &requests, &limited, |_| true).unwrap();
            for ((got, streamed), want) in answers.iter().zip(&streamed).zip(&want) {
                assert_same(got, want, &what);
                assert_same(streamed, want, &what);
                assert!(got.iter().all(|completion| completion.versions.is_empty()));
            }
        }
    }
}

#[test]
fn requests_with_different_settings_run_together() {
    let (_, device) = devices().remove(0);
    let model = model(6, &device);
    let requests = requests(6);
    let mut decoder = Decoder::new(model.clone(), 0);
    let configs: Vec<GenerationConfig> = (0..6)
        .map(|index| GenerationConfig {
            sampling: SamplingConfig {
                temperature: [1.0, 0.0, 0.5][index % 3],
                ..SamplingConfig::default()
            },
            ..config(3 + 2 * index)
        })
        .collect();
    for (id, (request, config)) in (0..).zip(requests.iter().zip(&configs)) {
        decoder.submit(id, request.clone(), config).unwrap();
    }
    for (id, got) in finish(&mut decoder) {
        let (request, config) = (&requests[id as usize], &configs[id as usize]);
        let want = generate(&model, std::slice::from_ref(request), config).unwrap();
        assert_same(&got, &want[0], &format!("request {id}"));
    }
}

// ---- what waits ----------------------------------------------------------------------------------

#[test]
fn finished_rows_are_replaced_at_once() {
    let (_, device) = devices().remove(0);
    let mut decoder = Decoder::new(model(4, &device), 0);
    // Completions of known lengths.
    let length = |index: usize| 2 + index * 11 % 17;
    let limited = |index| GenerationConfig {
        max_rows: 8,
        max_cache_tokens: Some(120),
        stop_tokens: Vec::new(),
        ..config(length(index))
    };
    let requests = requests(30);
    for (index, request) in requests.iter().enumerate() {
        let (id, request) = (index as u64, request.clone());
        decoder.submit(id, request, &limited(index)).unwrap();
    }
    let (mut joined, mut full, mut tight) = (0, 0, 0);
    while !decoder.is_idle() {
        let (running, waiting) = (decoder.running(), decoder.waiting());
        decoder.step().unwrap();
        joined += usize::from(running > 0 && decoder.waiting() < waiting);
        if decoder.waiting() == 0 {
            continue;
        }
        // The next request does not fit into the free rows.
        let next = requests.len() - decoder.waiting();
        let (samples, prompt) = (requests[next].samples, requests[next].prompt.len());
        let rows = decoder.running() + samples;
        let tokens = decoder.reserved_tokens() + prompt + samples * (length(next) - 1);
        assert!(rows > 8 || tokens > 120, "{rows} rows, {tokens} tokens");
        full += usize::from(rows > 8);
        tight += usize::from(tokens > 120);
    }
    assert!(
        joined > 10 && full > 10 && tight > 10,
        "{joined} {full} {tight}"
    );
}

#[test]
fn a_request_that_never_fits_is_an_error() {
    let (_, device) = devices().remove(0);
    let model = model(4, &device);
    let request = GenerationRequest::new(vec![2; 10], 3, [0]);
    let limited = |max_cache_tokens| GenerationConfig {
        max_cache_tokens: Some(max_cache_tokens),
        ..config(6)
    };
    // A prompt of 10 and three times all tokens but the last.
    let mut decoder = Decoder::new(model.clone(), 0);
    let message = decoder
        .submit(8, request.clone(), &limited(24))
        .unwrap_err()
        .to_string();
    for part in [
        "generation.max_cache_tokens",
        "24",
        "at least 25",
        "prompt 8",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(decoder.is_idle());
    decoder.submit(8, request.clone(), &limited(25)).unwrap();
    let message = decoder
        .submit(8, request.clone(), &limited(25))
        .unwrap_err()
        .to_string();
    assert!(message.contains("`id`: 8"), "{message}");
    assert_eq!(finish(&mut decoder).len(), 1);
    let requests = [request];
    for limit in [24, 0] {
        let message = generate(&model, &requests, &limited(limit))
            .unwrap_err()
            .to_string();
        assert!(message.contains("max_cache_tokens"), "{message}");
    }
}

#[test]
fn a_request_without_samples_is_answered_with_none() {
    let (_, device) = devices().remove(0);
    let mut decoder = Decoder::new(model(4, &device), 0);
    let none = GenerationRequest::new(vec![2], 0, [0]);
    decoder.submit(0, none.clone(), &config(3)).unwrap();
    decoder
        .submit(1, GenerationRequest { samples: 2, ..none }, &config(3))
        .unwrap();
    let finished = finish(&mut decoder);
    assert_eq!((finished[&0].len(), finished[&1].len()), (0, 2));
}

#[test]
fn invalid_logits_are_an_error_and_clear_the_decoder() {
    let (_, device) = devices().remove(0);
    let mut broken = model(5, &device);
    broken.norm.gamma = broken.norm.gamma.map(|gamma| gamma.mul_scalar(f32::NAN));
    let mut decoder = Decoder::new(model(5, &device), 0);
    let endless = GenerationConfig {
        stop_tokens: Vec::new(),
        ..config(9)
    };
    for (id, request) in (0..).zip(requests(4)) {
        decoder.submit(id, request, &endless).unwrap();
    }
    decoder.step().unwrap();
    let keep = InFlight::Continue { recompute: false };
    decoder.replace_model(broken, 1, keep).unwrap();
    let message = decoder.step().unwrap_err().to_string();
    assert!(message.contains("diverged"), "{message}");
    assert!(decoder.is_idle() && decoder.running() == 0);
    // The decoder can be used again.
    decoder.replace_model(model(5, &device), 2, keep).unwrap();
    decoder.submit(0, requests(1).remove(0), &endless).unwrap();
    assert_eq!(finish(&mut decoder)[&0][0].finish, FinishReason::Length);
}

// ---- new weights ---------------------------------------------------------------------------------

/// A model before and after an update, and requests in flight: some have begun, some wait.
struct Update {
    before: CausalModel,
    after: CausalModel,
    requests: Vec<GenerationRequest>,
    config: GenerationConfig,
}

impl Update {
    fn new(device: &Device) -> Self {
        Self {
            before: model(7, device),
            after: model(8, device),
            requests: requests(9),
            config: GenerationConfig {
                max_rows: 14,
                ..config(20)
            },
        }
    }

    /// The completions if the model is replaced after `steps` tokens.
    fn run(&self, steps: usize, in_flight: InFlight) -> BTreeMap<u64, Vec<Completion>> {
        let mut decoder = Decoder::new(self.before.clone(), 3);
        for (id, request) in (0..).zip(&self.requests) {
            decoder.submit(id, request.clone(), &self.config).unwrap();
        }
        let mut finished = BTreeMap::new();
        for _ in 0..steps {
            finished.extend(decoder.step().unwrap());
        }
        assert!(decoder.running() > 0 && decoder.waiting() > 0);
        let after = self.after.clone();
        decoder.replace_model(after, 4, in_flight).unwrap();
        assert_eq!(decoder.version(), 4);
        finished.extend(finish(&mut decoder));
        finished
    }
}

/// Log-prob of each token of `completion`, by a forward pass of the whole text.
fn whole(model: &CausalModel, prompt: &[u32], completion: &[u32], device: &Device) -> Vec<f64> {
    let text = [prompt, completion].concat();
    let batch = TokenBatch::from_rows(&[&text], device).unwrap();
    let hidden = model.forward(&batch, &mut model.empty_cache(1)).unwrap();
    let logits = floats(hidden.squeeze_dim::<2>(0).matmul(model.unembedding()));
    let place = |(at, &token): (usize, &u32)| {
        let logits = &logits[(prompt.len() + at - 1) * VOCABULARY..][..VOCABULARY];
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        logits[token as usize] - total.ln()
    };
    completion.iter().enumerate().map(place).collect()
}

/// The tokens of the version that was loaded first.
fn old_tokens(completion: &Completion) -> usize {
    let spans = &completion.versions;
    let sum: usize = spans.iter().map(|span| span.tokens).sum();
    assert_eq!(sum, completion.tokens.len());
    assert!(spans.iter().all(|span| span.tokens > 0));
    assert!(spans.is_sorted_by(|a, b| a.version < b.version));
    let old = spans.iter().filter(|span| span.version == 3);
    old.map(|span| span.tokens).sum()
}

#[test]
fn completions_continue_with_new_weights_and_record_versions() {
    for (backend, device) in devices() {
        let update = Update::new(&device);
        let before = alone(&update.before, &update.requests, &update.config);
        for (steps, recompute) in [(1, true), (4, true), (4, false), (9, true), (9, false)] {
            let what = format!("{backend}, {steps} steps, recompute {recompute}");
            let finished = update.run(steps, InFlight::Continue { recompute });
            let (mut mixed, mut off) = (0, 0f64);
            for (id, completions) in &finished {
                let request = &update.requests[*id as usize];
                for (completion, before) in completions.iter().zip(&before[*id as usize]) {
                    let old = old_tokens(completion);
                    assert!(old <= steps, "{what}");
                    assert_eq!(completion.tokens[..old], before.tokens[..old], "{what}");
                    for (got, want) in completion.log_probs.iter().zip(&before.log_probs[..old]) {
                        assert_close(f64::from(*got), f64::from(*want), 0.0, 1e-4, &what);
                    }
                    if old == completion.tokens.len() {
                        assert_eq!(completion.tokens, before.tokens, "{what}");
                        continue;
                    }
                    mixed += usize::from(old > 0);
                    let text = (&request.prompt, &completion.tokens);
                    let want = whole(&update.after, text.0, text.1, &device);
                    for (got, want) in completion.log_probs.iter().zip(want).skip(old) {
                        let difference = (f64::from(*got) - want).abs();
                        match recompute || old == 0 {
                            true => assert!(difference < 1e-4, "{what}: {got}, not {want}"),
                            false => off = off.max(difference),
                        }
                    }
                }
            }
            assert_eq!(finished.len(), update.requests.len(), "{what}");
            assert!(mixed > 3, "{what}: {mixed} completions of both");
            // The cached keys and values are of the old weights: no forward pass of the new ones
            // gives these log-probs.
            assert!(recompute || off > 1e-2, "{what}: {off}");
        }
    }
}

#[test]
fn restarted_completions_use_the_new_weights() {
    for (backend, device) in devices() {
        let update = Update::new(&device);
        let before = alone(&update.before, &update.requests, &update.config);
        let after = alone(&update.after, &update.requests, &update.config);
        for steps in [1, 6] {
            let finished = update.run(steps, InFlight::Redo);
            assert_eq!(finished.len(), update.requests.len());
            for (id, completions) in &finished {
                let old = old_tokens(&completions[0]);
                let want = if old > 0 { &before } else { &after };
                let what = format!("{backend}, request {id}");
                assert_same(completions, &want[*id as usize], &what);
                let one = |completion: &Completion| completion.versions.len() == 1;
                assert!(completions.iter().all(one), "{what}");
            }
        }
    }
}

#[test]
fn a_model_of_another_shape_is_an_error_and_changes_nothing() {
    let (_, device) = devices().remove(0);
    let small = model(4, &device);
    let mut decoder = Decoder::new(small.clone(), 0);
    let request = requests(3).remove(2);
    decoder.submit(0, request.clone(), &config(8)).unwrap();
    decoder.step().unwrap();
    let other = CausalConfig {
        hidden_size: 16,
        ..CausalConfig::new(VOCABULARY + 1)
    };
    let other = other.init(0, &device).unwrap();
    let message = decoder
        .replace_model(other, 1, InFlight::Redo)
        .unwrap_err()
        .to_string();
    assert!(message.contains("a vocabulary of 13"), "{message}");
    assert_eq!(decoder.version(), 0);
    let got = finish(&mut decoder).remove(&0).unwrap();
    let want = alone(&small, std::slice::from_ref(&request), &config(8));
    assert_same(&got, &want[0], "after the refusal");
}

#[test]
fn a_decoder_can_be_sent_to_another_thread() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let (_, device) = devices().remove(0);
    let decoder = sent(Decoder::new(model(1, &device).valid(), 0));
    assert!(decoder.is_idle());
}
