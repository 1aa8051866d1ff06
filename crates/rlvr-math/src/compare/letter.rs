//! Multiple choice: only the letters are compared, not the text next to them.

use super::words::unwrapped;

/// Returns whether a letter can be a choice. Other letters are symbols, in which case matters.
fn is_letter(c: char) -> bool {
    matches!(c.to_ascii_uppercase(), 'A'..='J')
}

/// Returns the letter of a gold that is only a letter: `C`, `(C)`, `\textbf{(C)}`.
pub(crate) fn gold(text: &str) -> Option<char> {
    let bare = unwrapped(text);
    let inner = bare
        .strip_prefix('(')
        .and_then(|t| t.strip_suffix(')'))
        .unwrap_or(&bare);
    let inner = inner.trim_end_matches([')', '.', ':']);
    match inner.chars().collect::<Vec<_>>()[..] {
        [c @ 'A'..='J'] => Some(c),
        _ => None,
    }
}

/// Returns the letter that an answer chooses: `a`, `(A)`, `A.`, `\textbf{(C)}\ 12`.
pub(crate) fn answer(text: &str) -> Option<char> {
    if let Some(c) = gold(text) {
        return Some(c);
    }
    let bare = unwrapped(text);
    if let [c] = bare.chars().collect::<Vec<_>>()[..] {
        return is_letter(c).then(|| c.to_ascii_uppercase());
    }
    // A labelled value.
    let plain: String = strip_fonts(&bare);
    let mut chars = plain.trim_start().chars();
    let (letter, mark) = match chars.next()? {
        '(' => (chars.next()?, chars.next()?),
        c => (c, chars.next()?),
    };
    let rest = chars.as_str();
    let marked =
        mark == ')' || (matches!(mark, '.' | ':') && rest.starts_with(char::is_whitespace));
    (is_letter(letter) && marked && (letter.is_uppercase() || rest.trim().is_empty()))
        .then(|| letter.to_ascii_uppercase())
}

/// Removes font commands: `\textbf{(C)}\ 12` becomes `(C) 12`.
fn strip_fonts(text: &str) -> String {
    let mut out = text.to_owned();
    for command in [
        "\\textbf", "\\text", "\\mathrm", "\\mathbf", "\\textrm", "\\mbox",
    ] {
        out = out.replace(command, "");
    }
    out.replace(['{', '}', '$'], "")
        .replace("\\ ", " ")
        .replace('\\', " ")
}

/// Returns several letters, sorted and without repetition: `AC`, `A, C`, `A and C`. `bare_run`
/// allows the form `AC`.
pub(crate) fn set(text: &str, bare_run: bool) -> Option<Vec<char>> {
    let bare = strip_fonts(&unwrapped(text));
    let parts: Vec<&str> = bare
        .split([',', ';', ' '])
        .map(|w| w.trim_matches(['(', ')', '.']))
        .filter(|w| !w.is_empty() && *w != "and")
        .collect();
    let single = |w: &&str| {
        w.chars().count() == 1 && w.chars().all(|c| c.is_ascii_uppercase() && is_letter(c))
    };
    let mut letters: Vec<char> = if parts.len() > 1 && parts.iter().all(single) {
        parts.iter().filter_map(|w| w.chars().next()).collect()
    } else if let ([run], true) = (&parts[..], bare_run) {
        let run: Vec<char> = run.chars().collect();
        let rising = run.windows(2).all(|w| w[0] < w[1]);
        if !(2..=6).contains(&run.len())
            || !rising
            || !run.iter().all(|c| c.is_ascii_uppercase() && is_letter(*c))
        {
            return None;
        }
        run
    } else {
        return None;
    };
    letters.sort_unstable();
    letters.dedup();
    Some(letters)
}
