//! Gradient exchange and weak scaling.

use serde::{Deserialize, Serialize};

use super::config::PlanConfig;
use super::cost::Range;
use super::estimate::Plan;
use super::hardware::Hardware;
use super::shape::ModelShape;
use crate::Result;

/// The share of a link's bandwidth that an exchange reaches.
const REACHED: f64 = 0.8;

/// Returns the seconds to sum `bytes` of gradients over learners. The gradients are reduced and
/// gathered within each node of `g` devices, and each device exchanges its part between `n` nodes:
/// `2 (g-1)/g S / link + 2 (n-1)/n (S/g) / network`, at 80 % of either bandwidth and without
/// overlap.
pub(super) fn exchange_seconds(bytes: f64, learners: usize, hardware: &Hardware) -> f64 {
    let learners = learners.max(1) as f64;
    let node = learners.min(hardware.per_node as f64);
    let nodes = (learners / node).ceil();
    let moved = |parts: f64, bytes: f64| 2.0 * (parts - 1.0) / parts * bytes;
    let inside = moved(node, bytes) / (REACHED * 0.5e9 * hardware.link);
    let between = moved(nodes, bytes / node) / (REACHED * 1e9 * hardware.network);
    inside + between
}

/// A step of a plan on another number of devices, with the same work per device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeakScaling {
    /// Devices.
    pub devices: usize,
    /// Problems per step.
    pub problems: usize,
    /// Seconds per step, including the gradient exchange.
    pub step_seconds: Range,
    /// Seconds of gradient exchange per step.
    pub exchange_seconds: f64,
    /// Generated tokens per second and device.
    pub tokens_per_second: f64,
    /// `tokens_per_second`, relative to the first row.
    pub efficiency: f64,
    /// Whether the memory of a device is sufficient.
    pub fits: bool,
}

/// Estimates a step on each of `counts` devices, with the work per device of `config`.
///
/// The estimate assumes that exchanges do not overlap with other work, that devices and links are
/// equal, and that rewards, the host and the gathering of rollouts (1 GB at the size of
/// DeepSeek-R1's steps) take no time. What grows with the number of devices is the gradient
/// exchange and the longest completion of the step, which all devices wait for.
///
/// ```
/// use rlvr::plan::{Hardware, ModelShape, PlanConfig, weak_scaling};
///
/// let shape = ModelShape::named("qwen2.5-0.5b")?;
/// let rows = weak_scaling(
///     &shape,
///     &Hardware::named("h100")?,
///     &PlanConfig::default(),
///     &[1, 8, 64],
/// )?;
/// assert_eq!(rows[0].efficiency, 1.0);
/// assert!(rows[2].efficiency < rows[1].efficiency);
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the plan for any of the counts is invalid (see [`Plan::new`]).
pub fn weak_scaling(
    shape: &ModelShape,
    hardware: &Hardware,
    config: &PlanConfig,
    counts: &[usize],
) -> Result<Vec<WeakScaling>> {
    config.validate()?;
    let mut rows: Vec<WeakScaling> = Vec::new();
    for &devices in counts {
        let factor = devices as f64 / config.devices as f64;
        let scaled = |number: usize| ((number as f64 * factor).round() as usize).max(1);
        let own = PlanConfig {
            devices,
            problems: scaled(config.problems),
            generators: config.generators.map(scaled),
            tensor_parallel: config.tensor_parallel.min(devices),
            expert_parallel: config.expert_parallel.min(devices),
            ..config.clone()
        };
        let plan = Plan::new(shape, hardware, &own)?;
        let trained = own.adapters(shape).unwrap_or_else(|| shape.parameters());
        let bytes = 4.0 * trained as f64 * own.trained_models();
        let exchange = own.updates as f64 * exchange_seconds(bytes, own.learning(), hardware);
        let step_seconds = Range {
            low: plan.step_seconds.low + exchange,
            high: plan.step_seconds.high + exchange,
        };
        let tokens_per_second = plan.generated / (devices as f64 * step_seconds.low);
        let first = rows
            .first()
            .map_or(tokens_per_second, |row| row.tokens_per_second);
        rows.push(WeakScaling {
            devices,
            problems: own.problems,
            step_seconds,
            exchange_seconds: exchange,
            tokens_per_second,
            efficiency: tokens_per_second / first,
            fits: plan.misfits.is_empty(),
        });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients in f32 on 8 nodes of 8 H800, with 8 NICs a node and with 1.
    #[test]
    fn exchange_seconds_follow_from_the_bandwidths() {
        let h800 = Hardware::named("h800").unwrap();
        let one_nic = Hardware {
            network: 50.0 / 8.0,
            ..h800.clone()
        };
        for (parameters, eight, one) in [(0.494e9, 0.032, 0.108), (7.6e9, 0.50, 1.67)] {
            let seconds = |hardware| exchange_seconds(4.0 * parameters, 64, hardware);
            assert!((seconds(&h800) / eight - 1.0).abs() < 0.02);
            assert!((seconds(&one_nic) / one - 1.0).abs() < 0.02);
        }
        assert_eq!(exchange_seconds(1e9, 1, &h800), 0.0);
    }

    #[test]
    fn efficiency_falls_with_the_number_of_devices() {
        let shape = ModelShape::named("qwen2.5-0.5b").unwrap();
        let hardware = Hardware::named("h800").unwrap();
        let config = PlanConfig {
            problems: 1,
            group: 16,
            ..PlanConfig::default()
        };
        let rows = weak_scaling(&shape, &hardware, &config, &[1, 8, 64, 512]).unwrap();
        assert_eq!(rows[0].efficiency, 1.0);
        assert_eq!(rows[0].exchange_seconds, 0.0);
        assert!(rows.windows(2).all(|w| w[1].efficiency < w[0].efficiency));
        assert!(rows[3].efficiency > 0.4, "{rows:?}");
        assert_eq!(rows[3].problems, 512);
    }
}
