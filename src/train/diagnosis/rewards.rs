//! Findings about rewards: hacking, failures, missing totals, and a dominant domain.

use super::window::Windows;
use super::{Finding, Severity, found, percent, severity};

pub(super) fn findings(windows: &Windows) -> Vec<Finding> {
    let mut findings = failures(windows);
    findings.extend(held_out(windows));
    findings.extend(one_reward_up(windows));
    findings.extend(unscored(windows));
    findings.extend(domain(windows));
    findings
}

/// The drop in accuracy for a warning and for a failure.
const FALL: (f64, f64) = (0.05, 0.15);

fn held_out(windows: &Windows) -> Option<Finding> {
    let evaluations = &windows.evaluations;
    let &(_, last) = evaluations.last()?;
    let best = evaluations.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1));
    let &(step, best) = best?;
    // A single evaluation may be lower by chance.
    let after = evaluations.iter().rev().take_while(|(at, _)| *at > step);
    let below = after
        .take(2)
        .filter(|(_, accuracy)| best - accuracy >= FALL.0)
        .count();
    let severity = match below == 2 && last < best / 2.0 {
        true => Severity::Failing,
        false => severity(best - last, FALL.0, FALL.1)?,
    };
    if severity == Severity::Warning && below < 2 {
        return None;
    }
    let fell = format!(
        "held-out accuracy fell from {:.1}% (step {step}) to {:.1}%",
        100.0 * best,
        100.0 * last
    );
    let mut numbers = vec![("eval/accuracy", last)];
    let reward = windows.change_since(step, "reward");
    match reward.filter(|reward| reward.rose()) {
        Some(reward) => {
            numbers.push(("reward", reward.last));
            let evidence = format!(
                "{fell}, while the training reward rose from {:.3} to {:.3}",
                reward.first, reward.last
            );
            let advice = "Read completions with a high reward: they earn it without solving the problems. Make the reward \
                 stricter, lower the weight of rewards other than accuracy, and return to the best checkpoint";
            Some(found(
                windows,
                "reward_hacking",
                severity,
                &numbers,
                evidence,
                advice,
            ))
        }
        None => {
            let advice = "Return to the best checkpoint; lower the learning rate or add a KL penalty, and compare training and \
                 held-out problems";
            Some(found(
                windows,
                "held_out_falls",
                severity,
                &numbers,
                fell,
                advice,
            ))
        }
    }
}

fn one_reward_up(windows: &Windows) -> Vec<Finding> {
    let Some(accuracy) = windows.change("rewards/accuracy/mean") else {
        return Vec::new();
    };
    let severity = severity(accuracy.first - accuracy.last, FALL.0, FALL.1);
    let Some(severity) = severity.filter(|_| accuracy.fell()) else {
        return Vec::new();
    };
    let other = |name: &&str| *name != "accuracy";
    let rose = |name: &str| -> Option<Finding> {
        let metric = format!("rewards/{name}/mean");
        let reward = windows.change(&metric).filter(|reward| reward.rose())?;
        let evidence = format!(
            "the reward `{name}` rose from {:.3} to {:.3}, while `accuracy` fell from {:.3} to {:.3}",
            reward.first, reward.last, accuracy.first, accuracy.last
        );
        let numbers = [
            (metric.as_str(), reward.last),
            ("rewards/accuracy/mean", accuracy.last),
        ];
        let advice = "Lower the weight of that reward, or gate it on `accuracy`";
        let name = format!("reward_hacking/{name}");
        Some(found(windows, name, severity, &numbers, evidence, advice))
    };
    let names = windows.named("rewards/", "/mean").into_iter();
    names.filter(other).filter_map(rose).collect()
}

fn failures(windows: &Windows) -> Vec<Finding> {
    let rollouts = windows.rollouts();
    let mut findings = Vec::new();
    for name in windows.named("rewards/", "/failed") {
        let (failed, timed_out) = (
            format!("rewards/{name}/failed"),
            format!("rewards/{name}/timed_out"),
        );
        let late = windows.sum(&timed_out);
        let broken = windows.sum(&failed) - late;
        let mut put = |kind: &str, metric: &str, count: f64, what: &str, advice: &str| {
            let (severity, of) = match rollouts {
                Some(rollouts) => (
                    severity(count / rollouts, 0.01, 0.25),
                    format!("{count} of {rollouts} completions"),
                ),
                None => (
                    severity(count, 1.0, f64::INFINITY),
                    format!("{count} completions"),
                ),
            };
            if let Some(severity) = severity {
                let evidence = format!("the reward `{name}` {what} on {of}");
                let name = format!("{kind}/{name}");
                let numbers = [(metric, count)];
                findings.push(found(windows, name, severity, &numbers, evidence, advice));
            }
        };
        put(
            "reward_fails",
            &failed,
            broken,
            "failed",
            "See the reasons in the rollouts (`Trainer::last_rollouts`, `RolloutFiles`) and in the `tracing` log; a reward \
             that does not apply to a problem should abstain",
        );
        put(
            "reward_times_out",
            &timed_out,
            late,
            "exceeded its time limit",
            "Raise the time limit of that reward, score fewer completions at once, or make it faster; `time/reward/<name>` \
             is its cost",
        );
    }
    findings
}

fn unscored(windows: &Windows) -> Option<Finding> {
    let name = "rewards/unscored";
    let rollouts = windows.rollouts()?;
    let share = windows.sum(name) / rollouts;
    let severity = severity(share, 0.25, 0.75)?;
    let evidence = format!(
        "{} of the completions have no total reward and are excluded from training",
        percent(share)
    );
    let advice = "Check which reward abstains or fails (`rewards/<name>/abstained`, `/failed`): each completion needs at least one \
                  score";
    Some(found(
        windows,
        "unscored",
        severity,
        &[(name, share)],
        evidence,
        advice,
    ))
}

fn domain(windows: &Windows) -> Option<Finding> {
    let metric = |name: &str| format!("domains/{name}/tokens");
    let names = windows.named("domains/", "/tokens");
    let sums = names.iter().map(|name| windows.sum(&metric(name)));
    let sums: Vec<f64> = sums.collect();
    let total: f64 = sums.iter().sum();
    if names.len() < 2 || total <= 0.0 {
        return None;
    }
    let most = sums.iter().zip(&names).max_by(|a, b| a.0.total_cmp(b.0));
    let (&sum, name) = most?;
    let share = sum / total;
    let severity = severity(share, 0.8, f64::INFINITY)?;
    let evidence = format!(
        "{} of the trained tokens belong to the domain `{name}`, one of {}",
        percent(share),
        names.len()
    );
    let advice = "Change the mixture of domains, limit the length of that domain's completions, or average the loss per \
                  completion instead of per token";
    let metric = metric(name);
    let name = format!("domain_dominates/{name}");
    let numbers = [(metric.as_str(), share)];
    Some(found(windows, name, severity, &numbers, evidence, advice))
}
