//! Each finding is triggered alone by its metrics, and is absent in the same run without its cause.

use super::*;

/// A pseudo-random number in [-1, 1].
fn noise(step: u64) -> f64 {
    let mixed = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// From 0 at the first step to 1 at the last of 60.
fn progress(step: u64) -> f64 {
    (step - 1) as f64 / 59.0
}

/// A healthy run: reward and held-out accuracy rise.
fn healthy(step: u64) -> StepRecord {
    let wave = noise(step);
    let record = StepRecord::new(step)
        .with("reward", 1.0 + 0.5 * progress(step) + 0.05 * wave)
        .with(
            "rewards/accuracy/mean",
            0.3 + 0.4 * progress(step) + 0.05 * wave,
        )
        .with(
            "rewards/format/mean",
            0.7 + 0.1 * progress(step) + 0.02 * wave,
        )
        .with("rewards/accuracy/failed", 0.0)
        .with("rewards/accuracy/timed_out", 0.0)
        .with("rewards/unscored", 0.0)
        .with("frac_reward_zero_std", 0.3 + 0.1 * wave)
        .with(
            "completions/mean_length",
            100.0 + 20.0 * progress(step) + wave,
        )
        .with("completions/clipped_ratio", 0.03)
        .with("num_tokens", 1600.0 * step as f64)
        .with("entropy", 0.5 - 0.2 * progress(step) + 0.01 * wave)
        .with("kl", 1e-3 + 0.05 * progress(step))
        .with("kl_coef", 0.04)
        .with("advantages/min", -2.0)
        .with("advantages/max", 2.0)
        .with("advantages/rms", 0.9)
        .with("clip_ratio/region_mean", 0.02)
        .with("learning_rate", 1e-6)
        .with("grad_norm", 0.2)
        .with("rollout_corr/k3_kl", 2e-4)
        .with("sampling/sampling_logp_difference/max", 0.3)
        .with("skipped_steps", 0.0)
        .with("domains/maths/tokens", 900.0)
        .with("domains/code/tokens", 700.0);
    match step.is_multiple_of(10) {
        true => record.with("eval/accuracy", 0.3 + 0.3 * progress(step)),
        false => record,
    }
}

/// Sixty steps of a healthy run, with other values for some metrics.
fn run(changed: &[(&str, &dyn Fn(u64) -> f64)]) -> Vec<StepRecord> {
    let record = |step| {
        let mut record = healthy(step);
        for (name, value) in changed {
            // Evaluations stay at their steps.
            if record.metrics.contains_key(*name) || !name.starts_with("eval/") {
                record.metrics.insert((*name).into(), value(step));
            }
        }
        record
    };
    (1..=60).map(record).collect()
}

/// The severities and names of the findings.
fn diagnosed(records: &[StepRecord]) -> Vec<String> {
    let diagnosis = Diagnosis::of(records);
    for finding in diagnosis.findings() {
        assert!(!finding.numbers.is_empty(), "{finding}");
        assert!(
            !finding.evidence.contains("NaN") && !finding.evidence.contains("inf"),
            "{finding}"
        );
        assert!(
            finding.first_step <= finding.last_step && finding.last_step > 0,
            "{finding}"
        );
    }
    let findings = diagnosis.findings().iter();
    findings
        .map(|found| format!("{} {}", found.severity, found.name))
        .collect()
}

fn found_in(changed: &[(&str, &dyn Fn(u64) -> f64)]) -> Vec<String> {
    diagnosed(&run(changed))
}

#[test]
fn a_healthy_run_has_no_findings_at_any_step() {
    let records = run(&[]);
    for steps in 0..=60 {
        assert_eq!(diagnosed(&records[..steps]), [""; 0], "after {steps} steps");
    }
    let diagnosis = Diagnosis::of(&records);
    assert_eq!(
        (diagnosis.verdict(), diagnosis.step()),
        (Verdict::Healthy, 60)
    );
    assert_eq!(diagnosis.to_string(), "verdict: healthy");
    let early = Diagnosis::of(&records[..4]).to_string();
    assert_eq!(
        early,
        "verdict: healthy so far: 4 steps, most findings need 5"
    );
}

#[test]
fn no_signal_is_found_on_both_sides() {
    let share = "frac_reward_zero_std";
    let right = "rewards/accuracy/mean";
    let low = |step| 0.02 + 0.005 * noise(step);
    let high = |step| 0.85 + 0.005 * noise(step);
    let found = |of_groups: f64, of_answers: &dyn Fn(u64) -> f64| {
        found_in(&[(share, &|_| of_groups), (right, of_answers)])
    };
    assert_eq!(found(0.7, &high), ["warning no_signal/too_easy"]);
    assert_eq!(found(1.0, &high), ["warning no_signal/too_easy"]);
    assert_eq!(found(0.7, &low), ["warning no_signal/too_hard"]);
    assert_eq!(found(0.97, &low), ["failing no_signal/too_hard"]);
    // Some problems are always solved, the others never.
    assert_eq!(found_in(&[(share, &|_| 0.97)]), ["failing no_signal"]);
    // With dynamic sampling the dropped groups count.
    let dropped = "dynamic_sampling/frac_zero_std";
    let changed: [(&str, &dyn Fn(u64) -> f64); 2] = [(share, &|_| 0.0), (dropped, &|_| 0.8)];
    assert_eq!(found_in(&changed), ["warning no_signal"]);
    // Without an accuracy the side is unknown.
    let unknown = |step| StepRecord::new(step).with(share, 1.0);
    let records: Vec<StepRecord> = (1..=6).map(unknown).collect();
    assert_eq!(diagnosed(&records), ["failing no_signal"]);
}

#[test]
fn entropy_collapse_is_found() {
    let falls = |step| 0.5 - 0.49 * progress(step);
    let (low, lower) = (|step: u64| falls(step).min(0.015), |_| 0.001);
    assert_eq!(
        found_in(&[("entropy", &|step| if step < 30 { 0.5 } else { low(step) })]),
        ["warning entropy_collapse"]
    );
    assert_eq!(
        found_in(&[("entropy", &lower)]),
        ["failing entropy_collapse"]
    );
    // An entropy that is low from the start is no collapse.
    assert_eq!(found_in(&[("entropy", &|_| 0.015)]), [""; 0]);
    // Low entropy is fine once the problems are solved.
    let right = |step| 0.95 + 0.01 * noise(step);
    assert_eq!(
        found_in(&[("entropy", &lower), ("rewards/accuracy/mean", &right)]),
        [""; 0]
    );
}

#[test]
fn length_explosion_and_truncation_are_found() {
    let length = "completions/mean_length";
    let longer = |step| 100.0 + 300.0 * progress(step);
    let flat = |step| 1.0 + 0.05 * noise(step);
    assert_eq!(
        found_in(&[(length, &longer), ("reward", &flat)]),
        ["warning length_explosion"]
    );
    let much = |step| 100.0 + 4000.0 * progress(step);
    assert_eq!(
        found_in(&[(length, &much), ("reward", &flat)]),
        ["failing length_explosion"]
    );
    // Longer completions with more reward are fine.
    assert_eq!(found_in(&[(length, &longer)]), [""; 0]);
    let cut = "completions/clipped_ratio";
    assert_eq!(found_in(&[(cut, &|_| 0.3)]), ["warning truncation"]);
    assert_eq!(found_in(&[(cut, &|_| 0.9)]), ["failing truncation"]);
}

#[test]
fn kl_runaway_is_found() {
    assert_eq!(found_in(&[("kl", &|_| 1.5)]), ["warning kl_runaway"]);
    assert_eq!(found_in(&[("kl", &|_| 12.0)]), ["failing kl_runaway"]);
    // Without a penalty a large KL alone is fine.
    assert_eq!(
        found_in(&[("kl", &|_| 1.5), ("kl_coef", &|_| 0.0)]),
        [""; 0]
    );
    let falls = |step| 1.5 - progress(step) + 0.05 * noise(step);
    assert_eq!(
        found_in(&[("kl", &|_| 1.5), ("kl_coef", &|_| 0.0), ("reward", &falls)]),
        ["failing kl_runaway"]
    );
    let jumps = |step| if step > 40 { 0.6 } else { 0.1 };
    assert_eq!(found_in(&[("kl", &jumps)]), ["warning kl_runaway"]);
}

#[test]
fn reward_hacking_is_found() {
    let falls = |step| 0.6 - 0.15 * progress(step);
    assert_eq!(
        found_in(&[("eval/accuracy", &falls)]),
        ["warning reward_hacking"]
    );
    let far = |step| 0.6 - 0.5 * progress(step);
    assert_eq!(
        found_in(&[("eval/accuracy", &far)]),
        ["failing reward_hacking"]
    );
    // A single lower evaluation may be chance.
    let once = |step| if step == 60 { 0.5 } else { 0.6 };
    assert_eq!(found_in(&[("eval/accuracy", &once)]), [""; 0]);
    let flat = |step| 1.0 + 0.05 * noise(step);
    assert_eq!(
        found_in(&[("eval/accuracy", &far), ("reward", &flat)]),
        ["failing held_out_falls"]
    );
    // Low accuracy that falls to less than half.
    let few = |step| if step > 30 { 0.05 } else { 0.19 };
    assert_eq!(
        found_in(&[("eval/accuracy", &few), ("reward", &flat)]),
        ["failing held_out_falls"]
    );
    let wrong = |step| 0.5 - 0.1 * progress(step) + 0.01 * noise(step);
    let wronger = |step| 0.5 - 0.4 * progress(step) + 0.01 * noise(step);
    let accuracy = "rewards/accuracy/mean";
    assert_eq!(
        found_in(&[(accuracy, &wrong)]),
        ["warning reward_hacking/format"]
    );
    assert_eq!(
        found_in(&[(accuracy, &wronger)]),
        ["failing reward_hacking/format"]
    );
    assert_eq!(
        found_in(&[(accuracy, &wrong), ("rewards/format/mean", &|_| 0.7)]),
        [""; 0]
    );
    // The best evaluation is before the first step.
    let mut records = vec![StepRecord::new(0).with("eval/accuracy", 0.9)];
    records.extend(run(&[("eval/accuracy", &|_| 0.4)]));
    assert_eq!(diagnosed(&records), ["failing reward_hacking"]);
}

#[test]
fn advantage_outliers_are_found() {
    assert_eq!(
        found_in(&[("advantages/max", &|_| 12.0)]),
        ["warning advantage_outliers"]
    );
    assert_eq!(
        found_in(&[("advantages/min", &|_| -12.0)]),
        ["warning advantage_outliers"]
    );
    assert_eq!(found_in(&[("advantages/rms", &|_| 0.0)]), [""; 0]);
}

#[test]
fn clipping_is_found() {
    let region = "clip_ratio/region_mean";
    assert_eq!(found_in(&[(region, &|_| 0.5)]), ["warning clipping"]);
    assert_eq!(found_in(&[(region, &|_| 0.85)]), ["failing clipping"]);
    assert_eq!(
        found_in(&[("clip_ratio/bounded_mean", &|_| 0.5)]),
        ["warning clipping"]
    );
}

#[test]
fn a_learning_rate_without_effect_is_found() {
    let reward = |step| 1.0 + 0.05 * noise(step);
    let still: [(&str, &dyn Fn(u64) -> f64); 3] = [
        ("reward", &reward),
        ("entropy", &|step| 0.5 + 0.01 * noise(step)),
        ("completions/mean_length", &|step| 100.0 + noise(step)),
    ];
    let with = |kl: &dyn Fn(u64) -> f64| {
        let mut changed = still.to_vec();
        changed.push(("kl", kl));
        found_in(&changed)
    };
    // In f32 the KL of equal weights is 0.
    assert_eq!(with(&|_| 0.0), ["failing no_effect"]);
    // In half precision it is noise that does not grow when updates are rounded away.
    assert_eq!(
        with(&|step| 2e-4 + 1e-5 * noise(step)),
        ["warning no_effect"]
    );
    // A policy that changes slowly is fine.
    assert_eq!(with(&|step| 2e-4 * step as f64), [""; 0]);
    let mut silent = still.to_vec();
    silent.push(("grad_norm", &|_| 0.0));
    silent.push(("kl", &|_| 0.0));
    assert_eq!(found_in(&silent), [""; 0]);
}

#[test]
fn sampler_mismatch_is_found() {
    let kl = "rollout_corr/k3_kl";
    assert_eq!(found_in(&[(kl, &|_| 0.02)]), ["warning sampler_mismatch"]);
    assert_eq!(found_in(&[(kl, &|_| 0.2)]), ["failing sampler_mismatch"]);
}

#[test]
fn reward_failures_are_found() {
    // Sixteen completions per step.
    let (failed, late) = ("rewards/accuracy/failed", "rewards/accuracy/timed_out");
    assert_eq!(
        found_in(&[(failed, &|_| 1.0)]),
        ["warning reward_fails/accuracy"]
    );
    assert_eq!(
        found_in(&[(failed, &|_| 8.0)]),
        ["failing reward_fails/accuracy"]
    );
    assert_eq!(
        found_in(&[(failed, &|_| 8.0), (late, &|_| 8.0)]),
        ["failing reward_times_out/accuracy"]
    );
    let once = |step| f64::from(u8::from(step == 55));
    assert_eq!(found_in(&[(failed, &once)]), [""; 0]);
    assert_eq!(
        found_in(&[("rewards/unscored", &|_| 8.0)]),
        ["warning unscored"]
    );
    // Also at the first step, where windows are too short for other findings.
    let first = healthy(1).with(failed, 16.0);
    assert_eq!(diagnosed(&[first]), ["failing reward_fails/accuracy"]);
}

#[test]
fn a_dominant_domain_is_found() {
    let tokens = "domains/maths/tokens";
    assert_eq!(
        found_in(&[(tokens, &|_| 9000.0)]),
        ["warning domain_dominates/maths"]
    );
    let only = |step| StepRecord::new(step).with(tokens, 900.0);
    let records: Vec<StepRecord> = (1..=9).map(only).collect();
    assert_eq!(diagnosed(&records), [""; 0]);
}

#[test]
fn skipped_updates_are_found() {
    let twice = |step| f64::from(u8::from(step > 45)) + f64::from(u8::from(step > 50));
    assert_eq!(
        found_in(&[("skipped_steps", &twice)]),
        ["warning updates_skipped"]
    );
    let most = |step: u64| step as f64;
    assert_eq!(
        found_in(&[("skipped_steps", &most)]),
        ["failing updates_skipped"]
    );
    // Not in the last window.
    assert_eq!(
        found_in(&[("skipped_steps", &|step| f64::from(u8::from(step > 5)))]),
        [""; 0]
    );
}

#[test]
fn metrics_that_are_not_finite_are_ignored() {
    let mut records = run(&[]);
    for record in &mut records {
        for value in record.metrics.values_mut() {
            *value = f64::NAN;
        }
    }
    assert_eq!(diagnosed(&records), [""; 0]);
}

#[test]
fn findings_print_one_per_line_and_round_trip_through_json() {
    let diagnosis = Diagnosis::of(&run(&[
        ("completions/clipped_ratio", &|_| 0.3),
        ("rollout_corr/k3_kl", &|_| 0.2),
    ]));
    let text = diagnosis.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "verdict: failing");
    assert!(
        lines[1].starts_with("  failing: sampler_mismatch (steps 41-60): the sampler's log-probs"),
        "{text}"
    );
    assert!(
        lines[2].starts_with(
            "  warning: truncation (steps 41-60): 30% of the completions were cut off at the length limit. Raise `gen"
        ),
        "{text}"
    );
    assert_eq!(lines.len(), 3);
    let json = serde_json::to_string(&diagnosis).unwrap();
    assert_eq!(serde_json::from_str::<Diagnosis>(&json).unwrap(), diagnosis);
    assert!(json.contains(r#""severity":"failing""#), "{json}");
}
