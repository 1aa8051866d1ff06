//! The metrics of a step.

use std::collections::BTreeMap;

use super::{LedgerConfig, LedgerState, StepUsage};
use crate::plan::flops::ModelFlops;

pub(super) fn metrics(
    usage: &StepUsage,
    config: &LedgerConfig,
    model: &ModelFlops,
    state: &LedgerState,
) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            metrics.insert(name.to_string(), value);
        }
    };
    let seconds = &usage.seconds;
    let devices = usage.devices as f64;
    let per = |amount: f64, seconds: f64| (seconds > 0.0).then(|| amount / (seconds * devices));
    let generated = usage.generated as f64;

    put("num_tokens", Some(state.tokens));
    put("step_time", Some(seconds.step));
    put("tokens/generated", Some(generated));
    put("tokens/trained", Some(usage.trained as f64));
    put(
        "tokens_per_second/generate",
        per(generated, seconds.generate),
    );
    put(
        "tokens_per_second/update",
        per(usage.update.count, seconds.update),
    );
    put("tokens_per_second/device", per(generated, seconds.step));

    let update = model.update(usage.update);
    put("flops/step", Some(usage.flops(model)));
    put("flops/total", Some(state.flops));
    let share = |amount: f64, seconds: f64, peak: Option<f64>| Some(per(amount, seconds)? / peak?);
    let peak = config.peak_tflops.map(|tera| 1e12 * tera);
    put("mfu/update", share(update, seconds.update, peak));
    put("mfu/step", share(update, seconds.step, peak));
    let bandwidth = config.peak_bandwidth.map(|giga| 1e9 * giga);
    let mbu = usage
        .decoded_bytes
        .and_then(|bytes| share(bytes, seconds.generate, bandwidth));
    put("mbu/generate", mbu);

    put("time/idle", Some(seconds.idle));
    let hours = (state.seconds + state.other_seconds) / 3600.0;
    put("cost/hours", Some(hours));
    put("cost/device_hours", Some(state.device_hours));
    put("cost/dollars", config.price.map(|_| state.dollars));
    put("memory/peak", state.peak_memory.map(|bytes| bytes as f64));
    put(
        "memory/predicted",
        usage.predicted_memory.map(|bytes| bytes as f64),
    );
    metrics
}
