//! The letter of a multiple-choice answer.

use crate::text::boxes::last_boxes;
use crate::text::formulas::Formula;
use crate::text::line;

/// Returns the letter of the last box, else the letter after the last "answer is", else at the
/// start, else the last separate letter that the text does not reject ("not A", "B is wrong").
/// Several letters ("B, C", "B or C") in the box, after "answer is" or as the whole text are not an
/// answer.
///
/// Lower-case letters count only if the text is nothing but the letter. `A` and `I` before a
/// lower-case word are the article and the pronoun.
pub(crate) fn choice(text: &str, choices: &str, formulas: &[Formula]) -> Option<char> {
    if let Some(boxes) = last_boxes(text) {
        let [content] = boxes.items[..] else {
            return None;
        };
        if several(content, choices) {
            return None;
        }
        return alone(content, choices)
            .or_else(|| standing(content, choices, false).next().map(|(_, c)| c));
    }
    if let Some(letter) = alone(text, choices) {
        return Some(letter);
    }
    if let Some(region) = line::region(text, formulas) {
        if several(region, choices) {
            return None;
        }
        let announced = alone(region, choices)
            .or_else(|| label(region, choices))
            .or_else(|| accepted(region, choices, true, false));
        if announced.is_some() {
            return announced;
        }
    }
    if several(text, choices) && !text.contains(char::is_lowercase) {
        return None;
    }
    let options = text
        .lines()
        .filter(|line| label(line.trim_start(), choices).is_some());
    let lists = options.take(2).count() == 2;
    let first = (!lists)
        .then(|| label(text.trim_start(), choices))
        .flatten();
    first.or_else(|| accepted(text, choices, false, true))
}

/// Returns whether a different letter is named next to the first one: `B, C`, `(B) or (C)`, `B C`.
fn several(text: &str, choices: &str) -> bool {
    const JOINTS: [&str; 8] = [
        "and", "or", "also", "both", "maybe", "perhaps", "possibly", "text",
    ];
    let mut letters = standing(text, choices, false);
    let Some((first, letter)) = letters.next() else {
        return false;
    };
    let Some((second, _)) = letters.find(|(_, other)| *other != letter) else {
        return false;
    };
    let mut words = text[first + 1..second]
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.trim_matches(letter).is_empty());
    words.all(|word| JOINTS.contains(&word.to_lowercase().as_str()))
}

/// Returns the letter of a text that is nothing but a letter with brackets and markup: `(b)`,
/// `\text{B}.`, `$C$`.
fn alone(text: &str, choices: &str) -> Option<char> {
    const LONGEST: usize = 40;
    let mut rest = text.trim();
    if rest.len() > LONGEST {
        return None;
    }
    let mut letter = None;
    while let Some(c) = rest.chars().next() {
        let command = rest
            .strip_prefix('\\')
            .map(|rest| rest.bytes().take_while(u8::is_ascii_alphabetic).count());
        match command {
            Some(length) if length > 0 => {
                rest = &rest[1 + length..];
                continue;
            }
            _ if c.is_alphanumeric() => {
                let capital = c.to_ascii_uppercase();
                if letter.is_some() || !choices.contains(capital) {
                    return None;
                }
                letter = Some(capital);
            }
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
    }
    letter
}

/// Returns the letter at the start of an option: `A.`, `(A)`, `A)`, `A:`, `**A**`, or `A` before
/// the end or a capitalized word.
fn label(text: &str, choices: &str) -> Option<char> {
    let marks = ['(', '[', '*', '"', '$'];
    let rest = text.trim_start_matches(marks);
    let marked = rest.len() < text.len();
    let letter = rest.chars().next().filter(|c| choices.contains(*c))?;
    let after = &rest[1..];
    let next = after.trim_start();
    let labels = match after.chars().next() {
        None => true,
        Some('.' | ')' | ':' | ']' | ',' | '*' | '\n' | ';') => true,
        Some('$') => marked,
        Some(c) if c.is_whitespace() => next.is_empty() || next.starts_with(char::is_uppercase),
        _ => false,
    };
    labels.then_some(letter)
}

/// Returns the first or last separate letter that the text does not reject.
fn accepted(text: &str, choices: &str, announced: bool, last: bool) -> Option<char> {
    let mut found = standing(text, choices, announced).filter(|(at, _)| !rejected(text, *at));
    let one = if last { found.last() } else { found.next() };
    one.map(|(_, letter)| letter)
}

/// Returns the separate capital letters and their positions.
fn standing(text: &str, choices: &str, announced: bool) -> impl Iterator<Item = (usize, char)> {
    let mut previous = ' ';
    text.char_indices().filter_map(move |(at, c)| {
        let before = std::mem::replace(&mut previous, c);
        if !choices.contains(c)
            || before.is_alphanumeric()
            || matches!(before, '\\' | '\'' | '’' | '_')
        {
            return None;
        }
        let after = &text[at + 1..];
        let next = after.chars().next().unwrap_or(' ');
        let joined = next.is_alphanumeric() || matches!(next, '\'' | '’' | '_' | '^');
        let dashed = next == '-' && after[1..].starts_with(char::is_alphabetic);
        let word = || matches!(c, 'A' | 'I') && article(after, announced);
        (!(joined || dashed || word())).then_some((at, c))
    })
}

/// Returns whether a lower-case word follows, so that `A` or `I` is not a choice. After "the answer
/// is", some words may follow ("A because").
fn article(after: &str, announced: bool) -> bool {
    const VERBS: [&str; 15] = [
        "because", "since", "as", "and", "or", "but", "is", "which", "not", "for", "due", "with",
        "in", "are", "was",
    ];
    let blanks = after.len() - after.trim_start_matches(' ').len();
    let word = after[blanks..].split(|c: char| !c.is_alphanumeric()).next();
    let word = word.unwrap_or("");
    let small = blanks > 0 && word.starts_with(char::is_lowercase);
    small && !(VERBS.contains(&word) && (announced || !matches!(word, "as" | "in" | "for")))
}

/// Returns whether the words before or after the letter reject it.
fn rejected(text: &str, at: usize) -> bool {
    const REACH: usize = 24;
    let from = text.ceil_char_boundary(at.saturating_sub(REACH));
    let clause = text[from..at]
        .rsplit(['.', ',', ';', '\n', '!', '?'])
        .next();
    let before = clause.unwrap_or("").to_lowercase();
    let negative = |word: &str| {
        matches!(
            word,
            "not" | "cannot" | "neither" | "nor" | "eliminate" | "exclude" | "unlike"
        ) || word.ends_with("n't")
            || word.ends_with("n’t")
    };
    let words = before.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '’');
    if words.into_iter().any(negative) {
        return true;
    }
    let to = text.floor_char_boundary((at + 1 + REACH).min(text.len()));
    let after = text[at + 1..to]
        .trim_start_matches([')', '*', ']'])
        .trim_start()
        .to_lowercase();
    const REJECTIONS: [&str; 8] = [
        "is not",
        "isn't",
        "is wrong",
        "is incorrect",
        "cannot",
        "can't",
        "is invalid",
        "is false",
    ];
    REJECTIONS.iter().any(|words| after.starts_with(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_letter_is_found() {
        for (text, expected) in [
            ("C", Some('C')),
            ("b", Some('B')),
            ("(b)", Some('B')),
            ("**C**", Some('C')),
            ("$\\text{D}$", Some('D')),
            ("\\boxed{c}", Some('C')),
            ("It could be A. \\boxed{\\text{(B) } 12}", Some('B')),
            ("The answer is A because B is too small", Some('A')),
            ("The answer is a matter of taste, so C", Some('C')),
            ("Not A and not B, so C. D is wrong.", Some('C')),
            ("A. 5\nB. 6\nC. 7\nI take B", Some('B')),
            ("I think it's B", Some('B')),
            ("A good answer", None),
            ("\\boxed{B, C}", None),
            ("\\boxed{B} and \\boxed{C}", None),
            ("\\boxed{B} \\boxed{C}", Some('C')),
            ("\\boxed{\\text{B and C}}", None),
            ("The answer is B or C.", None),
            ("Answer: B and C", None),
            ("The answer is (B) or (C)", None),
            ("The answer is B, B.", Some('B')),
            ("The answer is (A) The vitamin C content.", Some('A')),
            ("A B C D", None),
            ("B, C", None),
            ("K", None),
            ("ABC", None),
            ("", None),
        ] {
            assert_eq!(choice(text, "ABCDEFGHIJ", &[]), expected, "{text}");
        }
    }
}
