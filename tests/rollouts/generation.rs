//! Generation: completions do not depend on the batch, finished rows cost nothing, stop tokens and
//! limits are exact, and sampled streams are stable across releases.

use std::sync::{Arc, Mutex};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{KvCache, PolicyCache, PolicyModel, TokenBatch, WeightFormat};
use rlvr::rollout::{
    Completion, Decoder, FinishReason, GenerationConfig, GenerationRequest, LocalEngine,
    RolloutEngine, SamplingConfig, TokenEvent, generate, generate_streaming,
};

use crate::common::{assert_close, devices, floats};

const VOCABULARY: usize = 12;
const POSITIONS: usize = 24;
/// Two of twelve tokens, so that completions end early, late and not at all.
const STOP: [u32; 2] = [1, 5];

fn model(layers: usize, seed: u64, device: &Device) -> CausalModel {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: layers,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        max_position_embeddings: POSITIONS,
        qk_norm: true,
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

/// Ragged prompts, one of them a single token, with groups of different sizes.
fn requests() -> Vec<GenerationRequest> {
    let prompts: [(&[u32], usize); 4] = [
        (&[2, 3, 4, 6, 7, 8], 4),
        (&[9, 10, 11], 2),
        (&[2], 5),
        (&[4, 4, 6, 2], 1),
    ];
    prompts
        .iter()
        .enumerate()
        .map(|(problem, &(prompt, samples))| GenerationRequest {
            prompt: prompt.to_vec(),
            samples,
            address: vec![7, 0, problem as u64],
        })
        .collect()
}

/// Tokens and endings exactly, log-probs and entropies up to the rounding that a kernel's batch
/// shape brings.
fn assert_same(got: &[Completion], want: &[Completion], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        assert_eq!(got.tokens, want.tokens, "{what}");
        assert_eq!(got.finish, want.finish, "{what}");
        assert_eq!(got.log_probs.len(), got.tokens.len(), "{what}");
        for (got, want) in got.log_probs.iter().zip(&want.log_probs) {
            assert_close(f64::from(*got), f64::from(*want), 0.0, 1e-4, what);
        }
        assert_close(got.entropy.unwrap(), want.entropy.unwrap(), 0.0, 1e-3, what);
    }
}

// ---- what a forward pass costs -----------------------------------------------------------------

/// One forward pass: the earlier tokens of every row, and its new ones.
#[derive(Clone, Debug)]
struct Pass {
    read: Vec<usize>,
    given: Vec<Vec<u32>>,
    width: usize,
}

/// A policy that records every forward pass.
#[derive(Module, Debug)]
struct Counting {
    inner: CausalModel,
    #[module(skip)]
    passes: Arc<Mutex<Vec<Pass>>>,
}

impl Counting {
    fn new(inner: CausalModel) -> Self {
        Self {
            inner,
            passes: Arc::default(),
        }
    }

    fn take(&self) -> Vec<Pass> {
        std::mem::take(&mut *self.passes.lock().unwrap())
    }
}

impl PolicyModel for Counting {
    crate::passed_on_to_inner!();

    fn forward(&self, tokens: &TokenBatch, cache: &mut KvCache) -> rlvr::Result<Tensor<3>> {
        let ids: Vec<i32> = tokens.ids.clone().try_into_vec_as::<i32>().unwrap();
        let given = ids
            .chunks_exact(tokens.width())
            .zip(&tokens.lengths)
            .map(|(row, &len)| row[..len].iter().map(|&id| id as u32).collect())
            .collect();
        self.passes.lock().unwrap().push(Pass {
            read: cache.lengths().to_vec(),
            given,
            width: tokens.width(),
        });
        self.inner.forward(tokens, cache)
    }
}

#[test]
fn prompts_are_computed_once_and_finished_rows_are_dropped() {
    // On other devices, rows are dropped after every eighth token.
    let (backend, device) = devices().remove(0);
    let model = Counting::new(model(1, 3, &device));
    let requests = requests();
    let answers = generate(&model, &requests, &config(8)).unwrap();
    let passes = model.take();
    let completions: Vec<(&GenerationRequest, &Completion)> = requests
        .iter()
        .zip(&answers)
        .flat_map(|(request, answers)| answers.iter().map(move |answer| (request, answer)))
        .collect();
    let lengths: Vec<usize> = completions.iter().map(|(_, c)| c.tokens.len()).collect();
    // The case is only useful if rows end at different times and one reaches the limit.
    assert!(
        lengths.contains(&1) && lengths.contains(&8),
        "{backend} {lengths:?}"
    );

    // The first pass is the prompts, one row each however many samples were asked for.
    let prompts: Vec<Vec<u32>> = requests.iter().map(|r| r.prompt.clone()).collect();
    assert_eq!(passes[0].given, prompts, "{backend}");
    assert_eq!(passes[0].read, [0; 4], "{backend}");

    // Pass k feeds token k of exactly the completions that have another token.
    for (k, pass) in passes.iter().enumerate().skip(1) {
        let going: Vec<_> = completions
            .iter()
            .filter(|(_, completion)| completion.tokens.len() > k)
            .collect();
        let fed: Vec<Vec<u32>> = going.iter().map(|(_, c)| vec![c.tokens[k - 1]]).collect();
        let read: Vec<usize> = going.iter().map(|(r, _)| r.prompt.len() + k - 1).collect();
        assert_eq!(pass.given, fed, "{backend} pass {k}");
        assert_eq!(pass.read, read, "{backend} pass {k}");
        assert_eq!(pass.width, 1, "{backend} pass {k}");
        for token in fed.concat() {
            assert!(
                !STOP.contains(&token),
                "{backend} pass {k} reads past a stop"
            );
        }
    }

    let read: usize = passes.iter().flat_map(|p| &p.given).map(Vec::len).sum();
    let asked: usize = prompts.iter().map(Vec::len).sum();
    let continued: usize = lengths.iter().map(|len| len - 1).sum();
    assert_eq!(read, asked + continued, "{backend}");
}

#[test]
fn a_smaller_batch_limit_computes_no_extra_tokens() {
    let (_, device) = devices().remove(0);
    let model = Counting::new(model(1, 3, &device));
    let requests = requests();
    let cost = |max_rows| {
        generate(
            &model,
            &requests,
            &GenerationConfig {
                max_rows,
                ..config(8)
            },
        )
        .unwrap();
        let passes = model.take();
        let widest = passes.iter().skip(1).map(|p| p.given.len()).max().unwrap();
        let tokens: usize = passes.iter().flat_map(|p| &p.given).map(Vec::len).sum();
        let prefills = passes.iter().filter(|p| p.read.contains(&0)).count();
        (tokens, widest, prefills)
    };
    let (tokens, _, prefills) = cost(512);
    assert_eq!(prefills, 1);
    // Groups of 4, 2, 5 and 1: whole groups are packed in order while they fit.
    for (max_rows, batches) in [(7, 2), (6, 2), (5, 4)] {
        let (small_tokens, widest, prefills) = cost(max_rows);
        assert_eq!((small_tokens, prefills), (tokens, batches), "{max_rows}");
        assert!(
            widest <= max_rows,
            "{widest} rows under a limit of {max_rows}"
        );
    }
}

#[test]
fn one_token_completions_need_one_forward_pass() {
    let (_, device) = devices().remove(0);
    let model = Counting::new(model(1, 3, &device));
    generate(&model, &requests(), &config(1)).unwrap();
    assert_eq!(model.take().len(), 1);
}

// ---- the batch around it -----------------------------------------------------------------------

#[test]
fn completions_do_not_depend_on_the_batch() {
    for (backend, device) in devices() {
        let model = model(2, 4, &device);
        let requests = requests();
        let together = generate(&model, &requests, &config(8)).unwrap();
        let samples: Vec<usize> = together.iter().map(Vec::len).collect();
        assert_eq!(samples, [4, 2, 5, 1]);

        for (request, want) in requests.iter().zip(&together) {
            let alone = generate(&model, std::slice::from_ref(request), &config(8)).unwrap();
            assert_same(&alone[0], want, &format!("{backend} alone"));
        }

        let reversed: Vec<_> = requests.iter().rev().cloned().collect();
        let mut answers = generate(&model, &reversed, &config(8)).unwrap();
        answers.reverse();
        for (got, want) in answers.iter().zip(&together) {
            assert_same(got, want, &format!("{backend} reversed"));
        }

        for max_rows in [1, 3, 7, 1000] {
            let few = GenerationConfig {
                max_rows,
                ..config(8)
            };
            let answers = generate(&model, &requests, &few).unwrap();
            for (got, want) in answers.iter().zip(&together) {
                assert_same(got, want, &format!("{backend} max_rows {max_rows}"));
            }
        }
    }
}

#[test]
fn a_larger_group_starts_with_the_smaller_one() {
    for (backend, device) in devices() {
        let model = model(2, 4, &device);
        let small = requests();
        let mut large = requests();
        for request in &mut large {
            request.samples *= 2;
        }
        let small = generate(&model, &small, &config(8)).unwrap();
        let large = generate(&model, &large, &config(8)).unwrap();
        for (small, large) in small.iter().zip(&large) {
            assert_same(&large[..small.len()], small, backend);
        }
        // Samples are different draws.
        assert_ne!(large[0][..4], large[0][4..]);
    }
}

#[test]
fn a_longer_limit_only_extends_truncated_completions() {
    let (_, device) = devices().remove(0);
    let model = model(1, 4, &device);
    let short = generate(&model, &requests(), &config(3)).unwrap().concat();
    let long = generate(&model, &requests(), &config(8)).unwrap().concat();
    assert!(short.iter().any(|c| c.finish == FinishReason::Length));
    for (short, long) in short.iter().zip(&long) {
        assert_eq!(short.tokens, long.tokens[..short.tokens.len()]);
        if short.finish == FinishReason::Stop {
            assert_eq!(short.tokens, long.tokens);
        } else {
            assert_eq!(short.tokens.len(), 3);
        }
    }
}

/// The next requests if `observed` follows each completion that ended with a stop token.
fn continued(
    requests: &[GenerationRequest],
    answers: &[Vec<Completion>],
    observed: &[u32],
) -> Vec<GenerationRequest> {
    let mut next = Vec::new();
    for (request, answers) in requests.iter().zip(answers) {
        for (sample, answer) in answers.iter().enumerate() {
            if answer.finish == FinishReason::Stop {
                let prompt = [&request.prompt, answer.tokens.as_slice(), observed].concat();
                let address = [request.address.as_slice(), &[sample as u64, 1]].concat();
                next.push(GenerationRequest::new(prompt, 1, address));
            }
        }
    }
    next
}

fn read_in(passes: &[Pass]) -> usize {
    let given = passes.iter().flat_map(|pass| &pass.given);
    given.map(Vec::len).sum()
}

#[test]
fn a_session_computes_only_the_new_part_of_a_prompt() {
    for (backend, device) in devices() {
        let model = Counting::new(model(2, 3, &device));
        let mut engine = LocalEngine;
        let mut session = engine.session(&model, 0);
        let answers = session(&requests(), &config(6)).unwrap();
        let next = continued(&requests(), &answers, &[9, 10]);
        assert!(next.len() > 4, "{backend}: several completions stop");
        model.take();

        let got = session(&next, &config(6)).unwrap();
        let passes = model.take();
        // Of every prompt only the stop token, which was sampled but not computed, and the two
        // observed tokens.
        let new = |request: &GenerationRequest| request.prompt[request.prompt.len() - 3..].to_vec();
        let new: Vec<Vec<u32>> = next.iter().map(new).collect();
        assert_eq!(passes[0].given, new, "{backend}");
        let alone = generate(&model, &next, &config(6)).unwrap();
        assert_same(&got.concat(), &alone.concat(), backend);
        assert!(read_in(&passes) < read_in(&model.take()), "{backend}");

        // A third turn of those that continue; the session drops the keys and values of the others.
        let next = continued(&next, &got, &[6]);
        let got = session(&next, &config(3)).unwrap();
        let passes = model.take();
        assert!(!next.is_empty());
        assert!(passes[0].given.iter().all(|given| given.len() == 2));
        let alone = generate(&model, &next, &config(3)).unwrap();
        assert_same(&got.concat(), &alone.concat(), backend);
    }
}

#[test]
fn the_cache_of_a_session_stays_within_its_budget() {
    let (backend, device) = devices().remove(0);
    let model = Counting::new(model(2, 3, &device));
    let limited = |most| GenerationConfig {
        max_cache_tokens: Some(most),
        ..config(6)
    };
    let mut reread = Vec::new();
    for most in [31, 60, 500] {
        let mut engine = LocalEngine;
        let mut session = engine.session(&model, 0);
        let answers = session(&requests(), &limited(most)).unwrap();
        let next = continued(&requests(), &answers, &[9, 10]);
        model.take();
        let got = session(&next, &limited(most)).unwrap();
        reread.push(read_in(&model.take()));
        let alone = generate(&model, &next, &config(6)).unwrap();
        model.take();
        assert_same(&got.concat(), &alone.concat(), backend);
    }
    // A smaller budget recomputes more.
    assert!(reread[0] > reread[1] && reread[1] > reread[2], "{reread:?}");
}

#[test]
fn the_stream_depends_on_the_address_not_on_the_position() {
    let (_, device) = devices().remove(0);
    let model = model(1, 4, &device);
    let request = |address: [u64; 2]| GenerationRequest {
        prompt: vec![2, 3],
        samples: 3,
        address: address.to_vec(),
    };
    let answers = generate(
        &model,
        &[request([1, 2]), request([1, 2]), request([1, 3])],
        &config(16),
    )
    .unwrap();
    assert_same(&answers[0], &answers[1], "equal addresses");
    assert_ne!(answers[0], answers[2]);
}

// ---- endings -----------------------------------------------------------------------------------

#[test]
fn a_completion_ends_with_its_first_stop_token_or_at_the_limit() {
    for (backend, device) in devices() {
        let model = model(1, 5, &device);
        let many = GenerationRequest {
            prompt: vec![2, 3],
            samples: 64,
            address: vec![0],
        };
        let answers = generate(&model, &[many], &config(6)).unwrap().remove(0);
        let mut seen = [0; 3];
        for completion in &answers {
            let (last, before) = completion.tokens.split_last().unwrap();
            assert!(before.iter().all(|token| !STOP.contains(token)));
            assert!(completion.tokens.len() <= 6);
            assert_eq!(completion.log_probs.len(), completion.tokens.len());
            assert!(completion.log_probs.iter().all(|&lp| lp < 0.0));
            match completion.finish {
                FinishReason::Stop => {
                    let which = STOP.iter().position(|stop| stop == last);
                    seen[which.unwrap_or_else(|| panic!("{backend} {last}"))] += 1;
                }
                FinishReason::Length => {
                    assert!(!STOP.contains(last), "{backend}");
                    assert_eq!(completion.tokens.len(), 6, "{backend}");
                    seen[2] += 1;
                }
            }
        }
        assert!(
            seen.iter().all(|&count| count > 0),
            "{backend} {seen:?}: every ending"
        );
        // A stop token at the limit counts as a stop, not as a truncation.
        assert!(
            answers
                .iter()
                .any(|c| c.tokens.len() == 6 && c.finish == FinishReason::Stop),
            "{backend}"
        );
    }
}

#[test]
fn without_stop_tokens_every_completion_has_the_full_length() {
    let (_, device) = devices().remove(0);
    let endless = GenerationConfig {
        stop_tokens: Vec::new(),
        ..config(9)
    };
    for completion in generate(&model(1, 5, &device), &requests(), &endless)
        .unwrap()
        .concat()
    {
        assert_eq!(completion.tokens.len(), 9);
        assert_eq!(completion.finish, FinishReason::Length);
    }
}

#[test]
fn greedy_decoding_is_the_argmax_of_full_forward_passes() {
    for (backend, device) in devices() {
        let model = model(2, 6, &device);
        let greedy = GenerationConfig {
            sampling: SamplingConfig::greedy(),
            ..config(10)
        };
        let answers = generate(&model, &requests(), &greedy).unwrap();
        assert_eq!(
            generate(&model, &requests(), &greedy).unwrap(),
            answers,
            "{backend}"
        );
        for (request, answers) in requests().iter().zip(&answers) {
            let mut want = Vec::new();
            let mut entropy = 0.0;
            loop {
                let read = [request.prompt.as_slice(), want.as_slice()].concat();
                let batch = TokenBatch::from_rows(&[&read], &device).unwrap();
                let hidden = model.forward(&batch, &mut model.empty_cache(1)).unwrap();
                let last = hidden.slice([0..1, read.len() - 1..read.len()]);
                let logits = floats(last.squeeze_dim::<2>(1).matmul(model.unembedding()));
                let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
                entropy += logits
                    .iter()
                    .map(|logit| logit.exp() / total * (total.ln() - logit))
                    .sum::<f64>();
                let best = (0..VOCABULARY)
                    .reduce(|best, id| if logits[id] > logits[best] { id } else { best })
                    .unwrap() as u32;
                want.push(best);
                if STOP.contains(&best) || want.len() == 10 {
                    break;
                }
            }
            for answer in answers {
                assert_eq!(answer.tokens, want, "{backend}");
                assert!(answer.log_probs.iter().all(|&lp| lp == 0.0), "{backend}");
                assert_close(answer.entropy.unwrap(), entropy, 1e-4, 1e-4, backend);
            }
        }
    }
}

// ---- limits ------------------------------------------------------------------------------------

#[test]
fn a_completion_can_fill_all_positions() {
    for (backend, device) in devices() {
        let model = model(1, 5, &device);
        for (prompt, max_new_tokens) in [(17, 8), (1, POSITIONS), (POSITIONS, 1)] {
            assert_eq!(prompt + max_new_tokens - 1, POSITIONS);
            let request = |length| GenerationRequest {
                prompt: vec![3; length],
                samples: 2,
                address: vec![1],
            };
            let full = GenerationConfig {
                stop_tokens: Vec::new(),
                ..config(max_new_tokens)
            };
            let answers = generate(&model, &[request(prompt)], &full).unwrap();
            assert_eq!(answers[0][1].tokens.len(), max_new_tokens, "{backend}");

            let long = [request(1), request(prompt + 1)];
            let message = generate(&model, &long, &full).unwrap_err().to_string();
            // No limit is small enough for a prompt that fills the positions.
            let parts = match max_new_tokens - 1 {
                0 => ["prompt 1: got 25 tokens", "expected at most 24"].map(String::from),
                most => [
                    format!(
                        "`generation.max_new_tokens`: {max_new_tokens}; expected at most {most}: prompt 1"
                    ),
                    format!("{POSITIONS} positions"),
                ],
            };
            for part in parts {
                assert!(message.contains(&part), "{backend} {part}: {message}");
            }
        }
    }
}

#[test]
fn invalid_generation_requests_are_errors_that_name_the_field() {
    let (_, device) = devices().remove(0);
    let model = model(1, 5, &device);
    let good = requests();
    let mut empty = requests();
    empty[2].prompt.clear();
    let mut long = requests();
    long[1].prompt = vec![2; POSITIONS + 1];
    for (requests, config, part) in [
        (&empty, config(4), "prompt 2: got 0 tokens"),
        (&good, config(0), "generation.max_new_tokens"),
        (
            &long,
            config(4),
            "prompt 1: got 25 tokens, expected at most 24, the model's positions (max_position_embeddings)",
        ),
        (
            &good,
            GenerationConfig {
                stop_tokens: vec![1, VOCABULARY as u32],
                ..config(4)
            },
            "generation.stop_tokens[1]`: 12; expected a token below the model's vocabulary of 12",
        ),
        (
            &good,
            GenerationConfig {
                max_rows: 0,
                ..config(4)
            },
            "generation.max_rows",
        ),
        (
            &good,
            GenerationConfig {
                sampling: SamplingConfig {
                    temperature: f64::NAN,
                    ..SamplingConfig::default()
                },
                ..config(4)
            },
            "sampling.temperature",
        ),
    ] {
        let message = generate(&model, requests, &config).unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(generate(&model, &[], &config(4)).unwrap().is_empty());
}

#[test]
fn invalid_logits_are_an_error() {
    let (_, device) = devices().remove(0);
    let mut model = model(1, 5, &device);
    model.norm.gamma = model.norm.gamma.map(|gamma| gamma.mul_scalar(f32::NAN));
    let message = generate(&model, &requests(), &config(4))
        .unwrap_err()
        .to_string();
    assert!(message.contains("diverged"), "{message}");
}

#[test]
fn an_unknown_generation_setting_is_an_error() {
    let read = |text| serde_json::from_str::<GenerationConfig>(text);
    let config = read(r#"{"max_new_tokens": 5, "sampling": {"temperature": 0.7}}"#).unwrap();
    assert_eq!((config.max_new_tokens, config.max_rows), (5, 512));
    assert_eq!(config.sampling.temperature, 0.7);
    for text in [
        r#"{"max_tokens": 5}"#,
        r#"{"sampling": {"temprature": 0.7}}"#,
    ] {
        let message = read(text).unwrap_err().to_string();
        assert!(message.contains("unknown field"), "{message}");
    }
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(read(&text).unwrap(), config);
}

// ---- stability ---------------------------------------------------------------------------------

/// Drawn by version 0.1.0. A change of these tokens changes every sampled stream: it belongs under
/// "Numerics" in the changelog.
const STABLE: [&[u32]; 3] = [
    &[4, 9, 4, 1],
    &[2, 2, 4, 9, 6, 4, 0, 5, 9, 9],
    &[5, 5, 4, 0, 3, 0, 5, 1],
];

#[test]
fn sampled_streams_are_stable_across_releases_and_backends() {
    for (backend, device) in devices() {
        let request = GenerationRequest {
            prompt: vec![2, 3, 4],
            samples: 3,
            address: vec![20, 26],
        };
        let until_eos = GenerationConfig {
            stop_tokens: vec![1],
            ..config(10)
        };
        let answers = generate(&model(2, 1, &device), &[request], &until_eos).unwrap();
        let tokens: Vec<&[u32]> = answers[0].iter().map(|c| c.tokens.as_slice()).collect();
        assert_eq!(tokens, STABLE, "{backend}");
    }
}

#[test]
fn a_token_outside_the_vocabulary_and_an_overflowing_limit_are_errors() {
    let (_, device) = devices().remove(0);
    let model = CausalConfig {
        hidden_size: 16,
        ..CausalConfig::new(5)
    }
    .init(0, &device)
    .unwrap();
    let request = GenerationRequest::new(vec![1, 5], 1, [0]);
    let error = generate(&model, &[request], &GenerationConfig::new(4, vec![0])).unwrap_err();
    assert!(error.to_string().contains("token id 5"), "{error}");
    let request = GenerationRequest::new(vec![1], 1, [0]);
    let error = generate(
        &model,
        &[request],
        &GenerationConfig::new(usize::MAX, vec![]),
    )
    .unwrap_err();
    assert!(error.to_string().contains("max_new_tokens"), "{error}");
}

// ---- streaming -----------------------------------------------------------------------------------

/// Bf16 and int8 weights give the completions of a model with the rounded weights; the trained ones
/// are untouched.
#[cfg(feature = "flex")]
#[test]
fn reduced_weights_sample_from_a_policy_close_to_the_trained_one() {
    let model = model(2, 3, &Device::flex());
    let trained = generate(&model, &requests(), &config(6)).unwrap();
    for (weights, most) in [(WeightFormat::Bf16, 0.03), (WeightFormat::Int8, 0.06)] {
        let reduced = GenerationConfig {
            weights,
            ..config(6)
        };
        let answers = generate(&model, &requests(), &reduced).unwrap();
        let mut largest: f32 = 0.0;
        for (got, want) in answers.iter().flatten().zip(trained.iter().flatten()) {
            // Up to the first token that differs, both continue the same text.
            let pairs = got.tokens.iter().zip(&want.tokens);
            let same = pairs.take_while(|(a, b)| a == b).count();
            for at in 0..same {
                largest = largest.max((got.log_probs[at] - want.log_probs[at]).abs());
            }
        }
        assert!(
            largest > 0.0 && largest < most,
            "{weights:?}: {largest} nats"
        );

        // The same from a decoder, and from a session of the engine.
        let mut decoder = Decoder::new(model.clone(), 0);
        for (id, request) in (0..).zip(requests()) {
            decoder.submit(id, request, &reduced).unwrap();
        }
        let other = decoder.submit(9, requests()[0].clone(), &config(6));
        let message = other.unwrap_err().to_string();
        assert!(message.contains("generation.weights"), "{message}");
        let mut finished = Vec::new();
        while !decoder.is_idle() {
            finished.extend(decoder.step().unwrap());
        }
        finished.sort_by_key(|&(id, _)| id);
        for ((_, got), want) in finished.iter().zip(&answers) {
            for (got, want) in got.iter().zip(want) {
                assert_eq!(got.tokens, want.tokens, "{weights:?}");
            }
        }
        let mut engine = LocalEngine;
        let mut session = RolloutEngine::session(&mut engine, &model, 0);
        assert_eq!(session(&requests(), &reduced).unwrap(), answers);
        assert_eq!(session(&requests(), &config(6)).unwrap(), trained);
    }
    assert_eq!(generate(&model, &requests(), &config(6)).unwrap(), trained);
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)]
#[test]
fn reduced_weights_need_the_kernels() {
    let reduced = GenerationConfig {
        weights: WeightFormat::Bf16,
        ..config(6)
    };
    let model = model(1, 3, &Device::ndarray());
    let message = generate(&model, &requests(), &reduced)
        .unwrap_err()
        .to_string();
    assert!(message.contains("`generation.weights`: bf16"), "{message}");
}

#[test]
fn a_stream_reports_every_token_once_and_in_order() {
    let (_, device) = devices().remove(0);
    let model = model(2, 3, &device);
    for max_rows in [512, 5] {
        let config = GenerationConfig {
            max_rows,
            ..config(9)
        };
        let mut told: Vec<TokenEvent> = Vec::new();
        let answers = generate_streaming(&model, &requests(), &config, |event| {
            told.push(*event);
            true
        });
        let answers = answers.unwrap();
        assert_eq!(answers, generate(&model, &requests(), &config).unwrap());
        for (request, samples) in answers.iter().enumerate() {
            for (sample, completion) in samples.iter().enumerate() {
                let own = |event: &&TokenEvent| event.request == request && event.sample == sample;
                let own: Vec<&TokenEvent> = told.iter().filter(own).collect();
                let tokens: Vec<u32> = own.iter().map(|event| event.token).collect();
                assert_eq!(tokens, completion.tokens);
                let log_probs: Vec<f32> = own.iter().map(|event| event.log_prob).collect();
                assert_eq!(log_probs, completion.log_probs);
                let (last, before) = own.split_last().unwrap();
                assert_eq!(last.finish, Some(completion.finish));
                assert!(before.iter().all(|event| event.finish.is_none()));
            }
        }
        let total: usize = answers.iter().flatten().map(|c| c.tokens.len()).sum();
        assert_eq!(told.len(), total);
    }
}

#[test]
fn a_stream_stops_when_the_callback_asks() {
    let (_, device) = devices().remove(0);
    let model = model(2, 3, &device);
    let config = GenerationConfig {
        max_rows: 5,
        stop_tokens: Vec::new(),
        ..config(9)
    };
    let mut told = 0;
    let answers = generate_streaming(&model, &requests(), &config, |_| {
        told += 1;
        told < 6
    })
    .unwrap();
    assert_eq!(told, 6);
    // Four rows of the first request, at their second token; the others had not started.
    let lengths = |samples: &Vec<Completion>| samples.iter().map(|c| c.tokens.len()).collect();
    let lengths: Vec<Vec<usize>> = answers.iter().map(lengths).collect();
    assert_eq!(lengths, [vec![2, 2, 2, 2], vec![], vec![], vec![]]);
    let cut = answers[0].iter().all(|c| c.finish == FinishReason::Length);
    assert!(cut);
}
