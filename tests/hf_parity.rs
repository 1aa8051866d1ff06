//! Models loaded from open weights compute what Hugging Face transformers computes.
//!
//! Every folder in `RLVR_TINY_DIR` (default `tests/fixtures/hf`) with an `expected.json` is a model
//! with the logits and the greedy continuation of transformers. Saved models are left in
//! `RLVR_SAVED_DIR`, if it is set, for transformers to load (`tests/fixtures/hf/record.py
//! --against`).
//!
//! A binary of its own, because others run it on their own models by this name.

#![cfg(feature = "hf")]

mod common;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use common::{devices, floats};
use rlvr::policy::causal::CausalModel;
use rlvr::policy::hf::{LoadOptions, SaveOptions, load, save};
use rlvr::policy::{PolicyModel, TokenBatch};
use rlvr::rollout::{GenerationConfig, GenerationRequest, SamplingConfig, generate};
use serde::Deserialize;

/// The largest difference of a logit that passes. Where a position's logits go beyond 10, as those
/// of large models do, it is a hundred-thousandth of the largest: both sides compute in f32.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Expected {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    logits: Vec<Vec<f64>>,
    greedy: Vec<u32>,
}

/// The folders with something to compare, by name.
fn families() -> Vec<(String, PathBuf, Vec<Case>)> {
    let root = match std::env::var_os("RLVR_TINY_DIR") {
        Some(given) => PathBuf::from(given),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hf"),
    };
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut found: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("expected.json").exists())
        .map(|path| {
            let text = std::fs::read_to_string(path.join("expected.json")).unwrap();
            let expected: Expected =
                serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, path, expected.cases)
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "no model in {}", root.display());
    found
}

fn open(path: &Path, device: &Device) -> CausalModel {
    load(path, &LoadOptions::f32(), device).unwrap_or_else(|e| panic!("{e}"))
}

/// The logits `[V]` of every token of every row, read in pieces that end at `cuts`.
fn logits(model: &CausalModel, rows: &[&[u32]], cuts: &[usize]) -> Vec<Vec<Vec<f64>>> {
    let mut cache = model.empty_cache(rows.len());
    let mut all: Vec<Vec<Vec<f64>>> = vec![Vec::new(); rows.len()];
    let longest = rows.iter().map(|row| row.len()).max().unwrap();
    let ends = cuts.iter().copied().filter(|&cut| cut < longest);
    let mut from = 0;
    for to in ends.chain([longest]) {
        // A finished row has no more tokens.
        let piece: Vec<&[u32]> = rows
            .iter()
            .map(|row| &row[from.min(row.len())..to.min(row.len())])
            .collect();
        let batch = TokenBatch::from_rows(&piece, &model.device()).unwrap();
        let hidden = model.forward(&batch, &mut cache).unwrap();
        let [count, width, size] = hidden.dims();
        let flat = floats(
            hidden
                .reshape([count * width, size])
                .matmul(model.unembedding()),
        );
        let vocabulary = model.vocab_size();
        for (row, (tokens, all)) in piece.iter().zip(&mut all).enumerate() {
            let start = row * width * vocabulary;
            let own = flat[start..].chunks_exact(vocabulary).take(tokens.len());
            all.extend(own.map(<[f64]>::to_vec));
        }
        from = to;
    }
    all
}

/// The largest difference between `got`, a row's logits, and the expected ones, relative to
/// [`TOLERANCE`].
fn worst(got: &[Vec<f64>], case: &Case) -> f64 {
    let mut worst: f64 = 0.0;
    for (&at, want) in case.positions.iter().zip(&case.logits) {
        assert_eq!(got[at].len(), want.len(), "the size of the vocabulary");
        let largest = want
            .iter()
            .fold(10.0, |max: f64, logit| max.max(logit.abs()));
        for (got, want) in got[at].iter().zip(want) {
            assert!(got.is_finite(), "a logit is {got}");
            worst = worst.max((got - want).abs() * 10.0 / largest);
        }
    }
    worst
}

/// The greedy continuations of all cases in one batch.
fn greedy(model: &CausalModel, cases: &[Case]) -> Vec<Vec<u32>> {
    let requests: Vec<_> = cases
        .iter()
        .map(|case| GenerationRequest::new(case.tokens.clone(), 1, []))
        .collect();
    let config = GenerationConfig {
        max_new_tokens: cases.iter().map(|case| case.greedy.len()).max().unwrap(),
        sampling: SamplingConfig::greedy(),
        ..GenerationConfig::default()
    };
    let answers = generate(model, &requests, &config).unwrap();
    answers
        .into_iter()
        .zip(cases)
        .map(|(mut samples, case)| {
            let mut tokens = samples.remove(0).tokens;
            tokens.truncate(case.greedy.len());
            tokens
        })
        .collect()
}

#[test]
fn logits_and_greedy_tokens_match_transformers() {
    for (name, path, cases) in families() {
        for (backend, device) in devices() {
            let model = open(&path, &device);
            let mut largest: f64 = 0.0;
            let mut check = |what: &str, rows: &[Vec<Vec<f64>>], cases: &[Case]| {
                for (index, (row, case)) in rows.iter().zip(cases).enumerate() {
                    let worst = worst(row, case);
                    assert!(
                        worst <= TOLERANCE,
                        "{name} on {backend}, {what}, case {index}: a logit is off by {worst:e}"
                    );
                    largest = largest.max(worst);
                }
            };
            for case in &cases {
                let alone = [case.tokens.as_slice()];
                let case = std::slice::from_ref(case);
                check("without cache", &logits(&model, &alone, &[]), case);
                check("in pieces", &logits(&model, &alone, &[1, 4, 20]), case);
                if alone[0].len() <= 50 {
                    let each: Vec<usize> = (1..alone[0].len()).collect();
                    check("token by token", &logits(&model, &alone, &each), case);
                }
            }
            let rows: Vec<&[u32]> = cases.iter().map(|case| case.tokens.as_slice()).collect();
            check("all rows together", &logits(&model, &rows, &[]), &cases);
            let continued = logits(&model, &rows, &[3, 17]);
            check("all rows together, in pieces", &continued, &cases);
            let tokens = greedy(&model, &cases);
            for (index, (got, case)) in tokens.iter().zip(&cases).enumerate() {
                assert_eq!(
                    *got, case.greedy,
                    "{name} on {backend}, greedy, case {index}"
                );
            }
            println!(
                "{name} on {backend}: {} cases, largest difference {largest:.1e}",
                cases.len()
            );
        }
    }
}

#[test]
fn a_saved_model_computes_the_same_logits() {
    for (name, path, cases) in families() {
        let (_, device) = devices().remove(0);
        let model = open(&path, &device);
        let temporary = tempfile::tempdir().unwrap();
        let root = match std::env::var_os("RLVR_SAVED_DIR") {
            Some(kept) => PathBuf::from(kept).join(&name),
            None => temporary.path().to_path_buf(),
        };
        std::fs::create_dir_all(&root).unwrap();
        let bytes = 4 * model.num_params();
        let own = ("own", u64::MAX);
        for (kind, limit) in [("whole", u64::MAX), ("sharded", bytes as u64 / 3), own] {
            let saved = root.join(kind);
            let options = SaveOptions {
                // The last one is written from the model's own configuration.
                from: (kind != "own").then(|| path.clone()),
                max_shard_size: limit,
                replace: true,
                ..SaveOptions::default()
            };
            save(&model, &saved, &options).unwrap();
            let sharded = saved.join("model.safetensors.index.json").exists();
            assert_eq!(sharded, kind == "sharded", "{name}");
            let again = open(&saved, &device);
            for case in &cases {
                let rows = [case.tokens.as_slice()];
                let (before, after) = (logits(&model, &rows, &[]), logits(&again, &rows, &[]));
                assert!(before == after, "{name}, {kind}: logits changed");
            }
        }
    }
}
