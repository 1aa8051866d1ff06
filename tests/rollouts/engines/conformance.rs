//! The requirements of an engine, one by one: checked against mock servers for every protocol here,
//! and against a real server in `real.rs`.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

use burn::module::Module;
use rlvr::policy::causal::CausalModel;
use rlvr::rollout::remote::{RemoteConfig, RemoteEngines};
use rlvr::rollout::{
    AsyncEngine, Completion, FinishReason, GenerationConfig, GenerationRequest, InFlight,
    SamplingConfig,
};

use super::bench::{Bench, VOCABULARY, ask, assert_true, log_probs, mismatch, policy};
use super::mock::Options;
use crate::common::until;

/// An engine under test.
pub struct Subject<'a> {
    pub config: RemoteConfig,
    pub policies: [CausalModel; 2],
    /// A prompt whose continuations have some entropy.
    pub prompt: Vec<u32>,
    /// A prompt that fills blocks of the prefix cache.
    pub long: Vec<u32>,
    /// A prompt whose continuation probably ends.
    pub ending: Vec<u32>,
    /// The number of draws for the comparison of frequencies.
    pub draws: usize,
    pub tolerance: f64,
    /// The number of requests that the servers run.
    pub running: &'a dyn Fn() -> usize,
    pub engines: Option<RemoteEngines>,
    version: u64,
    address: u64,
    /// The largest difference to the trainer's log-probs so far.
    pub worst: f64,
}

type Point = (&'static str, fn(&mut Subject));

/// The requirements, in order.
pub const POINTS: [Point; 15] = [
    ("1: token ids are read as they were sent", ids_echo),
    ("2: log-probs are the trainer's", log_probs_are_true),
    ("3: at temperature 2, those of temperature 2", temperature),
    (
        "4: under top-p and top-k, those of what is kept",
        truncation,
    ),
    (
        "5: the same seed gives the same tokens, another one others",
        seeds,
    ),
    ("6: the stop token is the last one and counted", stop_token),
    ("7: the length is max_new_tokens", length),
    (
        "8: an end of text that is not asked for does not end",
        end_of_text,
    ),
    ("9: a stream gives what a whole answer gives", streaming),
    (
        "10: tokens come as often as their probabilities say",
        frequencies,
    ),
    ("11: new weights give new log-probs", reload),
    (
        "12: the prefix cache does not outlive weights",
        prefix_cache,
    ),
    ("13: versions cover all tokens over an update", spans),
    ("14: closing the connection aborts", abort),
    ("15: max_tokens of 1 is honoured", one_token),
];

impl<'a> Subject<'a> {
    pub fn new(
        config: RemoteConfig,
        policies: [CausalModel; 2],
        running: &'a dyn Fn() -> usize,
    ) -> Self {
        Self {
            config,
            policies,
            prompt: vec![3, 14, 15, 9, 2],
            long: (0..60)
                .map(|at| (at * 17 + 3) % VOCABULARY as u32)
                .collect(),
            ending: vec![8, 8, 8],
            draws: 2000,
            tolerance: 1e-4,
            running,
            engines: None,
            version: 0,
            address: 0,
            worst: 0.0,
        }
    }

    /// Runs every point and prints it.
    pub fn run(&mut self) {
        for (name, point) in POINTS {
            let start = std::time::Instant::now();
            point(self);
            crate::common::report(&format!(
                "{name}: ok ({:.1} s)",
                start.elapsed().as_secs_f64()
            ));
        }
    }

    fn request(&mut self, prompt: &[u32], samples: usize) -> GenerationRequest {
        self.address += 1;
        GenerationRequest::new(prompt.to_vec(), samples, [77, self.address])
    }

    /// Loads a policy under a new version.
    fn load(&mut self, which: usize) {
        self.version += 1;
        let (policy, version, config) = (
            self.policies[which].clone(),
            self.version,
            self.config.clone(),
        );
        let engines = self
            .engines
            .get_or_insert_with(|| RemoteEngines::connect(config).unwrap());
        engines.load(&policy, version).unwrap();
    }

    /// Answers by the first policy.
    fn answers(
        &mut self,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Vec<Vec<Completion>> {
        if self.engines.is_none() {
            self.load(0);
        }
        let (policy, version) = (self.policies[0].clone(), self.version);
        ask(
            self.engines.as_mut().unwrap(),
            &policy,
            version,
            requests,
            config,
        )
        .unwrap()
    }

    fn answer(
        &mut self,
        prompt: &[u32],
        samples: usize,
        config: &GenerationConfig,
    ) -> Vec<Completion> {
        let request = self.request(prompt, samples);
        self.answers(&[request], config).remove(0)
    }

    fn assert_of(
        &mut self,
        which: usize,
        prompt: &[u32],
        completions: &[Completion],
        temperature: f64,
    ) {
        for completion in completions {
            let found = mismatch(&self.policies[which], prompt, completion, temperature);
            self.worst = self.worst.max(found);
            assert!(found <= self.tolerance, "{found}: {completion:?}");
        }
    }
}

fn at(temperature: f64) -> SamplingConfig {
    SamplingConfig {
        temperature,
        ..SamplingConfig::default()
    }
}

fn ids_echo(subject: &mut Subject) {
    // Ids that no text encodes to. Each answer is checked for its echoed prompt and its log-probs.
    let prompt = subject.long[..7].to_vec();
    let found = subject.answer(&prompt, 2, &GenerationConfig::new(3, vec![]));
    subject.assert_of(0, &prompt, &found, 1.0);
}

fn log_probs_are_true(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let found = subject.answer(&prompt, 4, &GenerationConfig::new(12, vec![]));
    subject.assert_of(0, &prompt, &found, 1.0);
}

fn temperature(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let config = GenerationConfig::new(6, vec![]).with_sampling(at(2.0));
    let found = subject.answer(&prompt, 3, &config);
    subject.assert_of(0, &prompt, &found, 2.0);
    let cold = GenerationConfig::new(6, vec![]).with_sampling(at(0.5));
    let found = subject.answer(&prompt, 3, &cold);
    subject.assert_of(0, &prompt, &found, 0.5);
}

fn truncation(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let request = subject.request(&prompt, 4);
    let filters = [
        SamplingConfig {
            top_p: Some(0.5),
            ..at(1.0)
        },
        SamplingConfig {
            top_k: Some(3),
            ..at(1.0)
        },
        SamplingConfig {
            min_p: Some(0.4),
            ..at(1.0)
        },
    ];
    for sampling in filters {
        let config = GenerationConfig::new(1, vec![]).with_sampling(sampling);
        if subject.config.engines[0].to_string().starts_with("sglang") {
            let policy = subject.policies[0].clone();
            let (engines, version) = (subject.engines.as_mut().unwrap(), subject.version);
            let refused = ask(
                engines,
                &policy,
                version,
                std::slice::from_ref(&request),
                &config,
            )
            .unwrap_err();
            assert!(
                refused.to_string().contains("before truncation"),
                "{refused}"
            );
            continue;
        }
        let vocabulary = policy_vocabulary(&subject.policies[0]);
        let all: Vec<f64> = first_token(&subject.policies[0], &prompt, vocabulary);
        for completion in subject
            .answers(std::slice::from_ref(&request), &config)
            .remove(0)
        {
            let own = all[completion.tokens[0] as usize];
            // The kept tokens are at least as probable as the drawn one.
            let mut kept: Vec<f64> = all.clone();
            kept.sort_by(|a, b| b.total_cmp(a));
            let top = kept[0];
            let mut sum = 0.0;
            let least = (top * sampling.min_p.unwrap_or(0.0)).max(0.0);
            let kept: Vec<f64> = kept
                .into_iter()
                .take(sampling.top_k.unwrap_or(usize::MAX))
                .take_while(|p| {
                    let before = sum;
                    sum += p;
                    before < sampling.top_p.unwrap_or(2.0) && *p >= least
                })
                .collect();
            let mass: f64 = kept.iter().sum();
            let found = f64::from(completion.log_probs[0]);
            assert!(
                (found - (own / mass).ln()).abs() <= subject.tolerance,
                "{found} {own} {mass} {sampling:?}"
            );
        }
    }
}

fn policy_vocabulary(policy: &CausalModel) -> usize {
    policy.config().vocab_size
}

/// The probability of each token after a prompt.
fn first_token(policy: &CausalModel, prompt: &[u32], vocabulary: usize) -> Vec<f64> {
    use burn::tensor::activation::softmax;
    use rlvr::policy::{PolicyModel, TokenBatch};
    let policy = policy.valid();
    let batch = TokenBatch::from_rows(&[prompt], &policy.device()).unwrap();
    let hidden = policy.forward(&batch, &mut policy.empty_cache(1)).unwrap();
    let [_, width, size] = hidden.dims();
    let last = hidden
        .reshape([width, size])
        .slice([width - 1..width, 0..size]);
    let p = softmax(last.matmul(policy.unembedding()), 1)
        .try_into_vec_as::<f32>()
        .unwrap();
    assert_eq!(p.len(), vocabulary);
    p.into_iter().map(f64::from).collect()
}

fn seeds(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let (one, other) = (subject.request(&prompt, 2), subject.request(&prompt, 2));
    let config = GenerationConfig::new(8, vec![]);
    let found = subject.answers(&[one.clone(), one, other], &config);
    let tokens = |group: usize| {
        found[group]
            .iter()
            .map(|c| c.tokens.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(tokens(0), tokens(1));
    assert_ne!(tokens(0), tokens(2));
    assert_ne!(tokens(0)[0], tokens(0)[1]);
}

fn stop_token(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let request = subject.request(&prompt, 1);
    let whole = subject
        .answers(
            std::slice::from_ref(&request),
            &GenerationConfig::new(8, vec![]),
        )
        .remove(0)
        .remove(0);
    let stop = whole.tokens[3];
    let end = whole
        .tokens
        .iter()
        .position(|&token| token == stop)
        .unwrap();
    let stopped = subject
        .answers(&[request], &GenerationConfig::new(8, vec![stop]))
        .remove(0)
        .remove(0);
    assert_eq!(stopped.tokens, whole.tokens[..=end]);
    assert_eq!(
        (stopped.log_probs.len(), stopped.finish),
        (end + 1, FinishReason::Stop)
    );
}

fn length(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    for completion in subject.answer(&prompt, 3, &GenerationConfig::new(5, vec![])) {
        assert_eq!(
            (completion.tokens.len(), completion.finish),
            (5, FinishReason::Length)
        );
    }
}

fn end_of_text(subject: &mut Subject) {
    let prompt = subject.ending.clone();
    let found = subject.answer(&prompt, 4, &GenerationConfig::new(16, vec![]));
    assert!(found.iter().all(|completion| completion.tokens.len() == 16));
    subject.assert_of(0, &prompt, &found, 1.0);
}

fn streaming(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let request = subject.request(&prompt, 3);
    let config = GenerationConfig::new(9, vec![]);
    let whole = subject.answers(std::slice::from_ref(&request), &config);
    let stream = subject.config.stream;
    // A server belongs to one run.
    subject.engines = None;
    subject.config.stream = !stream;
    subject.load(0);
    let streamed = subject.answers(&[request], &config);
    for (whole, streamed) in whole[0].iter().zip(&streamed[0]) {
        assert_eq!(whole.tokens, streamed.tokens);
        let pairs = whole.log_probs.iter().zip(&streamed.log_probs);
        assert!(
            pairs
                .clone()
                .all(|(a, b)| f64::from((a - b).abs()) <= subject.tolerance)
        );
    }
    subject.engines = None;
    subject.config.stream = stream;
}

fn frequencies(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let draws = subject.draws;
    let found = subject.answer(&prompt, draws, &GenerationConfig::new(1, vec![]));
    let mut counts: BTreeMap<u32, f64> = BTreeMap::new();
    for completion in &found {
        *counts.entry(completion.tokens[0]).or_default() += 1.0;
    }
    let p = first_token(
        &subject.policies[0],
        &prompt,
        policy_vocabulary(&subject.policies[0]),
    );
    // Pearson's statistic; tokens that are expected less than five times count as one.
    let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    for (token, p) in p.iter().enumerate() {
        let (expected, count) = (
            p * draws as f64,
            counts.get(&(token as u32)).copied().unwrap_or(0.0),
        );
        match expected >= 5.0 {
            true => {
                statistic += (count - expected).powi(2) / expected;
                cells += 1.0;
            }
            false => rest = (rest.0 + expected, rest.1 + count),
        }
    }
    if rest.0 > 0.0 {
        statistic += (rest.1 - rest.0).powi(2) / rest.0;
        cells += 1.0;
    }
    let freedom: f64 = cells - 1.0;
    assert!(freedom >= 2.0, "too few cells: {cells}");
    // Five standard deviations above the mean.
    let most = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(
        statistic < most,
        "{statistic} > {most} with {freedom} degrees of freedom"
    );
}

fn reload(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let config = GenerationConfig::new(4, vec![]);
    subject.load(1);
    let request = subject.request(&prompt, 2);
    let (policy, version) = (subject.policies[1].clone(), subject.version);
    let found = ask(
        subject.engines.as_mut().unwrap(),
        &policy,
        version,
        &[request],
        &config,
    )
    .unwrap();
    subject.assert_of(1, &prompt, &found[0], 1.0);
    let old = mismatch(&subject.policies[0], &prompt, &found[0][0], 1.0);
    assert!(
        old > 10.0 * subject.tolerance,
        "the policies are too similar: {old}"
    );
    for completion in &found[0] {
        assert!(
            completion
                .versions
                .iter()
                .all(|span| span.version == version)
        );
    }
    subject.load(0);
}

fn prefix_cache(subject: &mut Subject) {
    let prompt = subject.long.clone();
    let config = GenerationConfig::new(2, vec![]);
    let found = subject.answer(&prompt, 1, &config);
    subject.assert_of(0, &prompt, &found, 1.0);
    subject.load(1);
    let request = subject.request(&prompt, 1);
    let (policy, version) = (subject.policies[1].clone(), subject.version);
    let found = ask(
        subject.engines.as_mut().unwrap(),
        &policy,
        version,
        &[request],
        &config,
    )
    .unwrap();
    subject.assert_of(1, &prompt, &found[0], 1.0);
    subject.load(0);
    let found = subject.answer(&prompt, 1, &config);
    subject.assert_of(0, &prompt, &found, 1.0);
}

fn spans(subject: &mut Subject) {
    if subject.engines.is_none() {
        subject.load(0);
    }
    // On a slow machine the samples may end before the update begins.
    let crossed = (0..10).any(|_| {
        let crossed = update_in_flight(subject);
        subject.load(0);
        crossed
    });
    assert!(crossed, "nothing was in flight during the update");
}

/// Loads new weights while two samples run; whether one of them has tokens of both versions.
fn update_in_flight(subject: &mut Subject) -> bool {
    let prompt = subject.prompt.clone();
    let (before, after) = (subject.version, subject.version + 1);
    let request = subject.request(&prompt, 2);
    let (sender, receiver) = mpsc::channel();
    let config = GenerationConfig::new(80, vec![]);
    let engines = subject.engines.as_mut().unwrap();
    let submit = AsyncEngine::<CausalModel>::submit;
    submit(engines, request, &config, &sender).unwrap();
    until("both samples run", || (subject.running)() >= 2);
    std::thread::sleep(Duration::from_millis(100));
    subject.load(1);
    let answer = receiver.recv_timeout(Duration::from_secs(120)).unwrap();
    let mut crossed = 0;
    for completion in answer.completions {
        let completion = completion.unwrap();
        let spans = &completion.versions;
        assert_eq!(
            spans.iter().map(|span| span.tokens).sum::<usize>(),
            completion.tokens.len()
        );
        assert!(
            spans
                .iter()
                .all(|span| [before, after].contains(&span.version)),
            "{spans:?}"
        );
        crossed += usize::from(spans.len() == 2);
        if subject.config.in_flight == (InFlight::Continue { recompute: true }) {
            let mut from = 0;
            for span in spans {
                let policy = &subject.policies[usize::from(span.version == after)];
                let own = log_probs(policy, &prompt, &completion.tokens, 1.0);
                let range = from..from + span.tokens;
                let pairs = own[range.clone()].iter().zip(&completion.log_probs[range]);
                let worst = pairs
                    .map(|(a, b)| f64::from((a - b).abs()))
                    .fold(0.0, f64::max);
                assert!(
                    worst <= subject.tolerance,
                    "{worst} in {span:?} from {from}"
                );
                from += span.tokens;
            }
        }
    }
    crossed > 0
}

fn abort(subject: &mut Subject) {
    if subject.engines.is_none() {
        subject.load(0);
    }
    let prompt = subject.prompt.clone();
    let request = subject.request(&prompt, 2);
    let (sender, receiver) = mpsc::channel();
    let engines = subject.engines.as_mut().unwrap();
    let config = GenerationConfig::new(200, vec![]);
    let ticket = AsyncEngine::<CausalModel>::submit(engines, request, &config, &sender).unwrap();
    until("both samples run", || (subject.running)() >= 2);
    AsyncEngine::<CausalModel>::cancel(engines, ticket);
    until("nothing runs", || (subject.running)() == 0);
    assert!(receiver.try_recv().is_err());
}

fn one_token(subject: &mut Subject) {
    let prompt = subject.prompt.clone();
    let found = subject.answer(&prompt, 2, &GenerationConfig::new(1, vec![]));
    assert!(found.iter().all(|completion| completion.tokens.len() == 1));
}

/// Runs all points against a mock of this kind.
fn examine(kind: &str, options: Options, edit: impl Fn(&mut RemoteConfig)) {
    let options = Options {
        // End tokens that are sampled often.
        eos: vec![1, 2, 3, 4, 6, 7, 8],
        pace: Duration::from_millis(4),
        ..options
    };
    let bench = Bench::new(1, options);
    let mock = &bench.mocks[0];
    let running = || {
        mock.gauges()
            .running
            .load(std::sync::atomic::Ordering::SeqCst)
    };
    let mut config = bench.config(kind);
    edit(&mut config);
    let mut subject = Subject::new(config, [policy(0), policy(1)], &running);
    // Fewer draws, because a token takes 4 ms.
    subject.draws = 1500;
    subject.run();
}

#[test]
fn vllm_completions_conform() {
    examine("vllm", Options::default(), |_| {});
}

#[test]
fn vllm_completions_without_version_reports_conform() {
    let old = Options {
        reports: false,
        labels: false,
        ..Options::default()
    };
    examine("vllm", old, |_| {});
}

#[test]
fn vllm_generate_conforms() {
    examine("vllm-generate", Options::default(), |_| {});
}

#[test]
fn vllm_generate_of_the_old_shape_conforms_as_a_stream() {
    let old = Options {
        old_shape: true,
        generate_reports: false,
        resets: false,
        chunk: 3,
        piece: 7,
        ..Options::default()
    };
    examine("vllm-generate", old, |config| config.stream = true);
}

#[test]
fn sglang_conforms() {
    examine("sglang", Options::default(), |_| {});
}

#[test]
fn sglang_conforms_as_an_incremental_stream_without_recomputation() {
    let incremental = Options {
        incremental: true,
        ..Options::default()
    };
    examine("sglang", incremental, |config| {
        config.stream = true;
        config.in_flight = InFlight::Continue { recompute: false };
    });
}

#[test]
fn two_engines_have_the_same_weights() {
    let bench = Bench::new(2, Options::default());
    let mut engines = bench.connect("vllm");
    for version in 0..3 {
        let policy = policy(version);
        let requests = super::bench::requests(6, 2);
        let config = GenerationConfig::new(4, vec![]);
        let answers = ask(&mut engines, &policy, version, &requests, &config).unwrap();
        assert_true(&policy, &requests, &answers, &config.sampling);
    }
    for mock in &bench.mocks {
        assert!(!mock.asked("/v1/completions").is_empty());
        assert_eq!(mock.asked("/collective_rpc").len(), 3);
    }
}
