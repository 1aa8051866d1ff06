//! The tokens of a text outside of its formulas, and which of them are mathematics.

use super::formulas::Formula;
use super::number::number_at;

/// Names of functions and constants of more than one letter, and words that join answers:
/// mathematics, not words.
const NAMES: [&str; 39] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh",
    "log", "ln", "lg", "exp", "sqrt", "cbrt", "abs", "min", "max", "gcd", "lcm", "mod", "floor",
    "ceil", "pi", "theta", "alpha", "beta", "phi", "inf", "infty", "infinity", "oo", "and", "or",
    "union", "cup",
];

/// Words before a number that make it a label: "step 3" is not an answer.
const LABELS: [&str; 27] = [
    "step",
    "steps",
    "case",
    "part",
    "equation",
    "eq",
    "eqn",
    "example",
    "figure",
    "fig",
    "note",
    "section",
    "method",
    "option",
    "line",
    "problem",
    "question",
    "exercise",
    "theorem",
    "lemma",
    "chapter",
    "page",
    "table",
    "approach",
    "attempt",
    "round",
    "iteration",
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Word,
    Math,
    /// Markup without meaning: `**`.
    Mark,
}

/// A text without whitespace, outside of the formulas.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub start: usize,
    pub text: &'a str,
    /// Whether a formula precedes it directly.
    pub after_formula: bool,
}

impl Token<'_> {
    pub(crate) fn kind(&self) -> Kind {
        let bare = trim(self.text);
        if !bare.contains(|c: char| c.is_alphanumeric()) {
            let operator = bare.contains([
                '=', '+', '-', '−', '*', '/', '<', '>', '±', '≤', '≥', '%', '^',
            ]);
            return if operator && self.text != "**" {
                Kind::Math
            } else {
                Kind::Mark
            };
        }
        if matches!(bare, "a" | "A" | "I") {
            return Kind::Word;
        }
        // `3cm` and `5th`: a number with its unit.
        if let Some(number) = number_at(bare, 0)
            && bare[number.end..]
                .chars()
                .all(|c| c.is_alphabetic() || matches!(c, '²' | '³' | '°'))
        {
            return Kind::Math;
        }
        let mut runs = bare
            .split(|c: char| !c.is_alphabetic())
            .filter(|run| !run.is_empty());
        let mathematical = |run: &str| {
            let mut letters = run.chars();
            letters.next();
            letters.next().is_none() || NAMES.contains(&run.to_ascii_lowercase().as_str())
        };
        if bare.contains('\\') || runs.all(mathematical) || equation(bare) {
            Kind::Math
        } else {
            Kind::Word
        }
    }

    pub(crate) fn ends_clause(&self) -> bool {
        self.text
            .trim_end_matches(['*', '"', ')'])
            .ends_with(['.', ';', '?', ':'])
    }

    pub(crate) fn is_label(&self) -> bool {
        let word = trim(self.text).to_ascii_lowercase();
        LABELS.contains(&word.as_str())
    }

    /// Returns the bounds of the run without a dash before it, `=` at its ends, an unmatched
    /// bracket or a joining word. `None` if no digit is left.
    pub(crate) fn tidy(&self, text: &str) -> Option<(usize, usize)> {
        let mut run = trim(self.text);
        loop {
            let mut shorter = run;
            for word in [
                "and ", "or ", "= ", "- ", "− ", "– ", "* ", "+ ", "=", "≈", "→",
            ] {
                shorter = shorter.strip_prefix(word).unwrap_or(shorter).trim_start();
            }
            for word in [" and", " or", "=", " -", " +"] {
                shorter = shorter.strip_suffix(word).unwrap_or(shorter).trim_end();
            }
            if shorter.len() == run.len() {
                break;
            }
            run = shorter;
        }
        let count = |brackets: [char; 2]| run.matches(brackets).count();
        let (opened, closed) = (count(['(', '[']), count([')', ']']));
        for _ in opened..closed {
            run = run.strip_suffix(')').map_or(run, trim);
        }
        for _ in closed..opened {
            run = run.strip_prefix('(').map_or(run, trim);
        }
        let start = run.as_ptr() as usize - text.as_ptr() as usize;
        let digit = run.contains(|c: char| c.is_ascii_digit());
        digit.then_some((start, start + run.len()))
    }
}

/// Returns whether a token with a word is still an equation: `total=5`.
fn equation(token: &str) -> bool {
    let side = token.rsplit_once('=').map(|(_, right)| right);
    side.is_some_and(|right| {
        right.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.'))
    })
}

/// Removes quotes, markup and the punctuation at the end.
pub(crate) fn trim(text: &str) -> &str {
    let text = text
        .trim()
        .trim_start_matches(['*', '"', '`', '“', ',', ':']);
    let text = text.trim_end_matches(['.', ',', ';', ':', '?', '"', '`', '”', '*']);
    text.trim()
}

/// The tokens of a text outside of the formulas.
pub(crate) struct Tokens<'a, 'f> {
    text: &'a str,
    at: usize,
    formulas: std::iter::Peekable<std::slice::Iter<'f, Formula>>,
}

impl<'a, 'f> Tokens<'a, 'f> {
    pub(crate) fn new(text: &'a str, at: usize, formulas: &'f [Formula]) -> Self {
        Self {
            text,
            at,
            formulas: formulas.iter().peekable(),
        }
    }
}

impl<'a> Iterator for Tokens<'a, '_> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let mut after_formula = false;
        loop {
            let rest = &self.text[self.at..];
            let start = self.at + (rest.len() - rest.trim_start().len());
            // A formula may begin before the position where reading starts.
            if let Some(formula) = self.formulas.next_if(|formula| formula.start <= start) {
                after_formula = true;
                self.at = self.at.max(formula.end);
                continue;
            }
            let limit = self
                .formulas
                .peek()
                .map_or(self.text.len(), |next| next.start);
            let token = self.text[start..limit].split(char::is_whitespace).next()?;
            if token.is_empty() {
                return None;
            }
            self.at = start + token.len();
            return Some(Token {
                start,
                text: token,
                after_formula,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> String {
        let name = |token: Token| match token.kind() {
            Kind::Word => 'w',
            Kind::Math => 'm',
            Kind::Mark => '-',
        };
        Tokens::new(text, 0, &[]).map(name).collect()
    }

    #[test]
    fn words_are_told_from_mathematics() {
        for (text, expected) in [
            ("the sum is 5.", "wwwm"),
            ("I have a cat and x apples", "wwwwmmw"),
            ("2 sin x + 3", "mmmmm"),
            ("total=5 ** -- 3cm 2nd", "m-mmm"),
            ("sqrt(2), \\pi/3; f(x)=2", "mmm"),
            ("", ""),
        ] {
            assert_eq!(kinds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_run_is_trimmed() {
        for (run, expected) in [
            ("and - 5", Some("5")),
            ("= 3.", Some("3")),
            ("**3**", Some("3")),
            ("3)", Some("3")),
            ("((3)", Some("(3)")),
            ("(1, 2]", Some("(1, 2]")),
            ("f(3)", Some("f(3)")),
            ("x and", None),
            ("", None),
        ] {
            let token = Token {
                start: 0,
                text: run,
                after_formula: false,
            };
            let tidy = token.tidy(run).map(|(start, end)| &run[start..end]);
            assert_eq!(tidy, expected, "{run}");
        }
    }
}
