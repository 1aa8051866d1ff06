//! Removes mathematics, code and tags from a text.

/// Delimiters of removed text. A longer opening delimiter comes before its own prefix.
const ENCLOSED: [(&str, &str); 4] = [("```", "```"), ("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)")];

/// Returns the text without the following, each replaced by a space. The time is linear in the
/// text.
///
/// - fenced code and displayed mathematics (`$$`, `\[`), even if they are never closed;
/// - `` `code` ``, `$x$` and `\(x\)`, if they are closed. `$` must be closed on the same line, and
///   by the rule of many Markdown dialects there is no space inside the dollars and no digit after
///   them, so that prices are prose;
/// - LaTeX commands, with the name of their environment (`\begin{align}`), and tags in angle
///   brackets of up to 64 characters.
pub(super) fn without_markup(text: &str) -> String {
    let mut prose = String::with_capacity(text.len());
    let mut closers = Closers::default();
    let mut at = 0;
    while let Some(next) = text[at..].find(['`', '$', '\\', '<']) {
        prose.push_str(&text[at..at + next]);
        at += next;
        match closers.end_of_markup(text, at) {
            Some(end) => {
                prose.push(' ');
                at = end;
            }
            None => {
                // All four are one byte long.
                prose.push_str(&text[at..at + 1]);
                at += 1;
            }
        }
    }
    prose.push_str(&text[at..]);
    prose
}

/// The positions before which a closing delimiter is known to be missing: nothing is searched
/// twice, which keeps the time linear.
#[derive(Default)]
struct Closers {
    no_dollar_before: usize,
    no_backtick_before: usize,
    no_paren: bool,
}

impl Closers {
    /// The end of the markup that begins at `at`, if it is markup.
    fn end_of_markup(&mut self, text: &str, at: usize) -> Option<usize> {
        let rest = &text[at..];
        for (open, close) in ENCLOSED {
            let Some(inside) = rest.strip_prefix(open) else {
                continue;
            };
            let inline = open == "\\(";
            if inline && self.no_paren {
                return None;
            }
            return match inside.find(close) {
                Some(end) => Some(at + open.len() + end + close.len()),
                None if inline => {
                    self.no_paren = true;
                    None
                }
                None => Some(text.len()),
            };
        }
        match rest.as_bytes()[0] {
            b'$' => self.end_of_dollars(text, at),
            b'`' => self.end_of_backticks(text, at),
            b'\\' => end_of_command(rest).map(|end| at + end),
            _ => end_of_tag(rest).map(|end| at + end),
        }
    }

    fn end_of_dollars(&mut self, text: &str, at: usize) -> Option<usize> {
        let inside = at + 1;
        let blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
        if at < self.no_dollar_before || blank(text[inside..].chars().next()) {
            return None;
        }
        let line = text[inside..]
            .find('\n')
            .map_or(text.len(), |end| inside + end);
        // There is at least one character inside.
        let closes = |&(offset, _): &(usize, &str)| {
            let close = inside + offset;
            let digit = text[close + 1..].starts_with(|c: char| c.is_ascii_digit());
            close > inside && !blank(text[..close].chars().next_back()) && !digit
        };
        let found = text[inside..line].match_indices('$').find(closes);
        if found.is_none() {
            self.no_dollar_before = line;
        }
        found.map(|(offset, _)| inside + offset + 1)
    }

    fn end_of_backticks(&mut self, text: &str, at: usize) -> Option<usize> {
        if at < self.no_backtick_before {
            return None;
        }
        let inside = at + 1;
        let line = text[inside..]
            .find('\n')
            .map_or(text.len(), |end| inside + end);
        match text[inside..line].find('`') {
            Some(end) => Some(inside + end + 1),
            None => {
                self.no_backtick_before = line;
                None
            }
        }
    }
}

/// The end of `\command`, including the `{...}` after `\begin` and `\end`.
fn end_of_command(rest: &str) -> Option<usize> {
    let letters = rest[1..]
        .bytes()
        .take_while(u8::is_ascii_alphabetic)
        .count();
    if letters == 0 {
        return None;
    }
    let end = 1 + letters;
    if !matches!(&rest[1..end], "begin" | "end") {
        return Some(end);
    }
    let name = rest[end..].strip_prefix('{').map(|name| {
        let word = |c: &u8| c.is_ascii_alphabetic() || *c == b'*';
        name.bytes().take_while(word).count()
    });
    match name {
        Some(length) if rest[end + 1 + length..].starts_with('}') => Some(end + length + 2),
        _ => Some(end),
    }
}

/// The end of `<tag>` or `</tag>`.
fn end_of_tag(rest: &str) -> Option<usize> {
    let name = rest[1..].strip_prefix('/').unwrap_or(&rest[1..]);
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let end = rest.bytes().take(64).position(|byte| byte == b'>')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/<>_-| =\"".contains(&byte);
    rest[..end].bytes().all(plain).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_is_removed() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a ```py\nx = 1\n``` b", "a   b"),
            ("a ```py\nx = 1", "a  "),
            ("use `f(x)` here", "use   here"),
            ("a ` b", "a ` b"),
            ("a ` b\nc ` d", "a ` b\nc ` d"),
            ("so $x+y$ is", "so   is"),
            ("$5 or $6 or", "$5 or $6 or"),
            ("from $5 to $6.", "from $5 to $6."),
            ("$x$2", "$x$2"),
            ("$$a$$b", " b"),
            ("$$a\nb", " "),
            ("$x\n$y", "$x\n$y"),
            ("\\[a\\]b\\(c\\)d", " b d"),
            ("\\(a b", "\\(a b"),
            ("\\[a b", " "),
            ("\\frac{1}{2}", " {1}{2}"),
            ("\\begin{align*} a \\end{align*}", "  a  "),
            ("\\begin{", " {"),
            ("\\ \\\\ \\", "\\ \\\\ \\"),
            ("<think>a</think>", " a "),
            ("1 < 2 and a <b", "1 < 2 and a <b"),
            // A comparison that looks like a tag is removed like one.
            ("x<y and y>z", "x z"),
            ("好$x$的", "好 的"),
        ] {
            assert_eq!(without_markup(text), expected, "{text:?}");
        }
    }

    #[test]
    fn four_megabytes_of_unclosed_markup_are_read() {
        for piece in [
            "$x ", "`", "\\(", "\\[", "$", "<a", "\\begin{", "`\n", "$$", "``` ",
        ] {
            let spam = piece.repeat(4_000_000 / piece.len());
            assert!(without_markup(&spam).len() <= spam.len());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_accepted(text in "[a$`\\\\()\\[\\]<>/ \n0é好{}]{0,40}") {
            prop_assert!(without_markup(&text).len() <= text.len());
        }
    }
}
