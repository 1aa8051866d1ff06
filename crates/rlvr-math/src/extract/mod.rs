//! The answer in a free-form response: where it stands, and by which rule it was found.
//!
//! Every rule is a literal scan: nothing is compiled from the text, run or expanded (`\def\boxed` redefines nothing). Each
//! reads the text a fixed number of times, without recursion, so that the time is linear in it, whatever it is.

mod bracket;
mod choice;
mod config;
mod fence;

pub use config::{ExtractConfig, Rule, Thinking};

use std::cell::OnceCell;

use crate::error::Result;
use crate::tags::Tags;
use crate::text::formulas::{self, Formula};
use crate::text::{boxes, expression, line, number};

/// An answer, and how it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extracted {
    /// The answer, without whitespace at its ends (but for [`Rule::Code`], which leaves the program as it is). It may be empty:
    /// an empty box was given as the answer.
    pub text: String,
    /// The rule that found it.
    pub rule: Rule,
    /// If the last box ends a list of boxes, `\boxed{1} and \boxed{2}`: all of them, `1, 2`.
    ///
    /// Whoever takes the last box alone rewards naming every candidate; compare the list.
    pub list: Option<String>,
}

impl Extracted {
    /// The list, if there is one, else the text.
    pub fn all(&self) -> &str {
        self.list.as_deref().unwrap_or(&self.text)
    }
}

/// Finds the answer in a completion, see [`ExtractConfig`].
///
/// ```
/// use rlvr_math::{Extractor, Rule};
///
/// let extractor = Extractor::default();
/// let found = extractor.extract("<think>\\boxed{3}?</think> So $x = 4$, \\boxed{\\frac{1}{2}}.").unwrap();
/// assert_eq!((found.text.as_str(), found.rule), ("\\frac{1}{2}", Rule::Boxed));
/// let found = extractor.extract("There are 3 of them. The answer is $12$ apples.").unwrap();
/// assert_eq!((found.text.as_str(), found.rule), ("$12$ apples", Rule::AnswerLine));
/// let found = extractor.extract("Adding up, she has 12 apples.").unwrap();
/// assert_eq!((found.text.as_str(), found.rule), ("12", Rule::LastExpression));
///
/// // One rule and nothing else.
/// let tag = Extractor::from(Rule::AnswerTag);
/// assert_eq!(tag.extract("<answer> 12 </answer>").unwrap().text, "12");
/// assert_eq!(tag.extract("The answer is 12."), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extractor {
    config: ExtractConfig,
}

impl From<Rule> for Extractor {
    /// This rule alone, with the other defaults.
    fn from(rule: Rule) -> Self {
        Self {
            config: ExtractConfig::with_rules([rule]),
        }
    }
}

impl Extractor {
    /// An extractor by this configuration.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if there is no rule, a rule is given twice, or the choices or languages are not what
    /// their fields say.
    pub fn new(config: ExtractConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// The extractor of [`ExtractConfig::anchored`].
    pub fn anchored() -> Self {
        Self {
            config: ExtractConfig::anchored(),
        }
    }

    /// The same extractor with other tags.
    #[must_use]
    pub fn tags(mut self, tags: Tags) -> Self {
        self.config.tags = tags;
        self
    }

    /// The configuration.
    pub fn config(&self) -> &ExtractConfig {
        &self.config
    }

    /// The answer by the first rule that finds one; `None` if none does.
    pub fn extract(&self, completion: &str) -> Option<Extracted> {
        let text = match self.config.thinking {
            Thinking::Search => completion,
            Thinking::Skip => self.config.tags.spoken(completion),
            Thinking::Required if !self.config.tags.ends_thinking(completion) => return None,
            Thinking::Required => self.config.tags.spoken(completion),
        };
        let search = Search::new(&self.config, text);
        self.config.rules.iter().find_map(|rule| search.by(*rule))
    }

    /// What one rule finds in the whole text, thinking included, whatever the configured rules are.
    pub fn by_rule(&self, rule: Rule, text: &str) -> Option<String> {
        Search::new(&self.config, text)
            .by(rule)
            .map(|found| found.text)
    }
}

/// A text that is searched; its formulas are looked for once, if a rule needs them.
struct Search<'a> {
    config: &'a ExtractConfig,
    text: &'a str,
    formulas: OnceCell<Vec<Formula>>,
}

impl<'a> Search<'a> {
    fn new(config: &'a ExtractConfig, text: &'a str) -> Self {
        Self {
            config,
            text,
            formulas: OnceCell::new(),
        }
    }

    fn formulas(&self) -> &[Formula] {
        self.formulas.get_or_init(|| formulas::formulas(self.text))
    }

    fn by(&self, rule: Rule) -> Option<Extracted> {
        let Self { config, text, .. } = *self;
        let mut list = None;
        let text = match rule {
            Rule::Boxed => boxes::last_boxes(text).and_then(|found| {
                list = found.list();
                found.items.last().map(|last| last.to_string())
            }),
            Rule::AnswerTag => config.tags.last_pair(text).map(trimmed),
            Rule::AnswerLine => line::answer_line(text, self.formulas()),
            Rule::Gsm8k => number::hash_number(text),
            Rule::LastExpression => expression::last_expression(text, self.formulas()),
            Rule::LastNumber => number::last_number(text),
            Rule::Mcq => choice::choice(text, &config.choices, self.formulas()).map(String::from),
            Rule::Bracket => bracket::last_bracket(text).map(trimmed),
            Rule::Code => fence::last_block(text, &config.languages).map(String::from),
            Rule::Whole => Some(trimmed(text)),
        }?;
        Some(Extracted { text, rule, list })
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_string()
}
