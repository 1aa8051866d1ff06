//! Every finding is provoked, alone, by the metrics that it is about; beside it the same run without its cause.

use super::*;

/// A number in [-1, 1] that differs from step to step.
fn noise(step: u64) -> f64 {
    let mixed = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// From 0 at the first step to 1 at the last of 60.
fn progress(step: u64) -> f64 {
    (step - 1) as f64 / 59.0
}

/// A run that learns as it should: the reward rises, held-out accuracy as well.
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
            // Evaluations stay where they are.
            if record.metrics.contains_key(*name) || !name.starts_with("eval/") {
                record.metrics.insert((*name).into(), value(step));
            }
        }
        record
    };
    (1..=60).map(record).collect()
}

/// The names of the findings, with the severity.
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

fn provoked(changed: &[(&str, &dyn Fn(u64) -> f64)]) -> Vec<String> {
    diagnosed(&run(changed))
}

#[test]
fn a_healthy_run_is_silent_at_every_step() {
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
        "verdict: healthy so far: 4 steps, and most findings need 5"
    );
}

#[test]
fn groups_without_a_signal() {
    let share = "frac_reward_zero_std";
    let right = "rewards/accuracy/mean";
    let low = |step| 0.02 + 0.005 * noise(step);
    let high = |step| 0.85 + 0.005 * noise(step);
    let found = |of_groups: f64, of_answers: &dyn Fn(u64) -> f64| {
        provoked(&[(share, &|_| of_groups), (right, of_answers)])
    };
    assert_eq!(found(0.7, &high), ["warning no_signal/too_easy"]);
    assert_eq!(found(1.0, &high), ["warning no_signal/too_easy"]);
    assert_eq!(found(0.7, &low), ["warning no_signal/too_hard"]);
    assert_eq!(found(0.97, &low), ["failing no_signal/too_hard"]);
    // Some are always solved, the others never.
    assert_eq!(provoked(&[(share, &|_| 0.97)]), ["failing no_signal"]);
    // The groups that dynamic sampling leaves have a signal; what it dropped counts.
    let dropped = "dynamic_sampling/frac_zero_std";
    let changed: [(&str, &dyn Fn(u64) -> f64); 2] = [(share, &|_| 0.0), (dropped, &|_| 0.8)];
    assert_eq!(provoked(&changed), ["warning no_signal"]);
    // Without any accuracy nothing says on which side the problems are.
    let unknown = |step| StepRecord::new(step).with(share, 1.0);
    let records: Vec<StepRecord> = (1..=6).map(unknown).collect();
    assert_eq!(diagnosed(&records), ["failing no_signal"]);
}

#[test]
fn the_entropy_collapses() {
    let falls = |step| 0.5 - 0.49 * progress(step);
    let (low, lower) = (|step: u64| falls(step).min(0.015), |_| 0.001);
    assert_eq!(
        provoked(&[("entropy", &|step| if step < 30 { 0.5 } else { low(step) })]),
        ["warning entropy_collapse"]
    );
    assert_eq!(
        provoked(&[("entropy", &lower)]),
        ["failing entropy_collapse"]
    );
    // Low from the start on is the nature of the task.
    assert_eq!(provoked(&[("entropy", &|_| 0.015)]), [""; 0]);
    // Whoever has solved the problems may be certain.
    let right = |step| 0.95 + 0.01 * noise(step);
    assert_eq!(
        provoked(&[("entropy", &lower), ("rewards/accuracy/mean", &right)]),
        [""; 0]
    );
}

#[test]
fn lengths_explode_and_are_cut_off() {
    let length = "completions/mean_length";
    let longer = |step| 100.0 + 300.0 * progress(step);
    let flat = |step| 1.0 + 0.05 * noise(step);
    assert_eq!(
        provoked(&[(length, &longer), ("reward", &flat)]),
        ["warning length_explosion"]
    );
    let much = |step| 100.0 + 4000.0 * progress(step);
    assert_eq!(
        provoked(&[(length, &much), ("reward", &flat)]),
        ["failing length_explosion"]
    );
    // Longer thoughts that are worth it are what one wants.
    assert_eq!(provoked(&[(length, &longer)]), [""; 0]);
    let cut = "completions/clipped_ratio";
    assert_eq!(provoked(&[(cut, &|_| 0.3)]), ["warning truncation"]);
    assert_eq!(provoked(&[(cut, &|_| 0.9)]), ["failing truncation"]);
}

#[test]
fn the_kl_runs_away() {
    assert_eq!(provoked(&[("kl", &|_| 1.5)]), ["warning kl_runaway"]);
    assert_eq!(provoked(&[("kl", &|_| 12.0)]), ["failing kl_runaway"]);
    // Without a penalty nobody wanted the KL to be small.
    assert_eq!(
        provoked(&[("kl", &|_| 1.5), ("kl_coef", &|_| 0.0)]),
        [""; 0]
    );
    let falls = |step| 1.5 - progress(step) + 0.05 * noise(step);
    assert_eq!(
        provoked(&[("kl", &|_| 1.5), ("kl_coef", &|_| 0.0), ("reward", &falls)]),
        ["failing kl_runaway"]
    );
    let jumps = |step| if step > 40 { 0.6 } else { 0.1 };
    assert_eq!(provoked(&[("kl", &jumps)]), ["warning kl_runaway"]);
}

#[test]
fn the_reward_is_hacked() {
    let falls = |step| 0.6 - 0.15 * progress(step);
    assert_eq!(
        provoked(&[("eval/accuracy", &falls)]),
        ["warning reward_hacking"]
    );
    let far = |step| 0.6 - 0.5 * progress(step);
    assert_eq!(
        provoked(&[("eval/accuracy", &far)]),
        ["failing reward_hacking"]
    );
    // One evaluation that is a little lower is chance.
    let once = |step| if step == 60 { 0.5 } else { 0.6 };
    assert_eq!(provoked(&[("eval/accuracy", &once)]), [""; 0]);
    let flat = |step| 1.0 + 0.05 * noise(step);
    assert_eq!(
        provoked(&[("eval/accuracy", &far), ("reward", &flat)]),
        ["failing held_out_falls"]
    );
    // Of few right answers most are gone.
    let few = |step| if step > 30 { 0.05 } else { 0.19 };
    assert_eq!(
        provoked(&[("eval/accuracy", &few), ("reward", &flat)]),
        ["failing held_out_falls"]
    );
    let wrong = |step| 0.5 - 0.1 * progress(step) + 0.01 * noise(step);
    let wronger = |step| 0.5 - 0.4 * progress(step) + 0.01 * noise(step);
    let accuracy = "rewards/accuracy/mean";
    assert_eq!(
        provoked(&[(accuracy, &wrong)]),
        ["warning reward_hacking/format"]
    );
    assert_eq!(
        provoked(&[(accuracy, &wronger)]),
        ["failing reward_hacking/format"]
    );
    assert_eq!(
        provoked(&[(accuracy, &wrong), ("rewards/format/mean", &|_| 0.7)]),
        [""; 0]
    );
    // The best was measured before the first step.
    let mut records = vec![StepRecord::new(0).with("eval/accuracy", 0.9)];
    records.extend(run(&[("eval/accuracy", &|_| 0.4)]));
    assert_eq!(diagnosed(&records), ["failing reward_hacking"]);
}

#[test]
fn single_advantages_decide() {
    assert_eq!(
        provoked(&[("advantages/max", &|_| 12.0)]),
        ["warning advantage_outliers"]
    );
    assert_eq!(
        provoked(&[("advantages/min", &|_| -12.0)]),
        ["warning advantage_outliers"]
    );
    assert_eq!(provoked(&[("advantages/rms", &|_| 0.0)]), [""; 0]);
}

#[test]
fn nearly_everything_is_clipped() {
    let region = "clip_ratio/region_mean";
    assert_eq!(provoked(&[(region, &|_| 0.5)]), ["warning clipping"]);
    assert_eq!(provoked(&[(region, &|_| 0.85)]), ["failing clipping"]);
    assert_eq!(
        provoked(&[("clip_ratio/bounded_mean", &|_| 0.5)]),
        ["warning clipping"]
    );
}

#[test]
fn the_learning_rate_has_no_effect() {
    let reward = |step| 1.0 + 0.05 * noise(step);
    let still: [(&str, &dyn Fn(u64) -> f64); 3] = [
        ("reward", &reward),
        ("entropy", &|step| 0.5 + 0.01 * noise(step)),
        ("completions/mean_length", &|step| 100.0 + noise(step)),
    ];
    let with = |kl: &dyn Fn(u64) -> f64| {
        let mut changed = still.to_vec();
        changed.push(("kl", kl));
        provoked(&changed)
    };
    // In single precision the KL of equal weights is 0.
    assert_eq!(with(&|_| 0.0), ["failing no_effect"]);
    // In half precision it is noise: updates that are rounded away do not let it grow.
    assert_eq!(
        with(&|step| 2e-4 + 1e-5 * noise(step)),
        ["warning no_effect"]
    );
    // A policy that moves slowly moves.
    assert_eq!(with(&|step| 2e-4 * step as f64), [""; 0]);
    let mut silent = still.to_vec();
    silent.push(("grad_norm", &|_| 0.0));
    silent.push(("kl", &|_| 0.0));
    assert_eq!(provoked(&silent), [""; 0]);
}

#[test]
fn the_sampler_is_another_policy() {
    let kl = "rollout_corr/k3_kl";
    assert_eq!(provoked(&[(kl, &|_| 0.02)]), ["warning sampler_mismatch"]);
    assert_eq!(provoked(&[(kl, &|_| 0.2)]), ["failing sampler_mismatch"]);
}

#[test]
fn rewards_break() {
    // Sixteen completions a step.
    let (failed, late) = ("rewards/accuracy/failed", "rewards/accuracy/timed_out");
    assert_eq!(
        provoked(&[(failed, &|_| 1.0)]),
        ["warning reward_fails/accuracy"]
    );
    assert_eq!(
        provoked(&[(failed, &|_| 8.0)]),
        ["failing reward_fails/accuracy"]
    );
    assert_eq!(
        provoked(&[(failed, &|_| 8.0), (late, &|_| 8.0)]),
        ["failing reward_times_out/accuracy"]
    );
    let once = |step| f64::from(u8::from(step == 55));
    assert_eq!(provoked(&[(failed, &once)]), [""; 0]);
    assert_eq!(
        provoked(&[("rewards/unscored", &|_| 8.0)]),
        ["warning unscored"]
    );
    // At the very first step, where nothing else is judged yet.
    let first = healthy(1).with(failed, 16.0);
    assert_eq!(diagnosed(&[first]), ["failing reward_fails/accuracy"]);
}

#[test]
fn one_domain_eats_the_batch() {
    let tokens = "domains/maths/tokens";
    assert_eq!(
        provoked(&[(tokens, &|_| 9000.0)]),
        ["warning domain_dominates/maths"]
    );
    let only = |step| StepRecord::new(step).with(tokens, 900.0);
    let records: Vec<StepRecord> = (1..=9).map(only).collect();
    assert_eq!(diagnosed(&records), [""; 0]);
}

#[test]
fn updates_are_skipped() {
    let twice = |step| f64::from(u8::from(step > 45)) + f64::from(u8::from(step > 50));
    assert_eq!(
        provoked(&[("skipped_steps", &twice)]),
        ["warning updates_skipped"]
    );
    let most = |step: u64| step as f64;
    assert_eq!(
        provoked(&[("skipped_steps", &most)]),
        ["failing updates_skipped"]
    );
    // Long ago.
    assert_eq!(
        provoked(&[("skipped_steps", &|step| f64::from(u8::from(step > 5)))]),
        [""; 0]
    );
}

#[test]
fn metrics_that_are_not_finite_break_nothing() {
    let mut records = run(&[]);
    for record in &mut records {
        for value in record.metrics.values_mut() {
            *value = f64::NAN;
        }
    }
    assert_eq!(diagnosed(&records), [""; 0]);
}

#[test]
fn it_is_said_in_one_line_each_and_survives_json() {
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
