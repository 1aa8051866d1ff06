//! What the design's choices cost or save, each beside its plain alternative: read the figures as
//! ratios.
//!
//! `cargo bench --bench policy`

use std::hint::black_box;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use criterion::{Criterion, criterion_group, criterion_main};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{LogProbConfig, PolicyCache, PolicyModel, ScoredTokens, TokenBatch};
use rlvr::policy::{logits_log_probs, token_log_probs};
use rlvr::rollout::{GenerationConfig, GenerationRequest, SamplingConfig, generate};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn device() -> Device {
    Device::flex()
}

fn model(vocab_size: usize, device: &Device) -> CausalModel {
    let shape = CausalConfig {
        max_position_embeddings: 512,
        ..CausalConfig::new(vocab_size)
    };
    shape.init(0, device).expect("the shape is valid")
}

/// Deterministic ids, spread over the vocabulary.
fn tokens(rows: usize, width: usize, vocab_size: usize) -> Vec<Vec<u32>> {
    let id = |i: usize| (i * 7919 % vocab_size) as u32;
    (0..rows)
        .map(|row| (0..width).map(|t| id(row * width + t)).collect())
        .collect()
}

/// Log-probs with gradients of 512 tokens over 16 000 words: in chunks, against the whole `[N, V]`
/// at once.
fn log_probs(c: &mut Criterion) {
    let (rows, width, vocab_size) = (8, 64, 16_000);
    let device = device().autodiff();
    let model = model(vocab_size, &device);
    let ids = tokens(rows, width, vocab_size);
    let batch = TokenBatch::from_rows(&ids, &device).expect("there are tokens");
    let targets: Vec<i32> = ids.concat().iter().map(|&id| id as i32).collect();
    let targets: Tensor<2, Int> =
        Tensor::from_data(TensorData::new(targets, [rows, width]), &device);
    let hidden = || {
        let mut cache = model.empty_cache(rows);
        model.forward(&batch, &mut cache).expect("it fits")
    };
    let mut group = c.benchmark_group("log_probs_and_gradients");
    group.sample_size(10);
    group.bench_function("whole", |b| {
        b.iter(|| {
            let logits = hidden()
                .reshape([rows * width, 128])
                .matmul(model.unembedding());
            let flat = targets.clone().reshape([rows * width]);
            let loss = logits_log_probs(logits, flat, 1.0).log_probs.sum();
            black_box(GradientsParams::from_grads(loss.backward(), &model))
        })
    });
    for chunk in [64, 256] {
        let config = LogProbConfig {
            chunk,
            ..LogProbConfig::default()
        };
        group.bench_function(format!("chunks_of_{chunk}"), |b| {
            b.iter(|| {
                let scored =
                    ScoredTokens::new(hidden(), model.unembedding(), targets.clone(), &config)
                        .expect("shapes fit");
                let loss = scored.log_probs.clone().sum();
                black_box(scored.backward(loss, &model).expect("shapes fit"))
            })
        });
    }
    group.bench_function("chunks_of_256_without_gradients", |b| {
        let config = LogProbConfig {
            chunk: 256,
            ..LogProbConfig::default()
        };
        b.iter(|| {
            let hidden = hidden();
            black_box(token_log_probs(
                hidden,
                model.unembedding(),
                targets.clone(),
                &config,
            ))
        })
    });
    group.finish();
}

/// 32 greedy tokens for 8 prompts of 32: with the cache, against reading everything again for each
/// token.
fn generation(c: &mut Criterion) {
    let (rows, width, count) = (8, 32, 32);
    let device = device();
    let model = model(64, &device);
    let prompts = tokens(rows, width, 64);
    let mut group = c.benchmark_group("generation");
    group.sample_size(10);
    group.bench_function("cached", |b| {
        let config = GenerationConfig::new(count, vec![]).with_sampling(SamplingConfig::greedy());
        let requests: Vec<_> = prompts
            .iter()
            .map(|prompt| GenerationRequest::new(prompt.clone(), 1, []))
            .collect();
        b.iter(|| black_box(generate(&model, &requests, &config)))
    });
    group.bench_function("read_again", |b| {
        b.iter(|| {
            let mut rows_so_far = prompts.clone();
            for _ in 0..count {
                let batch = TokenBatch::from_rows(&rows_so_far, &device).expect("not empty");
                let hidden = model
                    .forward(&batch, &mut model.empty_cache(rows))
                    .expect("it fits");
                let last = batch.width() - 1;
                let logits = hidden
                    .slice([0..rows, last..last + 1])
                    .reshape([rows, 128])
                    .matmul(model.unembedding());
                let next = logits.argmax(1).try_into_vec_as::<i32>().expect("readable");
                for (row, token) in rows_so_far.iter_mut().zip(next) {
                    row.push(token as u32);
                }
            }
            black_box(rows_so_far)
        })
    });
    group.finish();
}

/// Forward and backward of 16 completions of 16 tokens after one prompt of 128: the prompt once,
/// against sixteen times.
fn shared_prefix(c: &mut Criterion) {
    let (group_size, prompt, completion) = (16, 128, 16);
    let device = device().autodiff();
    let model = model(64, &device);
    let prefix = tokens(1, prompt, 64).remove(0);
    let tails = tokens(group_size, completion, 64);
    let mut group = c.benchmark_group("group_forward_backward");
    group.sample_size(10);
    group.bench_function("shared_prompt", |b| {
        b.iter(|| {
            let mut cache = model.empty_cache(1);
            let batch = TokenBatch::from_rows(&[&prefix], &device).expect("not empty");
            model.forward(&batch, &mut cache).expect("it fits");
            cache.select_rows(&vec![0; group_size]);
            let batch = TokenBatch::from_rows(&tails, &device).expect("not empty");
            let hidden = model.forward(&batch, &mut cache).expect("it fits");
            black_box(GradientsParams::from_grads(hidden.sum().backward(), &model))
        })
    });
    group.bench_function("repeated_prompt", |b| {
        let whole: Vec<Vec<u32>> = tails
            .iter()
            .map(|tail| [&prefix[..], tail].concat())
            .collect();
        b.iter(|| {
            let batch = TokenBatch::from_rows(&whole, &device).expect("not empty");
            let hidden = model
                .forward(&batch, &mut model.empty_cache(group_size))
                .expect("it fits");
            let last = hidden.slice([0..group_size, prompt..prompt + completion]);
            black_box(GradientsParams::from_grads(last.sum().backward(), &model))
        })
    });
    group.finish();
}

criterion_group!(benches, log_probs, generation, shared_prefix);
criterion_main!(benches);
