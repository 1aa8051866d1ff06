//! The plan: work, time, memory and cost of a run, and what does not fit.

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

/// What a run will take, before it is tried.
///
/// Tokens and FLOPs are exact for the given lengths. Times are not: the formulas are a lower end, and published runs took up to 2.2 times as
/// long, mixtures of experts up to 4 times. A [`Ledger`](super::Ledger) forecasts better once three steps are made.
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
    /// Parameters that a token is multiplied with, `N_a`.
    pub active_parameters: u64,
    /// Completions of a step.
    pub rows: usize,
    /// Tokens that are generated in a step.
    pub generated: f64,
    /// What one pass over the completions of a step reads, prompts included.
    pub read: Tokens,
    /// FLOPs of a step.
    pub flops: StepFlops,
    /// Seconds of a step by the formulas: the lower end of the range.
    pub seconds: StepSeconds,
    /// Seconds of a step.
    pub step_seconds: Range,
    /// Useful FLOPs of forward and backward passes by peak FLOP/s and the time of the step, a fraction; none without a peak.
    pub mfu: Option<Range>,
    /// Hours of the run.
    pub hours: Range,
    /// Device-hours of the run.
    pub device_hours: Range,
    /// Dollars of the run, if there is a price. Where the hardware's price is a range, so is this.
    pub dollars: Option<Range>,
    /// Bytes of a device.
    pub memory: Memory,
    /// Bytes of a checkpoint: trained parameters with their moments, in f32.
    pub checkpoint_bytes: f64,
    /// What does not fit, each with what would make it fit. Empty if everything does. Times are then those of devices with enough memory.
    pub misfits: Vec<Misfit>,
}

impl Plan {
    /// The plan of a run.
    ///
    /// # Errors
    /// If the hardware or the configuration is invalid. A run that does not fit is no error: see [`misfits`](Self::misfits).
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
    fn totals_follow_from_the_step() {
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
    fn an_unknown_peak_or_price_gives_none_not_a_guess() {
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
