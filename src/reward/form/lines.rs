//! The format with each tag on its own line.

use super::{behind, ends_a_line, verdict};
use crate::reward::setters::{with_name, with_tags};
use crate::reward::{Reward, RewardError, RewardInput, Tags};

/// Scores 1 if the completion begins with thinking and answer, each tag on its own line, else 0:
/// `format_reward` of open-r1.
///
/// ```text
/// ^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$
/// `.` is any character, `$` the end of a line
/// ```
///
/// It is looser than [`FormatReward`](super::FormatReward): the parts may contain further tags, and
/// anything may follow on the lines after `</answer>`. It is stricter about whitespace. Use it to
/// compare runs with those of open-r1, and [`FormatReward`](super::FormatReward) otherwise. The
/// time is linear in the text.
///
/// Source: huggingface/open-r1, `src/open_r1/rewards.py`.
///
/// ```
/// use rlvr::reward::{LineFormatReward, Reward, RewardInput};
///
/// let format = LineFormatReward::new();
/// let score = |completion| {
///     format
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("<think>\n2+2\n</think>\n<answer>\n4\n</answer>"), 1.0);
/// assert_eq!(
///     score("<think>\n2+2\n</think>\n<answer>\n4\n</answer>\nOr is it 5?"),
///     1.0
/// );
/// assert_eq!(
///     score("<think>\n2+2\n</think>\n<answer>\n4\n</answer> Or 5?"),
///     0.0
/// );
/// assert_eq!(score("<think>2+2</think><answer>4</answer>"), 0.0);
/// ```
#[derive(Clone, Debug)]
pub struct LineFormatReward {
    name: String,
    tags: Tags,
}

impl Default for LineFormatReward {
    fn default() -> Self {
        Self {
            name: "line_format".into(),
            tags: Tags::default(),
        }
    }
}

impl LineFormatReward {
    /// Creates the reward `line_format`, with the default [`Tags`].
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
    with_tags!();
}

/// Returns the text after `<think>\n ... \n</think>\n<answer>\n` at the start of `completion`.
pub(super) fn answer_on_lines<'a>(tags: &Tags, completion: &'a str) -> Option<&'a str> {
    let thinking = completion
        .strip_prefix(tags.think_open())?
        .strip_prefix('\n')?;
    let between = format!("\n{}\n{}\n", tags.think_close(), tags.answer_open());
    behind(thinking, &[&between])
}

impl Reward for LineFormatReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let close = format!("\n{}", self.tags.answer_close());
        let answer = answer_on_lines(&self.tags, input.completion());
        Ok(verdict(
            answer.is_some_and(|answer| ends_a_line(answer, &close)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn score(completion: &str) -> f64 {
        let input = RewardInput::new("", "", completion);
        LineFormatReward::new().score(&input).unwrap().unwrap()
    }

    #[test]
    fn a_line_break_belongs_to_only_one_tag() {
        // The pattern requires two line breaks between an opening tag and its closing tag.
        for (completion, expected) in [
            ("<think>\n</think>\n<answer>\n\n</answer>", 0.0),
            ("<think>\n\n</think>\n<answer>\n</answer>", 0.0),
            ("<think>\n\n</think>\n<answer>\n\n</answer>", 1.0),
            ("<think>\n\n</think>\n<answer>\n</answer>\n</answer>", 1.0),
            (
                "<think>\na\n</think>\n<answer>\n</think>\n<answer>\nb\n</answer>",
                1.0,
            ),
            (
                "<think>\na\n</think>\n<answer>\nb\n</answer>x\n</answer>\nc",
                1.0,
            ),
            ("<think>\na\n</think>\n<answer>\nb\n</answer>\r\n", 0.0),
            ("\n<think>\na\n</think>\n<answer>\nb\n</answer>", 0.0),
        ] {
            assert_eq!(score(completion), expected, "{completion:?}");
        }
    }

    #[test]
    fn tags_and_name_can_be_set() {
        let reward = LineFormatReward::new()
            .with_name("form")
            .with_tags(Tags::new("(", ")", "[", "]").unwrap());
        let of = |text: &str| reward.score(&RewardInput::new("", "", text)).unwrap();
        assert_eq!(reward.name(), "form");
        assert_eq!(of("(\na\n)\n[\nb\n]"), Some(1.0));
        assert_eq!(of("(\na\n)\n[\nb\n)"), Some(0.0));
    }

    #[test]
    fn eight_megabytes_of_tags_are_rejected() {
        for piece in ["<think>\n", "\n</think>\n<answer>\n", "\n</answer>x", "\n"] {
            let spam = format!("<think>\n{}", piece.repeat(8_000_000 / piece.len()));
            assert_eq!(score(&spam), 0.0);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn agrees_with_the_regular_expression(pieces in prop::collection::vec(0usize..9, 0..14), right: bool) {
            const PIECES: [&str; 9] = [
                "<think>\n", "\n</think>\n", "<answer>\n", "\n</answer>", "\n", "x", "\n</think>\n<answer>\n", "</answer>", " ",
            ];
            let mut text: String = pieces.into_iter().map(|i| PIECES[i]).collect();
            if right {
                text = format!("<think>\n{text}\n</think>\n<answer>\n{text}\n</answer>");
            }
            let pattern = r"(?sm)\A<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$";
            let expected = regex::Regex::new(pattern).unwrap().is_match(&text);
            prop_assert_eq!(score(&text) == 1.0, expected, "{:?}", text);
        }
    }
}
