//! The metrics of each domain of a step's problems.

use std::collections::BTreeMap;

use super::reward_metrics::mean_and_std;
use super::step_metrics::mean;
use super::zero_std::zero_std;
use crate::types::{Rollout, RolloutBuffer, RolloutGroup};

/// Groups the step's groups by the domain of their problem; problems without a domain are left out.
fn by_domain(rollouts: &RolloutBuffer) -> BTreeMap<&str, Vec<&RolloutGroup>> {
    let mut domains: BTreeMap<&str, Vec<&RolloutGroup>> = BTreeMap::new();
    for group in &rollouts.groups {
        if let Some(domain) = group.problem.domain() {
            domains.entry(domain).or_default().push(group);
        }
    }
    domains
}

/// Computes the metrics of every [domain](crate::types::Problem::domain) of the step's problems:
///
/// | name | |
/// |---|---|
/// | `domains/<domain>/problems` | number of problems |
/// | `domains/<domain>/reward` | mean total reward; missing if no completion has one |
/// | `domains/<domain>/rewards/<name>` | mean score of one reward, before its weight; missing if it scored nothing |
/// | `domains/<domain>/frac_reward_zero_std` | share of the problems whose completions all have the same reward |
/// | `domains/<domain>/tokens`, `/mean_length` | trained tokens of all completions, and per completion |
/// | `domains/<domain>/clipped_ratio` | share of the completions that were truncated |
pub(super) fn domain_metrics(rollouts: &RolloutBuffer) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    for (domain, groups) in by_domain(rollouts) {
        let mut put = |name: &str, value: Option<f64>| {
            if let Some(value) = value {
                metrics.insert(format!("domains/{domain}/{name}"), value);
            }
        };
        let all: Vec<&Rollout> = groups.iter().flat_map(|group| &group.rollouts).collect();
        put("problems", Some(groups.len() as f64));
        let totals: Vec<f64> = all.iter().filter_map(|one| one.reward).collect();
        put("reward", mean(&totals));
        let mut scores: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for record in all.iter().flat_map(|rollout| &rollout.rewards) {
            let scored = scores.entry(&record.name).or_default();
            scored.extend(record.outcome.score());
        }
        for (name, scores) in scores {
            let mean = mean_and_std(&scores).map(|(mean, _)| mean);
            put(&format!("rewards/{name}"), mean);
        }
        let flat = groups.iter().filter(|group| {
            let totals: Vec<_> = group.rollouts.iter().map(Rollout::total_reward).collect();
            let one = vec![0; totals.len()];
            zero_std(&totals, &one).is_ok_and(|flags| flags.first() == Some(&true))
        });
        let flat = flat.count() as f64 / groups.len() as f64;
        put("frac_reward_zero_std", Some(flat));
        let lengths: Vec<f64> = all.iter().map(|one| one.trained_tokens() as f64).collect();
        put("tokens", Some(lengths.iter().sum()));
        put("mean_length", mean(&lengths));
        let cut: Vec<f64> = all.iter().map(|r| f64::from(r.is_truncated())).collect();
        put("clipped_ratio", mean(&cut));
    }
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Problem, RewardOutcome, RewardRecord};

    fn group(problem: Problem, rewards: &[Option<f64>]) -> RolloutGroup {
        let rollout = |(at, reward): (usize, &Option<f64>)| Rollout {
            reward: *reward,
            rewards: vec![RewardRecord {
                name: "a".into(),
                weight: 0.5,
                outcome: reward.map_or(RewardOutcome::Abstained, |r| RewardOutcome::Score(2.0 * r)),
                seconds: 0.0,
            }],
            ..Rollout::new(vec![1; at + 1], vec![0.0; at + 1], "")
        };
        RolloutGroup::new(
            problem,
            vec![1],
            rewards.iter().enumerate().map(rollout).collect(),
        )
    }

    #[test]
    fn metrics_are_computed_per_domain() {
        let rollouts = RolloutBuffer {
            groups: vec![
                group(
                    Problem::new("a", "").with_domain("math"),
                    &[Some(1.0), Some(0.0)],
                ),
                group(
                    Problem::new("b", "").with_domain("math"),
                    &[Some(1.0), Some(1.0)],
                ),
                group(Problem::new("c", "").with_domain("code"), &[None, None]),
                group(Problem::new("d", ""), &[Some(9.0)]),
                group(
                    Problem::new("e", "").with_metadata("domain", 3),
                    &[Some(9.0)],
                ),
            ],
        };
        let metrics = domain_metrics(&rollouts);
        let found: Vec<(&str, f64)> = metrics.iter().map(|(name, &x)| (&**name, x)).collect();
        assert_eq!(
            found,
            [
                ("domains/code/clipped_ratio", 0.0),
                ("domains/code/frac_reward_zero_std", 0.0),
                ("domains/code/mean_length", 1.5),
                ("domains/code/problems", 1.0),
                ("domains/code/tokens", 3.0),
                ("domains/math/clipped_ratio", 0.0),
                ("domains/math/frac_reward_zero_std", 0.5),
                ("domains/math/mean_length", 1.5),
                ("domains/math/problems", 2.0),
                ("domains/math/reward", 0.75),
                ("domains/math/rewards/a", 1.5),
                ("domains/math/tokens", 6.0),
            ]
        );
    }
}
