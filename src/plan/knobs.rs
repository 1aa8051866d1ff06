//! Phases that do not fit in memory, and the setting that would make them fit.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::config::PlanConfig;
use super::hardware::Hardware;
use super::memory::{Memory, Sharding};
use super::shape::ModelShape;
use super::update_memory::Kernels;

/// A phase that needs more memory than a device has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Misfit {
    /// `generation` or `update`.
    pub phase: String,
    /// Bytes needed on a device.
    pub needed: f64,
    /// Bytes of a device.
    pub available: f64,
    /// The largest part of `needed`.
    pub largest: String,
    /// The smallest change of settings that would make it fit, such as
    /// `recompute = true, sharding = full`; `None` if none of the tried changes does.
    pub knob: Option<String>,
}

/// Returns the phases of a valid configuration that do not fit.
pub(super) fn misfits(
    shape: &ModelShape,
    hardware: &Hardware,
    config: &PlanConfig,
    memory: &Memory,
) -> Vec<Misfit> {
    let mut found = Vec::new();
    if !generates(memory) {
        let generation = &memory.generation;
        found.push(misfit(
            "generation",
            generation.total(),
            memory.device,
            &[
                ("weights", generation.weights),
                ("training state", generation.state),
                ("the cache of one completion at the cap", generation.cache),
            ],
            smallest(
                shape,
                hardware,
                config,
                generation_changes(config, hardware),
                generates,
            ),
        ));
    }
    if !updates(memory) {
        let update = &memory.update;
        found.push(misfit(
            "update",
            update.total(),
            memory.device,
            &[
                ("weights", update.weights),
                ("gradients", update.gradients),
                ("optimizer state", update.optimizer),
                ("the reference", update.reference),
                ("activations at the cap", update.activations),
                ("logits", update.logits),
            ],
            smallest(shape, hardware, config, update_changes(config), updates),
        ));
    }
    found
}

/// Returns whether at least one completion can be generated.
fn generates(memory: &Memory) -> bool {
    memory.slots >= 1.0
}

fn updates(memory: &Memory) -> bool {
    memory.update.total() <= memory.device
}

fn misfit(
    phase: &str,
    needed: f64,
    available: f64,
    parts: &[(&str, f64)],
    knob: Option<String>,
) -> Misfit {
    let largest = parts.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    Misfit {
        phase: phase.into(),
        needed,
        available,
        largest: largest.map_or("", |part| part.0).into(),
        knob,
    }
}

/// Returns the first of the changed settings with which the phase fits, as text.
fn smallest(
    shape: &ModelShape,
    hardware: &Hardware,
    config: &PlanConfig,
    changes: Vec<PlanConfig>,
    fits: fn(&Memory) -> bool,
) -> Option<String> {
    let fitting = |changed: &&PlanConfig| {
        changed.validate().is_ok() && fits(&Memory::new(shape, hardware, changed))
    };
    let found = changes.iter().find(fitting)?;
    Some(difference(config, found))
}

/// Formats the settings that differ: `recompute = true, sharding = full`.
fn difference(before: &PlanConfig, after: &PlanConfig) -> String {
    let fields = |config: &PlanConfig| match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let before = fields(before);
    let changed = fields(after)
        .into_iter()
        .filter(|(name, value)| before.get(name) != Some(value));
    let written = changed.map(|(name, value)| match value {
        Value::String(text) => format!("{name} = {text}"),
        value => format!("{name} = {value}"),
    });
    written.collect::<Vec<_>>().join(", ")
}

/// Returns `from` doubled repeatedly, up to `to`.
fn doubled(from: usize, to: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(from.checked_mul(2), |n| n.checked_mul(2)).take_while(move |&n| n <= to)
}

/// The largest number of devices that is proposed.
const MOST_DEVICES: usize = 1 << 16;

/// Returns settings that reduce the memory of generation, cheapest first.
fn generation_changes(config: &PlanConfig, hardware: &Hardware) -> Vec<PlanConfig> {
    let mut changes = Vec::new();
    let mut add = |change: &dyn Fn(&mut PlanConfig)| {
        let mut changed = config.clone();
        change(&mut changed);
        changes.push(changed);
    };
    add(&|c| c.offload = true);
    for copies in doubled(config.tensor_parallel, config.generating()) {
        for offload in [config.offload, true] {
            add(&|c| {
                (c.tensor_parallel, c.expert_parallel) = (copies, 1);
                c.offload = offload;
            });
        }
    }
    for devices in doubled(config.devices, MOST_DEVICES) {
        add(&|c| {
            (c.devices, c.offload) = (devices, true);
            c.generators = config.generators.map(|g| g * (devices / config.devices));
            (c.tensor_parallel, c.expert_parallel) = (c.generating().min(hardware.per_node), 1);
        });
    }
    changes
}

/// Returns settings that reduce the memory of an update, cheapest first.
fn update_changes(config: &PlanConfig) -> Vec<PlanConfig> {
    let completion = config.completion.cap + config.prompt_tokens as usize;
    let changes: [&dyn Fn(&mut PlanConfig); 5] = [
        &|c| c.recompute = true,
        &|c| c.micro_batch_tokens = completion.min(config.micro_batch_tokens),
        &|c| c.sharding = Sharding::Optimizer,
        &|c| c.sharding = Sharding::Full,
        &|c| c.kernels = Kernels::Flash,
    ];
    // Every subset, small ones first.
    let mut subsets: Vec<u32> = (1..1 << changes.len()).collect();
    subsets.sort_by_key(|subset| subset.count_ones());
    let applied = |subset: u32, config: &PlanConfig| {
        let mut changed = config.clone();
        for (at, change) in changes.iter().enumerate() {
            if subset & (1 << at) != 0 {
                change(&mut changed);
            }
        }
        changed
    };
    let alone = config.learning() == 1;
    let pointless = |c: &PlanConfig| alone && c.sharding != config.sharding;
    let mut found: Vec<PlanConfig> = subsets
        .iter()
        .map(|&subset| applied(subset, config))
        .filter(|changed| !pointless(changed))
        .collect();
    let most = applied(0b01011, config);
    for devices in doubled(config.devices, MOST_DEVICES) {
        found.push(PlanConfig {
            devices,
            generators: config.generators.map(|g| g * (devices / config.devices)),
            ..most.clone()
        });
    }
    found.push(PlanConfig {
        adapter_rank: config.adapter_rank.or(Some(16)),
        ..most
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Lengths, Plan};

    fn plan(model: &str, config: &PlanConfig) -> Vec<Misfit> {
        let shape = ModelShape::named(model).unwrap();
        let hardware = Hardware::named("h100").unwrap();
        Plan::new(&shape, &hardware, config).unwrap().misfits
    }

    #[test]
    fn a_small_model_fits_and_a_large_one_gets_a_knob() {
        let mut config = PlanConfig::default();
        assert_eq!(plan("qwen2.5-0.5b", &config), []);
        let misfits = plan("qwen2.5-7b", &config);
        assert_eq!(misfits.len(), 2);
        assert!(misfits.iter().all(|misfit| misfit.knob.is_some()));
        let update = &misfits[1];
        assert_eq!(update.largest, "optimizer state");
        assert!(update.needed > 18.0 * 7.6e9 && update.available == 80e9);
        // A single device cannot shard.
        let knob = update.knob.as_deref().unwrap();
        assert!(
            knob.starts_with("devices = ") && knob.ends_with("sharding = full"),
            "{knob}"
        );
        config.devices = 8;
        let knob = plan("qwen2.5-7b", &config)[1].knob.clone().unwrap();
        assert_eq!(knob, "recompute = true, sharding = full");
    }

    #[test]
    fn applying_the_knobs_makes_the_plan_fit() {
        let mut config = PlanConfig {
            devices: 16,
            completion: Lengths::new(8000.0, 32_768),
            ..PlanConfig::default()
        };
        for _ in 0..4 {
            let misfits = plan("qwen2.5-32b", &config);
            let Some(misfit) = misfits.first() else {
                return;
            };
            let hardware = Hardware::named("h100").unwrap();
            let changes = match misfit.phase.as_str() {
                "generation" => generation_changes(&config, &hardware),
                _ => update_changes(&config),
            };
            let knob = misfit.knob.as_deref().unwrap();
            let changed = changes
                .into_iter()
                .find(|changed| difference(&config, changed) == knob);
            config = changed.unwrap();
        }
        panic!("still does not fit: {config:?}");
    }

    #[test]
    fn a_cache_that_fits_on_no_device_is_reported() {
        let config = PlanConfig {
            devices: 2,
            offload: true,
            sharding: Sharding::Full,
            completion: Lengths::new(1e6, 4_000_000),
            ..PlanConfig::default()
        };
        let misfits = plan("llama-3.1-8b", &config);
        assert_eq!(misfits[0].phase, "generation");
        assert_eq!(misfits[0].largest, "the cache of one completion at the cap");
    }
}
