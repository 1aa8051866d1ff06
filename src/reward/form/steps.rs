//! A reward for markers of step-by-step reasoning.

use crate::reward::setters::with_name;
use crate::reward::{Reward, RewardError, RewardInput};

/// Scores 1/3 for each step marker, up to 1: `reasoning_steps_reward` of open-r1.
///
/// ```text
/// reward = min(1, n / 3),   n = matches of
///          Step \d+:   ^\d+\.   \n-   \n\*   First,   Second,   Next,   Finally,
/// ```
///
/// Matches do not overlap. As in open-r1, a numbered line counts only at the start of the text, and
/// case matters. A digit `\d` is any numeric character of Unicode. The text between the markers
/// does not matter, so use this reward together with others. The time is linear in the text.
///
/// Source: huggingface/open-r1, `src/open_r1/rewards.py`.
///
/// ```
/// use rlvr::reward::{ReasoningStepsReward, Reward, RewardInput};
///
/// let steps = ReasoningStepsReward::new();
/// let score = |completion| {
///     steps
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("First, 2+2=4. Next, 4+4=8. Finally, 8."), 1.0);
/// assert_eq!(score("1. 2+2=4\n2. 4+4=8"), 1.0 / 3.0);
/// assert_eq!(score("8"), 0.0);
/// ```
#[derive(Clone, Debug)]
pub struct ReasoningStepsReward {
    name: String,
}

/// The number of markers that score 1.
const ENOUGH: usize = 3;

impl Default for ReasoningStepsReward {
    fn default() -> Self {
        Self {
            name: "reasoning_steps".into(),
        }
    }
}

impl ReasoningStepsReward {
    /// Creates the reward `reasoning_steps`.
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
}

/// Counts the markers in `text`, up to `most`.
fn count_markers(text: &str, most: usize) -> usize {
    let (mut count, mut rest) = match after_number(text, '.') {
        Some(rest) => (1, rest),
        None => (0, text),
    };
    while count < most {
        let Some(at) = rest.find(['\n', 'F', 'N', 'S']) else {
            break;
        };
        rest = &rest[at..];
        match after_marker(rest) {
            Some(rest_after) => {
                count += 1;
                rest = rest_after;
            }
            // All four are one byte long.
            None => rest = &rest[1..],
        }
    }
    count
}

/// The text after the marker at the start of `text`, if there is one.
fn after_marker(text: &str) -> Option<&str> {
    const MARKERS: [&str; 6] = ["\n-", "\n*", "First,", "Second,", "Next,", "Finally,"];
    let step = text.strip_prefix("Step ");
    step.and_then(|rest| after_number(rest, ':'))
        .or_else(|| MARKERS.iter().find_map(|marker| text.strip_prefix(marker)))
}

/// The text after the digits and `close` at the start of `text`, if they are there.
fn after_number(text: &str, close: char) -> Option<&str> {
    let rest = text.trim_start_matches(char::is_numeric);
    rest.strip_prefix(close).filter(|_| rest.len() < text.len())
}

impl Reward for ReasoningStepsReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let markers = count_markers(input.completion(), ENOUGH);
        Ok(Some(markers as f64 / ENOUGH as f64))
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
    fn markers_are_counted() {
        let reward = ReasoningStepsReward::new();
        for (completion, markers) in [
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
            let expected = f64::from(markers) / 3.0;
            assert_eq!(score(&reward, completion), expected, "{completion:?}");
        }
        assert_eq!(score(&reward, &"\n-".repeat(1_000_000)), 1.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_regular_expression(pieces in prop::collection::vec(0usize..14, 0..14)) {
            const PIECES: [&str; 14] = [
                "Step ", "1", "23", ":", ".", "\n", "-", "*", "First,", "Second,", "Next,", "Finally,", "é", "S",
            ];
            let text: String = pieces.into_iter().map(|i| PIECES[i]).collect();
            let pattern = r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,";
            let pattern = regex::Regex::new(pattern).unwrap();
            prop_assert_eq!(count_markers(&text, 100), pattern.find_iter(&text).count(), "{:?}", text);
        }
    }
}
