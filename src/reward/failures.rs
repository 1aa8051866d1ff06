//! Checks that the rewards of a step scored enough completions to train on.

use crate::types::{RewardOutcome, Rollout, RolloutBuffer};
use crate::{Error, Result};

/// The failures and abstentions of one reward on the completions of a step.
struct Tally<'a> {
    name: &'a str,
    failures: usize,
    abstained: usize,
    /// The reason of the first failure.
    first: Option<String>,
}

/// Checks that the rewards worked on the scored rollouts of a step. An empty buffer passes.
///
/// # Errors
/// - [`Error::Rewards`] if a reward failed on more than the share `limit` (0 to 1) of the
///   completions, or if no completion has a total because of failures. It names the reward with the
///   most failures.
/// - [`Error::Unscored`] if no completion has a total for another reason, such as that all rewards
///   abstained.
pub(crate) fn check_failures(rollouts: &RolloutBuffer, limit: f64) -> Result<()> {
    let count = rollouts.len();
    if count == 0 {
        return Ok(());
    }
    let tallies = tallies(rollouts.rollouts());
    let failing = most(&tallies, |tally| tally.failures);
    let abstaining = most(&tallies, |tally| tally.abstained);
    let failures = failing.map_or(0, |tally| tally.failures);
    let abstained = abstaining.map_or(0, |tally| tally.abstained);
    let unscored = rollouts.rollouts().all(|rollout| rollout.reward.is_none());
    if let Some(Tally { name, first, .. }) = failing
        && let Some(first) = first
        && (failures as f64 / count as f64 > limit || unscored && failures >= abstained)
    {
        return Err(Error::Rewards {
            reward: (*name).to_string(),
            failures,
            rollouts: count,
            first: first.clone(),
        });
    }
    if !unscored {
        return Ok(());
    }
    let reason = match abstaining {
        None => "the rollouts have not been scored".to_string(),
        Some(_) if abstained == 0 => "their weighted sums are not finite".to_string(),
        Some(Tally { name, .. }) => format!("reward `{name}` abstained on {abstained} of them"),
    };
    Err(Error::Unscored {
        rollouts: count,
        reason,
    })
}

/// One tally for each reward, in the order of the records.
fn tallies<'a>(rollouts: impl Iterator<Item = &'a Rollout>) -> Vec<Tally<'a>> {
    let mut tallies: Vec<Tally> = Vec::new();
    for record in rollouts.flat_map(|rollout| &rollout.rewards) {
        let known = tallies.iter().position(|tally| tally.name == record.name);
        let place = known.unwrap_or_else(|| {
            tallies.push(Tally {
                name: &record.name,
                failures: 0,
                abstained: 0,
                first: None,
            });
            tallies.len() - 1
        });
        let tally = &mut tallies[place];
        match record.outcome.failure() {
            Some(reason) => {
                tally.failures += 1;
                tally.first.get_or_insert(reason);
            }
            None => tally.abstained += usize::from(record.outcome == RewardOutcome::Abstained),
        }
    }
    tallies
}

/// The reward with the largest count; the first one if there are several.
fn most<'a, 'b>(
    tallies: &'b [Tally<'a>],
    count: impl Fn(&Tally) -> usize,
) -> Option<&'b Tally<'a>> {
    let larger = |best: &'b Tally<'a>, next| match count(next) > count(best) {
        true => next,
        false => best,
    };
    tallies.iter().reduce(larger)
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::reward::{FnReward, Missing, Reward, RewardOptions, RewardSet, RewardSetBuilder};
    use crate::types::{Problem, RolloutGroup};

    /// A reward whose outcome is named by the completion.
    fn told(name: &'static str) -> impl Reward {
        FnReward::new(name, |input| match input.completion() {
            "abstain" => Ok(None),
            "error" => Err("no x in metadata".into()),
            "panic" => panic!("told to panic"),
            "nan" => Ok(Some(f64::NAN)),
            "huge" => Ok(Some(f64::MAX)),
            "hang" => loop {
                thread::park();
            },
            _ => Ok(Some(1.0)),
        })
    }

    fn told_set() -> RewardSetBuilder {
        let patient = Duration::from_secs(60);
        RewardSet::builder().add(1.0, told("x")).time_limit(patient)
    }

    /// The completions, scored by `rewards`, in groups of two.
    fn scored(rewards: RewardSetBuilder, texts: &[&str]) -> RolloutBuffer {
        let rollout = |text: &&str| Rollout::new(vec![1], vec![-0.5], *text);
        let mut buffer = RolloutBuffer::new();
        for pair in texts.chunks(2) {
            let rollouts = pair.iter().map(rollout).collect();
            buffer.push(RolloutGroup::new(Problem::new("?", "!"), vec![1], rollouts));
        }
        rewards
            .threads(8)
            .build()
            .unwrap()
            .score_rollouts(&mut buffer);
        buffer
    }

    fn message(rewards: RewardSetBuilder, texts: &[&str], limit: f64) -> String {
        let error = check_failures(&scored(rewards, texts), limit).unwrap_err();
        error.to_string()
    }

    #[test]
    fn a_reward_that_always_fails_is_named_with_its_first_reason() {
        for (text, reason) in [
            ("error", "no x in metadata"),
            ("panic", "panicked: told to panic"),
            ("nan", "the score is NaN; expected a finite number"),
            ("hang", "took longer than its time limit of 0.2 s"),
        ] {
            let set = || match text {
                "hang" => told_set().time_limit(Duration::from_millis(200)),
                _ => told_set(),
            };
            let expected = format!("reward `x` failed on 4 of 4 completions; first: {reason}");
            for limit in [0.0, 0.5, 1.0] {
                assert_eq!(message(set(), &[text; 4], limit), expected);
            }
        }
    }

    #[test]
    fn failures_are_an_error_above_the_limit_but_not_at_it() {
        let half = ["error", "1", "panic", "1"];
        assert!(check_failures(&scored(told_set(), &half), 0.5).is_ok());
        let text = message(told_set(), &half, 0.49);
        let expected = "reward `x` failed on 2 of 4 completions; first: no x in metadata";
        assert_eq!(text, expected);
        // 0.07 * 100 is more than 7, and 0.57 * 100 less than 57.
        for failures in [7, 57] {
            let mut texts = vec!["1"; 100];
            texts[..failures].fill("error");
            let buffer = scored(told_set(), &texts);
            assert!(check_failures(&buffer, failures as f64 / 100.0).is_ok());
            assert!(check_failures(&buffer, (failures - 1) as f64 / 100.0).is_err());
        }
    }

    #[test]
    fn the_reward_with_the_most_failures_is_named() {
        let odd = FnReward::new("odd", |input| match input.completion() {
            "1" => Err("an odd number".into()),
            _ => Ok(Some(0.0)),
        });
        let set = told_set().add(1.0, odd);
        let text = message(set, &["error", "1", "1", "2"], 0.25);
        let expected = "reward `odd` failed on 2 of 4 completions; first: an odd number";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_failure_counts_even_if_a_value_replaces_its_score() {
        let options = RewardOptions::new().with_on_failure(Missing::Value(0.0));
        let set = || RewardSet::builder().add_with(1.0, told("x"), options.clone());
        let text = message(set(), &["error"; 4], 0.5);
        assert!(text.starts_with("reward `x` failed on 4 of 4"), "{text}");
        // Every completion has a total, and no share is above 1.
        assert!(check_failures(&scored(set(), &["error"; 4]), 1.0).is_ok());
    }

    #[test]
    fn abstaining_is_an_error_only_if_nothing_is_scored() {
        let some = ["abstain", "abstain", "abstain", "1"];
        assert!(check_failures(&scored(told_set(), &some), 0.0).is_ok());
        let text = message(told_set(), &["abstain"; 4], 1.0);
        let expected = "none of 4 completions has a reward: reward `x` abstained on 4 of them";
        assert_eq!(text, expected);
        // One completion failed, but abstaining is the main reason that nothing is scored.
        let text = message(told_set(), &["abstain", "abstain", "error", "abstain"], 0.5);
        assert!(
            text.ends_with("reward `x` abstained on 3 of them"),
            "{text}"
        );
        let text = message(told_set(), &["abstain", "error", "error", "abstain"], 0.5);
        assert!(text.starts_with("reward `x` failed on 2 of 4"), "{text}");
    }

    #[test]
    fn overflowing_totals_and_unscored_rollouts_have_different_errors() {
        let set = told_set().add(1.0, told("y"));
        let text = message(set, &["huge"; 2], 0.5);
        let expected = "none of 2 completions has a reward: their weighted sums are not finite";
        assert_eq!(text, expected);
        let mut plain = scored(told_set(), &["1"]);
        for rollout in plain.rollouts_mut() {
            rollout.rewards.clear();
            rollout.reward = None;
        }
        let error = check_failures(&plain, 0.5).unwrap_err().to_string();
        assert!(error.ends_with("have not been scored"), "{error}");
        assert!(check_failures(&RolloutBuffer::new(), 0.0).is_ok());
    }
}
