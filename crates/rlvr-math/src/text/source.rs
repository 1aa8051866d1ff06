//! Finding the expression in what a data set calls its answer: boxes, dollar signs, sentences, markdown.

use super::boxes::{last_boxes, unclosed};
use super::expression::prose;
use super::formulas::formulas;
use super::line::answer_line;

/// Words before a formula that say it is not the answer itself: "all numbers except", "not", "at least".
const QUALIFIERS: [&str; 14] = [
    "besides",
    "but",
    "except",
    "exclude",
    "excluding",
    "least",
    "most",
    "neither",
    "nor",
    "not",
    "than",
    "unequal",
    "unless",
    "without",
];

/// The expressions a text may mean, the likeliest first. A gold is read leniently: its box may lack the closing brace.
pub(crate) fn candidates(text: &str, lenient: bool) -> Vec<String> {
    let text = clean(text);
    if let Some(boxed) = boxed(&text, lenient) {
        return vec![boxed];
    }
    let bare = strip_delimiters(text.trim());
    let mut out = vec![bare.to_owned()];
    // A sentence: the last of its formulas, or what it says the answer is.
    let formulas = formulas(&text);
    if prose(&text, 2, &formulas) > 2 {
        match formulas.last() {
            Some(last) if qualified(&text[..last.start]) => {}
            Some(last) => out.insert(0, last.content(&text).to_owned()),
            None => out
                .splice(0..0, answer_line(&text, &formulas))
                .for_each(drop),
        }
    }
    out
}

/// Undoes what transport did to the text: special tokens, markdown, doubled backslashes, escapes read too early.
pub(crate) fn clean(text: &str) -> String {
    let text = text
        .replace("\\\u{c}", "\\f")
        .replace('\u{c}', "\\f")
        .replace("**", "")
        .replace('\r', "");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find("<|") {
        let Some(length) = rest[start..].find("|>") else {
            break;
        };
        out.push_str(&rest[..start]);
        out.push(' ');
        rest = &rest[start + length + 2..];
    }
    out.push_str(rest);
    // `\\frac` where no matrix needs `\\`.
    if out.contains("\\\\") && (!out.contains("\\begin{") || out.contains("\\\\begin{")) {
        let chars: Vec<char> = out.chars().collect();
        let mut undoubled = String::with_capacity(out.len());
        let mut at = 0;
        while at < chars.len() {
            if chars[at] == '\\'
                && chars.get(at + 1) == Some(&'\\')
                && chars.get(at + 2).is_some_and(|c| {
                    c.is_ascii_alphabetic()
                        || matches!(c, '{' | '}' | '[' | ']' | '(' | ')' | '%' | '$' | '\\')
                })
            {
                at += 1;
                if chars.get(at + 1) == Some(&'\\') {
                    at += 1;
                }
            }
            undoubled.push(chars[at]);
            at += 1;
        }
        out = undoubled;
    }
    out
}

/// The contents of the last boxes, as a list if there are several.
fn boxed(text: &str, lenient: bool) -> Option<String> {
    let (items, end) = match last_boxes(text) {
        Some(found) => (found.items, found.end),
        // A gold that was cut off is still the gold; an answer is not completed.
        None if lenient => (vec![unclosed(text)?], text.len()),
        None => return None,
    };
    let items: Vec<&str> = items.into_iter().map(unbox).collect();
    let mut out = items.join(", ");
    // `\boxed{20} percent`, `\boxed{20}\%`
    let after = text[end..]
        .trim_start_matches(['$', ' ', '}', '.'])
        .trim_start();
    if ["\\%", "%", "percent"]
        .iter()
        .any(|sign| after.starts_with(sign))
    {
        out.push_str("\\%");
    }
    Some(out)
}

/// The content of a box that is nothing but a box.
fn unbox(content: &str) -> &str {
    let mut text = strip_delimiters(content);
    // Each round removes a box, so the rounds are bounded by the length.
    for _ in 0..8 {
        match last_boxes(text) {
            Some(found)
                if found.items.len() == 1 && (found.start, found.end) == (0, text.len()) =>
            {
                text = found.items[0];
            }
            _ => break,
        }
    }
    text
}

/// Removes one pair of dollars, `\( \)`, `\[ \]` around the whole, and a final full stop.
pub(crate) fn strip_delimiters(text: &str) -> &str {
    let mut text = text.trim();
    for _ in 0..4 {
        let before = text;
        text = text.trim();
        // A full stop ends the sentence, an ellipsis belongs to the number.
        if !text.ends_with("..") {
            text = text.trim_end_matches(['.', ',']).trim();
        }
        for (open, close) in [
            ("$$", "$$"),
            ("$", "$"),
            ("\\(", "\\)"),
            ("\\[", "\\]"),
            ("`", "`"),
            ("__", "__"),
        ] {
            if let Some(inner) = text.strip_prefix(open).and_then(|t| t.strip_suffix(close))
                && !inner.contains(open)
            {
                text = inner.trim();
            }
        }
        if text == before {
            break;
        }
    }
    text
}

/// Whether the words between the formula before, or the end of the sentence before, and the one that follows `before` restrict it.
fn qualified(before: &str) -> bool {
    let last = before.rsplit(['$', '.', ';', ')', ']']).next();
    let mut words = last.unwrap_or("").split(|c: char| !c.is_alphabetic());
    words.any(|word| QUALIFIERS.contains(&word.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_join_over_separators_only() {
        let first = |text: &str| candidates(text, false).remove(0);
        assert_eq!(first("\\boxed{1}, \\boxed{2}"), "1, 2");
        assert_eq!(
            first("\\boxed{a} \\quad \\text{and} \\quad \\boxed{b}"),
            "a, b"
        );
        assert_eq!(first("\\boxed{1} but no, \\boxed{2}"), "2");
        assert_eq!(first("\\boxed{\\boxed{3}}"), "3");
        assert_eq!(first("so \\fbox {\\frac{1}{2}}."), "\\frac{1}{2}");
        assert_eq!(first("\\boxed{20} percent"), "20\\%");
        assert_eq!(first("\\boxed{x = 1"), "\\boxed{x = 1");
        assert_eq!(candidates("\\boxed{x = 1", true), ["x = 1"]);
    }

    #[test]
    fn sentences_give_their_last_formula() {
        assert_eq!(
            candidates("Since $a=1$, the answer is $a+1$.", false)[0],
            "a+1"
        );
        assert_eq!(candidates("So the answer is 12.", false)[0], "12");
        assert_eq!(candidates("\\(5\\)", false)[0], "5");
        let all = "All real numbers except $3$";
        assert_eq!(candidates(all, false), [all]);
        assert_eq!(
            candidates("It is not $4$: the answer is $3$.", false)[0],
            "3"
        );
    }

    #[test]
    fn doubled_backslashes_are_undone_outside_matrices() {
        assert_eq!(clean("\\\\frac{1}{2}"), "\\frac{1}{2}");
        let matrix = "\\begin{pmatrix}1\\\\\\frac12\\end{pmatrix}";
        assert_eq!(clean(matrix), matrix);
    }
}
