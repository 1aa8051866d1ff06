//! The last expression of a text, and how far a text is prose.

use super::formulas::Formula;
use super::number::number_at;

/// Names of functions and constants that are longer than a letter and yet no words, and the words that join answers.
const NAMES: [&str; 39] = [
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh",
    "log", "ln", "lg", "exp", "sqrt", "cbrt", "abs", "min", "max", "gcd", "lcm", "mod", "floor",
    "ceil", "pi", "theta", "alpha", "beta", "phi", "inf", "infty", "infinity", "oo", "and", "or",
    "union", "cup",
];

/// Words before a number that make it a label: "step 3" is no answer.
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

/// The last expression: a formula or a run of plain mathematics with a digit in it, whichever ends later.
///
/// Formulas that only `,` `;` and or stand between are one answer, a percent sign after one belongs to it, and of a
/// display of several lines the last one counts. The last line of a text without words is an expression as a whole, and so is a
/// text of up to three words without a number: "New York".
pub(super) fn last_expression(text: &str, formulas: &[Formula]) -> Option<String> {
    let whole = trim(text);
    if formulas.is_empty() && !whole.is_empty() {
        let words = prose(whole, 3, &[]);
        let digits = whole.contains(|c: char| c.is_ascii_digit());
        let mut lines = whole.lines().map(trim).filter(|line| !line.is_empty());
        if words == 0 {
            let read = |line: &&str| line.contains(char::is_alphanumeric);
            return lines.next_back().filter(read).map(String::from);
        }
        if words <= 3 && !digits && lines.count() == 1 {
            return Some(whole.into());
        }
    }
    let plain = last_run(text, formulas);
    let formula = formulas
        .iter()
        .rposition(|formula| !formula.content(text).is_empty());
    match (plain, formula) {
        (Some(run), Some(last)) if run.0 < formulas[last].end => Some(joined(text, formulas, last)),
        (Some((start, end)), _) => Some(text[start..end].to_string()),
        (None, Some(last)) => Some(joined(text, formulas, last)),
        (None, None) => None,
    }
}

/// The expression that a text begins with, if a formula or number stands there.
pub(super) fn leading_expression(text: &str, formulas: &[Formula]) -> Option<String> {
    const ARTICLES: [&str; 7] = [
        "the",
        "a",
        "an",
        "approximately",
        "about",
        "exactly",
        "just",
    ];
    let mut start = text.len() - text.trim_start().len();
    while let Some(word) = text[start..].split_whitespace().next()
        && ARTICLES.contains(&word.to_ascii_lowercase().as_str())
    {
        start += word.len();
        start = text.len() - text[start..].trim_start().len();
    }
    if let Some(first) = formulas.iter().position(|formula| formula.start == start) {
        let more = formulas[first..].windows(2);
        let more = more.take_while(|pair| separates(&text[pair[0].end..pair[1].start]));
        let last = first + more.count();
        return Some(joined(text, formulas, last));
    }
    let mut run = None;
    for token in Tokens::new(text, start, formulas) {
        match (token.kind(), &mut run) {
            (Kind::Word, _) => break,
            (Kind::Mark, None) => {}
            (_, None) => run = Some(token),
            (_, Some(run)) => run.text = &text[run.start..token.start + token.text.len()],
        }
        if token.ends_clause() {
            break;
        }
    }
    let (start, end) = run?.tidy(text)?;
    Some(text[start..end].to_string())
}

/// How many words of prose stand outside the formulas from this byte on; counting ends at `enough`, unless that is 0.
pub(super) fn prose(text: &str, enough: usize, formulas: &[Formula]) -> usize {
    let mut words = 0;
    for token in Tokens::new(text, 0, formulas) {
        words += usize::from(token.kind() == Kind::Word);
        if words > enough {
            break;
        }
    }
    words
}

/// The formula and those before it that make a list with it.
fn joined(text: &str, formulas: &[Formula], last: usize) -> String {
    let mut first = last;
    while first > 0 && separates(&text[formulas[first - 1].end..formulas[first].start]) {
        first -= 1;
    }
    let parts: Vec<_> = formulas[first..=last]
        .iter()
        .map(|formula| last_row(formula.content(text)))
        .filter(|part| !part.is_empty())
        .collect();
    let mut answer = parts.join(", ");
    let after = text[formulas[last].end..].trim_start_matches([' ', '\\']);
    if after.starts_with('%') || word_after(after, "percent") {
        answer.push_str("\\%");
    }
    answer
}

fn word_after(text: &str, word: &str) -> bool {
    let head = text.get(..word.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(word))
        && !text[word.len()..].starts_with(|c: char| c.is_alphanumeric())
}

/// Whether two formulas with this text between them are a list.
fn separates(gap: &str) -> bool {
    if gap.len() > 12 {
        return false;
    }
    let gap = gap.trim().trim_start_matches([',', ';']).trim();
    matches!(gap, "" | "and" | "or" | "&")
}

/// The last line of a display with alignment marks; matrices and cases are left whole.
fn last_row(formula: &str) -> &str {
    if formula.contains("\\begin") || !formula.contains('&') && !formula.contains("\\\\") {
        return formula;
    }
    let rows = formula.rsplit("\\\\").map(str::trim);
    let row = rows.into_iter().find(|row| !row.is_empty());
    let row = row.unwrap_or(formula);
    row.rsplit('&').next().map_or(row, str::trim)
}

/// The last run of mathematical tokens outside of the formulas that has a digit and is no label.
fn last_run(text: &str, formulas: &[Formula]) -> Option<(usize, usize)> {
    let mut last = None;
    let mut run: Option<Token> = None;
    let mut before: Option<Token> = None;
    let mut labelled = false;
    let mut finish = |run: &mut Option<Token>, labelled: bool| {
        if let Some(run) = run.take()
            && let Some((start, end)) = run.tidy(text)
            && !(labelled && text[start..end].bytes().all(|byte| byte.is_ascii_digit()))
            && !enumerates(text, start, end)
        {
            last = Some((start, end));
        }
    };
    for token in Tokens::new(text, 0, formulas) {
        let gap = before
            .as_ref()
            .map(|before| before.start + before.text.len());
        if gap.is_some_and(|gap| text[gap..token.start].contains('\n')) || token.after_formula {
            finish(&mut run, labelled);
        }
        match (token.kind(), &mut run) {
            (Kind::Word, _) => finish(&mut run, labelled),
            (Kind::Mark, _) => {}
            (Kind::Math, None) => {
                labelled = before.as_ref().is_some_and(Token::is_label);
                run = Some(token);
            }
            (Kind::Math, Some(run)) => run.text = &text[run.start..token.start + token.text.len()],
        }
        if token.ends_clause() {
            finish(&mut run, labelled);
        }
        before = Some(token);
    }
    finish(&mut run, labelled);
    last
}

/// Whether the number begins a line and numbers it: "3. Then" and "(2) Then".
fn enumerates(text: &str, start: usize, end: usize) -> bool {
    let head = text[..start].trim_end_matches([' ', '(', '#', '*', '[']);
    let tail = &text[end..];
    let marked = tail.starts_with(['.', ')', ']', ':']);
    let more = tail
        .trim_start_matches(['.', ')', ']', ':', '*', ' '])
        .starts_with(|c: char| c.is_alphabetic() || c == '\\' || c == '$');
    let digits = text[start..end].bytes().all(|byte| byte.is_ascii_digit());
    (head.is_empty() || head.ends_with('\n')) && digits && marked && more
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Word,
    Math,
    /// Marks without a meaning of their own: `**`.
    Mark,
}

/// What stands between blanks, outside of the formulas.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    start: usize,
    text: &'a str,
    after_formula: bool,
}

impl Token<'_> {
    fn kind(&self) -> Kind {
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
        // `3cm` and `5th` begin with a number; what is glued to it is its unit.
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

    fn ends_clause(&self) -> bool {
        self.text
            .trim_end_matches(['*', '"', ')'])
            .ends_with(['.', ';', '?', ':'])
    }

    fn is_label(&self) -> bool {
        let word = trim(self.text).to_ascii_lowercase();
        LABELS.contains(&word.as_str())
    }

    /// The run without what does not belong to it, if a digit is left: a dash before it, `=` at its ends, an unmatched
    /// bracket, a joining word.
    fn tidy(&self, text: &str) -> Option<(usize, usize)> {
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

/// Whether a token with a word in it is an equation all the same: `total=5`.
fn equation(token: &str) -> bool {
    let side = token.rsplit_once('=').map(|(_, right)| right);
    side.is_some_and(|right| {
        right.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '.'))
    })
}

/// A token without quotes, marks and the punctuation after it.
fn trim(text: &str) -> &str {
    let text = text
        .trim()
        .trim_start_matches(['*', '"', '`', '“', ',', ':']);
    let text = text.trim_end_matches(['.', ',', ';', ':', '?', '"', '`', '”', '*']);
    text.trim()
}

/// The tokens of a text outside of the formulas.
struct Tokens<'a, 'f> {
    text: &'a str,
    at: usize,
    formulas: std::iter::Peekable<std::slice::Iter<'f, Formula>>,
}

impl<'a, 'f> Tokens<'a, 'f> {
    fn new(text: &'a str, at: usize, formulas: &'f [Formula]) -> Self {
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
            // A formula may have begun before the place where reading began.
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
