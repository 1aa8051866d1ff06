//! The verifier: compares two texts.

use super::comparer::Comparer;
use super::letter;
use super::precision::Test;
use super::verdict::{Comparison, Verdict};
use super::words;
use crate::config::MathConfig;
use crate::error::Result;
use crate::grammar::reading::{Reading, readings};
use crate::node::arena::Arena;
use crate::node::budget::{Budget, Res, Stop};
use crate::number::modular::{self, mix};
use crate::text::source;

/// The seed of the primes. The points of a comparison also depend on its texts.
const SEED: u64 = 0x726c_7672;

/// Compares an answer in LaTeX or plain text with a gold answer.
///
/// ```
/// use rlvr_math::{MathConfig, MathVerifier, Verdict};
///
/// let verifier = MathVerifier::new(MathConfig::default())?;
/// let verdict = |gold, answer| verifier.compare(gold, answer).verdict;
///
/// assert_eq!(verdict(r"\frac{1}{2}", "0.5"), Verdict::Equal);
/// assert_eq!(verdict(r"$\{1,2\}$", "2, 1"), Verdict::Equal);
/// assert_eq!(verdict("(-1,3)", "-1<x<3"), Verdict::Equal);
/// assert_eq!(verdict(r"\sin^2 x + \cos^2 x", "1"), Verdict::Equal);
/// assert_eq!(verdict("(1,2)", "(2,1)"), Verdict::Different);
/// assert_eq!(verdict("5", "9^{9^{9^9}}"), Verdict::Undecided);
/// # Ok::<(), rlvr_math::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MathVerifier {
    config: MathConfig,
    primes: [u64; 2],
}

impl Default for MathVerifier {
    fn default() -> Self {
        let config = MathConfig::default();
        Self {
            config,
            primes: modular::draw_primes(SEED),
        }
    }
}

impl MathVerifier {
    /// Creates a verifier with these conventions and limits.
    ///
    /// # Errors
    /// Returns the error of [`MathConfig::validate`].
    pub fn new(config: MathConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            primes: modular::draw_primes(SEED),
        })
    }

    /// Sets [`MathConfig::require_evaluated`].
    #[must_use]
    pub fn with_require_evaluated(mut self, required: bool) -> Self {
        self.config.require_evaluated = required;
        self
    }

    /// Returns the conventions and limits.
    pub fn config(&self) -> &MathConfig {
        &self.config
    }

    /// Compares `answer` with `gold`.
    ///
    /// Both may be plain, between dollar signs, in `\boxed{}`, or in a sentence. Neither needs to
    /// be trusted: any two texts have a verdict, in bounded time, memory and stack, and the same
    /// one on every machine.
    pub fn compare(&self, gold: &str, answer: &str) -> Comparison {
        let (gold, answer) = (gold.trim(), answer.trim());
        if gold.is_empty() || answer.is_empty() {
            return Comparison::different("the gold or the answer is empty");
        }
        if no_number(gold) {
            return Comparison::different("the gold is not a number");
        }
        if gold == answer {
            return Comparison::equal("the same text");
        }
        if gold.len().max(answer.len()) > self.config.max_bytes {
            return Comparison::undecided("over the limit of length");
        }
        let mut outcome = Outcome::default();
        for gold in source::candidates(gold, true) {
            for answer in source::candidates(answer, false) {
                outcome.add(self.compare_expressions(&gold, &answer));
                if outcome.is_equal() {
                    return outcome.take();
                }
            }
        }
        outcome.take()
    }

    /// Compares two candidates as text, as multiple-choice letters, as words and as mathematics.
    fn compare_expressions(&self, gold: &str, answer: &str) -> Comparison {
        if no_number(gold) {
            return Comparison::different("the gold is not a number");
        }
        let plain = |text: &str| squeeze(&words::unwrapped(text));
        if !plain(gold).is_empty()
            && (squeeze(gold) == squeeze(answer) || plain(gold) == plain(answer))
        {
            return Comparison::equal("the same text but for layout");
        }
        if let Some(letter) = letter::gold(gold)
            && let Some(chosen) = letter::answer(answer)
        {
            return if letter == chosen {
                Comparison::equal(format!("choice {letter}"))
            } else {
                Comparison::different(format!("choice {chosen} is not {letter}"))
            };
        }
        for run_is_gold in [true, false] {
            if let (Some(g), Some(a)) = (
                letter::set(gold, run_is_gold),
                letter::set(answer, !run_is_gold),
            ) && g == a
            {
                return Comparison::equal("the same choices");
            }
        }
        let (g_words, a_words) = (words::words(gold), words::words(answer));
        if let (Some(g), Some(a)) = (&g_words, &a_words) {
            if words::same(g, a) {
                return Comparison::equal("the same words");
            }
            if g.certain && a.certain {
                return Comparison::different("different words");
            }
        }
        // As mathematics, `cat` and `act` would be the same product.
        if let (Some(g), Some(a)) = (words::short_word(gold), words::short_word(answer)) {
            return if g == a {
                Comparison::equal("the same word")
            } else {
                Comparison::different("different words")
            };
        }
        let as_set = |words: &Option<words::Words>| match words.as_ref().map(|w| w.key.as_str()) {
            Some("\u{2205}") => Some("\\emptyset"),
            Some("\u{211d}") => Some("\\mathbb{R}"),
            _ => None,
        };
        let certain = |words: &Option<words::Words>| words.as_ref().is_some_and(|w| w.certain);
        let gold_math = as_set(&g_words).unwrap_or(gold);
        let answer_math = as_set(&a_words).unwrap_or(answer);
        if (certain(&g_words) && as_set(&g_words).is_none())
            || (certain(&a_words) && as_set(&a_words).is_none())
        {
            return Comparison::different("words and mathematics");
        }
        self.mathematics(gold_math, answer_math)
            .unwrap_or_else(|stop| match stop {
                Stop::Limit(what) => Comparison::undecided(format!("over the limit of {what}")),
                Stop::Syntax(what) => Comparison::undecided(format!("not parsed: {what}")),
            })
    }

    fn mathematics(&self, gold: &str, answer: &str) -> Res<Comparison> {
        let budget = Budget::new(&self.config);
        let mut arena = Arena::new(&budget);
        let golds = readings(&mut arena, &self.config, gold)?;
        let answers = readings(&mut arena, &self.config, answer)?;
        let seed = mix(modular::hash_text(gold), modular::hash_text(answer)) ^ SEED;
        let test = Test {
            primes: self.primes,
            seed,
            precision: self.config.precision,
        };
        let mut comparer = Comparer {
            arena: &mut arena,
            config: &self.config,
            test,
        };
        let mut outcome = Outcome::default();
        for g in &golds {
            for a in &answers {
                if !compatible(g, a) {
                    continue;
                }
                if self.config.require_evaluated
                    && comparer.is_constant(g.id)
                    && !a.operations.within(g.operations)
                {
                    outcome.add(Comparison::different("the answer is not evaluated"));
                    continue;
                }
                outcome.add(comparer.compare(g.id, a.id, 0).or_else(|stop| match stop {
                    Stop::Limit(what) => Err(Stop::Limit(what)),
                    Stop::Syntax(what) => Ok(Comparison::undecided(what)),
                })?);
                if outcome.is_equal() {
                    return Ok(outcome.take());
                }
            }
        }
        Ok(outcome.take())
    }
}

/// Returns whether a text is what a failed computation prints.
fn no_number(text: &str) -> bool {
    let text = text.trim_matches(['$', ' ']);
    text.eq_ignore_ascii_case("nan") || text == "zoo"
}

/// Returns whether at most one of the readings is lenient.
fn compatible(gold: &Reading, answer: &Reading) -> bool {
    !(gold.lenient && answer.lenient)
}

/// The result of several comparisons: the first that is equal, else undecided, else different.
#[derive(Default)]
struct Outcome(Option<Comparison>);

impl Outcome {
    fn add(&mut self, next: Comparison) {
        let rank = |v: Verdict| match v {
            Verdict::Equal => 2,
            Verdict::Undecided => 1,
            Verdict::Different => 0,
        };
        if self
            .0
            .as_ref()
            .is_none_or(|old| rank(next.verdict) > rank(old.verdict))
        {
            self.0 = Some(next);
        }
    }

    fn is_equal(&self) -> bool {
        self.0.as_ref().is_some_and(Comparison::is_equal)
    }

    fn take(self) -> Comparison {
        self.0
            .unwrap_or_else(|| Comparison::undecided("no reading"))
    }
}

/// Removes whitespace and the sizes of brackets. Keeps whitespace between letters or digits.
fn squeeze(text: &str) -> String {
    let text = text
        .replace("\\left.", "")
        .replace("\\right.", "")
        .replace("\\left", "")
        .replace("\\right", "")
        .replace('$', "");
    let mut out = String::with_capacity(text.len());
    let mut blank = false;
    for c in text.chars() {
        if c.is_whitespace() {
            blank = true;
            continue;
        }
        if blank && c.is_alphanumeric() && out.chars().last().is_some_and(char::is_alphanumeric) {
            out.push(' ');
        }
        blank = false;
        out.push(c);
    }
    out
}
