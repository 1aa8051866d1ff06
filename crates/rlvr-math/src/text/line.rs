//! The text after "the answer is".

use super::expression::{last_expression, leading_expression, prose};
use super::formulas::{Formula, formulas};

/// Returns the text after the last "answer is" or "answer:", up to the end of the sentence, without
/// the words around the answer.
///
/// The answer is on the same line, or is the formula that begins below it. Of two `answer:` on one
/// line the first counts, and the text after it is returned unchanged: a line with two answers
/// equals neither.
pub(crate) fn answer_line(text: &str, formulas: &[Formula]) -> Option<String> {
    let region = region(text, formulas)?;
    Some(narrowed(region))
}

/// Returns the sentence after the last anchor.
pub(crate) fn region<'a>(text: &'a str, formulas: &[Formula]) -> Option<&'a str> {
    let anchor = last_anchor(text, formulas)?;
    let start = after_fillers(text, anchor.end);
    let end = sentence_end(text, start, formulas);
    // "The answer is 5?" is a question.
    if text[end..].starts_with('?') {
        return None;
    }
    let region = clean(&text[start..end]);
    (!region.is_empty()).then_some(region)
}

/// Words between "the answer is" and the answer.
const FILLERS: [&str; 12] = [
    "therefore",
    "thus",
    "hence",
    "then",
    "simply",
    "just",
    "approximately",
    "about",
    "equal",
    "to",
    "option",
    "choice",
];

/// The position after the words that announce the answer.
fn after_fillers(text: &str, mut start: usize) -> usize {
    for _ in 0..3 {
        let rest = &text[start..];
        let length = rest
            .bytes()
            .take(16)
            .take_while(u8::is_ascii_alphabetic)
            .count();
        let next = rest[length..].trim_start_matches(' ');
        let filler = FILLERS.contains(&rest[..length].to_ascii_lowercase().as_str());
        if !filler || next.len() == rest.len() - length || next.starts_with('\n') {
            break;
        }
        start = text.len() - next.len();
    }
    start
}

#[derive(Clone, Copy)]
struct Anchor {
    /// The start of the answer.
    end: usize,
    colon: bool,
}

/// The words to find, regardless of case.
const WORDS: [&str; 2] = ["answer", "答案"];

fn last_anchor(text: &str, formulas: &[Formula]) -> Option<Anchor> {
    let bytes = text.as_bytes();
    let mut last: Option<Anchor> = None;
    // Whether a line ended since the last anchor. Updated piece by piece, so that each byte is read
    // once.
    let (mut new_line, mut seen) = (true, 0);
    let mut formulas = formulas.iter().peekable();
    for i in 0..bytes.len() {
        // The first byte rules out most positions.
        if !matches!(bytes[i], b'a' | b'A' | 0xE7) {
            continue;
        }
        let word = |word: &&&str| {
            let here = bytes.get(i..i + word.len());
            here.is_some_and(|here| here.eq_ignore_ascii_case(word.as_bytes()))
        };
        let Some(word) = WORDS.iter().find(word) else {
            continue;
        };
        if i > 0 && bytes[i - 1].is_ascii_alphanumeric() || denied(&text[..i]) {
            continue;
        }
        let Some((end, colon)) = connector(text, i + word.len()) else {
            continue;
        };
        while formulas.next_if(|formula| formula.start < end).is_some() {}
        let next = formulas.peek().map(|formula| formula.start);
        let Some(end) = answer_start(text, end, next) else {
            continue;
        };
        new_line |= text[seen..i].contains('\n');
        seen = i;
        if !(colon && !new_line && last.is_some_and(|last| last.colon)) {
            last = Some(Anchor { end, colon });
            new_line = false;
        }
    }
    last
}

/// Words of a clause that denies what follows: "it is wrong to say that the answer is 5".
const DENIALS: [&str; 8] = [
    "wrong to ",
    "incorrect to ",
    "mistake to ",
    "wrong that ",
    "false that ",
    "not true that ",
    "not the case that ",
    "not say that ",
];

/// Returns whether the text before an anchor denies it: "a wrong answer:", or a clause with a
/// denial.
fn denied(before: &str) -> bool {
    const REACH: usize = 60;
    let from = before.ceil_char_boundary(before.len().saturating_sub(REACH));
    let clause = before[from..].rsplit(['.', ',', ';', ':', '!', '?', '\n']);
    let clause = clause.into_iter().next().unwrap_or("").to_lowercase();
    clause.ends_with("wrong ")
        || clause.ends_with("incorrect ")
        || DENIALS.iter().any(|denial| clause.contains(denial))
}

/// Returns whether a word between "answer" and its verb negates it: "cannot be", "can't be", "will
/// never be".
fn negates(words: &str) -> bool {
    let words = words.to_lowercase();
    let mut words = words.split(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’'));
    words.any(|word| {
        matches!(word, "not" | "cannot" | "never") || word.ends_with("n't") || word.ends_with("n’t")
    })
}

/// Returns the end of the words that announce the answer, a colon or an "is" within the next 60
/// bytes of the sentence, and whether it was the colon.
fn connector(text: &str, from: usize) -> Option<(usize, bool)> {
    const REACH: usize = 60;
    let window = text[from..].floor_char_boundary(REACH);
    let rest = &text[from..from + window];
    let mut previous = ' ';
    for (i, c) in rest.char_indices() {
        let at = from + i;
        match c {
            ':' | '：' => {
                let ratio = previous.is_ascii_digit()
                    && text[at + 1..].starts_with(|c: char| c.is_ascii_digit());
                if !ratio {
                    return Some((at + c.len_utf8(), true));
                }
            }
            '是' | '为' | '為' => return Some((at + c.len_utf8(), false)),
            // Only directly after the word: elsewhere it belongs to a formula.
            '=' if rest[..i].trim().is_empty() => return Some((at + 1, true)),
            '\n' | '!' | '?' | ';' | '.' | ',' | '，' | '。' | '\\' | '{' | '}' => return None,
            _ if c.is_ascii_alphabetic() && !previous.is_alphanumeric() => {
                let word = rest[i..].split(|c: char| !c.is_alphanumeric()).next()?;
                let lower = word.to_ascii_lowercase();
                match lower.as_str() {
                    "is" | "are" | "was" | "be" | "equals" | "becomes" => {
                        if negates(&rest[..i]) {
                            return None;
                        }
                        let end = at + word.len();
                        let after = text[end..].trim_start_matches([' ', '*', '_']);
                        let colon = after.starts_with([':', '：']);
                        let skip = text[end..].len() - after.len();
                        return Some(match after.chars().next() {
                            Some(c) if colon => (end + skip + c.len_utf8(), false),
                            _ => (end, false),
                        });
                    }
                    // The next anchor is checked separately.
                    "answer" | "answers" => return None,
                    _ => {}
                }
            }
            _ => {}
        }
        previous = c;
    }
    None
}

/// Returns the start of the answer: the first character on the line that is not markup, or the
/// formula that the next lines begin with.
fn answer_start(text: &str, from: usize, next_formula: Option<usize>) -> Option<usize> {
    let marks = [' ', '\t', '\r', '*', '_', ':', '\u{a0}'];
    let rest = text[from..].trim_start_matches(marks);
    let start = text.len() - rest.len();
    match rest.chars().next()? {
        '\n' => {
            let below = rest.trim_start_matches(['\n', ' ', '\t', '\r', '*', '>']);
            let start = text.len() - below.len();
            (next_formula == Some(start)).then_some(start)
        }
        '.' | '!' | '?' => {
            let number = rest[1..].starts_with(|c: char| c.is_ascii_digit() || c == '!');
            number.then_some(start)
        }
        _ => Some(start),
    }
}

/// Words before a full stop that do not end a sentence.
const ABBREVIATIONS: [&str; 12] = [
    "mr", "mrs", "ms", "dr", "st", "vs", "no", "prof", "approx", "e.g", "i.e", "cf",
];

/// Words that introduce a reason or a remark.
const REASONS: [&str; 10] = [
    "because",
    "since",
    "which",
    "where",
    "but",
    "thus",
    "hence",
    "therefore",
    "giving",
    "namely",
];

/// Returns the end of the sentence that begins at `start`: the end of the line, a full stop, a
/// reason, a special token or a closing tag, none of them inside of a formula.
fn sentence_end(text: &str, start: usize, formulas: &[Formula]) -> usize {
    let mut next = formulas.partition_point(|formula| formula.end <= start);
    let mut i = start;
    let mut previous = ' ';
    while let Some(c) = text[i..].chars().next() {
        if let Some(formula) = formulas.get(next)
            && formula.start <= i
        {
            i = i.max(formula.end);
            next += 1;
            previous = '$';
            continue;
        }
        let rest = &text[i + c.len_utf8()..];
        let ends = match c {
            '\n' | '。' => true,
            '.' | '?' => !(c == '.' && abbreviated(&text[start..i])) && new_sentence(rest),
            // After a number, `!` is a factorial.
            '!' => previous.is_alphabetic() && new_sentence(rest),
            '<' => rest.starts_with('|') || rest.starts_with("/"),
            _ if c.is_ascii_alphabetic() && previous.is_whitespace() => {
                let word = text[i..].split(|c: char| !c.is_ascii_alphabetic()).next();
                let word = word.filter(|word| word.len() < 12).unwrap_or("");
                i > start && REASONS.contains(&word.to_ascii_lowercase().as_str())
                    || text[i..].starts_with("i.e.")
            }
            _ => false,
        };
        if ends {
            return i;
        }
        previous = c;
        i += c.len_utf8();
    }
    text.len()
}

/// Returns whether the last word of a text is an abbreviation. Looks only at its end.
fn abbreviated(text: &str) -> bool {
    const LONGEST: usize = 8;
    let tail = &text[text.ceil_char_boundary(text.len().saturating_sub(LONGEST + 1))..];
    let word = tail.rsplit(char::is_whitespace).next().unwrap_or("");
    ABBREVIATIONS.contains(&word.to_ascii_lowercase().as_str())
}

/// Returns whether a new sentence begins after a full stop: spaces (and markup), then anything but
/// a lower-case letter.
fn new_sentence(rest: &str) -> bool {
    let marks = rest.trim_start_matches(['*', '_', '"', ')', '”']);
    let after = marks.trim_start();
    let blank = after.len() < marks.len() || after.starts_with('<');
    blank && !after.starts_with(|c: char| c.is_lowercase())
}

/// Returns the answer without spaces, markup and the punctuation after it.
pub(crate) fn clean(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let mut shorter = text.trim_end_matches(['.', ',', ';', ':', '?']);
        if shorter.ends_with('!') && shorter[..shorter.len() - 1].ends_with(char::is_alphabetic) {
            shorter = &shorter[..shorter.len() - 1];
        }
        for mark in ["**", "__"] {
            shorter = shorter.strip_prefix(mark).unwrap_or(shorter);
            shorter = shorter.strip_suffix(mark).unwrap_or(shorter);
        }
        for mark in ['*', '_', '`', '"', '\''] {
            let inside = shorter
                .strip_prefix(mark)
                .and_then(|rest| rest.strip_suffix(mark));
            shorter = inside.unwrap_or(shorter);
        }
        shorter = shorter.trim();
        if shorter.len() == text.len() {
            return text;
        }
        text = shorter;
    }
}

/// Words with which the numbers of a sentence are not the answer alone: "all real numbers except
/// 3".
const QUALIFIERS: [&str; 12] = [
    "all", "any", "every", "except", "no", "not", "none", "never", "only", "without", "other",
    "least",
];

/// Returns the answer of a sentence that has other words: the expression that it begins with, or
/// else the last one. A sentence of a few words is returned whole: they may be a unit, or the
/// answer itself.
fn narrowed(region: &str) -> String {
    let region = without_gloss(region);
    let formulas = formulas(region);
    let qualified = || {
        let mut words = region.split(|c: char| !c.is_alphabetic());
        words.any(|word| QUALIFIERS.contains(&word.to_ascii_lowercase().as_str()))
    };
    if prose(region, 2, &formulas) <= 2 || qualified() {
        return region.into();
    }
    leading_expression(region, &formulas)
        .or_else(|| last_expression(region, &formulas))
        .unwrap_or_else(|| region.into())
}

/// Returns a number without the words in brackets that repeat it: "5 (five)".
fn without_gloss(region: &str) -> &str {
    let gloss = region
        .strip_suffix(')')
        .and_then(|rest| rest.rsplit_once(" ("));
    match gloss {
        Some((value, words))
            if value.ends_with(|c: char| c.is_ascii_digit() || c == '$')
                && words.len() > 1
                && words
                    .chars()
                    .all(|c| c.is_alphabetic() || matches!(c, ' ' | '-')) =>
        {
            value
        }
        _ => region,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Option<String> {
        answer_line(text, &formulas(text))
    }

    #[test]
    fn the_answer_after_the_last_announcement_is_found() {
        for (text, expected) in [
            ("The answer is 5.", "5"),
            ("The answer is 3.5. So it is.", "3.5"),
            ("Answer: 4\nThe answer is 5", "5"),
            ("The answer is 5.\nAnswer: 4", "4"),
            ("The answer is 5. Wait. The answer is 6!", "6!"),
            ("The answer is 4. The answer cannot be 5.", "4"),
            ("The answer is 4, for the answer can't be 5.", "4"),
            ("I was wrong, the answer is 5.", "5"),
            ("Could the answer not be 4? The answer is 5.", "5"),
            ("**The answer is 7.**", "7"),
            ("**Final Answer**: $x$", "$x$"),
            ("The answers are 3 and 4.", "3 and 4"),
            ("The answer to the question is: 12 apples.", "12 apples"),
            ("Final Answer: The largest $n$ is 34.", "34"),
            (
                "Final answer: Jane began 3 hours ago. I hope it is correct.",
                "3",
            ),
            ("The answer is 34 because 2*17 = 34 holds.", "34"),
            (
                "The answer is $x = 5. y$ for all of them now.",
                "$x = 5. y$ for all of them now",
            ),
            ("The answer is:\n\n\\[\n5\n\\]\nDone.", "\\[\n5\n\\]"),
            (
                "The answer is all real numbers except 3.",
                "all real numbers except 3",
            ),
            ("The answer is the Pacific Ocean.", "the Pacific Ocean"),
            ("The answer is Dr. Smith.", "Dr. Smith"),
            ("答案是 12。", "12"),
            ("Answer: 5<|im_end|>", "5"),
            ("answer = -2", "-2"),
            ("A wrong answer: 3. The answer: 4", "4"),
            ("The answer for 3:4 is 7", "7"),
            ("The answer is therefore equal to 42.", "42"),
            ("The answer is option C.", "C"),
            ("The answer is $x$, i.e. nothing known.", "$x$"),
            ("Answer: 5 (five)", "5"),
            ("Answer: 5 (x)", "5 (x)"),
        ] {
            assert_eq!(line(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "Answer:",
            "The answer is.",
            "Answer\n5",
            "answer, is",
            "unanswered: 5",
            "The answer cannot be 5.",
            "The answer can't be 5.",
            "The answer can’t be 5.",
            "The answer will never be 5.",
            "It is wrong to say that the answer is 5.",
            "It is not true that the answer is 5.",
            "The answer is 5? No, 6.",
            "",
        ] {
            assert_eq!(line(text), None, "{text}");
        }
    }
}
