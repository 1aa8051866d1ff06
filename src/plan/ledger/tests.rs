use super::*;
use crate::plan::Tokens;

/// A model of the size in the `r1_zero` example.
fn model() -> ModelFlops {
    ModelFlops {
        forward_token: 0.8e6,
        forward_square: 512.0,
        backward_token: 1.6e6,
        backward_square: 1024.0,
    }
}

/// A step of 128 completions of `length` tokens.
fn usage(length: f64, seconds: f64) -> StepUsage {
    let generated = (128.0 * length).round() as u64;
    let read = Tokens::sequence(length) * 128.0;
    StepUsage {
        devices: 2,
        completions: 128,
        generated,
        trained: generated,
        longest: 2 * length as u64,
        generation: read,
        update: read,
        seconds: PhaseSeconds {
            generate: 0.5 * seconds,
            update: 0.4 * seconds,
            idle: 0.1 * seconds,
            step: seconds,
            ..PhaseSeconds::default()
        },
        ..StepUsage::default()
    }
}

fn ledger(config: LedgerConfig) -> Ledger {
    Ledger::new(config, model()).unwrap()
}

#[test]
fn a_ledger_sums_the_usage_of_its_steps() {
    let mut ledger = ledger(LedgerConfig {
        peak_tflops: Some(1e-3),
        peak_bandwidth: Some(10.0),
        price: Some(3.0),
        ..LedgerConfig::default()
    });
    let mut metrics = BTreeMap::new();
    for (length, seconds) in [(10.0, 2.0), (20.0, 4.0)] {
        metrics = ledger
            .record(&StepUsage {
                decoded_bytes: Some(8e9),
                peak_memory: Some((length * 1e6) as u64),
                ..usage(length, seconds)
            })
            .unwrap();
    }
    ledger.record_other(6.0).unwrap();
    let state = ledger.state();
    assert_eq!((state.generated, state.trained), (3840, 3840));
    assert_eq!((state.seconds, state.other_seconds), (6.0, 6.0));
    assert!((state.idle_seconds - 0.6).abs() < 1e-12);
    assert!((ledger.cost().device_hours - 2.0 * 12.0 / 3600.0).abs() < 1e-12);
    assert!((ledger.cost().dollars - 6.0 * 12.0 / 3600.0).abs() < 1e-12);
    assert!((ledger.hours() - 12.0 / 3600.0).abs() < 1e-12);

    let update = 128.0 * (2.4e6 * 20.0 + 1536.0 * 400.0);
    let forward = 128.0 * (0.8e6 * 20.0 + 512.0 * 400.0);
    let near = |name: &str, want: f64| {
        assert!(
            (metrics[name] / want - 1.0).abs() < 1e-12,
            "{name} {}",
            metrics[name]
        );
    };
    near("num_tokens", 3840.0);
    near("step_time", 4.0);
    near("tokens_per_second/generate", 2560.0 / (2.0 * 2.0));
    near("tokens_per_second/device", 2560.0 / (4.0 * 2.0));
    near("flops/step", update + forward);
    near("mfu/update", update / (1.6 * 2.0 * 1e9));
    near("mfu/step", update / (4.0 * 2.0 * 1e9));
    near("mbu/generate", 8e9 / (2.0 * 2.0 * 1e10));
    near("memory/peak", 20e6);
    near("cost/dollars", 6.0 * 6.0 / 3600.0);
}

#[test]
fn metrics_without_peak_price_or_time_are_absent() {
    let mut ledger = ledger(LedgerConfig::default());
    let metrics = ledger.record(&usage(10.0, 0.0)).unwrap();
    for absent in [
        "mfu/update",
        "mfu/step",
        "mbu/generate",
        "cost/dollars",
        "tokens_per_second/generate",
        "memory/peak",
    ] {
        assert!(!metrics.contains_key(absent), "{absent}");
    }
    assert!(metrics.values().all(|value| value.is_finite()));
}

#[test]
fn a_resumed_ledger_equals_one_that_was_not_interrupted() {
    let steps: Vec<StepUsage> = (0..10).map(|i| usage(10.0 + f64::from(i), 1.5)).collect();
    let mut whole = ledger(LedgerConfig::default());
    steps
        .iter()
        .for_each(|step| drop(whole.record(step).unwrap()));
    let mut first = ledger(LedgerConfig::default());
    steps[..6]
        .iter()
        .for_each(|step| drop(first.record(step).unwrap()));
    let text = serde_json::to_string(first.state()).unwrap();
    let state = serde_json::from_str(&text).unwrap();
    let mut second = Ledger::resume(LedgerConfig::default(), model(), state).unwrap();
    steps[6..]
        .iter()
        .for_each(|step| drop(second.record(step).unwrap()));
    assert_eq!(second, whole);
    assert_eq!(second.forecast(50), whole.forecast(50));
}

#[test]
fn invalid_usage_is_an_error_and_not_added() {
    let mut ledger = ledger(LedgerConfig::default());
    let none = StepUsage::default();
    assert!(
        ledger
            .record(&none)
            .unwrap_err()
            .to_string()
            .contains("devices")
    );
    let backwards = usage(10.0, -1.0);
    assert!(
        ledger
            .record(&backwards)
            .unwrap_err()
            .to_string()
            .contains("seconds")
    );
    assert!(ledger.record_other(f64::NAN).is_err());
    assert_eq!(ledger.state(), &LedgerState::default());
    let unpriced = LedgerConfig {
        stop_after: StopAfter {
            dollars: Some(5.0),
            ..StopAfter::default()
        },
        ..LedgerConfig::default()
    };
    let error = Ledger::new(unpriced, model()).unwrap_err().to_string();
    assert!(
        error.contains("stop_after.dollars") && error.contains("price"),
        "{error}"
    );
}

/// Returns the steps of a simulated run with fixed costs, costs per FLOP, noise and a slow first
/// step.
fn synthetic(lengths: impl Fn(f64) -> f64, fixed: f64, noise: f64) -> Vec<StepUsage> {
    let mut state = 1u64;
    (0..240)
        .map(|step| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let draw = (state >> 33) as f64 / (1u64 << 31) as f64 - 0.5;
            let length = lengths(f64::from(step));
            let scaled = length / 20.0 + 1e-3 * (length / 20.0).powi(2);
            let usual = fixed + (1.0 - fixed) * scaled;
            let warm = if step == 0 { 1.8 } else { 1.0 };
            usage(length, 0.25 * usual * warm * (1.0 + 2.0 * noise * draw))
        })
        .collect()
}

/// Returns the relative error of the forecast after `seen` steps, and whether the range contains
/// the true time.
fn error(steps: &[StepUsage], seen: usize) -> (f64, bool) {
    let mut ledger = ledger(LedgerConfig {
        length_cap: Some(64),
        ..LedgerConfig::default()
    });
    for step in &steps[..seen] {
        assert!(ledger.forecast(1).is_some() == (ledger.state().steps >= 3));
        ledger.record(step).unwrap();
    }
    let rest: f64 = steps[seen..].iter().map(|step| step.seconds.step).sum();
    let forecast = ledger.forecast((steps.len() - seen) as u64).unwrap();
    let inside = (forecast.seconds.low..=forecast.seconds.high).contains(&rest);
    (forecast.expected_seconds / rest - 1.0, inside)
}

#[test]
fn forecast_of_a_run_with_constant_lengths() {
    for fixed in [0.0, 0.3, 0.8] {
        for noise in [0.0, 0.05] {
            let steps = synthetic(|_| 20.0, fixed, noise);
            // At first some growth is expected, which does not happen.
            for (seen, limit) in [(3, 0.22), (10, 0.08), (100, 0.02)] {
                let (error, inside) = error(&steps, seen);
                assert!(
                    error.abs() < limit && inside,
                    "{fixed} {noise} {seen}: {error}"
                );
            }
        }
    }
}

#[test]
fn the_forecast_of_growing_lengths_improves_with_the_steps() {
    // As in the `r1_zero` example (`examples/r1_zero/curve.svg`); slower; and until the end.
    let quickly = |step: f64| 24.4 - 10.0 * (-step / 8.0).exp();
    let slowly = |step: f64| 24.5 - 8.9 * (-step / 60.0).exp();
    let steadily = |step: f64| 15.6 + 8.9 * step / 240.0;
    for fixed in [0.2, 0.4, 0.6] {
        for noise in [0.0, 0.05] {
            for (name, steps) in [
                ("quickly", synthetic(quickly, fixed, noise)),
                ("slowly", synthetic(slowly, fixed, noise)),
                ("steadily", synthetic(steadily, fixed, noise)),
            ] {
                for (seen, limit) in [(3, 0.20), (12, 0.20), (60, 0.13), (120, 0.06)] {
                    let (error, inside) = error(&steps, seen);
                    let case = format!("{name} {fixed} {noise} after {seen}: {error}");
                    assert!(error.abs() < limit && inside, "{case}");
                }
            }
        }
    }
}

#[test]
fn forecast_at_the_true_length_after_three_steps() {
    let early = |step: f64| 24.5 - 8.9 * (-step / 60.0).exp();
    let steps = synthetic(early, 0.3, 0.02);
    let mut ledger = ledger(LedgerConfig::default());
    for step in &steps[..3] {
        ledger.record(step).unwrap();
    }
    let rest = &steps[3..];
    let seconds: f64 = rest.iter().map(|step| step.seconds.step).sum();
    let tokens: u64 = rest.iter().map(|step| step.generated).sum();
    let mean = tokens as f64 / (128 * rest.len()) as f64;
    let forecast = ledger.forecast_at(rest.len() as u64, mean).unwrap();
    let error = forecast.expected_seconds / seconds - 1.0;
    assert!(error.abs() < 0.10, "{error}");
}

#[test]
fn the_forecast_includes_the_quadratic_cost_of_attention() {
    // Attention dominates: twice the length is almost four times the FLOPs.
    let flops = ModelFlops {
        forward_token: 1.0,
        forward_square: 1.0,
        backward_token: 2.0,
        backward_square: 2.0,
    };
    let seconds = |length: f64| 1e-4 * (length + length * length);
    let mut ledger = Ledger::new(LedgerConfig::default(), flops).unwrap();
    for length in [100.0, 104.0, 98.0, 103.0, 97.0, 101.0] {
        ledger.record(&usage(length, seconds(length))).unwrap();
    }
    let forecast = ledger.forecast_at(10, 200.0).unwrap();
    let ratio = forecast.expected_seconds / (10.0 * seconds(200.0));
    assert!((0.75..1.05).contains(&ratio), "{ratio}");
}

#[test]
fn the_forecast_includes_time_outside_steps() {
    let mut ledger = ledger(LedgerConfig::default());
    for _ in 0..4 {
        ledger.record(&usage(20.0, 3.0)).unwrap();
        ledger.record_other(1.0).unwrap();
    }
    let forecast = ledger.forecast(100).unwrap();
    assert!((forecast.expected_seconds - 400.0).abs() < 1.0);
    let metrics = forecast.metrics();
    assert!((metrics["forecast/hours"] - 400.0 / 3600.0).abs() < 1e-3);
    assert!(!metrics.contains_key("forecast/dollars"));
}

#[test]
fn a_budget_ends_the_run_before_the_step_that_would_exceed_it() {
    for (stop_after, steps) in [
        (
            StopAfter {
                hours: Some(105.0 / 3600.0),
                ..StopAfter::default()
            },
            10,
        ),
        (
            StopAfter {
                device_hours: Some(2.0 * 45.0 / 3600.0),
                ..StopAfter::default()
            },
            4,
        ),
        (
            StopAfter {
                dollars: Some(0.5 * 2.0 * 15.0 / 3600.0),
                ..StopAfter::default()
            },
            1,
        ),
    ] {
        let mut ledger = ledger(LedgerConfig {
            price: Some(0.5),
            stop_after,
            ..LedgerConfig::default()
        });
        assert_eq!(ledger.exceeded(), None);
        let mut made = 0;
        while ledger.exceeded().is_none() {
            ledger.record(&usage(20.0, 10.0)).unwrap();
            made += 1;
        }
        assert_eq!(made, steps, "{:?}", ledger.exceeded());
        assert!(ledger.exceeded().unwrap().starts_with("stop_after."));
    }
}
