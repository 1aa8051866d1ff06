//! Whether reasoning is written step by step.

use std::sync::LazyLock;

use regex::Regex;

use crate::reward::{Reward, RewardError, RewardInput};
use crate::{Error, Result};

/// open-r1's marks of a step. `^` is the start of the text, not of a line.
static STEPS: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,").ok());

/// A share for every mark of a step, up to 1: open-r1's `reasoning_steps_reward`.
///
/// ```text
/// reward = min(1, n / 3),   n = matches of   Step \d+:   ^\d+\.   \n-   \n\*   First,   Second,   Next,   Finally,
/// ```
///
/// The matches do not overlap. As there, a numbered line counts only at the start of the text, and case matters. It rewards
/// marks, and marks are cheap: a policy that is paid for them alone writes them alone. The time is linear in the text.
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
    /// Default: [`STEPS`].
    pattern: Option<Regex>,
    enough: usize,
}

impl Default for ReasoningStepsReward {
    fn default() -> Self {
        Self {
            name: "reasoning_steps".into(),
            pattern: None,
            enough: 3,
        }
    }
}

impl ReasoningStepsReward {
    /// The reward called `reasoning_steps`: open-r1's marks, of which 3 are enough.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same reward under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same reward with other marks, a pattern in the syntax of the [`regex`](https://docs.rs/regex) crate.
    ///
    /// # Errors
    /// [`Error::Config`] if the pattern cannot be read.
    pub fn pattern(mut self, pattern: &str) -> Result<Self> {
        let read = Regex::new(pattern).map_err(|error| {
            Error::config(
                "pattern",
                format!("{pattern:?}"),
                format!("a pattern: {error}"),
            )
        })?;
        self.pattern = Some(read);
        Ok(self)
    }

    /// How many marks give 1.
    ///
    /// # Errors
    /// [`Error::Config`] unless it is at least 1.
    pub fn enough(mut self, marks: usize) -> Result<Self> {
        if marks == 0 {
            return Err(Error::config("enough", 0, "1 or more"));
        }
        self.enough = marks;
        Ok(self)
    }
}

impl Reward for ReasoningStepsReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let pattern = self.pattern.as_ref().or(STEPS.as_ref());
        let pattern = pattern.ok_or("the marks of a step are no pattern")?;
        let marks = pattern
            .find_iter(&input.completion)
            .take(self.enough)
            .count();
        Ok(Some(marks as f64 / self.enough as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn other_marks_and_another_number_of_them() {
        let reward = ReasoningStepsReward::new().pattern("(?m)^#+ ").unwrap();
        let reward = reward.enough(2).unwrap().named("headings");
        assert_eq!(reward.name(), "headings");
        assert_eq!(score(&reward, "# a\nb"), 0.5);
        assert_eq!(score(&reward, "# a\n## b\n### c"), 1.0);
        let error = reward.clone().pattern("(").unwrap_err().to_string();
        assert!(
            error.starts_with("invalid `pattern`: \"(\"; expected a pattern"),
            "{error}"
        );
        assert!(reward.enough(0).is_err());
    }
}
