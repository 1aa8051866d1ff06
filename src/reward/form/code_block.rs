//! The format of an answer that contains a program.

use super::lines::answer_on_lines;
use super::{behind, ends_a_line, verdict};
use crate::reward::setters::{with_name, with_tags};
use crate::reward::{Reward, RewardError, RewardInput, Tags};

/// Scores 1 if the completion has the format of [`LineFormatReward`](super::LineFormatReward) and
/// its answer contains a fenced code block in the right language, else 0: `code_format_reward` of
/// open-r1.
///
/// ````text
/// ^<think>\n.*?\n</think>\n<answer>\n.*?```LANGUAGE.*?```.*?\n</answer>$
/// ````
///
/// As in open-r1, the language is a prefix of what follows the fence (`py` accepts a block of
/// `python`), and case matters. Unlike there, it is plain text: `c++` is a language, not a pattern.
/// [`with_language_key`](Self::with_language_key) reads the language from the problem. The time is
/// linear in the text.
///
/// Source: huggingface/open-r1, `src/open_r1/rewards.py`, `get_code_format_reward`.
///
/// ````
/// use rlvr::reward::{CodeFormatReward, Reward, RewardInput};
///
/// let format = CodeFormatReward::new("python")?;
/// let score = |answer| {
///     let completion = format!("<think>\nEasy.\n</think>\n<answer>\n{answer}\n</answer>");
///     format.score(&RewardInput::new("", "", completion)).unwrap().unwrap()
/// };
/// assert_eq!(score("```python\nprint(1)\n```"), 1.0);
/// assert_eq!(score("```rust\nfn main() {}\n```"), 0.0);
/// assert_eq!(score("print(1)"), 0.0);
/// # Ok::<(), rlvr::Error>(())
/// ````
#[derive(Clone, Debug)]
pub struct CodeFormatReward {
    name: String,
    tags: Tags,
    language: String,
    language_key: Option<String>,
}

impl CodeFormatReward {
    /// Creates the reward `code_format`, with the default [`Tags`].
    ///
    /// # Errors
    /// Returns [`Error::Config`](crate::Error::Config) if the language is empty or contains
    /// whitespace or a backtick.
    pub fn new(language: impl Into<String>) -> crate::Result<Self> {
        let language = language.into();
        if !is_language(&language) {
            return Err(crate::Error::config(
                "language",
                format!("{language:?}"),
                EXPECTED,
            ));
        }
        Ok(Self {
            name: "code_format".into(),
            tags: Tags::default(),
            language,
            language_key: None,
        })
    }

    with_name!();
    with_tags!();

    /// Reads the language from `metadata[key]` if the problem has it. [`score`](Reward::score) then
    /// returns an error if it is not a language.
    #[must_use]
    pub fn with_language_key(mut self, key: impl Into<String>) -> Self {
        self.language_key = Some(key.into());
        self
    }

    fn language<'a>(&'a self, input: &'a RewardInput) -> Result<&'a str, RewardError> {
        let found = self
            .language_key
            .as_ref()
            .and_then(|key| Some((key, input.problem.metadata.get(key)?)));
        let Some((key, value)) = found else {
            return Ok(&self.language);
        };
        let language = value.as_str().filter(|language| is_language(language));
        language.ok_or_else(|| format!("`{key}` is {value}; expected {EXPECTED}").into())
    }
}

const EXPECTED: &str = "the name of a language, without whitespace or backticks";

fn is_language(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '`')
}

impl Reward for CodeFormatReward {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        let open = format!("```{}", self.language(input)?);
        let close = format!("\n{}", self.tags.answer_close());
        let holds = answer_on_lines(&self.tags, input.completion())
            .and_then(|answer| behind(answer, &[&open, "```"]))
            .is_some_and(|rest| ends_a_line(rest, &close));
        Ok(verdict(holds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(answer: &str) -> RewardInput {
        let text = format!("<think>\na\n</think>\n<answer>\n{answer}\n</answer>");
        RewardInput::new("", "", text)
    }

    #[test]
    fn the_code_block_must_be_closed_inside_the_answer() {
        let python = CodeFormatReward::new("python").unwrap();
        for (answer, expected) in [
            ("```python\n1\n```", 1.0),
            ("so:\n```python\n1\n```\nthat is all", 1.0),
            ("```python```", 1.0),
            ("```python3\n1\n```", 1.0),
            ("```rust\n1\n```\n```python\n1\n```", 1.0),
            ("```python\n1", 0.0),
            ("```Python\n1\n```", 0.0),
            ("``` python\n1\n```", 0.0),
        ] {
            assert_eq!(
                python.score(&input(answer)).unwrap(),
                Some(expected),
                "{answer}"
            );
        }
        let outside = "<think>\n```python\n1\n```\n</think>\n<answer>\n1\n</answer>";
        assert_eq!(
            python.score(&RewardInput::new("", "", outside)).unwrap(),
            Some(0.0)
        );
    }

    #[test]
    fn the_language_is_plain_text_and_can_come_from_the_problem() {
        assert!(CodeFormatReward::new("").is_err() && CodeFormatReward::new("a b").is_err());
        let cpp = CodeFormatReward::new("c++")
            .unwrap()
            .with_language_key("language")
            .with_name("fence");
        assert_eq!(cpp.name(), "fence");
        assert_eq!(cpp.score(&input("```c++\n1\n```")).unwrap(), Some(1.0));
        assert_eq!(cpp.score(&input("```ccc\n1\n```")).unwrap(), Some(0.0));
        let rust = input("```rust\n1\n```").with_metadata("language", "rust");
        assert_eq!(cpp.score(&rust).unwrap(), Some(1.0));
        let broken = rust.with_metadata("language", 7);
        let error = cpp.score(&broken).unwrap_err().to_string();
        assert_eq!(error, format!("`language` is 7; expected {EXPECTED}"));
    }
}
