//! Written numbers: thousands separators, decimal commas, repeating decimals, scientific notation.

use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::text::digits;
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// The meaning of a comma between digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Comma {
    /// It separates the elements of a list.
    Separator,
    /// Outside of brackets it separates thousands, if every group is complete.
    Thousands,
    /// It is the decimal point.
    Decimal,
}

/// A number and its end.
pub(crate) struct Numeral {
    pub id: Id,
    pub end: usize,
    /// The digits, if the number consists only of digits.
    pub digits: Option<String>,
}

fn digit_at(text: &[char], at: usize) -> bool {
    text.get(at).is_some_and(char::is_ascii_digit)
}

fn starts(text: &[char], at: usize, what: &str) -> bool {
    what.chars()
        .enumerate()
        .all(|(i, c)| text.get(at + i) == Some(&c))
}

/// Returns the length of a thousands separator that is unambiguous between digits: `{,}`, `\,`,
/// `\!`, `,\!`.
fn grouping_mark(text: &[char], at: usize) -> Option<usize> {
    const MARKS: [&str; 8] = ["{,}", ",\\!", ",\\,", "\\,", "\\!", "\\;", "{\\,}", "\\ "];
    MARKS
        .iter()
        .find(|mark| starts(text, at, mark))
        .map(|mark| {
            let mut length = mark.chars().count();
            while text.get(at + length) == Some(&' ') {
                length += 1;
            }
            length
        })
}

/// Reads the number that starts at `start` with a digit, or with a point and a digit.
pub(crate) fn read(
    arena: &mut Arena,
    text: &[char],
    start: usize,
    comma: Comma,
    outside: bool,
) -> Res<Numeral> {
    let digits = |at: &mut usize, into: &mut String| {
        while digit_at(text, *at) {
            into.push(text[*at]);
            *at += 1;
        }
    };
    let thousands = comma == Comma::Thousands && outside;
    let read = digits::read(
        |place| text.get(place).copied(),
        start,
        |place| {
            grouping_mark(text, place)
                .or_else(|| (thousands && text.get(place) == Some(&',')).then_some(1))
        },
    );
    let (whole, grouped) = (read.digits, read.grouped);
    let mut at = read.end;
    let mut fraction = String::new();
    let mut repeating = String::new();
    let mut pointed = false;
    let point = text.get(at) == Some(&'.')
        || (comma == Comma::Decimal && text.get(at) == Some(&',') && digit_at(text, at + 1));
    if point {
        let mut after = at + 1;
        digits(&mut after, &mut fraction);
        if let Some((repeat, end)) = repetition(text, after, &fraction) {
            repeating = repeat;
            at = end;
            pointed = true;
        } else if !fraction.is_empty() {
            at = after;
            pointed = true;
        } else if !starts(text, at, "..") {
            // `5.` ends a sentence, or is a decimal without decimals.
            at += 1;
        }
    }
    let mut exponent: Option<String> = None;
    if matches!(text.get(at), Some('e' | 'E')) {
        let mut after = at + 1;
        let mut e = String::new();
        if let Some(&sign @ ('-' | '+' | '−')) = text.get(after) {
            if sign != '+' {
                e.push('-');
            }
            after += 1;
        }
        let signed = e.len();
        digits(&mut after, &mut e);
        if e.len() > signed {
            exponent = Some(e);
            at = after;
        }
    }
    let id = build(
        arena,
        &whole,
        &fraction,
        &repeating,
        pointed,
        exponent.as_deref(),
    )?;
    let digits = (!pointed && !grouped && exponent.is_none()).then_some(whole);
    Ok(Numeral {
        id,
        end: at,
        digits,
    })
}

/// Reads the repeating digits after the decimals at `at`: `\overline{24}`, `\dot{3}`, `(3)`, or
/// `\ldots` after a visible period.
fn repetition(text: &[char], at: usize, fraction: &str) -> Option<(String, usize)> {
    for (open, close) in [
        ("\\overline{", '}'),
        ("\\bar{", '}'),
        ("\\dot{", '}'),
        ("\\overline ", ' '),
        ("(", ')'),
    ] {
        if open == "(" && !fraction.is_empty() {
            continue;
        }
        if !starts(text, at, open) {
            continue;
        }
        let mut end = at + open.chars().count();
        let mut repeat = String::new();
        while digit_at(text, end) {
            repeat.push(text[end]);
            end += 1;
        }
        if repeat.is_empty() {
            continue;
        }
        if text.get(end) == Some(&close) {
            end += 1;
        } else if close != ' ' {
            continue;
        }
        // `\dot{1}2\dot{3}` repeats 123.
        let mut tail = end;
        let mut more = String::new();
        while digit_at(text, tail) {
            more.push(text[tail]);
            tail += 1;
        }
        if open == "\\dot{"
            && starts(text, tail, "\\dot{")
            && digit_at(text, tail + 5)
            && text.get(tail + 6) == Some(&'}')
        {
            repeat.push_str(&more);
            repeat.push(text[tail + 5]);
            end = tail + 7;
        }
        return Some((repeat, end));
    }
    for dots in ["\\ldots", "\\dots", "\\cdots", "...", "…"] {
        if starts(text, at, dots) {
            return period(fraction).map(|period| (period, at + dots.chars().count()));
        }
    }
    None
}

/// Returns the period visible at the end of some decimals: a digit three times, or a longer block
/// twice.
fn period(fraction: &str) -> Option<String> {
    let bytes = fraction.as_bytes();
    (1..=bytes.len() / 2).find_map(|length| {
        let times = if length == 1 { 3 } else { 2 };
        let needed = length * times;
        let tail = bytes.get(bytes.len().checked_sub(needed)?..)?;
        let block = &tail[..length];
        tail.chunks(length)
            .all(|chunk| chunk == block)
            .then(|| String::from_utf8_lossy(block).into_owned())
    })
}

fn parse_digits(arena: &Arena, digits: &str) -> Res<UBig> {
    if digits.len() < 19 {
        return Ok(UBig::from(
            digits
                .bytes()
                .fold(0u64, |n, b| n * 10 + u64::from(b - b'0')),
        ));
    }
    arena.budget.spend_bits(digits.len() * 10 / 3)?;
    UBig::from_str_radix(digits, 10).map_err(|_| Stop::Syntax("invalid digits"))
}

fn build(
    arena: &mut Arena,
    whole: &str,
    fraction: &str,
    repeating: &str,
    pointed: bool,
    exponent: Option<&str>,
) -> Res<Id> {
    let mut value = RBig::from(IBig::from(parse_digits(
        arena,
        &format!("{whole}{fraction}"),
    )?));
    let ten = UBig::from(10u8);
    if pointed {
        let scale = ten.pow(fraction.len());
        if !repeating.is_empty() {
            let nines = ten.pow(repeating.len()) - UBig::ONE;
            value += RBig::from_parts(IBig::from(parse_digits(arena, repeating)?), nines);
        }
        value /= RBig::from(IBig::from(scale));
    }
    match exponent {
        None if pointed && repeating.is_empty() => arena.add_node(Node::Decimal(value)),
        None => arena.num(value),
        Some(e) => {
            if e.len() > 18 {
                return Err(Stop::Limit("exponent"));
            }
            let e: i64 = e.parse().map_err(|_| Stop::Syntax("an invalid exponent"))?;
            let mantissa = arena.num(value)?;
            let ten = arena.int(10)?;
            let e = arena.int(e)?;
            let power = arena.power(ten, e)?;
            arena.product(vec![mantissa, power])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MathConfig;
    use crate::node::budget::Budget;

    fn value(text: &str, comma: Comma) -> (String, usize) {
        let budget = Budget::new(&MathConfig::default());
        let mut arena = Arena::new(&budget);
        let chars: Vec<char> = text.chars().collect();
        let numeral = read(&mut arena, &chars, 0, comma, true).unwrap();
        (arena.exact(numeral.id).unwrap().to_string(), numeral.end)
    }

    #[test]
    fn the_mode_decides_the_meaning_of_a_comma() {
        assert_eq!(value("1,234", Comma::Thousands), ("1234".into(), 5));
        assert_eq!(value("1,234", Comma::Separator), ("1".into(), 1));
        assert_eq!(value("1,25", Comma::Decimal), ("5/4".into(), 4));
        assert_eq!(value("12,34", Comma::Thousands), ("12".into(), 2));
        assert_eq!(value("1,2345", Comma::Thousands), ("1".into(), 1));
        assert_eq!(value("0,123", Comma::Thousands), ("0".into(), 1));
        assert_eq!(value("14{,}916", Comma::Separator), ("14916".into(), 8));
    }

    #[test]
    fn repeating_decimals_are_rational() {
        assert_eq!(value("0.1\\overline{6}", Comma::Separator).0, "1/6");
        assert_eq!(value("0.\\dot{1}2\\dot{3}", Comma::Separator).0, "41/333");
        assert_eq!(value("0.(3)", Comma::Separator).0, "1/3");
        assert_eq!(value("0.1212\\ldots", Comma::Separator).0, "4/33");
        // Two equal digits are not a period.
        assert_eq!(value("0.33\\ldots", Comma::Separator), ("33/100".into(), 4));
    }

    #[test]
    fn a_point_may_end_a_sentence() {
        assert_eq!(value("5. So", Comma::Separator), ("5".into(), 2));
        assert_eq!(value("5...", Comma::Separator), ("5".into(), 1));
        assert_eq!(value("1.5e-3", Comma::Separator), ("3/2000".into(), 6));
    }
}
