//! A reward for the marks of step-by-step reasoning.

use crate::reward::setters::with_name;
use crate::reward::{Reward, RewardError, RewardInput};
use crate::{Error, Result};

/// A share for every mark of a step, up to 1: open-r1's `reasoning_steps_reward`.
///
/// ```text
/// reward = min(1, n / 3),   n = matches of   Step \d+:   ^\d+\.   \n-   \n\*   First,   Second,   Next,   Finally,
/// ```
///
/// The matches do not overlap. As there, a numbered line counts only at the start of the text, and case matters. A digit
/// `\d` is any numeric character of Unicode. Only the marks count, whatever is between them, so use it beside other
/// rewards. The time is linear in the text.
///
/// Source: huggingface/open-r1, `src/open_r1/rewards.py`.
///
/// ```
/// use rlvr::reward::{ReasoningStepsReward, Reward, RewardInput};
///
/// let steps = ReasoningStepsReward::new();
/// let score = |completion| steps.score(&RewardInput::new("", "", completion)).unwrap().unwrap();
/// assert_eq!(score("First, 2+2=4. Next, 4+4=8. Finally, 8."), 1.0);
/// assert_eq!(score("1. 2+2=4\n2. 4+4=8"), 1.0 / 3.0);
/// assert_eq!(score("8"), 0.0);
/// ```
#[derive(Clone, Debug)]
pub struct ReasoningStepsReward {
    name: String,
    enough: usize,
}

impl Default for ReasoningStepsReward {
    fn default() -> Self {
        Self {
            name: "reasoning_steps".into(),
            enough: 3,
        }
    }
}

impl ReasoningStepsReward {
    /// The reward called `reasoning_steps`: open-r1's marks, of which 3 are enough.
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();

    /// How many marks give 1, at least 1.
    #[must_use]
    pub fn with_enough(mut self, marks: usize) -> Self {
        self.enough = marks;
        self
    }
}

/// The number of marks in `text`, counted up to `most`.
fn count_marks(text: &str, most: usize) -> usize {
    let (mut count, mut rest) = match after_number(text, '.') {
        Some(rest) => (1, rest),
        None => (0, text),
    };
    while count < most {
        let Some(at) = rest.find(['\n', 'F', 'N', 'S']) else {
            break;
        };
        rest = &rest[at..];
        match after_mark(rest) {
            Some(behind) => {
                count += 1;
                rest = behind;
            }
            // All four are one byte long.
            None => rest = &rest[1..],
        }
    }
    count
}

/// What follows the mark at the start of `text`, if there is one.
fn after_mark(text: &str) -> Option<&str> {
    const MARKS: [&str; 6] = ["\n-", "\n*", "First,", "Second,", "Next,", "Finally,"];
    let step = text.strip_prefix("Step ");
    step.and_then(|rest| after_number(rest, ':'))
        .or_else(|| MARKS.iter().find_map(|mark| text.strip_prefix(mark)))
}

/// What follows the digits and `close` at the start of `text`, if they are there.
fn after_number(text: &str, close: char) -> Option<&str> {
    let rest = text.trim_start_matches(char::is_numeric);
    rest.strip_prefix(close).filter(|_| rest.len() < text.len())
}

impl Reward for ReasoningStepsReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let marks = count_marks(input.completion(), self.enough);
        Ok(Some(marks as f64 / self.enough as f64))
    }

    fn validate(&self) -> Result<()> {
        match self.enough {
            0 => Err(Error::config("enough", 0, "1 or more")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn score(reward: &ReasoningStepsReward, completion: &str) -> f64 {
        let input = RewardInput::new("", "", completion);
        reward.score(&input).unwrap().unwrap()
    }

    #[test]
    fn the_marks() {
        let reward = ReasoningStepsReward::new();
        for (completion, marks) in [
            ("Step 12: a", 1),
            ("Step : a", 0),
            ("step 1: a", 0),
            ("12. a", 1),
            ("\n12. a", 0),
            // A digit of another script is a digit, as in Python.
            ("Step \u{0663}: a", 1),
            ("\n--", 1),
            ("\n\n*\n-", 2),
            ("First,Second,", 2),
            ("First;", 0),
        ] {
            let expected = f64::from(marks) / 3.0;
            assert_eq!(score(&reward, completion), expected, "{completion:?}");
        }
        assert_eq!(score(&reward, &"\n-".repeat(1_000_000)), 1.0);
    }

    #[test]
    fn another_number_of_marks() {
        let reward = ReasoningStepsReward::new()
            .with_enough(2)
            .with_name("headings");
        assert_eq!(reward.name(), "headings");
        assert_eq!(score(&reward, "First, a"), 0.5);
        assert_eq!(score(&reward, "First, a\n- b\n- c"), 1.0);
        assert!(reward.validate().is_ok());
        let error = reward.with_enough(0).validate().unwrap_err().to_string();
        assert!(error.starts_with("invalid `enough`: 0"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_pattern(pieces in prop::collection::vec(0usize..14, 0..14)) {
            const PIECES: [&str; 14] = [
                "Step ", "1", "23", ":", ".", "\n", "-", "*", "First,", "Second,", "Next,", "Finally,", "é", "S",
            ];
            let text: String = pieces.into_iter().map(|i| PIECES[i]).collect();
            let pattern = r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,";
            let pattern = regex::Regex::new(pattern).unwrap();
            prop_assert_eq!(count_marks(&text, 100), pattern.find_iter(&text).count(), "{:?}", text);
        }
    }
}
