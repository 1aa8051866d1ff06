//! The last `\boxed{...}`, and the boxes before it that form a list with it.

/// The last box, and the boxes before it that form a list with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Boxes<'a> {
    /// The contents of the boxes in order.
    pub items: Vec<&'a str>,
    /// The start of the first box.
    pub start: usize,
    /// The end of the last box.
    pub end: usize,
}

impl Boxes<'_> {
    /// Returns all contents as a list, `1, 2`, if there are several.
    pub fn list(&self) -> Option<String> {
        (self.items.len() > 1).then(|| self.items.join(", "))
    }
}

/// The bounds of a complete box and of its content.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    content: (usize, usize),
    end: usize,
}

enum Open {
    Brace,
    Box { start: usize },
}

/// Returns the last complete box of the text and those that form a list with it, in one pass with
/// an explicit stack.
pub(crate) fn last_boxes(text: &str) -> Option<Boxes<'_>> {
    let spans = complete_boxes(text);
    let last = spans.last()?;
    let mut first = spans.len() - 1;
    while first > 0 && joins(&text[spans[first - 1].end..spans[first].start]) {
        first -= 1;
    }
    let content = |span: &Span| text[span.content.0..span.content.1].trim();
    Some(Boxes {
        items: spans[first..].iter().map(content).collect(),
        start: spans[first].start,
        end: last.end,
    })
}

/// Returns the content of the first box of a text in which no box is closed.
pub(crate) fn unclosed(text: &str) -> Option<&str> {
    let names = ["\\boxed", "\\fbox"].into_iter();
    let opened = names.filter_map(|name| {
        let at = text.find(name)?;
        let inside = text[at + name.len()..].trim_start().strip_prefix('{')?;
        Some((at, inside))
    });
    opened.min_by_key(|(at, _)| *at).map(|(_, inside)| inside)
}

/// Returns the complete boxes that are not inside of another one, in order.
fn complete_boxes(text: &str) -> Vec<Span> {
    let bytes = text.as_bytes();
    let mut stack = Vec::new();
    let mut found: Vec<Span> = Vec::new();
    // The number of open boxes. Braces outside of boxes are not pushed, so that they need no
    // memory.
    let mut open_boxes = 0usize;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => {
                let name = ["\\boxed", "\\fbox"]
                    .into_iter()
                    .find(|name| bytes[i..].starts_with(name.as_bytes()));
                let Some(name) = name else {
                    // `\\boxed`, in a text that was escaped twice, is a box too.
                    let doubled = bytes[i + 1..].starts_with(b"\\boxed")
                        || bytes[i + 1..].starts_with(b"\\fbox");
                    i += if doubled { 1 } else { 2 };
                    continue;
                };
                let start = i;
                i += name.len();
                if bytes.get(i).is_some_and(u8::is_ascii_alphabetic) {
                    continue;
                }
                let after = text[i..].trim_start();
                let open = text.len() - after.len();
                if after.starts_with('{') {
                    stack.push(Open::Box { start });
                    open_boxes += 1;
                    i = open + 1;
                } else if let Some(length) = bare(after) {
                    let end = open + length;
                    found.push(Span {
                        start,
                        content: (open, end),
                        end,
                    });
                    i = end;
                }
            }
            b'{' => {
                if open_boxes > 0 {
                    stack.push(Open::Brace);
                }
                i += 1;
            }
            b'}' => {
                if let Some(Open::Box { start }) = stack.pop() {
                    open_boxes -= 1;
                    while found.last().is_some_and(|inner| inner.start > start) {
                        found.pop();
                    }
                    let open = start + text[start..i].find('{').unwrap_or(0);
                    found.push(Span {
                        start,
                        content: (open + 1, i),
                        end: i + 1,
                    });
                }
                i += 1;
            }
            _ => i += 1,
        }
    }
    found
}

/// Returns the length of an argument without braces, `7` in `\boxed 7`: a number, a letter, or a
/// command with its arguments, but not a word as in "put it in \boxed form".
fn bare(text: &str) -> Option<usize> {
    // Longer arguments have braces. The bound keeps the time linear for a text of names without
    // arguments.
    const LONGEST: usize = 200;
    let text = &text[..text.floor_char_boundary(LONGEST)];
    let bytes = text.as_bytes();
    let mut depth = 0usize;
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' if matches!(bytes.get(i + 1), Some(b')' | b']')) => break,
            b'\\' if text[i..].starts_with("\\boxed") || text[i..].starts_with("\\fbox") => break,
            b'\\' => i += 1,
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b'$' => break,
            c if c.is_ascii_whitespace() && depth == 0 => break,
            _ => {}
        }
        i += 1;
    }
    if depth > 0 {
        return None;
    }
    let argument = text[..text.floor_char_boundary(i.min(text.len()))]
        .trim_end_matches(['.', ',', ';', ':', '!', '?', '*']);
    let unsigned = argument.trim_start_matches(['-', '+']);
    let number = unsigned.starts_with(|c: char| c.is_ascii_digit());
    let command = unsigned.strip_prefix('\\');
    let command = command.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()));
    let letter = unsigned.len() == 1 && unsigned.as_bytes()[0].is_ascii_alphabetic();
    (number || command || letter).then_some(argument.len())
}

/// Words between two boxes after which the second one corrects or concludes the first and is not a
/// further value.
const TURNS: [&str; 30] = [
    "but",
    "wait",
    "no",
    "not",
    "then",
    "so",
    "thus",
    "hence",
    "therefore",
    "instead",
    "actually",
    "rather",
    "correct",
    "correction",
    "wrong",
    "is",
    "was",
    "are",
    "that",
    "sorry",
    "finally",
    "or rather",
    "i",
    "we",
    "my",
    "the",
    "final",
    "answer",
    "mean",
    "equals",
];

/// Returns whether two boxes with the text `gap` between them are two values of a list: separators
/// (`,` `;` `&`, "and", "or", `\quad`), with at most a few words before them ("for part (a) and"),
/// in one sentence and without a word of `TURNS`.
fn joins(gap: &str) -> bool {
    const LONGEST: usize = 70;
    if gap.len() > LONGEST || gap.contains("\n\n") {
        return false;
    }
    let mut separated = false;
    let mut words = 0;
    let mut rest = gap;
    while let Some(c) = rest.chars().next() {
        let letters = |text: &str| text.bytes().take_while(u8::is_ascii_alphabetic).count();
        match c {
            ',' | ';' | '&' => {
                separated = true;
                words = 0;
                rest = &rest[1..];
            }
            '.' | '?' | '!' | ':' | '=' | '<' | '>' | '#' => return false,
            '\\' => {
                let length = letters(&rest[1..]);
                let name = &rest[1..1 + length];
                if matches!(name, "quad" | "qquad" | "and" | "lor" | "vee") {
                    separated = true;
                    words = 0;
                }
                // A command without letters ends a formula or a line, or is a space.
                let skip = if length == 0 {
                    rest[1..].chars().next().map_or(0, char::len_utf8)
                } else {
                    length
                };
                rest = &rest[1 + skip..];
            }
            _ if c.is_ascii_alphabetic() => {
                let length = letters(rest);
                let word = rest[..length].to_ascii_lowercase();
                if matches!(word.as_str(), "and" | "or") {
                    separated = true;
                    words = 0;
                } else if TURNS.contains(&word.as_str()) {
                    return false;
                } else {
                    words += 1;
                }
                rest = &rest[length..];
            }
            _ => rest = &rest[c.len_utf8()..],
        }
        if words > 3 {
            return false;
        }
    }
    // No words after the last separator: ", giving" continues the sentence.
    separated && words == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(text: &str) -> Option<&str> {
        last_boxes(text)?.items.pop()
    }

    fn list(text: &str) -> Option<String> {
        last_boxes(text).unwrap().list()
    }

    #[test]
    fn the_last_complete_and_outermost_box_is_found() {
        for (text, expected) in [
            ("\\boxed{4} then \\boxed{5", Some("4")),
            ("\\boxed{ \\boxed{3}", Some("3")),
            (
                "\\boxed{\\boxed{3} + \\fbox{4}}",
                Some("\\boxed{3} + \\fbox{4}"),
            ),
            ("\\boxed{a\\}", None),
            ("\\boxed{\\{a\\}}", Some("\\{a\\}")),
            ("\\boxed{a\\\\}", Some("a\\\\")),
            ("} } \\boxed{1} }", Some("1")),
            ("{ { \\boxed{1}", Some("1")),
            ("\\boxed", None),
            ("\\boxed ", None),
            ("put it in \\boxed form", None),
            ("$\\boxed 7$", Some("7")),
            ("\\boxed -12.5.", Some("-12.5")),
            ("\\boxed\\frac{1}{2}$", Some("\\frac{1}{2}")),
            ("\\boxed{1}\\boxed", Some("1")),
            ("\\boxed\u{a0}{1}", Some("1")),
        ] {
            assert_eq!(last(text), expected, "{text}");
        }
    }

    #[test]
    fn boxes_with_separators_between_them_are_a_list() {
        for (gap, joined) in [
            (", ", true),
            (" and ", true),
            ("$ or $", true),
            (" \\quad \\text{and} \\quad ", true),
            (" \\text{ for part (a) and } ", true),
            (" papers and ", true),
            ("; ", true),
            (" ", false),
            (" then ", false),
            (" and then ", false),
            (" no no no no no ", false),
            (", no, ", false),
            (". And ", false),
            (", giving ", false),
            (" and and and or thus but ", false),
            ("\n\n, ", false),
        ] {
            let text = format!("\\boxed{{1}}{gap}\\boxed{{2}}");
            assert_eq!(list(&text).as_deref(), joined.then_some("1, 2"), "{gap:?}");
        }
        assert_eq!(
            list("\\boxed{1}, \\boxed{2} but \\boxed{3} or \\boxed{4}").unwrap(),
            "3, 4"
        );
    }
}
