//! Texts that are a number.

use super::digits;
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// The length in bytes beyond which a text is not a number.
const MAX_BYTES: usize = 1000;

/// Returns the exact value of an integer, a decimal or a fraction, written as an integer or a
/// fraction in lowest terms, so that equal numbers have equal values. `None` if `text` is not a
/// number, or is longer than 1000 bytes.
///
/// `text` must not have whitespace at its ends. It may start with one sign (`+`, `-`, U+2212). The
/// digits before the decimal point may be grouped by commas if every group is complete: `1,085` and
/// `12,000,000`, not `1,08`, `1085,000` or `0,085`. The digits before or after the point may be
/// missing, as in `.5` and `5.`. A fraction consists of two integers, with optional spaces around
/// the `/`.
///
/// ```
/// use rlvr_math::exact_number;
///
/// assert_eq!(exact_number("1,085.50").as_deref(), Some("2171/2"));
/// assert_eq!(exact_number("085"), exact_number("170/2"));
/// assert_eq!(exact_number("85 apples"), None);
/// ```
pub fn exact_number(text: &str) -> Option<String> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (negative, unsigned) = match text.strip_prefix(['-', '−']) {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match unsigned.split_once('/') {
        Some((numerator, denominator)) => {
            let denominator = whole(denominator.trim_start())?;
            if denominator == UBig::ZERO {
                return None;
            }
            RBig::from_parts(whole(numerator.trim_end())?.into(), denominator)
        }
        None => decimal(unsigned)?,
    };
    let value = if negative { -value } else { value };
    Some(value.to_string())
}

/// Digits with an optional decimal part.
fn decimal(text: &str) -> Option<RBig> {
    let (before, after) = text.split_once('.').unwrap_or((text, ""));
    if after.is_empty() && before.is_empty() || !after.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let integer = if before.is_empty() {
        UBig::ZERO
    } else {
        whole(before)?
    };
    let unit = UBig::from(10u8).pow(after.len());
    let fraction = if after.is_empty() {
        UBig::ZERO
    } else {
        UBig::from_str_radix(after, 10).ok()?
    };
    Some(RBig::from_parts(
        IBig::from(integer * &unit + fraction),
        unit,
    ))
}

/// Digits, plain or in groups of three.
fn whole(text: &str) -> Option<UBig> {
    let bytes = text.as_bytes();
    let read = digits::read(
        |place| bytes.get(place).map(|&byte| char::from(byte)),
        0,
        |place| (bytes.get(place) == Some(&b',')).then_some(1),
    );
    let all = !read.digits.is_empty() && read.end == text.len();
    all.then(|| UBig::from_str_radix(&read.digits, 10).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        exact_number(text).unwrap_or_else(|| "none".into())
    }

    #[test]
    fn numbers_have_their_exact_value() {
        for (text, expected) in [
            ("85", "85"),
            ("085", "85"),
            ("85.0", "85"),
            ("85.", "85"),
            ("+85", "85"),
            ("-85", "-85"),
            ("−85", "-85"),
            ("-0", "0"),
            (".5", "1/2"),
            ("-.50", "-1/2"),
            ("0.1", "1/10"),
            ("2/4", "1/2"),
            ("-2 / 4", "-1/2"),
            ("170/2", "85"),
            ("1,085", "1085"),
            ("12,000,000.50", "24000001/2"),
            ("1,000/4", "250"),
            ("99999999999999999999", "99999999999999999999"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_numbers() {
        for text in [
            "", ".", "-", "+", "/", "--1", "+-1", "1e3", "0x10", "1 085", "1_000", "1,08",
            "1085,000", "0,085", ",085", "1,085,", "1,,085", "1.085,5", "1.2.3", "1/0", "1/", "/2",
            "1/-2", "1/2/3", "1.5/2", "50%", "$5", "٣", "nan", "inf", "- 5", "1.+5", ".-5",
        ] {
            assert_eq!(read(text), "none", "{text}");
        }
    }

    #[test]
    fn every_digit_counts() {
        // Equal as f64.
        assert_ne!(read("0.30000000000000000001"), read("0.3"));
        assert_ne!(read("9007199254740993"), read("9007199254740992"));
        assert_eq!(read(&"9".repeat(400)), "9".repeat(400));
        assert_eq!(
            read(&format!("{}7.25{}", "0".repeat(90), "0".repeat(90))),
            "29/4"
        );
        assert_eq!(read(&"0".repeat(1001)), "none");
    }

    proptest! {
        #[test]
        fn equal_numbers_have_equal_values(value in -9_999_999i128..9_999_999, zeros in 0usize..5, tail in 0usize..5, times in 1i128..99) {
            let sign = if value < 0 { "-" } else { "+" };
            let size = value.abs();
            let mut grouped = size.to_string();
            for comma in (1..grouped.len()).rev().filter(|i| (size.to_string().len() - i).is_multiple_of(3)) {
                grouped.insert(comma, ',');
            }
            let expected = Some(value.to_string());
            for text in [
                format!("{sign}{}{size}", "0".repeat(zeros)),
                format!("{sign}{size}.{}", "0".repeat(tail)),
                format!("{sign}{grouped}"),
                format!("{sign}{}/{times}", size * times),
            ] {
                prop_assert_eq!(exact_number(&text), expected.clone(), "{}", text);
            }
            let halves = if value < 0 { 2 * value - 1 } else { 2 * value + 1 };
            prop_assert_eq!(exact_number(&format!("{sign}{size}.5")), Some(format!("{halves}/2")));
        }

        #[test]
        fn no_text_panics(text in "[0-9+−,./ -]{0,30}", wild in any::<String>()) {
            let _ = exact_number(&text);
            let _ = exact_number(&wild);
        }
    }
}
