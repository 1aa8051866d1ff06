//! What is left behind and what is shown at the end.

use std::fmt;
use std::fs;
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use rlvr::train::Evaluation;
use rlvr::train::observer::StepRecord;
use serde::{Deserialize, Serialize};

/// Steps at each end of the run that are compared.
const ENDS: usize = 10;

/// `summary.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Summary {
    pub steps: usize,
    /// How many steps at each end are compared: ten, or half of fewer than twenty.
    pub compared: usize,
    /// Mean reward over the first and over the last of them.
    pub reward_first: f64,
    pub reward_last: f64,
    /// Standard error of their difference; 0 if it cannot be known.
    pub standard_error: f64,
    /// Share of held-out problems answered right, greedy. Null if a resumed run has lost it.
    pub held_out_before: Option<f64>,
    pub held_out_after: Option<f64>,
    pub seconds_a_step: f64,
    /// Of this process alone, where the system tells.
    pub seconds: f64,
    pub peak_mib: Option<u64>,
}

impl Summary {
    pub fn new(before: Option<&Evaluation>, steps: &[StepRecord], started: Instant) -> Self {
        let values = |name: &str| -> Vec<f64> {
            let value = |record: &StepRecord| record.metrics.get(name).copied();
            steps.iter().filter_map(value).collect()
        };
        let rewards = values("reward");
        let ends = ENDS.min(rewards.len() / 2).max(1);
        let (first, last) = (
            &rewards[..ends.min(rewards.len())],
            &rewards[rewards.len().saturating_sub(ends)..],
        );
        let (mean_first, variance_first) = moments(first);
        let (mean_last, variance_last) = moments(last);
        let seconds = values("time/step");
        Self {
            steps: steps.len(),
            compared: ends,
            reward_first: mean_first,
            reward_last: mean_last,
            standard_error: ((variance_first + variance_last) / ends as f64).sqrt(),
            held_out_before: before.map(|before| before.accuracy),
            held_out_after: values("eval/accuracy").last().copied(),
            seconds_a_step: moments(&seconds).0,
            seconds: started.elapsed().as_secs_f64(),
            peak_mib: peak_mib(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gain = self.reward_last - self.reward_first;
        write!(
            f,
            "reward {:.3} -> {:.3} (first and last {} of {} steps; {gain:+.3}",
            self.reward_first, self.reward_last, self.compared, self.steps,
        )?;
        if self.standard_error > 0.0 {
            write!(f, ", {:.1} standard errors", gain / self.standard_error)?;
        }
        write!(
            f,
            ") | held out {:.1}% -> {:.1}% | {:.1} s a step",
            100.0 * self.held_out_before.unwrap_or(f64::NAN),
            100.0 * self.held_out_after.unwrap_or(f64::NAN),
            self.seconds_a_step,
        )?;
        match self.peak_mib {
            Some(peak) => write!(f, " | at most {:.1} GB of memory", peak as f64 / 953.674),
            None => Ok(()),
        }
    }
}

/// Mean and sample variance.
fn moments(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, squares / (count - 1.0).max(1.0))
}

/// The most memory that this process has held, on Linux.
pub fn peak_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// How many numbers of `model` are trained.
pub fn trained_parameters(model: &impl Module) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let weight = param.val();
            if weight.is_require_grad() {
                self.0 += weight.shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0
}
