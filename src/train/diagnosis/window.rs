//! Windows over the first and the last steps of a run, and the change of a metric between them.

use crate::train::observer::StepRecord;

/// The fewest measurements for a mean.
pub(super) const FEWEST: usize = 5;
/// The largest window, in steps.
const MOST: usize = 20;

/// The steps of a run with windows at both ends.
pub(super) struct Windows<'a> {
    /// All steps, without an evaluation before the first.
    steps: &'a [StepRecord],
    /// All evaluations: step and accuracy.
    pub evaluations: Vec<(u64, f64)>,
    /// A third of the steps, 5 to 20.
    size: usize,
}

/// The means of a metric in the first and in the last window, and the significance of their
/// difference.
#[derive(Clone, Copy)]
pub(super) struct Change {
    pub first: f64,
    pub last: f64,
    /// The difference in standard errors; infinite for a difference without noise.
    pub z: f64,
}

impl<'a> Windows<'a> {
    /// Returns `None` if there are no steps.
    pub fn new(records: &'a [StepRecord]) -> Option<Self> {
        let accuracy = |record: &StepRecord| Some((record.step, record.finite("eval/accuracy")?));
        let evaluations = records.iter().filter_map(accuracy).collect();
        let begin = records.iter().position(|record| record.step > 0)?;
        let steps = &records[begin..];
        Some(Self {
            steps,
            evaluations,
            size: (steps.len() / 3).clamp(FEWEST, MOST),
        })
    }

    /// Returns the last window, which is shorter if the run is.
    pub fn last(&self) -> &'a [StepRecord] {
        &self.steps[self.steps.len().saturating_sub(self.size)..]
    }

    /// Returns the first and the last step of the last window.
    pub fn span(&self) -> (u64, u64) {
        let last = self.last();
        let step = |record: Option<&StepRecord>| record.map_or(0, |record| record.step);
        (step(last.first()), step(last.last()))
    }

    /// Returns the first and the last window, if they do not overlap.
    fn ends(&self) -> Option<(&'a [StepRecord], &'a [StepRecord])> {
        let apart = self.steps.len() >= 2 * self.size;
        apart.then(|| (&self.steps[..self.size], self.last()))
    }

    /// Returns the mean of a metric over the last window; `None` if fewer than five of its steps
    /// measured it.
    pub fn mean(&self, name: &str) -> Option<f64> {
        mean(&values(self.last(), name))
    }

    /// Returns the mean of a metric over the window before the last.
    pub fn mean_before(&self, name: &str) -> Option<f64> {
        let end = self.steps.len().checked_sub(self.size)?;
        mean(&values(&self.steps[end.checked_sub(self.size)?..end], name))
    }

    /// Returns the sum of a metric over the last window; 0 if it was not measured.
    pub fn sum(&self, name: &str) -> f64 {
        values(self.last(), name).iter().sum()
    }

    /// Returns the change of a metric from the first window to the last.
    pub fn change(&self, name: &str) -> Option<Change> {
        let (first, last) = self.ends()?;
        Change::between(&values(first, name), &values(last, name))
    }

    /// Returns the change of a metric from the window that ends at `step` to the last.
    pub fn change_since(&self, step: u64, name: &str) -> Option<Change> {
        let end = self.steps.partition_point(|record| record.step <= step);
        // For an evaluation before the first step, use the first window.
        let end = end.max(self.size).min(self.steps.len());
        let then = &self.steps[end - self.size.min(end)..end];
        Change::between(&values(then, name), &values(self.last(), name))
    }

    /// Returns each `name` for which the last window has a metric `<prefix><name><suffix>`.
    pub fn named(&self, prefix: &str, suffix: &str) -> Vec<&'a str> {
        let mut found: Vec<&str> = self
            .last()
            .iter()
            .flat_map(|record| record.metrics.keys())
            .filter_map(|name| name.strip_prefix(prefix)?.strip_suffix(suffix))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns the number of rollouts in the last window: tokens divided by the mean length.
    pub fn rollouts(&self) -> Option<f64> {
        let last = self.last();
        let begin = self.steps.len() - last.len();
        let before = match begin {
            0 => Some(0.0).filter(|_| last[0].step == 1),
            _ => self.steps[begin - 1].finite("num_tokens"),
        };
        let mut before = before?;
        let mut sum = 0.0;
        for record in last {
            let tokens = record.finite("num_tokens")?;
            let length = record.finite("completions/mean_length")?;
            sum += (tokens - before) / length.max(1.0);
            before = tokens;
        }
        Some(sum.round()).filter(|&sum| sum > 0.0)
    }
}

impl Change {
    fn between(first: &[f64], last: &[f64]) -> Option<Self> {
        let (a, b) = (mean(first)?, mean(last)?);
        let variance = |values: &[f64], mean: f64| {
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            squares / (values.len() - 1) as f64 / values.len() as f64
        };
        let error = (variance(first, a) + variance(last, b)).sqrt();
        Some(Self {
            first: a,
            last: b,
            z: match a == b {
                true => 0.0,
                false => (b - a) / error,
            },
        })
    }

    /// Returns whether the metric rose significantly.
    pub fn rose(&self) -> bool {
        self.z >= 3.0
    }

    /// Returns whether the metric fell significantly.
    pub fn fell(&self) -> bool {
        self.z <= -3.0
    }
}

/// The finite values of a metric.
fn values(records: &[StepRecord], name: &str) -> Vec<f64> {
    let value = |record: &StepRecord| record.finite(name);
    records.iter().filter_map(value).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (values.len() >= FEWEST).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: u64, value: impl Fn(u64) -> f64) -> Vec<StepRecord> {
        let record = |step| StepRecord::new(step).with("x", value(step));
        (1..=count).map(record).collect()
    }

    #[test]
    fn windows_are_a_third_of_the_run_and_do_not_overlap() {
        let records = steps(30, |step| step as f64);
        let windows = Windows::new(&records).unwrap();
        assert_eq!(windows.span(), (21, 30));
        let change = windows.change("x").unwrap();
        assert_eq!((change.first, change.last), (5.5, 25.5));
        assert!(change.rose() && !change.fell());
        assert_eq!(windows.mean_before("x"), Some(15.5));
        assert!(Windows::new(&records[..9]).unwrap().change("x").is_none());
        assert!(Windows::new(&records[..10]).unwrap().change("x").is_some());
        assert!(Windows::new(&[StepRecord::new(0)]).is_none());
    }

    #[test]
    fn noise_is_not_a_change_and_a_jump_without_noise_is() {
        let noise = |step: u64| if step.is_multiple_of(2) { 1.0 } else { -1.0 };
        let records = steps(60, noise);
        let change = Windows::new(&records).unwrap().change("x").unwrap();
        assert!(change.z.abs() < 1e-9);
        let records = steps(60, |step| f64::from(step > 30));
        let change = Windows::new(&records).unwrap().change("x").unwrap();
        assert_eq!(change.z, f64::INFINITY);
        let records = steps(60, |_| 0.1);
        assert_eq!(Windows::new(&records).unwrap().change("x").unwrap().z, 0.0);
    }

    #[test]
    fn rollouts_are_counted_from_tokens() {
        let record = |step: u64| {
            StepRecord::new(step)
                .with("num_tokens", 160.0 * step as f64)
                .with("completions/mean_length", 20.0)
        };
        let records: Vec<StepRecord> = (1..=9).map(record).collect();
        assert_eq!(Windows::new(&records).unwrap().rollouts(), Some(40.0));
        assert_eq!(Windows::new(&records[..2]).unwrap().rollouts(), Some(16.0));
        // The token count before the first record is unknown.
        assert_eq!(Windows::new(&records[4..6]).unwrap().rollouts(), None);
    }
}
