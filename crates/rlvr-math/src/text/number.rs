//! Numbers in running text.

use super::digits;

/// A number in a text, in plain notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub end: usize,
    /// The number without separators and plus sign, with a decimal point: `-1234.5`, `1/2`,
    /// `5 2/3`, `50%`, `1.5e3`, `10^3`.
    pub plain: String,
}

/// Returns the last number of the text that is not part of a word or an index, in one pass.
pub(crate) fn last_number(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut last = None;
    let mut i = 0;
    while i < bytes.len() {
        let starts = match bytes[i] {
            b'0'..=b'9' => true,
            b'.' => bytes.get(i + 1).is_some_and(u8::is_ascii_digit),
            b'\\' => fraction(&text[i..]).is_some(),
            _ => false,
        };
        if starts && !inside_word(text, i) {
            // Parsed again only if it is the last number.
            last = Some(i);
            i = skip(text, i);
        } else if bytes[i].is_ascii_alphanumeric() || bytes[i] == b'_' {
            // Skips a word with a digit in it as a whole, also `v1.2`.
            i += 1;
            while i < bytes.len()
                && (bytes[i].is_ascii_alphanumeric()
                    || bytes[i] == b'_'
                    || bytes[i] == b'.' && bytes.get(i + 1).is_some_and(u8::is_ascii_digit))
            {
                i += 1;
            }
        } else {
            i += 1;
        }
    }
    let start = last?;
    let mut plain = number_at(text, start)?.plain;
    if negative(&text[..start]) {
        plain.insert(0, '-');
    }
    Some(plain)
}

fn skip(text: &str, start: usize) -> usize {
    number_at(text, start).map_or(start + 1, |number| number.end)
}

/// Returns whether the preceding character makes the digits part of a name (`AZYUK2A`), an index or
/// an exponent.
fn inside_word(text: &str, start: usize) -> bool {
    let before = text[..start].strip_suffix('{').unwrap_or(&text[..start]);
    match before.chars().next_back() {
        Some('^' | '_') => true,
        _ => text[..start]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphabetic() || c == '_'),
    }
}

/// Returns whether the number after this text has a minus sign: one without a term before it. A
/// currency sign may come between.
fn negative(before: &str) -> bool {
    let before = before.trim_end_matches(['$', '€', '£', '¥', '\\']);
    let Some(rest) = before.strip_suffix(['-', '−', '–']) else {
        return false;
    };
    let term = |c: char| c.is_alphanumeric() || matches!(c, ')' | ']' | '}' | '%' | '!');
    !rest.chars().next_back().is_some_and(term)
}

/// Returns the number that begins at the byte `start`, without its sign.
pub(crate) fn number_at(text: &str, start: usize) -> Option<Number> {
    if let Some((length, plain)) = fraction(&text[start..]) {
        let end = start + length;
        return Some(Number { end, plain });
    }
    let (mut plain, mut end) = decimal(text, start)?;
    let whole = plain.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((power, length)) = power(&text[end..]) {
        plain += &power;
        end += length;
    } else if whole {
        if let Some(length) = over(&text[end..]) {
            plain += &text[end..end + length];
            end += length;
        } else if let Some(length) = mixed(&text[end..]) {
            plain += &text[end..end + length];
            end += length;
        }
    }
    let rest = text[end..].trim_start_matches([' ', '\u{a0}', '\u{202f}']);
    let percent = rest.strip_prefix('\\').unwrap_or(rest);
    if percent.starts_with('%') {
        plain.push('%');
        end = text.len() - percent.len() + 1;
    }
    Some(Number { end, plain })
}

/// Reads digits with thousands separators and decimals. Returns the plain form and the end.
fn decimal(text: &str, start: usize) -> Option<(String, usize)> {
    let count = |at: usize| {
        let rest = text.as_bytes().get(at..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    // All groups have the same separator.
    let mut used = None;
    let bytes = text.as_bytes();
    let whole = digits::read(
        |place| bytes.get(place).map(|&byte| char::from(byte)),
        start,
        |place| {
            let next = separator(&text[place..])?;
            (*used.get_or_insert(next) == next).then_some(next.len())
        },
    );
    let first = whole.digits.len();
    let (mut plain, mut end, grouped) = (whole.digits, whole.end, whole.grouped);
    let mark = text[end..].chars().next();
    // `1,22` is a decimal number, `1,234,5` and `1,2,3` are lists.
    let listed = grouped || text[..start].ends_with(',');
    let comma = |length: usize| !listed && !text[end + 1 + length..].starts_with(',');
    let decimals = match mark {
        Some('.') => count(end + 1),
        Some(',') => Some(count(end + 1)).filter(|&n| comma(n)).unwrap_or(0),
        _ => 0,
    };
    if decimals > 0 {
        plain.push('.');
        plain += &text[end + 1..end + 1 + decimals];
        end += 1 + decimals;
    }
    (first > 0 || decimals > 0).then_some((plain, end))
}

/// Returns the length of a separator between groups of three digits.
fn separator(text: &str) -> Option<&'static str> {
    const SEPARATORS: [&str; 8] = [
        ",\\!", "{,}", "\\,", ",", " ", "\u{a0}", "\u{202f}", "\u{2009}",
    ];
    SEPARATORS.into_iter().find(|one| text.starts_with(one))
}

/// Reads an exponent, `e5`, `^3`, `^{-2}` or `\times 10^5`. Returns it and its length.
fn power(text: &str) -> Option<(String, usize)> {
    let signed = |text: &str| {
        let sign = usize::from(text.starts_with(['-', '+']));
        let digits = text[sign..].bytes().take_while(u8::is_ascii_digit).count();
        (digits > 0).then_some(sign + digits)
    };
    let exponent = |text: &str| {
        let inside = text.strip_prefix('{').unwrap_or(text);
        let length = signed(inside)?;
        let braces = text.len() - inside.len();
        let closed = braces == 0 || inside[length..].starts_with('}');
        closed.then(|| (inside[..length].to_string(), length + 2 * braces))
    };
    if let Some(rest) = text.strip_prefix(['e', 'E']) {
        let length = signed(rest)?;
        let follows = rest[length..].starts_with(|c: char| c.is_alphanumeric());
        return (!follows).then(|| (format!("e{}", &rest[..length]), 1 + length));
    }
    if let Some(rest) = text.strip_prefix('^') {
        let (exponent, length) = exponent(rest)?;
        return Some((format!("^{exponent}"), 1 + length));
    }
    let trimmed = text.trim_start_matches(' ');
    let times = ["\\times", "\\cdot", "×", "·", "*", "x"];
    let rest = times.iter().find_map(|times| trimmed.strip_prefix(times))?;
    let rest = rest.trim_start_matches(' ').strip_prefix("10^")?;
    let (exponent, length) = exponent(rest)?;
    Some((format!("e{exponent}"), text.len() - rest.len() + length))
}

/// Returns the length of a slash and a denominator.
fn over(text: &str) -> Option<usize> {
    let digits = text.strip_prefix('/')?.bytes();
    let digits = digits.take_while(u8::is_ascii_digit).count();
    (digits > 0).then_some(1 + digits)
}

/// Returns the length of a space and a fraction, as in `5 2/3`.
fn mixed(text: &str) -> Option<usize> {
    let digits = text.strip_prefix(' ')?.bytes();
    let digits = digits.take_while(u8::is_ascii_digit).count();
    let over = over(&text[1 + digits..])?;
    (digits > 0).then_some(1 + digits + over)
}

/// Reads `\frac{1}{2}` or `\frac12` of integers. Returns its length and `1/2`.
fn fraction(text: &str) -> Option<(usize, String)> {
    let names = ["\\frac", "\\dfrac", "\\tfrac", "\\cfrac"];
    let mut rest = names.iter().find_map(|name| text.strip_prefix(name))?;
    let mut parts = [""; 2];
    for part in &mut parts {
        let trimmed = rest.trim_start_matches(' ');
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        (*part, rest) = match trimmed.strip_prefix('{') {
            Some(inside) => {
                let (part, after) = inside.split_at(digits(inside));
                (part, after.strip_prefix('}')?)
            }
            None => trimmed.split_at(digits(trimmed).min(1)),
        };
        if part.is_empty() {
            return None;
        }
    }
    Some((text.len() - rest.len(), parts.join("/")))
}

/// Returns the number after the last `####` and a space.
pub(crate) fn hash_number(text: &str) -> Option<String> {
    let mut last = None;
    let mut from = 0;
    while let Some(at) = text[from..].find("####") {
        let start = from + at;
        let after = &text[start + 4..];
        from = start + 4;
        let longer = after.starts_with('#') || text[..start].ends_with('#');
        let blanks = after
            .bytes()
            .take_while(|byte| *byte == b' ' || *byte == b'\t')
            .count();
        if longer || blanks == 0 || blanks > 16 {
            continue;
        }
        let line = &after[blanks..];
        let unsigned = line.trim_start_matches(['-', '+', '−', '$', '€', '£', '¥', '\\']);
        let sign = line.len() - unsigned.len();
        let minus = line[..sign].contains(['-', '−']);
        if sign < 8
            && let Some(number) = number_at(unsigned, 0)
            && !heading(&unsigned[number.end..])
        {
            from = text.len() - unsigned.len() + number.end;
            last = Some((minus, number.plain));
        }
    }
    let (minus, plain) = last?;
    Some(if minus { format!("-{plain}") } else { plain })
}

/// Returns whether the number is that of a heading, "#### 3. The sum".
fn heading(after: &str) -> bool {
    after
        .strip_prefix(['.', ')', ':'])
        .and_then(|rest| rest.strip_prefix(' '))
        .is_some_and(|rest| rest.trim_start().starts_with(char::is_alphabetic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_found_in_plain_notation() {
        for (text, expected) in [
            ("7,425,000", Some("7425000")),
            ("1 000.0", Some("1000.0")),
            ("12{,}345", Some("12345")),
            ("32,\\!349", Some("32349")),
            ("12,34", Some("12.34")),
            ("0,111", Some("0.111")),
            ("1,2,3", Some("3")),
            ("5, 6", Some("6")),
            ("-.4", Some("-.4")),
            ("5-3", Some("3")),
            ("5 - 3", Some("3")),
            ("-$5", Some("-5")),
            ("$-5", Some("-5")),
            ("(−5)", Some("-5")),
            ("3e", Some("3")),
            ("1.5 \\times 10^{3}", Some("1.5e3")),
            ("2·10^-4 m", Some("2e-4")),
            ("10^3", Some("10^3")),
            ("x_2 = 7", Some("7")),
            ("x_2", None),
            ("x^{2}", None),
            ("5 2/3", Some("5 2/3")),
            ("-\\frac{3}{4}", Some("-3/4")),
            ("\\frac34", Some("3/4")),
            ("\\frac{x}{4}", Some("4")),
            ("50 \\%", Some("50%")),
            ("2A", Some("2")),
            ("1.", Some("1")),
            ("v1.2", None),
            ("é5", None),
            ("", None),
        ] {
            assert_eq!(last_number(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_number_after_hashes_is_found() {
        for (text, expected) in [
            ("#### $1,234.50", Some("1234.50")),
            ("#### 5 apples\n#### none", Some("5")),
            ("##### 5", None),
            ("#### 3. Solve for x", None),
            ("#### 3.", Some("3")),
            ("####\n5", None),
            ("####", None),
        ] {
            assert_eq!(hash_number(text).as_deref(), expected, "{text}");
        }
    }
}
