//! The cost of a run so far, and a forecast of the rest.

mod forecast;
mod metrics;
mod usage;

pub use forecast::Forecast;
pub use usage::{PhaseSeconds, StepUsage};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::forecast::History;
use super::cost::Cost;
use super::flops::ModelFlops;
use crate::{Error, Result};

/// The devices and the budget of a [`Ledger`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Peak compute of a device, in TFLOP/s. Default: unknown; no utilisation is reported.
    pub peak_tflops: Option<f64>,
    /// Peak memory bandwidth of a device, in GB/s. Default: unknown.
    pub peak_bandwidth: Option<f64>,
    /// Price in dollars per device-hour. Default: unknown; no dollars are reported.
    pub price: Option<f64>,
    /// The largest number of tokens of a completion, which bounds the forecast. Default: unknown;
    /// no growth is expected.
    pub length_cap: Option<u64>,
    /// The budget.
    pub stop_after: StopAfter,
}

/// A budget; a run ends before the step that would exceed it. Default: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StopAfter {
    /// Dollars; requires a price.
    pub dollars: Option<f64>,
    /// Devices times hours.
    pub device_hours: Option<f64>,
    /// Wall-clock hours, including those before a resumed checkpoint.
    pub hours: Option<f64>,
}

impl LedgerConfig {
    /// Rejects invalid figures, and a budget in dollars without a price.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let stop = &self.stop_after;
        for (field, value) in [
            ("peak_tflops", self.peak_tflops),
            ("peak_bandwidth", self.peak_bandwidth),
            ("price", self.price),
            ("stop_after.dollars", stop.dollars),
            ("stop_after.device_hours", stop.device_hours),
            ("stop_after.hours", stop.hours),
        ] {
            if let Some(value) = value
                && !(value.is_finite() && value > 0.0)
            {
                return Err(Error::config(
                    field,
                    value,
                    "a finite number above 0, or none",
                ));
            }
        }
        if self.length_cap == Some(0) {
            return Err(Error::config("length_cap", 0, "at least 1, or none"));
        }
        match (stop.dollars, self.price) {
            (Some(dollars), None) => {
                let expected = "none without a price per device-hour";
                Err(Error::config("stop_after.dollars", dollars, expected))
            }
            _ => Ok(()),
        }
    }
}

/// The state of a [`Ledger`], stored in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerState {
    /// Steps recorded.
    pub steps: u64,
    /// Tokens generated.
    pub generated: u64,
    /// Trained completion tokens.
    pub trained: u64,
    /// Tokens read by generation, prompts included.
    pub tokens: f64,
    /// Useful FLOPs.
    pub flops: f64,
    /// Seconds of the steps.
    pub seconds: f64,
    /// Seconds outside of steps, such as evaluation and checkpoints.
    pub other_seconds: f64,
    /// Of `seconds`, those in which devices were idle.
    pub idle_seconds: f64,
    /// Devices times hours.
    pub device_hours: f64,
    /// Dollars, each step at the price configured when it was recorded.
    pub dollars: f64,
    /// The peak memory of a step, in bytes, if measured.
    pub peak_memory: Option<u64>,
    /// Tokens of the longest completion.
    pub longest: u64,
    history: History,
}

/// Accounts for the cost of a run, step by step.
///
/// Token counts and FLOPs are independent of the number of learners if the usage of a step covers
/// all of them. Device-hours add up over devices, hours do not. A resumed run continues the sums of
/// the previous one ([`resume`](Self::resume)), with its current number of devices and price.
///
/// ```
/// use rlvr::plan::{
///     Ledger, LedgerConfig, ModelFlops, PhaseSeconds, StepUsage, Tokens,
/// };
///
/// let config = LedgerConfig {
///     price: Some(2.0),
///     ..LedgerConfig::default()
/// };
/// let mut ledger = Ledger::new(config, ModelFlops::of_parameters(400_000))?;
/// for _ in 0..3 {
///     let read = Tokens::sequence(100.0);
///     let metrics = ledger.record(&StepUsage {
///         devices: 4,
///         completions: 16,
///         generated: 1600,
///         generation: read,
///         update: read,
///         seconds: PhaseSeconds {
///             generate: 6.0,
///             update: 3.0,
///             step: 9.0,
///             ..PhaseSeconds::default()
///         },
///         ..StepUsage::default()
///     })?;
///     assert_eq!(metrics["step_time"], 9.0);
/// }
/// // 4 devices for 27 seconds, at $2.
/// assert!((ledger.cost().dollars - 4.0 * 27.0 / 3600.0 * 2.0).abs() < 1e-12);
/// let rest = ledger.forecast(100).expect("three steps are enough");
/// assert!((rest.expected_seconds - 900.0).abs() < 1.0);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    config: LedgerConfig,
    flops: ModelFlops,
    state: LedgerState,
    /// Devices of the last step.
    devices: usize,
}

impl Ledger {
    /// Creates an empty ledger for a model of these FLOPs.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub fn new(config: LedgerConfig, flops: ModelFlops) -> Result<Self> {
        Self::resume(config, flops, LedgerState::default())
    }

    /// Creates the ledger of a run that is resumed from a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid.
    pub fn resume(config: LedgerConfig, flops: ModelFlops, state: LedgerState) -> Result<Self> {
        config.validate()?;
        let devices = 1;
        Ok(Self {
            config,
            flops,
            state,
            devices,
        })
    }

    /// Returns the state to store in a checkpoint.
    pub fn state(&self) -> &LedgerState {
        &self.state
    }

    /// Adds a step and returns its [metrics](StepUsage#metrics) and those of the run so far.
    ///
    /// # Errors
    /// Returns an error if the usage has no devices, or numbers that are negative or not finite;
    /// nothing is added then.
    pub fn record(&mut self, usage: &StepUsage) -> Result<BTreeMap<String, f64>> {
        usage.validate()?;
        let state = &mut self.state;
        state.steps += 1;
        state.generated += usage.generated;
        state.trained += usage.trained;
        state.tokens += usage.generation.count;
        state.flops += usage.flops(&self.flops);
        state.seconds += usage.seconds.step;
        state.idle_seconds += usage.seconds.idle;
        state.peak_memory = state.peak_memory.max(usage.peak_memory);
        state.longest = state.longest.max(usage.longest);
        state.history.add(usage.mean_length(), usage.seconds.step);
        self.devices = usage.devices;
        self.pay(usage.seconds.step);
        Ok(metrics::metrics(
            usage,
            &self.config,
            &self.flops,
            &self.state,
        ))
    }

    /// Adds seconds outside steps, such as those of an evaluation or a checkpoint. The forecast
    /// expects the same average per step.
    ///
    /// # Errors
    /// Returns an error if `seconds` is negative or not finite.
    pub fn record_other(&mut self, seconds: f64) -> Result<()> {
        usage::check_seconds("seconds", seconds)?;
        self.state.other_seconds += seconds;
        self.pay(seconds);
        Ok(())
    }

    fn pay(&mut self, seconds: f64) {
        let price = self.config.price.unwrap_or(0.0);
        let cost = Cost::new(self.devices as f64, seconds / 3600.0, price);
        self.state.device_hours += cost.device_hours;
        self.state.dollars += cost.dollars;
    }

    /// Returns the cost of the run so far; 0 dollars without a price.
    pub fn cost(&self) -> Cost {
        Cost {
            device_hours: self.state.device_hours,
            dollars: self.state.dollars,
        }
    }

    /// Returns the wall-clock hours so far, in and between steps, before and after a resumed
    /// checkpoint.
    pub fn hours(&self) -> f64 {
        (self.state.seconds + self.state.other_seconds) / 3600.0
    }

    /// Forecasts `steps` more steps, extrapolating the trend of completion lengths; `None` before
    /// the third step.
    pub fn forecast(&self, steps: u64) -> Option<Forecast> {
        let trend = self.state.history.trend(self.config.length_cap)?;
        let between = self.state.other_seconds / self.state.steps.max(1) as f64;
        let forecast = trend.forecast(&self.flops, steps, between);
        Some(forecast.priced(self.devices, self.config.price))
    }

    /// Forecasts `steps` more steps whose completions have `mean_length` tokens on average; `None`
    /// before the third step.
    pub fn forecast_at(&self, steps: u64, mean_length: f64) -> Option<Forecast> {
        let trend = self.state.history.trend(self.config.length_cap)?;
        let between = self.state.other_seconds / self.state.steps.max(1) as f64;
        let forecast = trend.forecast_at(&self.flops, steps, between, mean_length);
        Some(forecast.priced(self.devices, self.config.price))
    }

    /// Returns a message if the next step would exceed a limit of the budget. Call it after each
    /// step and end the run as on a stop signal, with a checkpoint.
    ///
    /// The time of the next step is that of the forecast, or of the last step before there is a
    /// forecast.
    pub fn exceeded(&self) -> Option<String> {
        let next = match self.forecast(1) {
            Some(forecast) => forecast.expected_seconds,
            None => self.state.history.last_seconds().unwrap_or(0.0),
        };
        let stop = &self.config.stop_after;
        let next = Cost::new(
            self.devices as f64,
            next / 3600.0,
            self.config.price.unwrap_or(0.0),
        );
        let hours = next.device_hours / self.devices as f64;
        [
            ("hours", stop.hours, self.hours(), hours),
            (
                "device_hours",
                stop.device_hours,
                self.state.device_hours,
                next.device_hours,
            ),
            ("dollars", stop.dollars, self.state.dollars, next.dollars),
        ]
        .into_iter()
        .find_map(|(name, limit, spent, next)| {
            let limit = limit.filter(|limit| spent + next > *limit)?;
            Some(format!(
                "stop_after.{name} = {limit}: {spent:.4} spent, and the next step takes about {next:.4}"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
