//! Findings about the policy: its training signal, entropy, length, and distance from the start.

use super::window::{Change, Windows};
use super::{Finding, Severity, found, number, percent, severity};

/// The accuracy from which a problem set counts as solved.
const SOLVED: f64 = 0.9;
/// The number of steps after which a policy should have changed.
const MOVED_AFTER: u64 = 30;

pub(super) fn findings(windows: &Windows) -> Vec<Finding> {
    let checks = [
        no_signal,
        entropy_collapse,
        length_explosion,
        truncation,
        kl_runaway,
        advantage_outliers,
        clipping,
        no_effect,
        sampler_mismatch,
        updates_skipped,
    ];
    checks.iter().filter_map(|check| check(windows)).collect()
}

/// Returns the accuracy on training problems, or else on held-out problems.
fn accuracy(windows: &Windows) -> Option<f64> {
    let held_out = windows.evaluations.last().map(|&(_, accuracy)| accuracy);
    windows.mean("rewards/accuracy/mean").or(held_out)
}

fn no_signal(windows: &Windows) -> Option<Finding> {
    // With dynamic sampling all kept groups have a signal, so the dropped ones are counted.
    let names = ["dynamic_sampling/frac_zero_std", "frac_reward_zero_std"];
    let (metric, share) = names
        .into_iter()
        .find_map(|name| Some((name, windows.mean(name)?)))?;
    let severity = severity(share, 0.6, 0.95)?;
    let accuracy = accuracy(windows);
    let mut evidence = format!(
        "in {} of the groups all completions have the same reward, which gives no gradient",
        percent(share)
    );
    let mut numbers = vec![(metric, share)];
    if let Some(accuracy) = accuracy {
        evidence += &format!("; {} of the answers are right", percent(accuracy));
        numbers.push(("accuracy", accuracy));
    }
    let (name, severity, advice) = match accuracy {
        Some(accuracy) if accuracy >= 0.75 => (
            "no_signal/too_easy",
            Severity::Warning,
            "The problems are too easy for this policy: stop here, use harder ones, or replace them with \
             `dynamic_sampling`",
        ),
        Some(accuracy) if accuracy <= 0.25 => (
            "no_signal/too_hard",
            severity,
            "The problems are too hard for this policy: start with easier ones or with supervised fine-tuning, raise \
             `group_size`, or give partial credit",
        ),
        _ => (
            "no_signal",
            severity,
            "Use problems that the policy solves sometimes, not always or never; raise `group_size`, or replace groups \
             without a signal with `dynamic_sampling`",
        ),
    };
    Some(found(windows, name, severity, &numbers, evidence, advice))
}

fn entropy_collapse(windows: &Windows) -> Option<Finding> {
    let last = windows.mean("entropy")?;
    let first = windows.change("entropy").map(|change| change.first);
    // A low entropy is fine once the problems are solved.
    let solved = accuracy(windows).is_some_and(|accuracy| accuracy >= SOLVED);
    let fell = first.is_none_or(|first| last <= first / 5.0);
    let severity = match last {
        _ if solved => return None,
        entropy if entropy < 0.002 => Severity::Failing,
        entropy if entropy < 0.02 && fell => Severity::Warning,
        _ => return None,
    };
    let mut evidence = format!("the entropy is {} nats per token", number(last));
    if let Some(first) = first {
        evidence += &format!("; it was {} in the first steps", number(first));
    }
    evidence += ". The policy no longer explores, although its problems are not solved";
    let advice = "Lower the learning rate, raise the upper clip bound (clip-higher), add an entropy bonus \
                  (`objective.entropy_coef`, `adaptive_entropy`) or a KL penalty; continue from an earlier checkpoint";
    let numbers = [("entropy", last)];
    Some(found(
        windows,
        "entropy_collapse",
        severity,
        &numbers,
        evidence,
        advice,
    ))
}

fn length_explosion(windows: &Windows) -> Option<Finding> {
    let name = "completions/mean_length";
    let length = windows.change(name)?;
    let better = windows.change("reward").is_some_and(|reward| reward.rose());
    let severity = severity(length.last / length.first.max(1.0), 2.0, 4.0)?;
    if better || !length.rose() {
        return None;
    }
    let evidence = format!(
        "the completions grew from {:.0} to {:.0} tokens, and the reward did not rise",
        length.first, length.last
    );
    let advice = "Use an aggregation that does not favour long completions (`dapo`, `dr_grpo`), add a length reward, and \
                  read the longest completions: they often repeat themselves";
    let numbers = [(name, length.last)];
    Some(found(
        windows,
        "length_explosion",
        severity,
        &numbers,
        evidence,
        advice,
    ))
}

fn truncation(windows: &Windows) -> Option<Finding> {
    let name = "completions/clipped_ratio";
    let share = windows.mean(name)?;
    let severity = severity(share, 0.25, 0.8)?;
    let evidence = format!(
        "{} of the completions were cut off at the length limit",
        percent(share)
    );
    let advice = "Raise `generation.max_new_tokens`, check that the stop tokens are those the policy was trained to end \
                  with, and exclude truncated completions with `mask_truncated` or add a soft length penalty";
    Some(found(
        windows,
        "truncation",
        severity,
        &[(name, share)],
        evidence,
        advice,
    ))
}

fn kl_runaway(windows: &Windows) -> Option<Finding> {
    let last = windows.mean("kl")?;
    let penalised = windows.mean("kl_coef").is_some_and(|coef| coef > 0.0);
    let before = windows.mean_before("kl");
    let falls = windows.change("reward").is_some_and(|reward| reward.fell());
    let tripled = before.is_some_and(|before| last >= 3.0 * before);
    let (severity, what) = match last {
        kl if kl >= 10.0 => (Severity::Failing, ""),
        kl if kl >= 1.0 && falls => (Severity::Failing, ", and the reward falls"),
        kl if kl >= 1.0 && penalised => (Severity::Warning, ", despite the penalty on it"),
        kl if kl >= 0.5 && tripled => (Severity::Warning, ", three times that of the steps before"),
        _ => return None,
    };
    let evidence = format!(
        "the KL to the reference policy is {} nats per token{what}",
        number(last)
    );
    let advice = "Lower the learning rate, clip the gradient more tightly (`optimizer.max_grad_norm`), or raise the \
                  coefficient of the KL (`objective.kl`, `adaptive_kl`); continue from a checkpoint before the rise";
    let numbers = [("kl", last)];
    Some(found(
        windows,
        "kl_runaway",
        severity,
        &numbers,
        evidence,
        advice,
    ))
}

fn advantage_outliers(windows: &Windows) -> Option<Finding> {
    let rms = windows.mean("advantages/rms").filter(|&rms| rms > 0.0)?;
    let (min, max) = (
        windows.mean("advantages/min")?,
        windows.mean("advantages/max")?,
    );
    let largest = if -min > max { min } else { max };
    let ratio = largest.abs() / rms;
    severity(ratio, 10.0, f64::INFINITY)?;
    let evidence = format!(
        "the largest advantage of a step is {largest:.1}, {ratio:.0} times the root mean square of {rms:.2}: single \
         completions dominate the update"
    );
    let advice = "Clamp the reward with the large scale, divide by the deviation of the group or the batch, or use larger \
                  groups";
    let numbers = [
        ("advantages/min", min),
        ("advantages/max", max),
        ("advantages/rms", rms),
    ];
    Some(found(
        windows,
        "advantage_outliers",
        Severity::Warning,
        &numbers,
        evidence,
        advice,
    ))
}

fn clipping(windows: &Windows) -> Option<Finding> {
    let names = ["clip_ratio/region_mean", "clip_ratio/bounded_mean"];
    let measured = names
        .into_iter()
        .filter_map(|name| Some((name, windows.mean(name)?)));
    let (name, share) = measured.max_by(|a, b| a.1.total_cmp(&b.1))?;
    let severity = severity(share, 0.4, 0.8)?;
    let evidence = format!(
        "the ratio of {} of the tokens is outside its bounds, where most objectives have no gradient",
        percent(share)
    );
    let advice = "Make fewer updates on the same rollouts (`passes`, `updates_per_pass`), lower the learning rate, or widen \
                  the clip range; with one update per step, check whether the sampler's log-probs match the policy's";
    Some(found(
        windows,
        "clipping",
        severity,
        &[(name, share)],
        evidence,
        advice,
    ))
}

fn no_effect(windows: &Windows) -> Option<Finding> {
    let (_, step) = windows.span();
    let rate = windows.mean("learning_rate")?;
    let norm = windows.mean("grad_norm")?;
    if step < MOVED_AFTER || norm == 0.0 {
        // A zero gradient is reported by `no_signal`.
        return None;
    }
    let still = |name: &str| {
        let change = windows.change(name);
        change.is_none_or(|change| change.z.abs() < 3.0)
    };
    if !["reward", "entropy", "completions/mean_length"]
        .into_iter()
        .all(still)
    {
        return None;
    }
    let (severity, kl) = match windows.change("kl") {
        // Below the rounding difference between two computations of the same log-probs in f32.
        Some(kl) if kl.last < 1e-10 => (Severity::Failing, Some(kl)),
        // In half precision equal weights have a nonzero KL, but it does not grow.
        Some(kl) if kl.last < 1.5 * kl.first => (Severity::Warning, Some(kl)),
        Some(_) => return None,
        // Only noisy metrics are available, so wait longer.
        None if step >= 3 * MOVED_AFTER => (Severity::Warning, None),
        None => return None,
    };
    let mut numbers = vec![("learning_rate", rate), ("grad_norm", norm)];
    let mut evidence = format!(
        "with a learning rate of {rate:.1e} and a gradient norm of {norm:.1e}, reward, entropy and length have not \
         changed since the first steps"
    );
    if let Some(Change { first, last, .. }) = kl {
        numbers.push(("kl", last));
        evidence += &format!(", and the KL to the reference went from {first:.1e} to {last:.1e}");
    }
    let advice = "Raise the learning rate (about 1e-6 for all weights of a pretrained model, 1e-5 to 2e-4 for adapters, 3e-4 \
                  from scratch), check that warm-up has ended and which parameters are trained; in half precision, \
                  update f32 copies of the weights, as the crate's optimizer does: small updates are otherwise rounded away";
    Some(found(
        windows,
        "no_effect",
        severity,
        &numbers,
        evidence,
        advice,
    ))
}

fn sampler_mismatch(windows: &Windows) -> Option<Finding> {
    let name = "rollout_corr/k3_kl";
    let kl = windows.mean(name)?;
    let severity = severity(kl, 0.01, 0.1)?;
    let mut numbers = vec![(name, kl)];
    let mut evidence = format!(
        "the sampler's log-probs differ from the policy's: the KL is {} nats per token, where 0.001 is usual",
        number(kl)
    );
    let largest = "sampling/sampling_logp_difference/max";
    if let Some(difference) = windows.mean(largest) {
        numbers.push((largest, difference));
        evidence += &format!(
            "; the largest difference of a step is {}",
            number(difference)
        );
    }
    let advice = "Check temperature, chat template, weights and precision of the engine; reduce the staleness of \
                  asynchronous rollouts; correct the remaining difference with `objective.sampler_correction`";
    Some(found(
        windows,
        "sampler_mismatch",
        severity,
        &numbers,
        evidence,
        advice,
    ))
}

fn updates_skipped(windows: &Windows) -> Option<Finding> {
    let name = "skipped_steps";
    let counts: Vec<f64> = windows
        .last()
        .iter()
        .filter_map(|record| record.finite(name))
        .collect();
    let skipped = counts.last()? - counts.first()?;
    let severity = severity(skipped, 1.0, counts.len() as f64 / 2.0)?;
    let evidence = format!(
        "{skipped} of the last {} updates were skipped because the loss or gradient was not finite",
        counts.len()
    );
    let advice = "Lower the learning rate, look for rewards or log-probs that are not finite or very large, and use f32 \
                  instead of f16";
    Some(found(
        windows,
        "updates_skipped",
        severity,
        &[(name, skipped)],
        evidence,
        advice,
    ))
}
