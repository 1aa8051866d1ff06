//! Rewards for single tokens, in addition to the rewards for whole completions.

use std::sync::Arc;
use std::time::Instant;

use super::pool::guarded;
use super::{RewardError, RewardInput};
use crate::types::{RewardOutcome, RewardRecord, RolloutBuffer};

/// Scores every token of a completion, for example as a process reward or a penalty at certain
/// tokens.
///
/// The scores are added to the total of the completion. Estimators of
/// [`advantage`](crate::advantage) that discount over time use them at their tokens; the others add
/// their sum to the total.
///
/// The contract is that of [`Reward`](super::Reward) (pure, bounded, linear), except for the time
/// limit: calls are made one after the other on the caller's thread, and a call that does not
/// return blocks the run.
///
/// ```
/// use rlvr::reward::{RewardError, RewardInput, TokenReward};
///
/// /// Penalises each repeated token.
/// struct NoRepeats;
///
/// impl TokenReward for NoRepeats {
///     fn name(&self) -> &str {
///         "no_repeats"
///     }
///
///     fn score(&self, input: &RewardInput) -> Result<Vec<f64>, RewardError> {
///         let tokens = &input.rollout.tokens;
///         let penalty = |t: usize| {
///             if tokens[..t].contains(&tokens[t]) {
///                 -0.1
///             } else {
///                 0.0
///             }
///         };
///         Ok((0..tokens.len()).map(penalty).collect())
///     }
/// }
///
/// let input = RewardInput::new("", "", "").with_tokens(vec![7, 8, 7]);
/// assert_eq!(NoRepeats.score(&input).unwrap(), [0.0, 0.0, -0.1]);
/// ```
pub trait TokenReward: Send + Sync + 'static {
    /// Returns the name under which the sums are recorded. It differs from the names in the reward
    /// set.
    fn name(&self) -> &str;

    /// Returns one finite number for each token that the policy sampled ([`RewardInput::length`] of
    /// them), in order.
    ///
    /// # Errors
    /// Returns an error if the reward cannot do its work.
    fn score(&self, input: &RewardInput) -> Result<Vec<f64>, RewardError>;
}

/// Writes token rewards into every rollout that has a total, and records their sum under the name
/// of the reward.
///
/// If the reward fails, panics, or does not return one finite number per token, that outcome is
/// recorded and the rollout loses its total, which excludes it from training. For a rollout without
/// a total the reward is not called and counts as abstaining.
pub(crate) fn score_tokens(reward: &dyn TokenReward, rollouts: &mut RolloutBuffer) {
    for group in &mut rollouts.groups {
        let unscored = std::mem::take(&mut group.rollouts);
        for rollout in unscored {
            let started = Instant::now();
            let input = RewardInput {
                problem: Arc::clone(&group.problem),
                rollout: Arc::new(rollout),
            };
            let scores = input.rollout.reward.map(|_| scores(reward, &input));
            let seconds = started.elapsed().as_secs_f64();
            let mut rollout = Arc::unwrap_or_clone(input.rollout);
            let outcome = match scores {
                None => RewardOutcome::Abstained,
                Some(Ok(scores)) => {
                    let sum = scores.iter().sum();
                    rollout.token_rewards = scores;
                    RewardOutcome::Score(sum)
                }
                Some(Err(failure)) => {
                    rollout.reward = None;
                    failure
                }
            };
            rollout.rewards.push(RewardRecord {
                name: reward.name().into(),
                weight: 1.0,
                outcome,
                seconds,
            });
            group.rollouts.push(rollout);
        }
    }
}

fn scores(reward: &dyn TokenReward, input: &RewardInput) -> Result<Vec<f64>, RewardOutcome> {
    let scores = guarded(|| reward.score(input))?
        .map_err(|error| RewardOutcome::Failed(error.to_string()))?;
    let (got, tokens) = (scores.len(), input.length());
    if got != tokens {
        return Err(RewardOutcome::Failed(format!(
            "{got} numbers for {tokens} tokens; expected one for each"
        )));
    }
    if !scores.iter().sum::<f64>().is_finite() {
        return Err(RewardOutcome::Failed(
            "a number is not finite, or their sum is not".into(),
        ));
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Problem, Rollout, RolloutGroup};

    /// Fails in a different way for each first token.
    struct Fragile;

    impl TokenReward for Fragile {
        fn name(&self) -> &str {
            "fragile"
        }

        fn score(&self, input: &RewardInput) -> Result<Vec<f64>, RewardError> {
            match input.rollout.tokens.first() {
                Some(0) => Err(format!("not for {}", input.prompt()).into()),
                Some(1) => panic!("no ones"),
                Some(2) => Ok(vec![1.0]),
                Some(3) => Ok(vec![f64::NAN, 0.0]),
                Some(4) => Ok(vec![f64::MAX, f64::MAX]),
                _ => Ok(vec![0.5, -0.25]),
            }
        }
    }

    fn rollout(first: u32, reward: Option<f64>) -> Rollout {
        Rollout {
            reward,
            ..Rollout::new(vec![first, 9], vec![-0.1; 2], "")
        }
    }

    #[test]
    fn a_failing_token_reward_affects_only_its_own_rollout() {
        let mut rollouts: Vec<_> = (0..6).map(|first| rollout(first, Some(1.0))).collect();
        rollouts.push(rollout(5, None));
        let mut buffer = RolloutBuffer::new();
        buffer.push(RolloutGroup::new(Problem::new("x", ""), vec![1], rollouts));
        score_tokens(&Fragile, &mut buffer);
        let all: Vec<&Rollout> = buffer.rollouts().collect();
        let outcome = |i: usize| &all[i].rewards[0].outcome;
        assert_eq!(outcome(0), &RewardOutcome::Failed("not for x".into()));
        assert_eq!(outcome(1), &RewardOutcome::Panicked("no ones".into()));
        for (i, word) in [(2, "1 numbers for 2"), (3, "not finite"), (4, "not finite")] {
            assert!(matches!(outcome(i), RewardOutcome::Failed(text) if text.contains(word)));
        }
        for failed in &all[..5] {
            assert_eq!((failed.reward, failed.total_reward()), (None, None));
            assert!(failed.token_rewards.is_empty());
        }
        assert_eq!(outcome(5), &RewardOutcome::Score(0.25));
        assert_eq!(all[5].rewards[0].name, "fragile");
        assert_eq!(
            (all[5].reward, all[5].total_reward()),
            (Some(1.0), Some(1.25))
        );
        // Without a total there are no token rewards.
        assert_eq!(outcome(6), &RewardOutcome::Abstained);
        assert!(all[6].token_rewards.is_empty());
        let rows = buffer.token_rewards().unwrap();
        assert_eq!((&rows[5], &rows[6]), (&[0.5, -0.25][..], &[0.0, 0.0][..]));
        let plain = RolloutBuffer::new();
        assert_eq!(plain.token_rewards(), None);
    }
}
