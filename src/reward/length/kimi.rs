//! A length reward that is relative to the group.

use super::{LengthUnit, Verdict};
use crate::reward::setters::with_name;
use crate::reward::{GroupInput, GroupReward, RewardError, RewardInput};

/// The length reward of Kimi k1.5: within a group, short right answers gain and long answers lose.
///
/// ```text
/// l_i      = 0.5 - (n_i - min n) / (max n - min n)
/// reward_i = l_i            right
///            min(0, l_i)    wrong
/// ```
///
/// All scores are 0 if all lengths are equal. Another reward of the set decides whether an answer
/// is right, by default a score of at least 1 from `accuracy`. If that reward gave no number, this
/// one abstains and ignores the length of the rollout; open-r1 treats such an answer as right.
///
/// The paper adds it with a weight, and only after a warm-up, since early in training the penalty
/// keeps the policy from learning to think.
///
/// Sources: Kimi k1.5 (arXiv 2501.12599), section 2.3.3, where it is called length penalty;
/// huggingface/open-r1, `len_reward`, which counts characters.
///
/// ```
/// use rlvr::reward::{AccuracyReward, KimiLengthReward, RewardInput, RewardSet};
///
/// let rewards = RewardSet::builder()
///     .add(1.0, AccuracyReward::new())
///     .add_group(0.5, KimiLengthReward::new())
///     .build()?;
/// let answer = |text, tokens| {
///     RewardInput::new("2+2=", "4", text).with_tokens(vec![7; tokens])
/// };
/// let scored = rewards.score(vec![
///     answer("<answer>4</answer>", 10),
///     answer("<answer>4</answer>", 20),
///     answer("<answer>5</answer>", 10),
///     answer("<answer>5</answer>", 20),
/// ]);
/// let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.25), Some(0.75), Some(0.0), Some(-0.25)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct KimiLengthReward {
    name: String,
    unit: LengthUnit,
    verdict: Verdict,
}

impl Default for KimiLengthReward {
    fn default() -> Self {
        Self {
            name: "length".into(),
            unit: LengthUnit::default(),
            verdict: Verdict::default(),
        }
    }
}

impl KimiLengthReward {
    /// Creates the reward `length`, in tokens, with right answers decided by `accuracy`.
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();

    /// Sets the unit in which lengths are counted. Default: tokens.
    #[must_use]
    pub fn with_unit(mut self, unit: LengthUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Sets the reward that decides whether an answer is right, and the score from which it is.
    /// Default: `accuracy`, 1.
    #[must_use]
    pub fn with_judge(mut self, reward: impl Into<String>, at_least: f64) -> Self {
        self.verdict = Verdict {
            reward: reward.into(),
            at_least,
        };
        self
    }
}

impl GroupReward for KimiLengthReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.verdict.reward]
    }

    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
        let length = |(input, right): (&&RewardInput, Option<bool>)| {
            right.map(|right| (right, self.unit.of(input)))
        };
        let right = self.verdict.of(group)?;
        let judged: Vec<_> = group.inputs().iter().zip(right).map(length).collect();
        let lengths = judged.iter().flatten().map(|&(_, length)| length);
        let shortest = lengths.clone().min().unwrap_or(0);
        let spread = lengths.max().unwrap_or(0) - shortest;
        let score = |(right, length): (bool, usize)| {
            if spread == 0 {
                return 0.0;
            }
            let gain = 0.5 - (length - shortest) as f64 / spread as f64;
            if right { gain } else { gain.min(0.0) }
        };
        Ok(judged.into_iter().map(|one| one.map(score)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scores(group: &[(Option<f64>, usize)]) -> Vec<Option<f64>> {
        let input =
            |&(_, tokens): &(_, usize)| RewardInput::new("", "", "").with_tokens(vec![7; tokens]);
        let inputs: Vec<RewardInput> = group.iter().map(input).collect();
        let accuracy: Vec<Option<f64>> = group.iter().map(|&(score, _)| score).collect();
        let group = GroupInput::new(&inputs).with_scores("accuracy", accuracy);
        KimiLengthReward::new().score_group(&group).unwrap()
    }

    #[test]
    fn a_rollout_without_a_verdict_is_ignored() {
        let found = scores(&[
            (Some(1.0), 10),
            (None, 1000),
            (Some(0.5), 20),
            (Some(1.0), 20),
        ]);
        assert_eq!(found, [Some(0.5), None, Some(-0.5), Some(-0.5)]);
        assert_eq!(scores(&[(None, 1), (None, 2)]), [None, None]);
        assert_eq!(scores(&[(Some(1.0), 7)]), [Some(0.0)]);
        assert_eq!(scores(&[]), []);
    }

    #[test]
    fn unit_and_deciding_reward_can_be_set() {
        let reward = KimiLengthReward::new()
            .with_unit(LengthUnit::Characters)
            .with_judge("tests", 0.5);
        let inputs = ["ää", "b"].map(|text| RewardInput::new("", "", text));
        let group = GroupInput::new(&inputs).with_scores("tests", vec![Some(0.5), Some(0.0)]);
        assert_eq!(reward.score_group(&group).unwrap(), [Some(-0.5), Some(0.0)]);
        assert_eq!(reward.with_name("short").name(), "short");
    }

    proptest! {
        #[test]
        fn shorter_is_never_worse(group in prop::collection::vec((any::<bool>(), 0usize..50), 1..10)) {
            let judged: Vec<_> = group.iter().map(|&(right, n)| (Some(f64::from(right)), n)).collect();
            let found = scores(&judged);
            for (a, x) in group.iter().zip(&found) {
                prop_assert!(x.unwrap().abs() <= 0.5);
                prop_assert!(a.0 || x.unwrap() <= 0.0);
                for (b, y) in group.iter().zip(&found) {
                    prop_assert!(a.0 != b.0 || a.1 > b.1 || x >= y);
                }
            }
        }
    }
}
