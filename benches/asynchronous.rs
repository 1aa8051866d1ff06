//! Whether generation and learning overlap: an engine that takes a known time, and an update that
//! takes about as long.
//!
//! ```text
//! synchronous:   step / (generation + update)        about 1
//! asynchronous:  step / max(generation, update)      at most 1.1
//! ```

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use rlvr::loss::SamplerCorrection;
use rlvr::policy::causal::{CausalConfig, CausalModel};
use rlvr::prompt::{CharTokenizer, Problem, Tokenizer};
use rlvr::reward::{FnReward, RewardSet};
use rlvr::rollout::{
    Answer, AsyncEngine, Completion, FinishReason, GenerationConfig, GenerationRequest, InFlight,
};
use rlvr::train::{AsyncConfig, AsyncRollouts, Trainer, TrainerConfig};

const PROBLEMS: usize = 8;
const GROUP: usize = 8;
const TOKENS: usize = 64;
const STEPS: usize = 12;

/// Answers a batch after a fixed time, like a server whose batch has room for all.
struct Waiting {
    latency: Duration,
    version: Option<u64>,
    tickets: u64,
}

impl AsyncEngine<CausalModel> for Waiting {
    fn load(&mut self, _policy: &CausalModel, version: u64) -> rlvr::Result<()> {
        self.version = Some(version);
        Ok(())
    }

    fn in_flight(&self) -> InFlight {
        InFlight::Finish
    }

    fn version(&self) -> Option<u64> {
        self.version
    }

    fn submit(
        &mut self,
        request: GenerationRequest,
        _config: &GenerationConfig,
        answers: &Sender<Answer>,
    ) -> rlvr::Result<u64> {
        self.tickets += 1;
        let (ticket, latency, answers) = (self.tickets, self.latency, answers.clone());
        thread::spawn(move || {
            thread::sleep(latency);
            let completion = |sample: usize| {
                let token = |t: usize| 2 + ((sample + t) % 10) as u32;
                let tokens = (0..TOKENS).map(token).collect();
                let log_probs = vec![-2.3; TOKENS];
                Ok(Completion::new(tokens, log_probs, FinishReason::Length))
            };
            let completions = (0..request.samples).map(completion).collect();
            let _ = answers.send(Answer {
                ticket,
                completions,
            });
        });
        Ok(ticket)
    }

    fn cancel(&mut self, _ticket: u64) {}
}

fn trainer(latency: Duration, max_staleness: u64) -> rlvr::Result<Trainer<CausalModel>> {
    let tokenizer = CharTokenizer::new("0123456789", &[])?;
    let policy = CausalConfig {
        hidden_size: 192,
        intermediate_size: 512,
        num_hidden_layers: 4,
        ..CausalConfig::new(tokenizer.vocab_size())
    }
    .init(0, &Device::flex().autodiff())?;
    let digits = FnReward::plain("digits", |input| {
        input.completion().matches('3').count() as f64 + f64::from(input.rollout.sample as u32)
    });
    let mut config = TrainerConfig {
        problems_per_step: PROBLEMS,
        group_size: GROUP,
        generation: GenerationConfig::new(TOKENS, tokenizer.stop_tokens()),
        ..TrainerConfig::default()
    };
    config.objective.sampler_correction = Some(SamplerCorrection::token_truncate(2.0));
    let engine = Waiting {
        latency,
        version: None,
        tickets: 0,
    };
    let ahead = AsyncConfig {
        max_staleness,
        ..AsyncConfig::default()
    };
    Trainer::builder(policy, tokenizer)
        .config(config)
        .rewards(RewardSet::builder().add(1.0, digits).build()?)
        .problems((0..64).map(|n| Problem::new(n.to_string(), "")))
        .source(AsyncRollouts::new(engine, ahead)?)
        .build()
}

/// Median seconds of a step, and of its metrics.
fn steps(latency: Duration, max_staleness: u64) -> rlvr::Result<(f64, BTreeMap<String, f64>)> {
    let mut trainer = trainer(latency, max_staleness)?;
    trainer.train(2)?;
    let mut times = Vec::new();
    let mut metrics: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for _ in 0..STEPS {
        let started = Instant::now();
        let record = trainer.step()?;
        times.push(started.elapsed().as_secs_f64());
        for (name, value) in record.metrics {
            metrics.entry(name).or_default().push(value);
        }
    }
    let metrics = metrics
        .into_iter()
        .map(|(name, values)| (name, median(values)));
    Ok((median(times), metrics.collect()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> rlvr::Result<()> {
    let (update, _) = steps(Duration::ZERO, 0)?;
    println!("update alone: {update:.3} s a step");
    println!(
        "generation / update | synchronous / (sum) | asynchronous / max | waiting | staleness"
    );
    for share in [0.5, 1.0, 2.0] {
        let generation = share * update;
        let latency = Duration::from_secs_f64(generation);
        let (together, _) = steps(latency, 0)?;
        let (ahead, metrics) = steps(latency, 1)?;
        println!(
            "{share:19.1} | {:19.2} | {:18.2} | {:5.3} s | {:.2}",
            together / (generation + update),
            ahead / generation.max(update),
            metrics["async/wait"],
            metrics["async/staleness"],
        );
    }
    Ok(())
}
