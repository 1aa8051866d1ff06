//! A reward for each tag.

use crate::reward::setters::{with_name, with_tags};
use crate::reward::{Reward, RewardError, RewardInput, Tags};

/// Scores 1/4 for each of the four tags that is on its line exactly once: `tag_count_reward` of
/// open-r1.
///
/// ```text
/// reward = 0.25 * |{ p : p occurs exactly once }|
///          p in  <think>\n   \n</think>\n   \n<answer>\n   \n</answer>
/// ```
///
/// It rewards partial progress towards a format that no completion has yet. Order and content do
/// not matter, so use it together with a format reward, or before one. A tag inside a line is not
/// counted, and occurrences do not overlap: in `\n</think>\n</think>\n` the second tag has no line
/// break of its own. The time is linear in the text.
///
/// Source: huggingface/open-r1, `src/open_r1/rewards.py`, after W. Brown's `grpo_demo.py`.
///
/// ```
/// use rlvr::reward::{Reward, RewardInput, TagCountReward};
///
/// let count = TagCountReward::new();
/// let score = |completion| {
///     count
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("<think>\n2+2\n</think>\n<answer>\n4\n</answer>"), 1.0);
/// assert_eq!(score("<think>\n2+2\n</think>\n4"), 0.5);
/// assert_eq!(score("<think>\n<think>\n2+2\n</think>\n4"), 0.25);
/// assert_eq!(score("<think>2+2</think>4"), 0.0);
/// ```
#[derive(Clone, Debug)]
pub struct TagCountReward {
    name: String,
    tags: Tags,
}

impl Default for TagCountReward {
    fn default() -> Self {
        Self {
            name: "tag_count".into(),
            tags: Tags::default(),
        }
    }
}

impl TagCountReward {
    /// Creates the reward `tag_count`, with the default [`Tags`].
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
    with_tags!();
}

impl Reward for TagCountReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let pieces = [
            format!("{}\n", self.tags.think_open()),
            format!("\n{}\n", self.tags.think_close()),
            format!("\n{}\n", self.tags.answer_open()),
            format!("\n{}", self.tags.answer_close()),
        ];
        let once =
            |piece: &&String| input.completion().matches(piece.as_str()).take(2).count() == 1;
        Ok(Some(0.25 * pieces.iter().filter(once).count() as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tag_is_counted_separately() {
        let reward = TagCountReward::new().with_tags(Tags::new("(", ")", "[", "]").unwrap());
        for (completion, expected) in [
            ("(\n\n)\n\n[\n\n]", 1.0),
            ("\n]\n[\n\n)\n(\n", 1.0),
            ("(\n(\n", 0.0),
            // The second tag shares its line break with the first.
            ("\n)\n)\n", 0.25),
            ("\n)\n\n)\n", 0.0),
            ("\n]]", 0.25),
        ] {
            let input = RewardInput::new("", "", completion);
            assert_eq!(
                reward.score(&input).unwrap(),
                Some(expected),
                "{completion:?}"
            );
        }
        assert_eq!(reward.with_name("tags").name(), "tags");
    }
}
