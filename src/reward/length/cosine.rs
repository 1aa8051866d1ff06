//! The cosine-scaled length reward.

use std::f64::consts::PI;

use super::{LengthUnit, Verdict};
use crate::reward::setters::with_name;
use crate::reward::{GroupInput, GroupReward, RewardError};
use crate::{Error, Result};

/// The cosine-scaled length reward: short right answers score more than long ones, and long wrong
/// answers score more than short ones.
///
/// ```text
/// p      = min(n / L, 1)
/// reward = end + (start - end) / 2 * (1 + cos(pi p))
///          start at length 0, end at length L and beyond
///
/// right:  start = max_correct = 1     end = min_correct = 0.5
/// wrong:  start = min_wrong  = -1     end = max_wrong  = -0.5
/// ```
///
/// Another reward of the set decides whether an answer is right, by default a score of at least 1
/// from `accuracy`. For that reason this is a [`GroupReward`], although it compares nothing. It
/// abstains if that reward gave no number, as in TRL (open-r1 gives 1).
///
/// TRL counts tokens. open-r1 counts characters and does not stop at L, so that a right answer of
/// length 2L scores as much as an empty one; [`with_periodic`](Self::with_periodic) selects that
/// form for comparison. Yeo et al. use 1 to 2 for right and -10 to 0 for wrong answers, and -10 at
/// the limit: [`with_at_limit`](Self::with_at_limit).
///
/// Sources: Yeo et al., Demystifying Long Chain-of-Thought Reasoning (arXiv 2502.03373);
/// huggingface/trl, `get_cosine_scaled_reward`; huggingface/open-r1, `src/open_r1/rewards.py`.
///
/// ```
/// use rlvr::reward::{AccuracyReward, CosineLengthReward, RewardInput, RewardSet};
///
/// let rewards = RewardSet::builder()
///     .add(0.0, AccuracyReward::new())
///     .add_group(1.0, CosineLengthReward::new(100)?)
///     .build()?;
/// let answer = |text, tokens| {
///     RewardInput::new("2+2=", "4", text).with_tokens(vec![7; tokens])
/// };
/// let scored = rewards.score(vec![
///     answer("<answer>4</answer>", 0),
///     answer("<answer>4</answer>", 50),
///     answer("<answer>5</answer>", 0),
///     answer("<answer>5</answer>", 200),
/// ]);
/// let totals: Vec<_> = scored.iter().map(|one| one.reward).collect();
/// assert_eq!(totals, [Some(1.0), Some(0.75), Some(-1.0), Some(-0.5)]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CosineLengthReward {
    name: String,
    max_length: usize,
    /// From `max_correct` at length 0 to `min_correct`.
    correct: (f64, f64),
    /// From `min_wrong` at length 0 to `max_wrong`.
    wrong: (f64, f64),
    at_limit: Option<f64>,
    unit: LengthUnit,
    periodic: bool,
    verdict: Verdict,
}

impl CosineLengthReward {
    /// Creates the reward `cosine_length`, in tokens, with L = `max_length` and the values above.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `max_length` is 0.
    pub fn new(max_length: usize) -> Result<Self> {
        if max_length == 0 {
            return Err(Error::config("max_length", 0, "1 or more"));
        }
        Ok(Self {
            name: "cosine_length".into(),
            max_length,
            correct: (1.0, 0.5),
            wrong: (-1.0, -0.5),
            at_limit: None,
            unit: LengthUnit::default(),
            periodic: false,
            verdict: Verdict::default(),
        })
    }

    with_name!();

    /// Sets the score of a right answer: `min` at length L, `max` at length 0. Both are finite and
    /// `min <= max`.
    #[must_use]
    pub fn with_correct(mut self, min: f64, max: f64) -> Self {
        self.correct = (max, min);
        self
    }

    /// Sets the score of a wrong answer: `min` at length 0, `max` at length L. Both are finite and
    /// `min <= max`.
    #[must_use]
    pub fn with_wrong(mut self, min: f64, max: f64) -> Self {
        self.wrong = (min, max);
        self
    }

    /// Sets the score of a completion of length L or more, right or wrong, a finite number: the
    /// penalty of the paper for exceeding the length.
    #[must_use]
    pub fn with_at_limit(mut self, value: f64) -> Self {
        self.at_limit = Some(value);
        self
    }

    /// Sets the unit in which lengths are counted. Default: tokens.
    #[must_use]
    pub fn with_unit(mut self, unit: LengthUnit) -> Self {
        self.unit = unit;
        self
    }

    /// Sets whether the cosine continues periodically beyond L (`true`, open-r1) or stays constant
    /// (`false`, the default).
    #[must_use]
    pub fn with_periodic(mut self, periodic: bool) -> Self {
        self.periodic = periodic;
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

    fn value(&self, right: bool, length: usize) -> f64 {
        if let Some(value) = self.at_limit.filter(|_| length >= self.max_length) {
            return value;
        }
        let (start, end) = if right { self.correct } else { self.wrong };
        let progress = length as f64 / self.max_length as f64;
        let progress = if self.periodic {
            progress
        } else {
            progress.min(1.0)
        };
        end + 0.5 * (start - end) * (1.0 + (PI * progress).cos())
    }
}

fn range(field: &str, min: f64, max: f64) -> Result<()> {
    if min.is_finite() && max.is_finite() && min <= max {
        return Ok(());
    }
    let expected = "finite numbers, the smaller one first";
    Err(Error::config(field, format!("{min} to {max}"), expected))
}

impl GroupReward for CosineLengthReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn reads(&self) -> Vec<&str> {
        vec![&self.verdict.reward]
    }

    fn score_group(&self, group: &GroupInput) -> Result<Vec<Option<f64>>, RewardError> {
        let right = self.verdict.of(group)?;
        let score = |(input, right): (&&_, Option<bool>)| {
            right.map(|right| self.value(right, self.unit.of(input)))
        };
        Ok(group.inputs().iter().zip(right).map(score).collect())
    }

    fn validate(&self) -> Result<()> {
        let (max, min) = self.correct;
        range("correct", min, max)?;
        let (min, max) = self.wrong;
        range("wrong", min, max)?;
        self.at_limit
            .map_or(Ok(()), |value| range("at_limit", value, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reward::{RewardInput, RewardSet};

    #[test]
    fn the_values_match_the_paper() {
        let paper = CosineLengthReward::new(100).unwrap();
        let paper = paper.with_correct(1.0, 2.0).with_wrong(-10.0, 0.0);
        let paper = paper.with_at_limit(-10.0);
        assert!(paper.validate().is_ok());
        for (right, length, expected) in [
            (true, 0, 2.0),
            (true, 50, 1.5),
            (false, 0, -10.0),
            (false, 50, -5.0),
            (true, 100, -10.0),
            (false, 101, -10.0),
        ] {
            assert!((paper.value(right, length) - expected).abs() < 1e-12);
        }
        // Just below the limit: the end values of the cosine.
        assert!((paper.value(true, 99) - 1.0).abs() < 1e-3);
        assert!(paper.value(false, 99).abs() < 3e-3);
    }

    #[test]
    fn the_reward_abstains_without_a_verdict() {
        let reward = CosineLengthReward::new(10)
            .unwrap()
            .with_judge("tests", 0.5)
            .with_name("cosine");
        assert_eq!((reward.name(), reward.reads()), ("cosine", vec!["tests"]));
        let inputs = vec![RewardInput::new("", "", "").with_tokens(vec![7; 10]); 3];
        let group = GroupInput::new(&inputs).with_scores("tests", vec![Some(0.5), Some(0.4), None]);
        let scores = reward.score_group(&group).unwrap();
        assert_eq!(scores, [Some(0.5), Some(-0.5), None]);
        assert!(reward.score_group(&GroupInput::new(&inputs)).is_err());
    }

    #[test]
    fn invalid_values_are_rejected() {
        let of = || CosineLengthReward::new(10).unwrap();
        let error = CosineLengthReward::new(0).unwrap_err().to_string();
        assert!(error.starts_with("invalid `max_length`: 0"), "{error}");
        for (reward, field) in [
            (of().with_correct(1.0, 0.5), "correct`: 1 to 0.5"),
            (of().with_wrong(f64::NAN, 0.0), "wrong`: NaN to 0"),
            (of().with_at_limit(f64::INFINITY), "at_limit`: inf"),
        ] {
            let text = reward.validate().unwrap_err().to_string();
            assert!(text.starts_with(&format!("invalid `{field}")), "{text}");
            // A set with such a reward cannot be built.
            let set = RewardSet::builder().add_group(1.0, reward);
            let text = set.build().unwrap_err().to_string();
            let start = format!("invalid `rewards[0].{field}");
            assert!(text.starts_with(&start), "{text}");
        }
    }
}
