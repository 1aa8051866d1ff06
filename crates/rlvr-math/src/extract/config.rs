//! Where an answer is looked for: the rules, their order, and what they look at.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tags::Tags;

/// One way to find the answer in a completion. In files it is written in small letters: `"answer_line"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Rule {
    /// The last complete `\boxed{...}` or `\fbox{...}`, the outermost of nested ones, braces balanced and escaped braces
    /// not counted. A box that is never closed is none. `\boxed 7` is the box of `7`.
    Boxed,
    /// The text inside the last answer tags, see [`Tags::answer`].
    AnswerTag,
    /// What follows `answer:`, `the final answer is` and their like, on the same line or as the formula below it, up to the
    /// end of the sentence. The last such place counts.
    AnswerLine,
    /// The number after the last `####` and a blank, as in GSM8K; thousands separators are taken out.
    Gsm8k,
    /// The last formula between `$`, `\(`, `\[` or in a display environment, or the last numbers in plain text, whichever
    /// stands later.
    LastExpression,
    /// The last number that is not part of a word; thousands separators are taken out, a decimal comma becomes a point.
    LastNumber,
    /// A multiple-choice letter: in a box, after `the answer is`, at the start, or the last one that is not refused.
    Mcq,
    /// The text inside the last square brackets that are balanced.
    Bracket,
    /// The text of the last fenced block in one of the [`languages`](ExtractConfig::languages).
    Code,
    /// Everything after the thinking.
    Whole,
}

impl Rule {
    /// The name in files: `boxed`, `answer_tag`, `answer_line`, ...
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

/// What is done with the thinking, the text up to the last closing think tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Thinking {
    /// It is not searched, and thinking that does not end has no answer after it. Without think tags everything is
    /// searched. The default.
    #[default]
    Skip,
    /// Like `skip`, and a completion without a closing think tag has no answer: for prompts that end with the opening tag.
    Required,
    /// It is searched like the rest.
    Search,
}

/// Where an answer is looked for.
///
/// ```
/// use rlvr_math::{ExtractConfig, Extractor, Rule};
///
/// let config: ExtractConfig = serde_json::from_str(r#"{"rules": ["boxed", "answer_line"]}"#)?;
/// let extractor = Extractor::new(config)?;
/// assert_eq!(extractor.extract("The answer is 5.").unwrap().rule, Rule::AnswerLine);
/// assert_eq!(extractor.extract("I get 5."), None);
/// assert!(serde_json::from_str::<ExtractConfig>(r#"{"rule": ["boxed"]}"#).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExtractConfig {
    /// The rules, in the order in which they are tried; the first that finds something decides. Default: [`Rule::Boxed`],
    /// [`AnswerTag`](Rule::AnswerTag), [`AnswerLine`](Rule::AnswerLine), [`Gsm8k`](Rule::Gsm8k),
    /// [`LastExpression`](Rule::LastExpression), [`LastNumber`](Rule::LastNumber).
    pub rules: Vec<Rule>,
    /// The tags around the thinking and around the answer.
    pub tags: Tags,
    /// What is done with the thinking. Default: it is not searched.
    pub thinking: Thinking,
    /// The letters that [`Rule::Mcq`] takes for choices, in capitals. Default: `ABCDEFGHIJ`.
    pub choices: String,
    /// The names after the opening fence that [`Rule::Code`] accepts, whatever their case. Empty: every fence, also one
    /// without a name. Default: `python`, `py`, `python3`.
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
    /// The rules by which an answer is *given*: box, tag, line, `####`. What is merely the last number of a text does not count.
    ///
    /// For training. A policy that is paid for its last number learns to end with likely numbers.
    pub fn anchored() -> Self {
        Self::with_rules([Rule::Boxed, Rule::AnswerTag, Rule::AnswerLine, Rule::Gsm8k])
    }

    /// These rules in this order, and the other defaults.
    pub fn with_rules(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no rule, a rule is given twice, or the choices or languages are not what their fields say.
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
