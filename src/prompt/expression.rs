//! Exact evaluation of an arithmetic expression.

use super::rational::Rational;

/// The maximum length of an expression in bytes.
const MAX_BYTES: usize = 1000;
/// The maximum nesting of parentheses, which bounds the recursion.
const MAX_NESTING: usize = 50;

/// The value of an expression and its number literals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The exact value.
    pub value: Rational,
    /// The number literals in order of appearance, without signs: `3-(5*3)` has 3, 5, 3.
    pub numbers: Vec<u64>,
}

/// Evaluates `text` exactly: unsigned integers, `+ - * /`, parentheses, unary minus, whitespace,
/// and `×`, `÷`, `−` as synonyms.
///
/// Multiplication and division bind tighter than addition and subtraction; operators of equal
/// precedence associate to the left. Division is exact: `7/2` is 7/2 and not 3. Decimals, powers,
/// unary plus and implied products are not supported.
///
/// The text is untrusted: it has at most 1000 bytes, parentheses nest at most 50 deep, numbers are
/// `u64`, and arithmetic that overflows is an error.
///
/// # Errors
/// Returns a description of the unexpected character, of the exceeded limit, or of the operation
/// that has no value.
pub fn evaluate_expression(text: &str) -> Result<Evaluated, String> {
    if text.len() > MAX_BYTES {
        return Err(format!(
            "the expression has {} bytes; expected at most {MAX_BYTES}",
            text.len()
        ));
    }
    let mut reader = Reader {
        text,
        position: 0,
        nesting: 0,
        numbers: Vec::new(),
    };
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(Evaluated {
            value,
            numbers: reader.numbers,
        }),
        Some(_) => Err(reader.unexpected("an operator or the end")),
    }
}

/// A recursive-descent parser: `sum` calls `product`, which calls `factor`, which calls `sum` for
/// an open parenthesis.
struct Reader<'a> {
    text: &'a str,
    /// The offset of the next byte, always on a character boundary.
    position: usize,
    nesting: usize,
    numbers: Vec<u64>,
}

impl Reader<'_> {
    fn sum(&mut self) -> Result<Rational, String> {
        let mut value = self.product()?;
        while let Some(operator @ ('+' | '-')) = self.peek() {
            self.advance();
            let right = self.product()?;
            value = apply(operator, value, right)?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Rational, String> {
        let mut value = self.factor()?;
        while let Some(operator @ ('*' | '/')) = self.peek() {
            self.advance();
            let right = self.factor()?;
            value = apply(operator, value, right)?;
        }
        Ok(value)
    }

    fn factor(&mut self) -> Result<Rational, String> {
        // A loop and not a recursion, because there may be a thousand minus signs.
        let mut negative = false;
        while self.peek() == Some('-') {
            self.advance();
            negative = !negative;
        }
        let value = match self.peek() {
            Some('(') => self.parenthesis()?,
            Some('0'..='9') => self.number()?,
            _ => return Err(self.unexpected("a number or `(`")),
        };
        Ok(if negative { -value } else { value })
    }

    fn parenthesis(&mut self) -> Result<Rational, String> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(format!(
                "parentheses nest more than {MAX_NESTING} deep at byte {}",
                self.position
            ));
        }
        self.advance();
        let value = self.sum()?;
        if self.peek() != Some(')') {
            return Err(self.unexpected("an operator or `)`"));
        }
        self.advance();
        self.nesting -= 1;
        Ok(value)
    }

    fn number(&mut self) -> Result<Rational, String> {
        let rest = &self.text[self.position..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().map_err(|_| {
            format!(
                "the number at byte {} is larger than {}",
                self.position,
                u64::MAX
            )
        })?;
        self.position += end;
        self.numbers.push(number);
        Ok(Rational::from(number))
    }

    /// The next character that is not whitespace, with synonyms replaced; it is not consumed.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.position..];
        self.position = self.text.len() - rest.trim_start().len();
        match self.text[self.position..].chars().next()? {
            '×' => Some('*'),
            '÷' => Some('/'),
            '−' => Some('-'),
            other => Some(other),
        }
    }

    /// Consumes the character that `peek` returned.
    fn advance(&mut self) {
        self.position += self.text[self.position..]
            .chars()
            .next()
            .map_or(0, char::len_utf8);
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.text[self.position..].chars().next() {
            Some(c) => format!("{c:?} at byte {}; expected {expected}", self.position),
            None => format!("the expression ends; expected {expected}"),
        }
    }
}

fn apply(operator: char, left: Rational, right: Rational) -> Result<Rational, String> {
    let value = match operator {
        '+' => left.checked_add(right),
        '-' => left.checked_sub(right),
        '*' => left.checked_mul(right),
        _ if right.numerator() == 0 => return Err("division by zero".into()),
        _ => left.checked_div(right),
    };
    value.ok_or_else(|| format!("{left} {operator} {right} does not fit 128 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> String {
        evaluate_expression(text).map_or_else(|error| error, |e| e.value.to_string())
    }

    #[test]
    fn precedence_association_and_signs() {
        for (text, expected) in [
            ("2+3*4", "14"),
            ("(2+3)*4", "20"),
            ("10-4-3", "3"),
            ("100/10/5", "2"),
            ("7/2", "7/2"),
            ("1/3+1/6", "1/2"),
            ("-3*-5", "15"),
            ("3--5", "8"),
            ("---4", "-4"),
            ("-(2-5)", "3"),
            (" 6 ÷ 4 × 2 − 1 ", "2"),
            ("007", "7"),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_are_listed_in_order() {
        let evaluated = evaluate_expression("3-(50*-3)").unwrap();
        assert_eq!(evaluated.numbers, [3, 50, 3]);
        let evaluated = evaluate_expression("(3 + 5) × 7 / 2").unwrap();
        assert_eq!(evaluated.value, Rational::from(28u64));
        assert_eq!(evaluated.numbers, [3, 5, 7, 2]);
    }

    #[test]
    fn errors_describe_the_fault() {
        for (text, expected) in [
            ("", "the expression ends; expected a number or `(`"),
            ("3+", "the expression ends; expected a number or `(`"),
            ("+3", "'+' at byte 0; expected a number or `(`"),
            ("3 5", "'5' at byte 2; expected an operator or the end"),
            ("2(3)", "'(' at byte 1; expected an operator or the end"),
            ("2.5", "'.' at byte 1; expected an operator or the end"),
            ("(3", "the expression ends; expected an operator or `)`"),
            ("3)", "')' at byte 1; expected an operator or the end"),
            ("2**3", "'*' at byte 2; expected a number or `(`"),
            ("1/0", "division by zero"),
            ("0/0", "division by zero"),
            (
                "18446744073709551616",
                "the number at byte 0 is larger than 18446744073709551615",
            ),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
        let huge = vec![u64::MAX.to_string(); 3].join("*");
        assert!(
            value(&huge).ends_with("does not fit 128 bits"),
            "{}",
            value(&huge)
        );
    }

    #[test]
    fn length_and_nesting_are_limited() {
        let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(value(&nested(50)), "1");
        assert_eq!(
            value(&nested(51)),
            "parentheses nest more than 50 deep at byte 50"
        );
        // Only open parentheses count: 60 side by side are allowed.
        assert_eq!(value(&["(1)"; 60].join("+")), "60");
        assert_eq!(value(&format!("{}1", "-".repeat(999))), "-1");
        assert_eq!(
            value(&"1".repeat(1001)),
            "the expression has 1001 bytes; expected at most 1000"
        );
    }

    /// An expression with its text, fully parenthesised, and its value in floating point.
    fn expression() -> impl Strategy<Value = (String, f64)> {
        let leaf = (0u32..10).prop_map(|n| (n.to_string(), f64::from(n)));
        leaf.prop_recursive(3, 8, 2, |inner| {
            (inner.clone(), inner, 0usize..4).prop_map(|((a, x), (b, y), operator)| {
                // Unlike an infinity, NaN propagates through every operation.
                let quotient = if y == 0.0 { f64::NAN } else { x / y };
                let number = [x + y, x - y, x * y, quotient][operator];
                (
                    format!("({a}{}{b})", ["+", "-", "×", "/"][operator]),
                    number,
                )
            })
        })
    }

    proptest! {
        #[test]
        fn values_agree_with_floating_point((text, float) in expression()) {
            match evaluate_expression(&text) {
                Ok(exact) => {
                    // The float may lose digits to cancellation; with denominators below 1e8 the
                    // loss is far below 1e-6.
                    let exact = exact.value.to_f64();
                    prop_assert!(!float.is_nan(), "{text}: a division by zero was not detected");
                    prop_assert!((exact - float).abs() <= 1e-6 * exact.abs().max(1.0), "{text}: {exact} {float}");
                }
                // A divisor that is exactly zero may be a rounding error away from zero in floating
                // point, so the float need not be NaN.
                Err(error) => prop_assert_eq!(error, "division by zero"),
            }
        }

        #[test]
        fn flat_expressions_agree_with_a_two_pass_evaluator(first in 1i64..20, rest in prop::collection::vec((0usize..3, 1i64..20), 0..8)) {
            // Products first, then their sum.
            let mut text = first.to_string();
            let mut products = vec![first];
            for (operator, number) in rest {
                text += &format!("{}{number}", ["+", "-", "*"][operator]);
                match operator {
                    0 => products.push(number),
                    1 => products.push(-number),
                    _ => *products.last_mut().unwrap() *= number,
                }
            }
            prop_assert_eq!(value(&text), products.iter().sum::<i64>().to_string());
        }

        #[test]
        fn no_text_panics(text in "[0-9+*/() ×÷−.a-]{0,60}", wild in any::<String>()) {
            let _ = evaluate_expression(&text);
            let _ = evaluate_expression(&wild);
        }
    }
}
