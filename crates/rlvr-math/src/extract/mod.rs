//! Extraction of the answer from a free-form response.
//!
//! Every rule is a literal scan: the text is not compiled, run or expanded (`\def\boxed` has no
//! effect). Each rule reads the text a fixed number of times, without recursion, so that the time
//! is linear in its length.

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

/// An answer, and the rule that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Extracted {
    /// The answer without whitespace at its ends ([`Rule::Code`] keeps the whitespace). It is empty
    /// if, for example, the box is.
    pub text: String,
    /// The rule that found it.
    pub rule: Rule,
    /// All boxes, `1, 2`, if the last one ends a list of boxes, `\boxed{1} and \boxed{2}`.
    ///
    /// Compare the list rather than `text`: otherwise a response that boxes every candidate is
    /// rewarded if the last one is right.
    pub list: Option<String>,
}

impl Extracted {
    /// Returns the list if there is one, else the text.
    pub fn all(&self) -> &str {
        self.list.as_deref().unwrap_or(&self.text)
    }
}

/// Finds the answer in a completion by the rules of an [`ExtractConfig`].
///
/// ```
/// use rlvr_math::{Extractor, Rule};
///
/// let extractor = Extractor::default();
/// let found = extractor
///     .extract("<think>\\boxed{3}?</think> So $x = 4$, \\boxed{\\frac{1}{2}}.")
///     .unwrap();
/// assert_eq!(
///     (found.text.as_str(), found.rule),
///     ("\\frac{1}{2}", Rule::Boxed)
/// );
/// let found = extractor
///     .extract("There are 3 of them. The answer is $12$ apples.")
///     .unwrap();
/// assert_eq!(
///     (found.text.as_str(), found.rule),
///     ("$12$ apples", Rule::AnswerLine)
/// );
/// let found = extractor.extract("Adding up, she has 12 apples.").unwrap();
/// assert_eq!(
///     (found.text.as_str(), found.rule),
///     ("12", Rule::LastExpression)
/// );
///
/// // A single rule.
/// let tag = Extractor::from(Rule::AnswerTag);
/// assert_eq!(tag.extract("<answer> 12 </answer>").unwrap().text, "12");
/// assert_eq!(tag.extract("The answer is 12."), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extractor {
    config: ExtractConfig,
}

impl From<Rule> for Extractor {
    /// Creates an extractor with a single rule and the other defaults.
    fn from(rule: Rule) -> Self {
        Self {
            config: ExtractConfig::with_rules([rule]),
        }
    }
}

impl Extractor {
    /// Creates an extractor.
    ///
    /// # Errors
    /// Returns the error of [`ExtractConfig::validate`].
    pub fn new(config: ExtractConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { config })
    }

    /// Creates an extractor with the rules of [`ExtractConfig::anchored`].
    pub fn anchored() -> Self {
        Self {
            config: ExtractConfig::anchored(),
        }
    }

    /// Sets the tags.
    #[must_use]
    pub fn tags(mut self, tags: Tags) -> Self {
        self.config.tags = tags;
        self
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ExtractConfig {
        &self.config
    }

    /// Returns the answer of the first rule that finds one, `None` if no rule does.
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

    /// Returns the answer that one rule, configured or not, finds in the whole text, including the
    /// thinking.
    pub fn by_rule(&self, rule: Rule, text: &str) -> Option<String> {
        Search::new(&self.config, text)
            .by(rule)
            .map(|found| found.text)
    }
}

/// A text to search. Its formulas are found once, when a rule first needs them.
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
