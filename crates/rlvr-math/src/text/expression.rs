//! The first and the last expression of a text, and the number of its words.

use super::formulas::Formula;
use super::tokens::{Kind, Token, Tokens, trim};

/// Returns the last expression: a formula, or a run of plain mathematics with a digit, whichever
/// ends later.
///
/// Formulas separated only by `,`, `;`, "and" or "or" are one answer. A percent sign after a
/// formula belongs to it, and of a display of several lines the last one counts. If a text has no
/// words, its last line is the expression; if it has up to three words and no number ("New York"),
/// the whole text is.
pub(crate) fn last_expression(text: &str, formulas: &[Formula]) -> Option<String> {
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
        (Some((start, end)), _) => Some(with_percent(text, start, end)),
        (None, Some(last)) => Some(joined(text, formulas, last)),
        (None, None) => None,
    }
}

/// Returns the formula or number that a text begins with.
pub(crate) fn leading_expression(text: &str, formulas: &[Formula]) -> Option<String> {
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

/// Returns the number of words outside of the formulas. Stops counting above `enough`.
pub(crate) fn prose(text: &str, enough: usize, formulas: &[Formula]) -> usize {
    let mut words = 0;
    for token in Tokens::new(text, 0, formulas) {
        words += usize::from(token.kind() == Kind::Word);
        if words > enough {
            break;
        }
    }
    words
}

/// Returns the formula `last` and those before it that form a list with it.
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

/// Returns the run, with a percent sign if the word "percent" follows.
fn with_percent(text: &str, start: usize, end: usize) -> String {
    let run = &text[start..end];
    if word_after(text[end..].trim_start_matches([' ', '*']), "percent") {
        format!("{run}%")
    } else {
        run.to_string()
    }
}

/// Returns whether two formulas with the text `gap` between them form a list.
fn separates(gap: &str) -> bool {
    if gap.len() > 12 {
        return false;
    }
    let gap = gap.trim().trim_start_matches([',', ';']).trim();
    matches!(gap, "" | "and" | "or" | "&")
}

/// Returns the last line of a display with alignment marks. Matrices and cases are not split.
fn last_row(formula: &str) -> &str {
    if formula.contains("\\begin") || !formula.contains('&') && !formula.contains("\\\\") {
        return formula;
    }
    let rows = formula.rsplit("\\\\").map(str::trim);
    let row = rows.into_iter().find(|row| !row.is_empty());
    let row = row.unwrap_or(formula);
    let column = row.rsplit('&').next().unwrap_or(row);
    column.trim().trim_start_matches('=').trim_start()
}

/// Returns the last run of mathematical tokens outside of the formulas that has a digit and is not
/// a label.
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

/// Returns whether a number at the start of a line numbers it: "3. Then" or "(2) Then".
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

#[cfg(test)]
mod tests {
    use super::super::formulas::formulas;
    use super::*;

    fn last(text: &str) -> Option<String> {
        last_expression(text, &formulas(text))
    }

    #[test]
    fn the_last_formula_or_number_is_found() {
        for (text, expected) in [
            ("Let $x = 2$. It grows by 100%.", "100%"),
            ("We use 3 of them: $x = 2$.", "x = 2"),
            ("Thus $x = 2$ in case 3.", "x = 2"),
            ("1. Add.\n2. Then $5$", "5"),
            ("Result: 3. Done", "3"),
            ("She has 3 dozen (36 eggs).", "36"),
            ("so the roots are 2 and -3.", "2 and -3"),
            ("we get\nx = 3\n", "x = 3"),
            ("$1$, $2$ and $3$.", "1, 2, 3"),
            ("by $28$ %", "28\\%"),
            ("by 28 percent", "28%"),
            ("\\begin{align*} x &= 2+3 \\\\ &= 5 \\end{align*}", "5"),
            ("x = 4\nx = 5", "x = 5"),
            ("New York", "New York"),
        ] {
            assert_eq!(last(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "- !", "there is none at all"] {
            assert_eq!(last(text), None, "{text}");
        }
    }

    #[test]
    fn the_expression_at_the_start_of_a_sentence_is_found() {
        let leading = |text| leading_expression(text, &formulas(text));
        for (text, expected) in [
            ("$5$ or $6$ of all 7", Some("5, 6")),
            ("about 34 of the 50 apples", Some("34")),
            ("x = 3 since 2 fails", Some("x = 3")),
            ("Jane has 3", None),
        ] {
            assert_eq!(leading(text).as_deref(), expected, "{text}");
        }
    }
}
