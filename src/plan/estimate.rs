//! The plan of a run: work, time, memory, cost, and what does not fit.

use serde::{Deserialize, Serialize};

use super::config::PlanConfig;
use super::cost::{Cost, Range};
use super::hardware::Hardware;
use super::knobs::{Misfit, misfits};
use super::memory::Memory;
use super::shape::ModelShape;
use super::time::{StepFlops, StepSeconds, Work};
use super::tokens::Tokens;
use crate::Result;

/// An estimate of the work, time, memory and cost of a run.
///
/// Tokens and FLOPs are exact for the given lengths. Times are not: the formulas are a lower bound,
/// and published runs took up to 2.2 times as long, mixtures of experts up to 4 times. After three
/// steps a [`Ledger`](super::Ledger) forecasts better.
///
/// ```
/// use rlvr::plan::{Hardware, Lengths, ModelShape, Plan, PlanConfig, Sharding};
///
/// let config = PlanConfig {
///     problems: 64,
///     group: 16,
///     steps: 500,
///     devices: 8,
///     completion: Lengths::new(2000.0, 8192),
///     sharding: Sharding::Full,
///     offload: true,
///     recompute: true,
///     ..PlanConfig::default()
/// };
/// let shape = ModelShape::named("qwen2.5-7b")?;
/// let plan = Plan::new(&shape, &Hardware::named("h100")?, &config)?;
/// assert!(plan.misfits.is_empty());
/// assert!(plan.hours.low > 10.0 && plan.hours.high < 200.0);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Parameters, `N`.
    pub parameters: u64,
    /// Parameters that a token is multiplied by, `N_a`.
    pub active_parameters: u64,
    /// Completions per step.
    pub rows: usize,
    /// Generated tokens per step.
    pub generated: f64,
    /// Tokens of one pass over the completions of a step, prompts included.
    pub read: Tokens,
    /// FLOPs per step, all devices together.
    pub flops: StepFlops,
    /// Seconds per step and phase by the formulas, the lower end of the range.
    pub seconds: StepSeconds,
    /// Seconds per step.
    pub step_seconds: Range,
    /// Useful FLOPs of forward and backward passes over peak FLOP/s and the time of the step (MFU),
    /// a fraction; `None` without a peak.
    pub mfu: Option<Range>,
    /// Hours of the run.
    pub hours: Range,
    /// Device-hours of the run.
    pub device_hours: Range,
    /// Dollars of the run, if there is a price; includes the range of the hardware's price.
    pub dollars: Option<Range>,
    /// Memory of a device.
    pub memory: Memory,
    /// Bytes of a checkpoint: trained parameters and their moments, in f32.
    pub checkpoint_bytes: f64,
    /// The phases that do not fit in memory, each with a setting that would make it fit; empty if
    /// everything fits. Times assume enough memory.
    pub misfits: Vec<Misfit>,
}

impl Plan {
    /// Computes the plan of a run.
    ///
    /// # Errors
    /// Returns an error if the hardware or the configuration is invalid. A run that does not fit in
    /// memory is not an error: see [`misfits`](Self::misfits).
    pub fn new(shape: &ModelShape, hardware: &Hardware, config: &PlanConfig) -> Result<Self> {
        hardware.validate()?;
        config.validate()?;
        let memory = Memory::new(shape, hardware, config);
        let work = Work::new(shape, config);
        let (flops, seconds) = (work.flops(), work.seconds(hardware, &memory));
        let step_seconds = Range {
            low: seconds.step,
            high: seconds.step * config.efficiency.spread(shape),
        };
        let devices = config.devices as f64;
        let mfu = hardware.is_peak.then(|| {
            let share = |step: f64| flops.update / (devices * hardware.flops() * step);
            Range {
                low: share(step_seconds.high),
                high: share(step_seconds.low),
            }
        });
        let hours = step_seconds * (config.steps as f64 / 3600.0);
        let prices = config.price.map(|price| [price; 2]).or(hardware.price);
        let dollars = prices.map(|[low, high]| Range {
            low: Cost::new(devices, hours.low, low).dollars,
            high: Cost::new(devices, hours.high, high).dollars,
        });
        let trained = config.adapters(shape).unwrap_or_else(|| shape.parameters());
        Ok(Self {
            parameters: shape.parameters(),
            active_parameters: shape.active_parameters(),
            rows: config.rows(),
            generated: config.rows() as f64 * config.completion.mean,
            read: work.read,
            flops,
            seconds,
            step_seconds,
            mfu,
            hours,
            device_hours: hours * devices,
            dollars,
            memory,
            checkpoint_bytes: 12.0 * trained as f64 * config.trained_models(),
            misfits: misfits(shape, hardware, config, &memory),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_multiples_of_the_step() {
        let shape = ModelShape::named("qwen2.5-0.5b").unwrap();
        let config = PlanConfig {
            devices: 4,
            steps: 360,
            ..PlanConfig::default()
        };
        let plan = Plan::new(&shape, &Hardware::named("h100").unwrap(), &config).unwrap();
        assert_eq!(plan.rows, 128);
        assert_eq!(plan.generated, 128.0 * 512.0);
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-12;
        assert!(near(plan.step_seconds.high, 2.2 * plan.step_seconds.low));
        assert!(near(plan.hours.low, 0.1 * plan.step_seconds.low));
        assert!(near(plan.device_hours.high, 4.0 * plan.hours.high));
        let dollars = plan.dollars.unwrap();
        assert!(near(dollars.low, 2.5 * plan.device_hours.low));
        assert!(near(dollars.high, 3.5 * plan.device_hours.high));
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn mfu_and_dollars_are_none_without_peak_and_price() {
        let shape = ModelShape::named("smollm2-135m").unwrap();
        let hardware = Hardware::named("cpu-2-cores").unwrap();
        let plan = Plan::new(&shape, &hardware, &PlanConfig::default()).unwrap();
        assert_eq!((plan.mfu, plan.dollars), (None, None));
        let priced = PlanConfig {
            price: Some(0.1),
            ..PlanConfig::default()
        };
        let plan = Plan::new(&shape, &hardware, &priced).unwrap();
        let dollars = plan.dollars.unwrap();
        assert!((dollars.low / (0.1 * plan.device_hours.low) - 1.0).abs() < 1e-12);
    }
}
