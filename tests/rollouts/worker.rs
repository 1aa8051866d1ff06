//! The local engine in a background thread: the contract of
//! [`AsyncEngine`](rlvr::rollout::AsyncEngine) under new weights, failures and concurrent training.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::policy::{KvCache, PolicyModel, TokenBatch};
use rlvr::rollout::{
    Answer, AsyncEngine, Completion, GenerationConfig, GenerationRequest, InFlight, LocalWorker,
    generate, generate_with,
};

use crate::common::devices;
use crate::common::toy;

const PATIENCE: Duration = Duration::from_secs(60);

fn model(seed: u64, device: &Device) -> CausalModel {
    CausalConfig {
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 1,
        max_position_embeddings: 512,
        ..CausalConfig::new(12)
    }
    .init(seed, device)
    .unwrap()
}

fn requests(count: u64) -> Vec<GenerationRequest> {
    let request = |index: u64| {
        let prompt = vec![index as u32 % 12; 1 + index as usize % 3];
        GenerationRequest::new(prompt, 1 + index as usize % 4, [index])
    };
    (0..count).map(request).collect()
}

/// Completions that do not end before their limit.
fn endless(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig::new(max_new_tokens, Vec::new())
}

fn next(answers: &Receiver<Answer>) -> (u64, Vec<Completion>) {
    let answer = answers.recv_timeout(PATIENCE).unwrap();
    let completions = answer.completions.into_iter().map(Result::unwrap);
    (answer.ticket, completions.collect())
}

/// The error messages of an answer.
fn errors(answer: Answer) -> Vec<String> {
    let error = |completion: rlvr::Result<Completion>| completion.unwrap_err().to_string();
    answer.completions.into_iter().map(error).collect()
}

fn tokens(completions: &[Completion]) -> Vec<&[u32]> {
    completions.iter().map(|c| c.tokens.as_slice()).collect()
}

/// A policy whose forward passes wait for a permit, and panic when there will be no more.
#[derive(Module, Debug)]
struct Gated {
    inner: CausalModel,
    #[module(skip)]
    permits: Arc<Mutex<Receiver<()>>>,
    #[module(skip)]
    passes: Arc<AtomicUsize>,
}

impl PolicyModel for Gated {
    crate::passed_on_to_inner!();

    fn forward(&self, tokens: &TokenBatch, cache: &mut KvCache) -> rlvr::Result<Tensor<3>> {
        let permit = self.permits.lock().unwrap().recv();
        permit.expect("no pass is permitted any more");
        self.passes.fetch_add(1, Ordering::SeqCst);
        self.inner.forward(tokens, cache)
    }
}

fn gated(inner: CausalModel) -> (Gated, mpsc::Sender<()>) {
    let (sender, permits) = mpsc::channel();
    let gated = Gated {
        inner,
        permits: Arc::new(Mutex::new(permits)),
        passes: Arc::default(),
    };
    (gated, sender)
}

#[test]
fn the_worker_gives_the_same_completions_as_generate() {
    for (backend, device) in devices() {
        let policy = model(1, &device.clone().autodiff());
        let config = GenerationConfig {
            max_rows: 5,
            ..GenerationConfig::new(12, vec![1, 5])
        };
        let mut worker = LocalWorker::default();
        for version in [3, 4] {
            let want = generate(&policy.valid(), &requests(9), &config).unwrap();
            let got = generate_with(&mut worker, &policy, version, &requests(9), &config).unwrap();
            assert_eq!(AsyncEngine::<CausalModel>::version(&worker), Some(version));
            for (got, want) in got.iter().zip(&want) {
                assert_eq!(tokens(got), tokens(want), "{backend}");
                let of = |c: &Completion| c.versions.iter().all(|span| span.version == version);
                assert!(got.iter().all(of), "{backend}");
            }
        }
    }
}

#[test]
fn requests_in_flight_follow_the_configured_policy_on_new_weights() {
    let (_, device) = devices().remove(0);
    let (old, new) = (model(1, &device), model(2, &device));
    let request = GenerationRequest::new(vec![2, 3], 3, [8]);
    let of = |model: &CausalModel| {
        let requests = std::slice::from_ref(&request);
        generate(model, requests, &endless(40)).unwrap().remove(0)
    };
    let (before, after) = (of(&old), of(&new));
    for in_flight in [
        InFlight::Continue { recompute: true },
        InFlight::Continue { recompute: false },
        InFlight::Redo,
        InFlight::Finish,
    ] {
        let (first, permits) = gated(old.clone());
        let (second, more) = gated(new.clone());
        let mut worker = LocalWorker::new(in_flight);
        worker.load(&first, 5).unwrap();
        let (sender, answers) = mpsc::channel();
        let ticket = worker
            .submit(request.clone(), &endless(40), &sender)
            .unwrap();
        // Ten tokens of the old weights, and one that is sampled during the load.
        (0..10).for_each(|_| permits.send(()).unwrap());
        while first.passes.load(Ordering::SeqCst) < 10 {
            std::thread::yield_now();
        }
        (0..40).for_each(|_| more.send(()).unwrap());
        let late = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let rest = match in_flight {
                InFlight::Finish => 30,
                _ => 1,
            };
            (0..rest).for_each(|_| permits.send(()).unwrap());
            permits
        });
        worker.load(&second, 6).unwrap();
        let (answered, completions) = next(&answers);
        assert_eq!(answered, ticket);
        for (sample, completion) in completions.iter().enumerate() {
            let spans: Vec<(u64, usize)> = completion
                .versions
                .iter()
                .map(|span| (span.version, span.tokens))
                .collect();
            match in_flight {
                InFlight::Finish => {
                    assert_eq!(spans, [(5, 40)]);
                    assert_eq!(completion.tokens, before[sample].tokens);
                }
                InFlight::Redo => {
                    assert_eq!(spans, [(6, 40)]);
                    assert_eq!(completion.tokens, after[sample].tokens);
                }
                InFlight::Continue { .. } => {
                    let [(5, old), (6, rest)] = spans[..] else {
                        panic!("{spans:?}");
                    };
                    assert!((10..=11).contains(&old) && old + rest == 40, "{spans:?}");
                    assert_eq!(completion.tokens[..old], before[sample].tokens[..old]);
                }
            }
        }
        drop(late.join().unwrap());
    }
}

#[test]
fn a_panic_fails_its_requests_and_the_worker_recovers() {
    let (_, device) = devices().remove(0);
    let (policy, permits) = gated(model(1, &device));
    let mut worker = LocalWorker::default();
    worker.load(&policy, 1).unwrap();
    let (sender, answers) = mpsc::channel();
    let submit = |worker: &mut LocalWorker<Gated>, index: usize| {
        let request = requests(4).remove(index);
        worker.submit(request, &endless(9), &sender)
    };
    let tickets: Vec<u64> = (0..4)
        .map(|index| submit(&mut worker, index).unwrap())
        .collect();
    worker.check().unwrap();
    worker.cancel(tickets[2]);
    drop(permits);
    for index in [0, 1, 3] {
        let answer = answers.recv_timeout(PATIENCE).unwrap();
        assert_eq!(answer.ticket, tickets[index]);
        let errors = errors(answer);
        assert_eq!(errors.len(), requests(4)[index].samples);
        for error in errors {
            let ticket = format!("request {}", tickets[index]);
            for part in [&ticket, "panicked", "no pass is permitted any more", "load"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
    let message = worker.check().unwrap_err().to_string();
    assert!(
        message.contains("no pass is permitted any more"),
        "{message}"
    );
    assert_eq!(worker.version(), None);
    assert!(submit(&mut worker, 0).is_err());
    // A policy that works.
    let (policy, permits) = gated(model(1, &device));
    worker.load(&policy, 2).unwrap();
    worker.check().unwrap();
    let ticket = submit(&mut worker, 1).unwrap();
    (0..9).for_each(|_| permits.send(()).unwrap());
    assert_eq!(next(&answers).0, ticket);
}

#[test]
fn diverged_weights_are_an_error() {
    let (_, device) = devices().remove(0);
    let mut broken = model(1, &device);
    broken.norm.gamma = broken.norm.gamma.map(|gamma| gamma.mul_scalar(f32::NAN));
    let mut worker = LocalWorker::default();
    let config = endless(5);
    let error = generate_with(&mut worker, &broken, 0, &requests(3), &config).unwrap_err();
    assert!(error.to_string().contains("diverged"), "{error}");
    let good = model(1, &device);
    let answers = generate_with(&mut worker, &good, 1, &requests(3), &config).unwrap();
    assert_eq!(answers.len(), 3);
}

#[test]
fn invalid_requests_are_errors() {
    let (_, device) = devices().remove(0);
    let mut worker: LocalWorker<CausalModel> = LocalWorker::default();
    let (sender, answers) = mpsc::channel();
    let refusal = |worker: &mut LocalWorker<CausalModel>, prompt: Vec<u32>, config| {
        let request = GenerationRequest::new(prompt, 1, [0]);
        worker
            .submit(request, &config, &sender)
            .unwrap_err()
            .to_string()
    };
    let message = refusal(&mut worker, vec![1], endless(4));
    assert!(message.contains("no policy is loaded"), "{message}");
    worker.load(&model(1, &device), 0).unwrap();
    for (prompt, config, part) in [
        (vec![], endless(4), "0 tokens"),
        (vec![12], endless(4), "token id 12"),
        (vec![1], endless(0), "max_new_tokens"),
        (vec![1], GenerationConfig::new(4, vec![12]), "stop_tokens"),
    ] {
        let message = refusal(&mut worker, prompt, config);
        assert!(message.contains(part), "{part}: {message}");
    }
    let other = CausalConfig::new(13).init(0, &device).unwrap();
    let message = worker.load(&other, 1).unwrap_err().to_string();
    assert!(message.contains("a vocabulary of 13"), "{message}");
    assert_eq!(worker.version(), None);
    assert!(worker.check().is_err());
    assert!(answers.try_recv().is_err());
    worker.load(&other, 1).unwrap();
    assert_eq!(worker.version(), Some(1));
}

#[test]
fn load_and_idle_time_are_measured() {
    let (_, device) = devices().remove(0);
    let (policy, permits) = gated(model(1, &device));
    let mut worker = LocalWorker::default();
    worker.load(&policy, 1).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    let idle = worker.metrics()["engine/idle_seconds"];
    assert!((0.03..60.0).contains(&idle), "{idle}");
    let (sender, answers) = mpsc::channel();
    let config = GenerationConfig {
        max_rows: 4,
        ..endless(9)
    };
    for index in 0..2 {
        let request = GenerationRequest::new(vec![2], 3, [index]);
        worker.submit(request, &config, &sender).unwrap();
    }
    permits.send(()).unwrap();
    permits.send(()).unwrap();
    let mut tokens = 0.0;
    let metrics = loop {
        let metrics = worker.metrics();
        tokens += metrics["engine/tokens"];
        if tokens == 6.0 {
            break metrics;
        }
        std::thread::yield_now();
    };
    assert_eq!(
        (metrics["engine/running"], metrics["engine/waiting"]),
        (3.0, 1.0)
    );
    let idle = worker.metrics()["engine/idle_seconds"];
    assert_eq!(idle, 0.0);
    (0..40).for_each(|_| permits.send(()).unwrap());
    next(&answers);
    next(&answers);
    drop(worker);
}

#[test]
fn dropping_the_worker_ends_the_thread() {
    let (_, device) = devices().remove(0);
    let mut worker = LocalWorker::default();
    worker.load(&model(1, &device), 1).unwrap();
    let (sender, answers) = mpsc::channel();
    for request in requests(40) {
        worker.submit(request, &endless(400), &sender).unwrap();
    }
    drop(sender);
    drop(worker);
    // Unanswered requests were dropped with the thread.
    while answers.recv_timeout(PATIENCE).is_ok() {}
    assert!(matches!(
        answers.try_recv(),
        Err(mpsc::TryRecvError::Disconnected)
    ));
}

#[test]
fn a_learner_and_the_worker_compute_at_the_same_time() {
    let device = toy::device();
    let mut trainer = toy::trainer(&toy::config(), 3, &device);
    let mut worker = LocalWorker::new(InFlight::default());
    worker.load(trainer.policy(), 0).unwrap();
    let (sender, answers) = mpsc::channel();
    let config = GenerationConfig::new(14, Vec::new());
    let (mut submitted, mut answered) = (0, 0);
    let mut tokens = 0.0;
    for version in 1..=12 {
        while submitted - answered < 24 {
            let request = GenerationRequest::new(vec![2, 3], 4, [submitted]);
            worker.submit(request, &config, &sender).unwrap();
            submitted += 1;
        }
        trainer.step().unwrap();
        answered += answers.try_iter().count() as u64;
        worker.load(trainer.policy(), version).unwrap();
        tokens += worker.metrics()["engine/tokens"];
    }
    // Both made progress, and nothing is lost.
    assert!(tokens > 0.0);
    while answered < submitted {
        let (_, completions) = next(&answers);
        assert_eq!(completions.len(), 4);
        answered += 1;
    }
    worker.check().unwrap();
}
