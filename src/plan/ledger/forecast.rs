//! Forecast of the rest of a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::cost::{Cost, Range};
use crate::plan::flops::ModelFlops;

/// A forecast of future steps.
///
/// The seconds of a step are a function of the mean length `c` of its completions, `a + b x(c)`
/// with `x(c)` the FLOPs of a completion, linear in `c` but for attention. Both coefficients are
/// fitted to the last 64 steps. While lengths have hardly changed and the fit is uninformative,
/// three quarters of the time are assumed to grow with `x`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forecast {
    /// The number of steps.
    pub steps: u64,
    /// Expected seconds, if lengths follow their trend; at first, a growth of 20 % is expected.
    pub expected_seconds: f64,
    /// The range of seconds, from completions that become 25 % shorter to ones that double in
    /// length; it narrows with the number of recorded steps.
    pub seconds: Range,
    /// Mean tokens per completion at the end.
    pub mean_length: f64,
    /// Expected device-hours.
    pub device_hours: f64,
    /// Expected dollars; `None` without a price.
    pub dollars: Option<f64>,
}

impl Forecast {
    pub(super) fn priced(self, devices: usize, price: Option<f64>) -> Self {
        let cost = Cost::new(
            devices as f64,
            self.expected_seconds / 3600.0,
            price.unwrap_or(0.0),
        );
        Self {
            device_hours: cost.device_hours,
            dollars: price.map(|_| cost.dollars),
            ..self
        }
    }

    /// Returns the forecast as metrics: `forecast/steps`, `forecast/hours`, `forecast/hours_low`,
    /// `forecast/hours_high`, `forecast/device_hours`, `forecast/dollars`.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let mut metrics = BTreeMap::new();
        for (name, value) in [
            ("steps", Some(self.steps as f64)),
            ("hours", Some(self.expected_seconds / 3600.0)),
            ("hours_low", Some(self.seconds.low / 3600.0)),
            ("hours_high", Some(self.seconds.high / 3600.0)),
            ("device_hours", Some(self.device_hours)),
            ("dollars", self.dollars),
        ] {
            if let Some(value) = value {
                metrics.insert(format!("forecast/{name}"), value);
            }
        }
        metrics
    }
}

/// The number of past steps that a fit uses.
const WINDOW: usize = 64;

/// The number of steps before there is a forecast.
const CALIBRATION: usize = 3;

/// The growth of lengths that the first forecast expects: training with verifiable rewards makes
/// answers longer (DeepSeek-R1, arXiv 2501.12948, figure 3). It decreases with the number of
/// recorded steps, and is 0 without a length cap.
const GROWTH: f64 = 0.2;

/// The prior share of a step's time that does not grow with the length.
const FIXED_SHARE: f64 = 0.25;

/// Mean length and seconds of each of the last steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct History {
    steps: Vec<[f64; 2]>,
}

impl History {
    pub(super) fn add(&mut self, mean_length: f64, seconds: f64) {
        if self.steps.len() == WINDOW {
            self.steps.remove(0);
        }
        self.steps.push([mean_length, seconds]);
    }

    pub(super) fn last_seconds(&self) -> Option<f64> {
        self.steps.last().map(|step| step[1])
    }

    /// Returns the trend of lengths; `None` before the third step.
    pub(super) fn trend(&self, cap: Option<u64>) -> Option<Trend<'_>> {
        if self.steps.len() < CALIBRATION {
            return None;
        }
        let points: Vec<[f64; 3]> = self
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| [at as f64, step[0], 1.0])
            .collect();
        let mean = points.iter().map(|point| point[1]).sum::<f64>() / points.len() as f64;
        // The prior slope is 0 with a deviation of 1 % per step.
        let line = Line::fit(&points, 0.0, 0.01 * mean.max(1.0), 0.02 * mean.max(1.0));
        let last = (points.len() - 1) as f64;
        Some(Trend {
            history: self,
            now: line.at(last).max(0.0),
            slope: line.slope,
            cap: cap.map_or(f64::INFINITY, |cap| cap as f64),
        })
    }
}

/// The trend of completion lengths.
pub(super) struct Trend<'a> {
    history: &'a History,
    now: f64,
    slope: f64,
    cap: f64,
}

impl Trend<'_> {
    /// Forecasts with lengths that follow their trend for about half as many steps as were
    /// recorded, plus an initial growth.
    pub(super) fn forecast(&self, model: &ModelFlops, steps: u64, between: f64) -> Forecast {
        let seen = self.history.steps.len() as f64;
        let reach = 0.5 * seen;
        let saturating = |ahead: f64, reach: f64| 1.0 - (-ahead / reach).exp();
        let growth = match self.cap.is_finite() {
            true => GROWTH * self.now * CALIBRATION as f64 / seen,
            false => 0.0,
        };
        let soon = (steps as f64 / 8.0).max(1.0);
        // Lengths are not expected beyond the geometric mean of now and the cap.
        let halfway = (self.now * self.cap).sqrt().max(self.now);
        let length = |ahead: f64| {
            let trend = self.now + self.slope * reach * saturating(ahead, reach);
            trend.max((trend + growth * saturating(ahead, soon)).min(halfway))
        };
        self.along(model, steps, between, length)
    }

    /// Forecasts with lengths of `mean_length` from now on.
    pub(super) fn forecast_at(
        &self,
        model: &ModelFlops,
        steps: u64,
        between: f64,
        mean_length: f64,
    ) -> Forecast {
        self.along(model, steps, between, |_| mean_length)
    }

    fn along(
        &self,
        model: &ModelFlops,
        steps: u64,
        between: f64,
        length: impl Fn(f64) -> f64,
    ) -> Forecast {
        let seen = self.history.steps.len() as f64;
        let cost = StepCost::fit(self.history, model);
        let bounded = |length: f64| length.clamp(0.0, self.cap);
        let mean_seconds = |length: &dyn Fn(f64) -> f64| {
            let points = steps.clamp(1, 64);
            let at = |point: u64| (point as f64 + 0.5) / points as f64 * steps as f64;
            let seconds = (0..points).map(|point| cost.seconds(bounded(length(at(point)))));
            seconds.sum::<f64>() / points as f64
        };
        let whole = |mean: f64| steps as f64 * (mean + between);
        let expected = mean_seconds(&length);
        // How far lengths may still change, relative to now.
        let open = steps as f64 / (steps as f64 + seen);
        let towards =
            |end: f64, ahead: f64| self.now * (1.0 + end * open * ahead / steps.max(1) as f64);
        let error = 0.02 + 2.0 * cost.error / seen.sqrt();
        let shorter = mean_seconds(&|ahead| towards(-0.25, ahead)).min(expected);
        let longer = mean_seconds(&|ahead| towards(1.0, ahead)).max(expected);
        Forecast {
            steps,
            expected_seconds: whole(expected),
            seconds: Range {
                low: whole(shorter * (1.0 - error).max(0.0)),
                high: whole(longer * (1.0 + error)),
            },
            mean_length: bounded(length(steps as f64)),
            device_hours: 0.0,
            dollars: None,
        }
    }
}

/// Seconds of a step as a function of the mean length of its completions.
struct StepCost<'a> {
    model: &'a ModelFlops,
    line: Line,
    unit: f64,
    /// Standard deviation of steps from the line, relative to the mean.
    error: f64,
}

impl<'a> StepCost<'a> {
    fn fit(history: &History, model: &'a ModelFlops) -> Self {
        let steps = &history.steps;
        let count = steps.len() as f64;
        let unit = steps.iter().map(|step| work(model, step[0])).sum::<f64>() / count;
        let unit = if unit > 0.0 { unit } else { 1.0 };
        // Outliers count less: the first step warms up, and others may meet a busy machine.
        let mut sorted: Vec<f64> = steps.iter().map(|step| step[1]).collect();
        sorted.sort_by(f64::total_cmp);
        let usual = sorted[(sorted.len() - 1) / 2];
        let points: Vec<[f64; 3]> = steps
            .iter()
            .map(|step| {
                let weight = match step[1] > 1.3 * usual && step[1] > 0.0 {
                    true => (usual / step[1]).powi(4),
                    false => 1.0,
                };
                [work(model, step[0]) / unit, step[1], weight]
            })
            .collect();
        let prior = (1.0 - FIXED_SHARE) * usual;
        let mut line = Line::fit(&points, prior, 0.35 * usual, 0.03 * usual);
        // The time does not decrease with the length, and is not negative at length 0.
        line.slope = line.slope.clamp(0.0, (line.y / line.x.max(1e-9)).max(0.0));
        let error = match line.y > 0.0 {
            true => line.deviation / line.y,
            false => 0.0,
        };
        Self {
            model,
            line,
            unit,
            error,
        }
    }

    fn seconds(&self, length: f64) -> f64 {
        self.line.at(work(self.model, length) / self.unit).max(0.0)
    }
}

/// Returns the FLOPs of a completion of `length` tokens, or `length` for a model without FLOPs.
fn work(model: &ModelFlops, length: f64) -> f64 {
    let token = model.forward_token + model.backward_token;
    let square = model.forward_square + model.backward_square;
    match token + square > 0.0 {
        true => token * length + square * length * length,
        false => length,
    }
}

/// A straight line through the mean `(x, y)` of weighted points.
struct Line {
    x: f64,
    y: f64,
    slope: f64,
    /// Standard deviation of the points from the line.
    deviation: f64,
}

impl Line {
    /// Fits a line to points `[x, y, weight]`, with a prior of mean `prior` and deviation `spread`
    /// on the slope. The slope is the mean of prior and least squares, weighted by precision;
    /// points deviate from the line by at least `noise`.
    fn fit(points: &[[f64; 3]], prior: f64, spread: f64, noise: f64) -> Self {
        let total: f64 = points.iter().map(|[.., w]| w).sum();
        let mean = |of: fn(&[f64; 3]) -> f64| {
            points.iter().map(|point| point[2] * of(point)).sum::<f64>() / total
        };
        let (x, y) = (mean(|point| point[0]), mean(|point| point[1]));
        let (mut xx, mut xy) = (0.0, 0.0);
        for [px, py, w] in points {
            xx += w * (px - x) * (px - x);
            xy += w * (px - x) * (py - y);
        }
        let squares = if xx > 0.0 { xy / xx } else { prior };
        let around = |slope: f64| {
            let sum: f64 = points
                .iter()
                .map(|[px, py, w]| w * (py - y - slope * (px - x)).powi(2))
                .sum();
            (sum / total).sqrt()
        };
        let degrees = (total / (total - 2.0).max(0.5)).sqrt();
        let deviation = (around(squares) * degrees).max(noise).max(1e-12);
        let (own, given) = (
            xx / (deviation * deviation),
            1.0 / (spread * spread).max(1e-24),
        );
        let slope = (own * squares + given * prior) / (own + given);
        Self {
            x,
            y,
            slope,
            deviation,
        }
    }

    fn at(&self, x: f64) -> f64 {
        self.y + self.slope * (x - self.x)
    }
}
