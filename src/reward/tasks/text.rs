//! Parses text as Python does, which the scores of reasoning_gym depend on.

/// Whether Python's `str.split` and `str.strip` treat the character as whitespace: Unicode
/// whitespace and four control characters.
pub(in crate::reward) fn is_python_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// Removes leading and trailing whitespace.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Splits at whitespace.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|word| !word.is_empty())
}

/// The number of characters.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

/// Parses an integer: a sign, digits with single underscores between them, and surrounding
/// whitespace. Numbers beyond 128 bits saturate.
pub(super) fn integer(text: &str) -> Option<i128> {
    let text = strip(text);
    let (negative, digits) = sign(text);
    let mut value = 0i128;
    for part in digits.split('_') {
        if part.is_empty() {
            return None;
        }
        for digit in part.chars() {
            let digit = i128::from(digit.to_digit(10)?);
            value = value.saturating_mul(10).saturating_add(digit);
        }
    }
    Some(if negative { -value } else { value })
}

/// Whether the text begins with a minus, and the text after the sign.
fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// A finite decimal number of any length, in normal form.
#[derive(PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without leading and trailing zeros; empty for 0.
    digits: String,
    /// The power of ten of the last digit.
    exponent: i64,
}

impl Decimal {
    /// Parses a sign, digits with or without a point, an exponent, and surrounding whitespace.
    /// Underscores are ignored.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text: String = strip(text).chars().filter(|&c| c != '_').collect();
        let (negative, number) = sign(&text);
        let (mantissa, exponent) = match number.find(['e', 'E']) {
            Some(at) => (&number[..at], number[at + 1..].parse::<i64>().ok()?),
            None => (number, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let kept = digits.trim_end_matches('0');
        let zeros = (digits.len() - kept.len()) as i64;
        let kept = kept.trim_start_matches('0').to_string();
        if kept.is_empty() {
            return Some(Self {
                negative: false,
                digits: kept,
                exponent: 0,
            });
        }
        let exponent = exponent
            .checked_sub(fraction.len() as i64)?
            .checked_add(zeros)?;
        Some(Self {
            negative,
            digits: kept,
            exponent,
        })
    }
}

impl Decimal {
    /// The number in units of 10^-25, truncated; `None` if it does not fit into 128 bits.
    pub(super) fn units(&self) -> Option<i128> {
        const PLACES: i64 = 25;
        let shift = self.exponent.checked_add(PLACES)?;
        let digits = match usize::try_from(-shift) {
            Ok(dropped) => &self.digits[..self.digits.len().saturating_sub(dropped)],
            Err(_) => &self.digits,
        };
        let units: i128 = match digits {
            "" => 0,
            digits => digits.parse().ok()?,
        };
        let zeros = u32::try_from(shift.max(0)).ok()?;
        let units = units.checked_mul(10i128.checked_pow(zeros)?)?;
        Some(if self.negative { -units } else { units })
    }
}

/// The first number in a text that is not adjacent to a letter: digits, optionally a point and more
/// digits, and a preceding minus that is not an operator.
pub(super) fn first_number(text: &str) -> Option<f64> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let digits = |from: usize| {
        let rest = &text[from..];
        from + rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len())
    };
    let ends = |at: usize| !text[at..].chars().next().is_some_and(is_word);
    let mut position = 0;
    while let Some(found) = text[position..].find(|c: char| c.is_ascii_digit()) {
        let start = position + found;
        let whole = digits(start);
        position = whole;
        let before = text[..start].chars().next_back();
        if before.is_some_and(is_word) {
            continue;
        }
        let fraction = match text[whole..].starts_with('.') {
            true => digits(whole + 1),
            false => whole,
        };
        let end = match fraction > whole + 1 && ends(fraction) {
            true => fraction,
            false if ends(whole) => whole,
            false => continue,
        };
        let signs = text[..start].strip_suffix('-');
        let negative = signs.is_some_and(|rest| !rest.chars().next_back().is_some_and(is_word));
        let number: f64 = text[start..end].parse().ok()?;
        return Some(if negative { -number } else { number });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_parsed_as_in_python() {
        for (text, value) in [
            (" 42\n", Some(42)),
            ("+7", Some(7)),
            ("-1_000", Some(-1000)),
            ("007", Some(7)),
            ("", None),
            ("-", None),
            ("+-1", None),
            ("_1", None),
            ("1__0", None),
            ("1_", None),
            ("1.0", None),
            ("1 2", None),
            ("\u{1f}5\u{a0}", Some(5)),
        ] {
            assert_eq!(integer(text), value, "{text:?}");
        }
        assert_eq!(integer(&"9".repeat(200)), Some(i128::MAX));
    }

    #[test]
    fn equal_decimals_have_the_same_normal_form() {
        let same = |a: &str, b: &str| match (Decimal::read(a), Decimal::read(b)) {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        };
        for other in [
            "1000",
            "+01000.00",
            "1e3",
            "1_000",
            " 10E+2 ",
            "1000.",
            "0.1e4",
        ] {
            assert_eq!(same("1000", other), Some(true), "{other}");
        }
        for zero in ["0", "-0", "0.000", ".0", "0e99"] {
            assert_eq!(same("0", zero), Some(true), "{zero}");
        }
        for other in ["-1000", "100", "1000.1", "1001", "0"] {
            assert_eq!(same("1000", other), Some(false), "{other}");
        }
        for none in [
            "",
            ".",
            "e5",
            "1e",
            "1e1.5",
            "1,000",
            "NaN",
            "inf",
            "1 0",
            "--1",
            "1e99999999999999999999",
        ] {
            assert_eq!(same("1000", none), None, "{none}");
        }
    }

    #[test]
    fn decimals_are_converted_to_units() {
        let units = |text: &str| Decimal::read(text).unwrap().units();
        assert_eq!(units("0.001"), Some(10i128.pow(22)));
        assert_eq!(units("-12"), Some(-12 * 10i128.pow(25)));
        assert_eq!(
            units(&format!("0.{}", "3".repeat(40))),
            Some(3_333_333_333_333_333_333_333_333)
        );
        assert_eq!(units("1e-99"), Some(0));
        assert_eq!(units("0"), Some(0));
        for large in ["1e14", "1e999", "1e9223372036854775807"] {
            assert_eq!(units(large), None, "{large}");
        }
    }

    #[test]
    fn the_first_separate_number_is_found() {
        for (text, number) in [
            ("288", Some(288.0)),
            ("about 3.5 or 4", Some(3.5)),
            ("3.14x", Some(3.0)),
            ("x2 12abc _5 7.", Some(7.0)),
            ("-5", Some(-5.0)),
            ("is -5", Some(-5.0)),
            ("10-5", Some(10.0)),
            ("a-5", Some(5.0)),
            ("1,085", Some(1.0)),
            ("$12.50!", Some(12.5)),
            ("none", None),
            ("", None),
            ("é7", None),
        ] {
            assert_eq!(first_number(text), number, "{text}");
        }
    }
}
