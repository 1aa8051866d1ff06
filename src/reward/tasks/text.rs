//! Reading text as Python does, which the peers' scores rest on.

/// What Python counts as whitespace.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

/// The text without whitespace around it.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The words between whitespace.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// How many characters the text has.
pub(super) fn length(text: &str) -> usize {
    text.chars().count()
}

/// An integer: a sign, digits with single underscores between them, whitespace around. Those beyond 128 bits are the
/// largest or smallest there is.
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

/// Whether it begins with a minus, and what comes after the sign.
fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

/// A finite decimal number of any length in the one form that it has.
#[derive(PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty is 0.
    digits: String,
    /// The power of ten of the last digit.
    exponent: i64,
}

impl Decimal {
    /// A sign, digits with or without a point, an exponent, and whitespace around; underscores are left out.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_as_python_reads_them() {
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
    fn decimals_of_one_value_have_one_form() {
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
}
