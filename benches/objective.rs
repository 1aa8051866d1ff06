//! What every objective costs beside PPO-clip: forward and backward over 64 completions of 1024
//! tokens, with the statistics of the step where an objective needs them. Read the figures as
//! ratios; none is to be above 2.
//!
//! `cargo bench --bench objective`

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor, TensorData};
use rlvr::loss::{
    LossInput, PolicyObjective, SamplerCorrection, StepCounts, StepStatistics, TopEntropy, presets,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: usize = 64;
const WIDTH: usize = 1024;
const ROUNDS: usize = 30;

/// Numbers that look random, the same in every run.
fn numbers(seed: u64, low: f64, high: f64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        low + (high - low) * (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..ROWS * WIDTH).map(|_| next() as f32).collect()
}

fn tensor(values: Vec<f32>, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, [ROWS, WIDTH]), device)
}

struct Batch {
    log_probs: Vec<f32>,
    old: Vec<f32>,
    input: LossInput,
}

impl Batch {
    fn new(device: &Device) -> Self {
        let old = numbers(1, -3.0, -0.1);
        let moved = |seed, by: f64| -> Vec<f32> {
            old.iter()
                .zip(numbers(seed, -by, by))
                .map(|(a, b)| a + b)
                .collect()
        };
        let log_probs = moved(2, 0.3);
        let advantages: Vec<f32> = numbers(5, -1.5, 1.5)
            .chunks(WIDTH)
            .flat_map(|row| vec![row[0]; WIDTH])
            .collect();
        let mask: Vec<f32> = (0..ROWS * WIDTH)
            .map(|i| {
                if i % WIDTH <= WIDTH / 4 + i / WIDTH * 12 {
                    1.0
                } else {
                    0.0
                }
            })
            .collect();
        let input = LossInput {
            old_log_probs: Some(tensor(old.clone(), device)),
            ref_log_probs: Some(tensor(moved(3, 0.2), device)),
            sampler_log_probs: Some(tensor(moved(4, 0.05), device)),
            entropies: Some(tensor(numbers(6, 0.0, 2.0), device)),
            ..LossInput::new(
                tensor(log_probs.clone(), device),
                tensor(advantages, device),
                tensor(mask, device),
            )
        };
        Self {
            log_probs,
            old,
            input,
        }
    }

    /// One forward and backward, as an update of the trainer has it.
    fn run(&self, objective: &PolicyObjective, device: &Device) -> Duration {
        let leaf = tensor(self.log_probs.clone(), device)
            .autodiff()
            .require_grad();
        let input = LossInput {
            log_probs: leaf.clone(),
            ..self.input.clone()
        };
        let start = Instant::now();
        let step = match objective.needs_statistics() {
            true => objective
                .statistics(std::slice::from_ref(&input))
                .expect("it is whole"),
            false => StepStatistics::from(StepCounts {
                tokens: self.old.len(),
                sequences: ROWS,
            }),
        };
        let loss = objective.loss(&input, &step).expect("the input is whole");
        let metrics = loss.sums.read().expect("the device answers");
        let gradients = loss.loss.backward();
        black_box((leaf.grad(&gradients), metrics));
        start.elapsed()
    }
}

fn main() {
    // `cargo test --benches` only wants to know that it runs.
    let rounds = if std::env::args().any(|arg| arg == "--test") {
        1
    } else {
        ROUNDS
    };
    let device = Device::flex();
    let batch = Batch::new(&device);
    let mut objectives: Vec<(String, PolicyObjective)> = presets::NAMES
        .into_iter()
        .map(|name| {
            (
                name.into(),
                PolicyObjective::named(name, WIDTH).expect("it is listed"),
            )
        })
        .collect();
    objectives.push(("dro".into(), PolicyObjective::dro(0.1)));
    let dapo = PolicyObjective::dapo;
    objectives.push((
        "dapo + token weights".into(),
        dapo().with_sampler_correction(Some(SamplerCorrection::token_truncate(2.0))),
    ));
    objectives.push((
        "dapo + geometric rejection".into(),
        dapo().with_sampler_correction(Some(SamplerCorrection::geometric_rejection(0.99, 1.01))),
    ));
    objectives.push((
        "dapo + top entropy".into(),
        PolicyObjective {
            top_entropy: Some(TopEntropy { share: 0.2 }),
            ..dapo()
        },
    ));
    let plain = PolicyObjective::ppo();
    batch.run(&plain, &device);
    println!("{:<28} {:>8} {:>7}", "objective", "ms", "ratio");
    for (name, objective) in &objectives {
        // In turn, so that what else the machine does falls on both; the medians are compared.
        let (mut base, mut own) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            base.push(batch.run(&plain, &device));
            own.push(batch.run(objective, &device));
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e3
        };
        let (base, own) = (median(&mut base), median(&mut own));
        println!("{name:<28} {own:>8.2} {:>7.2}", own / base);
    }
}
