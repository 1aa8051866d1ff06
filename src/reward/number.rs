//! Exact reading of a number that somebody wrote.

use crate::prompt::Rational;

/// The longest text that is read as a number, in bytes; what fits 128 bits is shorter unless it is padded.
const MAX_BYTES: usize = 1000;

/// The exact value of an integer, a decimal or a fraction; `None` if `text` is none of them or does not fit 128 bits.
///
/// `text` has no whitespace around it. A sign (`+`, `-`, U+2212) comes first and once. Whole parts may be grouped by commas
/// if all groups are whole: `1,085` and `12,000,000`, not `1,08`, `1085,000` or `0,085` - the last is a decimal comma to
/// many. One of whole part and decimals may be missing, as in `.5` and `5.`. A fraction is two whole numbers, with
/// blanks around the `/` allowed.
pub(super) fn read_number(text: &str) -> Option<Rational> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (negative, unsigned) = match text.strip_prefix(['-', '−']) {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match unsigned.split_once('/') {
        Some((numerator, denominator)) => Rational::new(
            whole(numerator.trim_end())?,
            whole(denominator.trim_start())?,
        )?,
        None => decimal(unsigned)?,
    };
    Some(if negative { -value } else { value })
}

/// Digits with an optional decimal part.
fn decimal(text: &str) -> Option<Rational> {
    let Some((before, after)) = text.split_once('.') else {
        return Rational::new(whole(text)?, 1);
    };
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let integer = if before.is_empty() { 0 } else { whole(before)? };
    if !after.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Zeros at the end change nothing but would use up the 38 digits.
    let after = after.trim_end_matches('0');
    let unit = 10i128.checked_pow(u32::try_from(after.len()).ok()?)?;
    let fraction = if after.is_empty() { 0 } else { digits(after)? };
    Rational::new(integer.checked_mul(unit)?.checked_add(fraction)?, unit)
}

/// Digits, plain or in well-formed groups of three.
fn whole(text: &str) -> Option<i128> {
    if !text.contains(',') {
        return digits(text);
    }
    let mut groups = text.split(',');
    let first = groups.next()?;
    let well_formed = (1..=3).contains(&first.len())
        && !first.starts_with('0')
        && groups.all(|group| group.len() == 3);
    if !well_formed {
        return None;
    }
    digits(&text.replace(',', ""))
}

fn digits(text: &str) -> Option<i128> {
    // `parse` alone would accept a second sign.
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        read_number(text).map_or_else(|| "none".into(), |value| value.to_string())
    }

    #[test]
    fn numbers_as_people_write_them() {
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
    fn what_is_not_a_number() {
        for text in [
            "", ".", "-", "+", "/", "--1", "+-1", "1e3", "0x10", "1 085", "1_000", "1,08",
            "1085,000", "0,085", ",085", "1,085,", "1,,085", "1.085,5", "1.2.3", "1/0", "1/", "/2",
            "1/-2", "1/2/3", "1.5/2", "50%", "$5", "٣", "nan", "inf", "- 5", "1.+5", ".-5",
        ] {
            assert_eq!(read(text), "none", "{text}");
        }
    }

    #[test]
    fn exact_to_38_digits_and_refused_beyond() {
        // As f64 these three would be one number.
        assert_ne!(read("0.30000000000000000001"), read("0.3"));
        assert_ne!(read("9007199254740993"), read("9007199254740992"));
        assert_eq!(read(&"9".repeat(38)), "9".repeat(38));
        assert_eq!(read(&"9".repeat(40)), "none");
        // Padding is not precision.
        assert_eq!(
            read(&format!("{}7.25{}", "0".repeat(90), "0".repeat(90))),
            "29/4"
        );
        assert_eq!(read(&"0".repeat(1001)), "none");
    }

    proptest! {
        #[test]
        fn the_written_form_does_not_matter(value in -9_999_999i128..9_999_999, zeros in 0usize..5, tail in 0usize..5, times in 1i128..99) {
            let sign = if value < 0 { "-" } else { "+" };
            let size = value.abs();
            let mut grouped = size.to_string();
            for comma in (1..grouped.len()).rev().filter(|i| (size.to_string().len() - i).is_multiple_of(3)) {
                grouped.insert(comma, ',');
            }
            let expected = Rational::new(value, 1);
            for text in [
                format!("{sign}{}{size}", "0".repeat(zeros)),
                format!("{sign}{size}.{}", "0".repeat(tail)),
                format!("{sign}{grouped}"),
                format!("{sign}{}/{times}", size * times),
            ] {
                prop_assert_eq!(read_number(&text), expected, "{}", text);
            }
            prop_assert_eq!(read_number(&format!("{sign}{size}.5")), Rational::new(if value < 0 { 2 * value - 1 } else { 2 * value + 1 }, 2));
        }

        #[test]
        fn any_text_is_answered(text in "[0-9+−,./ -]{0,30}", wild in any::<String>()) {
            let _ = read_number(&text);
            let _ = read_number(&wild);
        }
    }
}
