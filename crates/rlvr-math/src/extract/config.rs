//! The rules of extraction and their settings.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tags::Tags;

/// A way to find the answer in a completion. Serialized as its [`name`](Self::name):
/// `"answer_line"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The content of the last complete `\boxed{...}` or `\fbox{...}`, of the outermost one if they
    /// are nested. Braces must be balanced, not counting escaped ones; a box that is not closed is
    /// ignored. `\boxed 7` is a box with the content `7`.
    Boxed,
    /// The text between the last answer tags, see [`Tags::answer`].
    AnswerTag,
    /// The text after the last `answer:`, `the final answer is` or similar, up to the end of the
    /// sentence, on the same line or as a formula on the next one.
    AnswerLine,
    /// The number after the last `####` and a space, as in GSM8K, without thousands separators.
    Gsm8k,
    /// The last formula (between `$`, in `\(..\)`, `\[..\]` or a display environment) or the last
    /// numbers in plain text, whichever is later.
    LastExpression,
    /// The last number that is not part of a word, without thousands separators and with a decimal
    /// point for a decimal comma.
    LastNumber,
    /// A multiple-choice letter: in a box, after `the answer is`, at the start, or the last one
    /// that the text does not reject.
    Mcq,
    /// The text between the last balanced square brackets.
    Bracket,
    /// The content of the last fenced code block in one of the
    /// [`languages`](ExtractConfig::languages).
    Code,
    /// The whole text after the thinking.
    Whole,
}

impl Rule {
    /// Returns the name in files: `boxed`, `answer_tag`, `answer_line`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::Boxed => "boxed",
            Self::AnswerTag => "answer_tag",
            Self::AnswerLine => "answer_line",
            Self::Gsm8k => "gsm8k",
            Self::LastExpression => "last_expression",
            Self::LastNumber => "last_number",
            Self::Mcq => "mcq",
            Self::Bracket => "bracket",
            Self::Code => "code",
            Self::Whole => "whole",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the thinking, the text up to the last closing think tag, is searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Thinking {
    /// The thinking is not searched. A completion whose thinking is not closed has no answer; one
    /// without think tags is searched as a whole. The default.
    #[default]
    Skip,
    /// Like [`Skip`](Self::Skip), but a completion without a closing think tag has no answer. For
    /// prompts that end with the opening tag.
    Required,
    /// The thinking is searched like the rest.
    Search,
}

/// The settings of an [`Extractor`](crate::Extractor).
///
/// ```
/// use rlvr_math::{ExtractConfig, Extractor, Rule};
///
/// let config: ExtractConfig =
///     serde_json::from_str(r#"{"rules": ["boxed", "answer_line"]}"#)?;
/// let extractor = Extractor::new(config)?;
/// assert_eq!(
///     extractor.extract("The answer is 5.").unwrap().rule,
///     Rule::AnswerLine
/// );
/// assert_eq!(extractor.extract("I get 5."), None);
/// assert!(serde_json::from_str::<ExtractConfig>(r#"{"rule": ["boxed"]}"#).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExtractConfig {
    /// The rules in the order in which they are tried. The first one that finds an answer decides.
    /// Default: [`Rule::Boxed`], [`AnswerTag`](Rule::AnswerTag), [`AnswerLine`](Rule::AnswerLine),
    /// [`Gsm8k`](Rule::Gsm8k), [`LastExpression`](Rule::LastExpression),
    /// [`LastNumber`](Rule::LastNumber).
    pub rules: Vec<Rule>,
    /// The tags around the thinking and around the answer.
    pub tags: Tags,
    /// Whether the thinking is searched. Default: [`Thinking::Skip`].
    pub thinking: Thinking,
    /// The capital letters that [`Rule::Mcq`] accepts as choices. Default: `ABCDEFGHIJ`.
    pub choices: String,
    /// The languages after the opening fence that [`Rule::Code`] accepts, regardless of case. If
    /// empty, it accepts every block, also without a language. Default: `python`, `py`, `python3`.
    pub languages: Vec<String>,
}

impl Default for ExtractConfig {
    fn default() -> Self {
        Self {
            rules: vec![
                Rule::Boxed,
                Rule::AnswerTag,
                Rule::AnswerLine,
                Rule::Gsm8k,
                Rule::LastExpression,
                Rule::LastNumber,
            ],
            tags: Tags::default(),
            thinking: Thinking::default(),
            choices: "ABCDEFGHIJ".into(),
            languages: ["python", "py", "python3"].map(String::from).into(),
        }
    }
}

impl ExtractConfig {
    /// Returns the default configuration with the rules that need a marked answer:
    /// [`Boxed`](Rule::Boxed), [`AnswerTag`](Rule::AnswerTag), [`AnswerLine`](Rule::AnswerLine) and
    /// [`Gsm8k`](Rule::Gsm8k).
    ///
    /// Use it for training: a policy that is rewarded for the last number of its text learns to end
    /// with likely numbers.
    pub fn anchored() -> Self {
        Self::with_rules([Rule::Boxed, Rule::AnswerTag, Rule::AnswerLine, Rule::Gsm8k])
    }

    /// Returns the default configuration with these rules in this order.
    pub fn with_rules(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no rule, a rule is repeated, `choices` is empty or has
    /// anything but distinct letters from A to Z, or a language is empty or contains whitespace or
    /// a backquote.
    pub fn validate(&self) -> Result<()> {
        if self.rules.is_empty() {
            return Err(Error::config("rules", "[]", "at least one rule"));
        }
        for (i, rule) in self.rules.iter().enumerate() {
            if self.rules[..i].contains(rule) {
                let expected = "each rule once";
                return Err(Error::config("rules", format!("{rule} twice"), expected));
            }
        }
        let letters = self.choices.as_bytes();
        let distinct = (1..letters.len()).all(|i| !letters[..i].contains(&letters[i]));
        if letters.is_empty() || !distinct || !letters.iter().all(u8::is_ascii_uppercase) {
            let expected = "capital letters from A to Z, each once, at least one";
            return Err(Error::config(
                "choices",
                format!("{:?}", self.choices),
                expected,
            ));
        }
        for language in &self.languages {
            if language.is_empty() || language.contains(|c: char| c.is_whitespace() || c == '`') {
                let expected = "names without whitespace and backquotes, not empty";
                return Err(Error::config(
                    "languages",
                    format!("{language:?}"),
                    expected,
                ));
            }
        }
        Ok(())
    }
}
