//! Compares outputs and return values of a program with the expected ones.

use std::collections::HashSet;

use serde_json::Value;

/// Whether two outputs are equal, line by line, ignoring whitespace at the ends of lines and of the
/// whole text. Two lines are equal if they are the same text, or the same numbers in the same
/// order.
///
/// Numbers are decimal. With a `tolerance` of 0 they are compared exactly (`1.50` is `1.5`);
/// otherwise they are equal if they differ by at most `tolerance * max(1, |expected|)` and both are
/// within the range of `f64`. NaN and infinities are compared as text. This is the rule of
/// LiveCodeBench with a tolerance added.
pub(super) fn same_output(expected: &str, got: &str, tolerance: f64) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.trim().lines();
        lines.map(|line| line.trim().to_string()).collect()
    };
    let (expected, got) = (lines(expected), lines(got));
    expected.len() == got.len()
        && expected
            .iter()
            .zip(&got)
            .all(|(expected, got)| expected == got || same_numbers(expected, got, tolerance))
}

fn same_numbers(expected: &str, got: &str, tolerance: f64) -> bool {
    let (expected, got): (Vec<&str>, Vec<&str>) = (
        expected.split_whitespace().collect(),
        got.split_whitespace().collect(),
    );
    expected.len() == got.len()
        && expected.iter().zip(&got).all(|(expected, got)| {
            match (Decimal::read(expected), Decimal::read(got)) {
                (Some(a), Some(b)) => a == b || close(expected, got, tolerance),
                _ => tolerance > 0.0 && expected == got,
            }
        })
}

fn close(expected: &str, got: &str, tolerance: f64) -> bool {
    // Without a tolerance the digits are compared: as floats, 2^64 and 2^64 - 1 are equal.
    if tolerance == 0.0 {
        return false;
    }
    let (Ok(expected), Ok(got)) = (expected.parse::<f64>(), got.parse::<f64>()) else {
        return false;
    };
    within(expected, got, tolerance)
}

fn within(expected: f64, got: f64, tolerance: f64) -> bool {
    // Beyond the range of a float every number is infinite, so there the digits are compared.
    expected.is_finite()
        && got.is_finite()
        && (expected - got).abs() <= tolerance * expected.abs().max(1.0)
}

/// A decimal number in normal form: its digits without leading and trailing zeros, and its
/// exponent.
#[derive(PartialEq, Eq, Debug)]
struct Decimal {
    negative: bool,
    digits: String,
    /// The value is 0.digits * 10^exponent.
    exponent: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, power) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok()?),
            None => (rest, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, part].concat();
        if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let leading = all.len() - all.trim_start_matches('0').len();
        let digits = all.trim_matches('0').to_string();
        Some(match digits.is_empty() {
            true => Self {
                negative: false,
                digits,
                exponent: 0,
            },
            false => Self {
                negative,
                exponent: whole.len() as i64 - leading as i64 + i64::from(power),
                digits,
            },
        })
    }
}

/// Whether a value that the program returned, in the format of `python/values.py`, equals the
/// expected one.
///
/// The rules are those of Python (numbers are compared by value, regardless of their type), except
/// that tuples equal lists. The depth is bounded by the JSON parser, at most 128.
pub(super) fn same_value(expected: &Value, got: &Value, tolerance: f64) -> bool {
    match (expected, got) {
        (Value::Null, Value::Null) => true,
        (Value::String(expected), Value::String(got)) => expected == got,
        (Value::Bool(_) | Value::Number(_), _) => same_number(expected, got, tolerance),
        (Value::Array(expected), _) => {
            let got = match got {
                Value::Array(got) => got,
                Value::Object(tagged) => match tagged.get("t") {
                    Some(Value::Array(got)) if tagged.len() == 1 => got,
                    _ => return false,
                },
                _ => return false,
            };
            let mut pairs = expected.iter().zip(got);
            expected.len() == got.len()
                && pairs.all(|(expected, got)| same_value(expected, got, tolerance))
        }
        (Value::Object(expected), Value::Object(tagged)) => {
            let Some(Value::Array(pairs)) = tagged.get("d").filter(|_| tagged.len() == 1) else {
                return false;
            };
            // JSON keys are strings. Each key counts once: `1` and `"1"` are two keys in Python.
            let mut seen = HashSet::new();
            expected.len() == pairs.len()
                && pairs.iter().all(|pair| {
                    let (Some(key), Some(got)) = (pair.get(0), pair.get(1)) else {
                        return false;
                    };
                    let key = key
                        .as_str()
                        .or_else(|| key.get("i").and_then(Value::as_str));
                    let key = key.filter(|key| seen.insert(*key));
                    let expected = key.and_then(|key| expected.get(key));
                    expected.is_some_and(|expected| same_value(expected, got, tolerance))
                })
        }
        _ => false,
    }
}

/// Compares numbers: `expected` as JSON, `got` in the format of the driver, an integer of any size
/// or a float.
fn same_number(expected: &Value, got: &Value, tolerance: f64) -> bool {
    let expected = match expected {
        Value::Bool(one) => u8::from(*one).to_string(),
        other => other.to_string(),
    };
    let got = match got {
        Value::Bool(one) => u8::from(*one).to_string(),
        Value::Object(tagged) if tagged.len() == 1 => {
            match tagged
                .get("i")
                .or_else(|| tagged.get("f"))
                .and_then(Value::as_str)
            {
                Some(got) => got.to_string(),
                None => return false,
            }
        }
        _ => return false,
    };
    match (Decimal::read(&expected), Decimal::read(&got)) {
        (Some(a), Some(b)) => a == b || close(&expected, &got, tolerance),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn outputs_are_compared_line_by_line() {
        for (expected, got, same) in [
            ("3\n", "3", true),
            ("a b\n", "a b  \n\n", true),
            ("a b", "a  b", false),
            ("1 2", "1  2", true),
            ("1\n2", "1 2", false),
            ("1\n2\n3", "1\n2", false),
            ("1", "1\n2", false),
            ("1.50", "1.5", true),
            ("1e2", "100", true),
            ("-0", "0.0", true),
            ("-1", "1", false),
            ("0.1", "0.10000000000000001", false),
            ("nan", "nan", true),
            ("nan", "NaN", false),
            ("inf", "infinity", false),
            ("x 1.0", "x 1", false),
            ("", "", true),
            ("", "0", false),
            ("1", "", false),
            ("A", "a", false),
            (
                "100000000000000000000000001",
                "100000000000000000000000002",
                false,
            ),
            (".", ".", true),
            (".", "0", false),
        ] {
            assert_eq!(
                same_output(expected, got, 0.0),
                same,
                "{expected:?} {got:?}"
            );
        }
        assert!(same_output("0.3333333", "0.3333334", 1e-6));
        assert!(
            same_output("x 0.3333333", "x 0.3333334", 1e-6) && !same_output("x 1", "y 1", 1e-6)
        );
        assert!(
            same_output("1000000", "1000001", 1e-6) && !same_output("1000000", "1000003", 1e-6)
        );
        assert!(!same_output("1", "nan", 1e9) && !same_output("1", "inf", 1e9));
    }

    #[test]
    fn values_are_compared_as_in_python() {
        for (expected, got, same) in [
            (json!(3), json!({"i": "3"}), true),
            (json!(3), json!({"f": "3.0"}), true),
            (json!(3), json!("3"), false),
            (json!("3"), json!({"i": "3"}), false),
            (json!(true), json!(true), true),
            (json!(1), json!(true), true),
            (json!(false), json!(null), false),
            (json!(null), json!(null), true),
            (json!(0.1), json!({"f": "0.1"}), true),
            (json!(0.1), json!({"f": "0.1000001"}), false),
            (
                json!(18446744073709551615u64),
                json!({"i": "18446744073709551615"}),
                true,
            ),
            (
                json!(18446744073709551615u64),
                json!({"i": "18446744073709551616"}),
                false,
            ),
            (json!(1e22), json!({"f": "1e+22"}), true),
            (json!(-2.5e-7), json!({"f": "-2.5e-07"}), true),
            (json!(1), json!({"f": "nan"}), false),
            (json!([1, "a"]), json!([{"i": "1"}, "a"]), true),
            (json!([1, "a"]), json!({"t": [{"i": "1"}, "a"]}), true),
            (json!([1]), json!({"s": [{"i": "1"}]}), false),
            (json!([1]), json!([{"i": "1"}, {"i": "1"}]), false),
            (json!([]), json!([]), true),
            (json!({"a": 1}), json!({"d": [["a", {"i": "1"}]]}), true),
            (
                json!({"1": 1}),
                json!({"d": [[{"i": "1"}, {"i": "1"}]]}),
                true,
            ),
            (json!({"a": 1}), json!({"d": [["b", {"i": "1"}]]}), false),
            (json!({}), json!({"h": 0, "k": "Always"}), false),
            (
                json!(5),
                json!({"h": 0, "k": "Always", "call": false}),
                false,
            ),
            (json!({"i": "1"}), json!({"i": "1"}), false),
        ] {
            assert_eq!(same_value(&expected, &got, 0.0), same, "{expected} {got}");
        }
        assert!(same_value(&json!(0.1), &json!({"f": "0.1000001"}), 1e-6));
    }

    #[test]
    fn numbers_beyond_a_float_are_compared_by_digits() {
        let large = format!("1{}", "0".repeat(400));
        let other = format!("3{}", "0".repeat(399));
        for got in ["5", "1e999", "-1e999", &other, &format!("-{large}")] {
            assert!(!same_output(&large, got, 1e-6), "{got}");
        }
        assert!(!same_output("-1e999", "7", 1e-6));
        assert!(!same_output("5", "1e999", 1e-6));
        assert!(same_output(&large, &large, 1e-6) && same_output(&large, "1e400", 1e-6));
        assert!(!same_value(&json!(5), &json!({"i": other}), 1e-6));
    }

    #[test]
    fn every_key_of_a_dict_is_counted_once() {
        for (expected, got) in [
            (
                json!({"a": 2, "b": 9}),
                json!({"d": [["a", {"i": "2"}], ["a", {"i": "2"}]]}),
            ),
            (
                json!({"1": 3, "2": 1}),
                json!({"d": [[{"i": "1"}, {"i": "3"}], ["1", {"i": "3"}]]}),
            ),
            (
                json!([{"a": 2, "b": 9}]),
                json!([{"d": [["a", {"i": "2"}], ["a", {"i": "2"}]]}]),
            ),
        ] {
            assert!(!same_value(&expected, &got, 0.0), "{expected} {got}");
        }
    }

    proptest! {
        #[test]
        fn decimals_are_equal_when_their_values_are(a in -9999i32..9999, b in -9999i32..9999, zeros in 0usize..4) {
            let written = format!("{}{}.{}", if a < 0 { "-" } else { "" }, "0".repeat(zeros) + &a.abs().to_string(), "0".repeat(zeros + 1));
            let other = format!("{b}e0");
            prop_assert_eq!(Decimal::read(&written) == Decimal::read(&other), a == b);
            let shifted = format!("{}e{}", a, zeros);
            let plain = format!("{}{}", a, "0".repeat(zeros));
            prop_assert_eq!(Decimal::read(&shifted), Decimal::read(&plain));
        }
    }
}
