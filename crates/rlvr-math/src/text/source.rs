//! Finds the expression in an answer or gold: in boxes, between dollar signs, in sentences, in
//! Markdown.

use super::boxes::{last_boxes, unclosed};
use super::expression::prose;
use super::formulas::formulas;
use super::line::answer_line;

/// Words that restrict the formula after them, which is then not the answer: "all numbers except",
/// "not", "at least".
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

/// Returns the expressions that a text may mean, the likeliest first. If `lenient`, as for a gold,
/// a box may lack the closing brace.
pub(crate) fn candidates(text: &str, lenient: bool) -> Vec<String> {
    let text = clean(text);
    if let Some(boxed) = boxed(&text, lenient) {
        return vec![boxed];
    }
    let bare = strip_delimiters(text.trim());
    let mut out = vec![bare.to_owned()];
    // A sentence: its last formula, or the text after "the answer is".
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

/// Removes special tokens, Markdown, doubled backslashes and escapes that were interpreted too
/// early.
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
    // `\\frac` outside of a matrix, in which `\\` separates rows.
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

/// Returns the contents of the last boxes, as a list if there are several.
fn boxed(text: &str, lenient: bool) -> Option<String> {
    let (items, end) = match last_boxes(text) {
        Some(found) => (found.items, found.end),
        // A truncated gold is completed; a truncated answer is not.
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

/// Removes boxes around a whole content.
fn unbox(content: &str) -> &str {
    let mut text = strip_delimiters(content);
    // Each round removes one box.
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

/// Removes `$ $`, `\( \)`, `\[ \]` and the like around the whole text, and a final full stop.
pub(crate) fn strip_delimiters(text: &str) -> &str {
    let mut text = text.trim();
    for _ in 0..4 {
        let before = text;
        text = text.trim();
        // Removes a full stop, but not an ellipsis, which belongs to the number.
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

/// Returns whether the words before a formula, after the previous formula or sentence, restrict it.
fn qualified(before: &str) -> bool {
    let last = before.rsplit(['$', '.', ';', ')', ']']).next();
    let mut words = last.unwrap_or("").split(|c: char| !c.is_alphabetic());
    words.any(|word| QUALIFIERS.contains(&word.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_joined_only_with_separators_between_them() {
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
    fn the_last_formula_of_a_sentence_is_first() {
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
    fn doubled_backslashes_are_removed_outside_of_matrices() {
        assert_eq!(clean("\\\\frac{1}{2}"), "\\frac{1}{2}");
        let matrix = "\\begin{pmatrix}1\\\\\\frac12\\end{pmatrix}";
        assert_eq!(clean(matrix), matrix);
    }
}
