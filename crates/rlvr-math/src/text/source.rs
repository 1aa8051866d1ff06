//! Finding the expression in what a data set calls its answer: boxes, dollar signs, sentences, markdown.

/// Words between two boxes that say the first was given up.
const RETRACTIONS: [&str; 9] = [
    "but",
    "wait",
    "no",
    "not",
    "then",
    "thus",
    "so",
    "therefore",
    "instead",
];

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

/// The longest text between boxes that belong together.
const MAX_GAP: usize = 70;

/// The expressions a text may mean, the likeliest first. A gold is read leniently: its box may lack the closing brace.
pub(crate) fn candidates(text: &str, lenient: bool) -> Vec<String> {
    let text = clean(text);
    if let Some(boxed) = boxed(&text, lenient) {
        return vec![boxed];
    }
    let bare = strip_delimiters(text.trim());
    let mut out = vec![bare.to_owned()];
    // A sentence with formulas: the last of them.
    if prose(&text) {
        if let Some((start, last)) = last_formula(&text) {
            if !qualified(&text[..start]) {
                out.insert(0, last);
            }
        } else if let Some(rest) = after_phrase(&text) {
            out.insert(0, rest);
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

/// The contents of the boxes of a text: the last one, or the last ones if nothing but separators stands between them.
fn boxed(text: &str, lenient: bool) -> Option<String> {
    let boxes = find_boxes(text, lenient);
    let (_, last_end, last) = boxes.last()?;
    let mut joined = vec![unbox(last)];
    let mut start = boxes.last()?.0;
    for (box_start, box_end, content) in boxes.iter().rev().skip(1) {
        let gap = &text[*box_end..start];
        if !separates(gap) {
            break;
        }
        joined.insert(0, unbox(content));
        start = *box_start;
    }
    let mut out = joined.join(", ");
    // `\boxed{20} percent`, `\boxed{20}\%`
    let after = text[*last_end..]
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

/// Whether what stands between two boxes only joins them.
fn separates(gap: &str) -> bool {
    if gap.chars().count() > MAX_GAP {
        return false;
    }
    let plain = gap
        .replace("\\quad", ",")
        .replace("\\qquad", ",")
        .replace("\\text", " ")
        .replace("\\;", " ");
    let words: Vec<String> = plain
        .split(|c: char| !c.is_alphabetic())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .collect();
    if words.iter().any(|w| RETRACTIONS.contains(&w.as_str())) {
        return false;
    }
    plain.contains([',', ';']) || words.iter().any(|w| w == "and" || w == "or")
}

/// Start, end and content of every outermost box that is closed; with `lenient` also of a single one that is not.
fn find_boxes(text: &str, lenient: bool) -> Vec<(usize, usize, String)> {
    let mut out: Vec<(usize, usize, String)> = Vec::new();
    let mut from = 0;
    while let Some((start, open)) = next_box(text, from) {
        match closing_brace(text, open) {
            Some(close) => {
                out.push((start, close + 1, text[open + 1..close].to_owned()));
                from = close + 1;
            }
            // A gold that was cut off is still the gold; an answer is not completed.
            None if lenient && out.is_empty() => {
                out.push((start, text.len(), text[open + 1..].to_owned()));
                break;
            }
            None => from = open + 1,
        }
    }
    out
}

/// The place of the next `\boxed` or `\fbox` and of its brace.
fn next_box(text: &str, from: usize) -> Option<(usize, usize)> {
    text[from..].match_indices('\\').find_map(|(place, _)| {
        let start = from + place;
        let name = ["\\boxed", "\\fbox"]
            .into_iter()
            .find(|name| text[start..].starts_with(name))?;
        let rest = &text[start + name.len()..];
        let blank = rest.len() - rest.trim_start().len();
        (blank < 64 && rest[blank..].starts_with('{'))
            .then_some((start, start + name.len() + blank))
    })
}

/// The brace that closes the one at byte `open`.
fn closing_brace(text: &str, open: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut at = open;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// A box inside a box.
fn unbox(content: &str) -> String {
    let mut text = strip_delimiters(content.trim()).to_owned();
    // Each round removes a box, so the rounds are bounded by the length.
    for _ in 0..8 {
        let boxes = find_boxes(&text, false);
        let [(start, end, inner)] = &boxes[..] else {
            break;
        };
        if *start != 0 || *end != text.len() {
            break;
        }
        text = inner.trim().to_owned();
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

/// Whether a text is a sentence rather than an answer: three words outside of commands, or a phrase that announces an answer.
fn prose(text: &str) -> bool {
    let outside: String = text.split('$').step_by(2).collect::<Vec<_>>().join(" ");
    let words = outside
        .split(|c: char| c.is_whitespace())
        .filter(|w| {
            w.len() > 1
                && w.chars()
                    .all(|c| c.is_alphabetic() || matches!(c, ',' | '.' | ':' | '\''))
        })
        .count();
    words >= 3
}

/// Whether the words between the formula before, or the end of the sentence before, and the one that follows `before` restrict it.
fn qualified(before: &str) -> bool {
    let last = before.rsplit(['$', '.', ';', ')', ']']).next();
    let mut words = last.unwrap_or("").split(|c: char| !c.is_alphabetic());
    words.any(|word| QUALIFIERS.contains(&word.to_lowercase().as_str()))
}

/// The last `$...$`, `\(...\)` or `\[...\]`, with the place where it begins.
fn last_formula(text: &str) -> Option<(usize, String)> {
    // Where it ends, where it begins, what it says.
    let mut best: Option<(usize, usize, String)> = None;
    for (open, close) in [("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$")] {
        if let Some(end) = text.rfind(close)
            && let Some(start) = text[..end].rfind(open)
        {
            let inner = text[start + open.len()..end].trim().to_owned();
            if !inner.is_empty() && best.as_ref().is_none_or(|b| b.0 < end) {
                best = Some((end, start, inner));
            }
        }
    }
    let dollars: Vec<usize> = text.match_indices('$').map(|(i, _)| i).collect();
    if let [.., open, close] = dollars[..]
        && dollars.len().is_multiple_of(2)
        && best.as_ref().is_none_or(|b| b.0 < close)
    {
        let inner = text[open + 1..close].trim();
        if !inner.is_empty() {
            best = Some((close, open, inner.to_owned()));
        }
    }
    best.map(|(_, start, inner)| (start, inner))
}

/// What follows "answer is" or "answer:".
fn after_phrase(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let at = ["answer is", "answer:"]
        .iter()
        .filter_map(|p| lower.rfind(p).map(|i| i + p.len()))
        .max()?;
    let rest = text[at..].trim_start_matches([':', ' ']);
    let rest = rest.lines().next().unwrap_or("");
    let end = rest.find(". ").unwrap_or(rest.len());
    let rest = strip_delimiters(&rest[..end]);
    (!rest.is_empty()).then(|| rest.to_owned())
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
