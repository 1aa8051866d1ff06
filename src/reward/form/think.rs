//! The format in which only the thinking has tags.

use super::verdict;
use crate::reward::setters::{with_name, with_tags};
use crate::reward::{Reward, RewardError, RewardInput, Tags};

/// Scores 1 if the completion begins with closed thinking and no second thinking begins, else 0:
/// `think_format_reward` of TRL.
///
/// ```text
/// ^<think>(?!.*<think>)(.*?)</think>.*$      `.` is any character
/// ```
///
/// The text after the thinking is ignored, and so is a second `</think>`. The time is linear in the
/// text.
///
/// Source: huggingface/trl, `trl/rewards/format_rewards.py`.
///
/// ```
/// use rlvr::reward::{Reward, RewardInput, ThinkFormatReward};
///
/// let format = ThinkFormatReward::new();
/// let score = |completion| {
///     format
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("<think>2+2</think>4"), 1.0);
/// assert_eq!(score("4"), 0.0);
/// assert_eq!(score("<think>2+2</think><think>again</think>4"), 0.0);
/// ```
#[derive(Clone, Debug)]
pub struct ThinkFormatReward {
    name: String,
    tags: Tags,
}

impl Default for ThinkFormatReward {
    fn default() -> Self {
        Self {
            name: "think_format".into(),
            tags: Tags::default(),
        }
    }
}

impl ThinkFormatReward {
    /// Creates the reward `think_format`, with the default [`Tags`].
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
    with_tags!();
}

impl Reward for ThinkFormatReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let rest = input.completion().strip_prefix(self.tags.think_open());
        Ok(verdict(rest.is_some_and(|rest| {
            !rest.contains(self.tags.think_open()) && rest.contains(self.tags.think_close())
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_required_once_at_the_start() {
        let tagged = ThinkFormatReward::new().with_tags(Tags::new("(", ")", "[", "]").unwrap());
        for (completion, expected) in [
            ("()", 1.0),
            ("(a)\nb)", 1.0),
            ("(a\n", 0.0),
            (" (a)", 0.0),
            ("(a)(", 0.0),
            ("((a)", 0.0),
            (")(", 0.0),
            ("", 0.0),
        ] {
            let input = RewardInput::new("", "", completion);
            assert_eq!(
                tagged.score(&input).unwrap(),
                Some(expected),
                "{completion}"
            );
        }
        assert_eq!(tagged.with_name("form").name(), "form");
    }
}
