//! The metrics of each reward of a step.

use std::collections::BTreeMap;

use crate::rollout::{RewardOutcome, RewardRecord, Rollout};

/// Computes for every reward, by name: the mean and standard deviation of its scores, before its
/// weight, over the rollouts that it scored; the number of rollouts that it did not score, by
/// reason; and its total time.
///
/// | name | |
/// |---|---|
/// | `rewards/<name>/mean` | missing if it scored nothing |
/// | `rewards/<name>/std` | unbiased, as in TRL; 0 for a single score |
/// | `rewards/<name>/abstained`, `/gated` | rollouts |
/// | `rewards/<name>/failed` | rollouts: errors, panics and time-outs |
/// | `rewards/<name>/timed_out` | rollouts, also counted as failed |
/// | `time/reward/<name>` | seconds of work, summed over threads |
pub(super) fn reward_metrics(rollouts: &[&Rollout]) -> BTreeMap<String, f64> {
    let mut by_name: BTreeMap<&str, Vec<&RewardRecord>> = BTreeMap::new();
    for record in rollouts.iter().flat_map(|rollout| &rollout.rewards) {
        by_name.entry(&record.name).or_default().push(record);
    }
    let mut metrics = BTreeMap::new();
    for (name, records) in by_name {
        let mut put = |what: &str, value: f64| {
            metrics.insert(format!("rewards/{name}/{what}"), value);
        };
        let scores: Vec<f64> = records.iter().filter_map(|r| r.outcome.score()).collect();
        if let Some((mean, std)) = mean_and_std(&scores) {
            put("mean", mean);
            put("std", std);
        }
        let count = |of: fn(&RewardOutcome) -> bool| {
            records.iter().filter(|record| of(&record.outcome)).count() as f64
        };
        put("abstained", count(|o| *o == RewardOutcome::Abstained));
        put("gated", count(|o| matches!(o, RewardOutcome::Gated(_))));
        put("failed", count(RewardOutcome::is_failure));
        put(
            "timed_out",
            count(|o| matches!(o, RewardOutcome::TimedOut(_))),
        );
        let seconds = records.iter().map(|record| record.seconds).sum();
        metrics.insert(format!("time/reward/{name}"), seconds);
    }
    metrics
}

pub(super) fn mean_and_std(scores: &[f64]) -> Option<(f64, f64)> {
    let first = *scores.first()?;
    let count = scores.len() as f64;
    // The mean of equal numbers is not always exact in floating point.
    if scores.iter().all(|&score| score == first) {
        return Some((first, 0.0));
    }
    let mean = scores.iter().sum::<f64>() / count;
    let squares: f64 = scores.iter().map(|score| (score - mean).powi(2)).sum();
    Some((mean, (squares / (count - 1.0)).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(outcomes: [RewardOutcome; 2]) -> Rollout {
        let record = |(name, outcome): (&str, RewardOutcome)| RewardRecord {
            name: name.into(),
            weight: 2.0,
            outcome,
            seconds: 0.25,
        };
        Rollout {
            rewards: ["a", "b"].into_iter().zip(outcomes).map(record).collect(),
            ..Rollout::new(vec![1], vec![0.0], "")
        }
    }

    #[test]
    fn every_outcome_is_counted() {
        use RewardOutcome::{Abstained, Failed, Gated, Panicked, Score, TimedOut};
        let rollouts = [
            rollout([Score(1.0), Abstained]),
            rollout([Score(4.0), Gated(0.5)]),
            rollout([Score(1.0), TimedOut(5.0)]),
            rollout([Failed(String::new()), Panicked(String::new())]),
        ];
        let metrics = reward_metrics(&rollouts.iter().collect::<Vec<_>>());
        let expected = [
            ("rewards/a/abstained", 0.0),
            ("rewards/a/failed", 1.0),
            ("rewards/a/gated", 0.0),
            ("rewards/a/mean", 2.0),
            // (1 + 4 + 1) / 2
            ("rewards/a/std", 3f64.sqrt()),
            ("rewards/a/timed_out", 0.0),
            ("rewards/b/abstained", 1.0),
            ("rewards/b/failed", 2.0),
            ("rewards/b/gated", 1.0),
            ("rewards/b/timed_out", 1.0),
            ("time/reward/a", 1.0),
            ("time/reward/b", 1.0),
        ];
        let found: Vec<(&str, f64)> = metrics.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn equal_scores_have_an_exact_mean_and_no_deviation() {
        assert_eq!(mean_and_std(&[]), None);
        assert_eq!(mean_and_std(&[0.1]), Some((0.1, 0.0)));
        assert_eq!(mean_and_std(&[0.1; 3]), Some((0.1, 0.0)));
    }
}
