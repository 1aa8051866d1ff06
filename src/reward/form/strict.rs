//! The strict format: thinking, then an answer, and nothing else.

use super::verdict;
use crate::reward::setters::{with_name, with_tags};
use crate::reward::{Reward, RewardError, RewardInput, Tags};

/// Scores 1 if the completion is exactly `<think>...</think><answer>...</answer>`, else 0.
///
/// Each tag occurs exactly once, in this order, with only whitespace between and around the pairs.
/// The answer has a visible character. The thinking may be blank, unless
/// [`with_require_thinking`](Self::with_require_thinking) is set. The time is linear in the text.
/// This is the format of DeepSeek-R1 (arXiv 2501.12948, table 1), read strictly:
/// [`LineFormatReward`](super::LineFormatReward) allows further tags and lines, and
/// [`ThinkFormatReward`](super::ThinkFormatReward) checks only the thinking.
///
/// If the prompt ends with the opening tag, the completion does not contain it and never has the
/// format: let the policy write the tag. A tag that is quoted in the thinking counts like any
/// other.
///
/// ```
/// use rlvr::reward::{FormatReward, Reward, RewardInput};
///
/// let format = FormatReward::new();
/// let score = |completion| {
///     format
///         .score(&RewardInput::new("", "", completion))
///         .unwrap()
///         .unwrap()
/// };
/// assert_eq!(score("<think>2+2</think>\n<answer>4</answer>\n"), 1.0);
/// assert_eq!(score("<think></think><answer>4</answer>"), 1.0);
/// assert_eq!(score("<answer>4</answer>"), 0.0);
/// assert_eq!(
///     score("<think>2+2</think><answer>4</answer> I am sure."),
///     0.0
/// );
/// assert_eq!(
///     score("<think>2+2</think><answer>4</answer><answer>5</answer>"),
///     0.0
/// );
/// ```
#[derive(Clone, Debug)]
pub struct FormatReward {
    name: String,
    tags: Tags,
    require_thinking: bool,
}

impl Default for FormatReward {
    fn default() -> Self {
        Self {
            name: "format".into(),
            tags: Tags::default(),
            require_thinking: false,
        }
    }
}

impl FormatReward {
    /// Creates the reward `format`, with the default [`Tags`], which accepts blank thinking.
    pub fn new() -> Self {
        Self::default()
    }

    with_name!();
    with_tags!();

    /// Sets whether the thinking must have a visible character (`true`) or may be blank (`false`,
    /// the default).
    #[must_use]
    pub fn with_require_thinking(mut self, required: bool) -> Self {
        self.require_thinking = required;
        self
    }

    fn holds(&self, completion: &str) -> bool {
        // Together with the order below, a single occurrence of each tag leaves no room for a tag
        // inside a part.
        let once = |tag: &str| completion.matches(tag).take(2).count() == 1;
        let tags = &self.tags;
        let all = [
            tags.think_open(),
            tags.think_close(),
            tags.answer_open(),
            tags.answer_close(),
        ];
        all.into_iter().all(once)
            && self.parts(completion).is_some_and(|(thinking, answer)| {
                !(blank(answer) || self.require_thinking && blank(thinking))
            })
    }

    /// The thinking and the answer of a text that has nothing else.
    fn parts<'a>(&self, completion: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = completion.trim().strip_prefix(self.tags.think_open())?;
        let (thinking, rest) = rest.split_once(self.tags.think_close())?;
        let rest = rest.trim_start().strip_prefix(self.tags.answer_open())?;
        let answer = rest.strip_suffix(self.tags.answer_close())?;
        Some((thinking, answer))
    }
}

/// Whether a text has no visible character.
fn blank(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_whitespace() || c.is_control() || is_invisible(c))
}

/// Unicode's default ignorable code points, and the blank Braille pattern.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

impl Reward for FormatReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        Ok(verdict(self.holds(input.completion())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn score(reward: &FormatReward, completion: &str) -> f64 {
        let input = RewardInput::new("", "", completion);
        reward.score(&input).unwrap().unwrap()
    }

    #[test]
    fn only_the_exact_format_is_accepted() {
        for (completion, expected) in [
            ("<think>a</think><answer>b</answer>", 1.0),
            ("<think>a</think>\n\n <answer>b</answer>", 1.0),
            ("\n<think>\n</think>\t<answer> b </answer> ", 1.0),
            ("<think>a<b</think><answer>1 < 2</answer>", 1.0),
            ("", 0.0),
            ("<think>a</think><answer></answer>", 0.0),
            ("<think>a</think><answer> \n</answer>", 0.0),
            ("<think>a</think>so<answer>b</answer>", 0.0),
            ("so <think>a</think><answer>b</answer>", 0.0),
            ("<think>a</think><answer>b</answer>.", 0.0),
            ("<think>a</think><answer>b", 0.0),
            ("<think>a<answer>b</answer></think>", 0.0),
            ("<answer>b</answer><think>a</think>", 0.0),
            ("a</think><answer>b</answer>", 0.0),
            ("<think>a<think></think><answer>b</answer>", 0.0),
            ("<think>a</think></think><answer>b</answer>", 0.0),
            ("<think>a</think><answer><answer>b</answer>", 0.0),
            ("<think>a</think><answer>b</answer></answer>", 0.0),
            ("<think>a</think><answer>b<think></answer>", 0.0),
            ("<think>a <answer></think><answer>b</answer>", 0.0),
            // Invisible characters are not an answer.
            ("<think>a</think><answer>\u{200b}</answer>", 0.0),
            ("<think>a</think><answer>\u{2800} \u{feff}\0</answer>", 0.0),
            ("<think>a</think><answer>\u{200b}4</answer>", 1.0),
            ("<think>a</think><answer><</answer>", 1.0),
            ("<THINK>a</THINK><answer>b</answer>", 0.0),
        ] {
            assert_eq!(
                score(&FormatReward::new(), completion),
                expected,
                "{completion}"
            );
        }
    }

    #[test]
    fn thinking_can_be_required_and_tags_can_be_set() {
        let strict = FormatReward::new()
            .with_require_thinking(true)
            .with_name("strict");
        assert_eq!(strict.name(), "strict");
        assert_eq!(score(&strict, "<think> \n</think><answer>b</answer>"), 0.0);
        let invisible = "<think>\u{200b}\u{ad}</think><answer>b</answer>";
        assert_eq!(score(&strict, invisible), 0.0);
        assert_eq!(score(&strict, "<think>a</think><answer>b</answer>"), 1.0);
        let other = FormatReward::new().with_tags(Tags::new("(", ")", "[", "]").unwrap());
        assert_eq!(score(&other, "(a) [b]"), 1.0);
        assert_eq!(score(&other, "(a) [b] (c)"), 0.0);
        assert_eq!(score(&other, "<think>a</think><answer>b</answer>"), 0.0);
    }

    #[test]
    fn eight_megabytes_of_tags_are_read() {
        // A quadratic reader would take minutes.
        for tag in ["<think>", "</think>", "<answer>", "<"] {
            let spam = tag.repeat(8_000_000 / tag.len());
            assert_eq!(score(&FormatReward::new(), &spam), 0.0);
        }
        let long = format!("<think>{}</think><answer>b</answer>", "<".repeat(8_000_000));
        assert_eq!(score(&FormatReward::new(), &long), 1.0);
    }

    const PIECES: [&str; 10] = [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        " ",
        "\n",
        "x",
        "<",
        "é",
        ">",
    ];

    /// The definition, literally: the positions of all tags, then the text between them.
    fn naive(text: &str, require_thinking: bool) -> bool {
        let positions = |tag: &str| -> Vec<usize> {
            let starts =
                (0..text.len()).filter(|&i| text.as_bytes()[i..].starts_with(tag.as_bytes()));
            starts.collect()
        };
        let found: Vec<Vec<usize>> = PIECES[..4].iter().map(|tag| positions(tag)).collect();
        if found.iter().any(|positions| positions.len() != 1) {
            return false;
        }
        let at: Vec<usize> = found.iter().map(|positions| positions[0]).collect();
        if !at.is_sorted() {
            return false;
        }
        let blank = |from: usize, to: usize| text[from..to].chars().all(char::is_whitespace);
        let end = |i: usize| at[i] + PIECES[i].len();
        blank(0, at[0])
            && blank(end(1), at[2])
            && blank(end(3), text.len())
            && !blank(end(2), at[3])
            && !(require_thinking && blank(end(0), at[1]))
    }

    /// Almost valid texts: the four tags in order with noise between them, so that both verdicts
    /// are frequent.
    fn nearly() -> impl Strategy<Value = String> {
        let noise = || prop_oneof![4 => Just(4usize), 2 => Just(6), 1 => 0usize..10];
        prop::collection::vec(noise(), 5).prop_map(|noise| {
            let mut text = PIECES[noise[0]].to_string();
            for i in 0..4 {
                text += PIECES[i];
                text += PIECES[noise[i + 1]];
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn agrees_with_the_definition_on_random_tags(
            soup in prop::collection::vec(0usize..10, 0..12), nearly in nearly(), required: bool,
        ) {
            let soup: String = soup.into_iter().map(|i| PIECES[i]).collect();
            let reward = FormatReward::new().with_require_thinking(required);
            for text in [soup, nearly] {
                prop_assert_eq!(score(&reward, &text) == 1.0, naive(&text, required), "{}", text);
            }
        }
    }
}
