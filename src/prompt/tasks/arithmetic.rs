//! Arithmetic expressions and linear equations.

use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check, coin, number, pick};
use crate::Result;
use crate::prompt::{Problem, expression::evaluate_expression};
use crate::random::below;

/// The largest absolute value of a result.
const LARGEST_RESULT: i128 = 1_000_000_000;

/// Generates chains of additions and subtractions, such as `4 - 1 - 7` with the answer `-4`.
///
/// Metadata: `expression`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChainSum {
    /// The number of numbers, within 2..=100. Default: `2..=6`.
    pub terms: RangeInclusive<u64>,
    /// The number of digits of all numbers of a problem, within 1..=15. Default: `1..=4`.
    pub digits: RangeInclusive<u64>,
}

impl Default for ChainSum {
    fn default() -> Self {
        Self {
            terms: 2..=6,
            digits: 1..=4,
        }
    }
}

impl Generator for ChainSum {
    fn validate(&self) -> Result<()> {
        check("terms", &self.terms, 2..=100)?;
        check("digits", &self.digits, 1..=15)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let terms = between(rng, &self.terms);
        let digits = between(rng, &self.digits);
        let first = number(rng, digits);
        let (mut expression, mut sum) = (first.to_string(), first as i64);
        for _ in 1..terms {
            let term = number(rng, digits);
            let plus = coin(rng);
            expression += &format!(" {} {term}", if plus { '+' } else { '-' });
            sum += if plus { term as i64 } else { -(term as i64) };
        }
        let prompt = format!("What is {expression}? Answer with the number only.");
        Some(Problem::new(prompt, sum.to_string()).with_metadata("expression", expression))
    }
}

/// Generates expressions with `+ - * /` and parentheses, such as `(3 + 5) * 7 - 12 / 4` with the
/// answer `53`.
///
/// The value is an integer, and no division has a remainder. Metadata: `expression`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BasicArithmetic {
    /// The number of numbers, within 2..=12. Default: `2..=6`.
    pub terms: RangeInclusive<u64>,
    /// The number of digits of each number, within 1..=4. Default: `1..=2`.
    pub digits: RangeInclusive<u64>,
    /// Whether expressions may have parentheses. Default: true.
    pub parentheses: bool,
}

impl Default for BasicArithmetic {
    fn default() -> Self {
        Self {
            terms: 2..=6,
            digits: 1..=2,
            parentheses: true,
        }
    }
}

impl BasicArithmetic {
    /// A sum of products with `terms` numbers in total.
    fn sum(&self, rng: &mut impl Rng, mut terms: u64) -> String {
        let mut text = String::new();
        while terms > 0 {
            if !text.is_empty() {
                text += if coin(rng) { " + " } else { " - " };
            }
            let size = 1 + below(rng, terms.min(3));
            text += &self.product(rng, size);
            terms -= size;
        }
        text
    }

    /// A product with `terms` numbers in total.
    fn product(&self, rng: &mut impl Rng, terms: u64) -> String {
        let mut text = String::new();
        let mut left = terms;
        while left > 0 {
            let opens = self.parentheses && left >= 2 && left.max(2) < terms.max(3) && coin(rng);
            let size = if opens { 2 + below(rng, left - 1) } else { 1 };
            let factor = match opens && size < terms {
                true => format!("({})", self.sum(rng, size)),
                false => {
                    let digits = between(rng, &self.digits);
                    number(rng, digits).to_string()
                }
            };
            let used = if factor.starts_with('(') { size } else { 1 };
            let divisor = match text.is_empty() || used > 1 || coin(rng) {
                true => None,
                false => self.divisor(rng, &text),
            };
            text = match (text.is_empty(), divisor) {
                (true, _) => factor,
                (false, Some(divisor)) => format!("{text} / {divisor}"),
                (false, None) => format!("{text} * {factor}"),
            };
            left -= used;
        }
        text
    }

    /// A number that divides the value of `product`, if there is one.
    fn divisor(&self, rng: &mut impl Rng, product: &str) -> Option<u64> {
        let value = evaluate_expression(product).ok()?.value.to_integer()?;
        let largest = 10u64.pow(*self.digits.end() as u32) - 1;
        let divides = |divisor: &u64| value % i128::from(*divisor) == 0;
        let divisors: Vec<u64> = (2..=largest).filter(divides).collect();
        match value != 0 && !divisors.is_empty() {
            true => Some(*pick(rng, &divisors)),
            false => None,
        }
    }
}

impl Generator for BasicArithmetic {
    fn validate(&self) -> Result<()> {
        check("terms", &self.terms, 2..=12)?;
        check("digits", &self.digits, 1..=4)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let terms = between(rng, &self.terms);
        let expression = self.sum(rng, terms);
        let value = evaluate_expression(&expression).ok()?.value.to_integer()?;
        (value.abs() <= LARGEST_RESULT).then(|| {
            let prompt = format!("Compute {expression}. Answer with the number only.");
            Problem::new(prompt, value.to_string()).with_metadata("expression", expression)
        })
    }
}

/// Generates linear equations with one unknown, such as `56 - 98*k = -1218` with the answer `13`.
///
/// Metadata: `equation`, `variable`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimpleEquations {
    /// The number of terms on the left, one of which has the unknown, within 1..=20. Default:
    /// `2..=4`.
    pub terms: RangeInclusive<u64>,
    /// The range of the constants, the coefficient and the solution, within 1..=1000000. Default:
    /// `1..=100`.
    pub value: RangeInclusive<u64>,
}

impl Default for SimpleEquations {
    fn default() -> Self {
        Self {
            terms: 2..=4,
            value: 1..=100,
        }
    }
}

impl Generator for SimpleEquations {
    fn validate(&self) -> Result<()> {
        check("terms", &self.terms, 1..=20)?;
        check("value", &self.value, 1..=1_000_000)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        // Without `e`, `i`, `l` and `o`, which look like constants or digits.
        let variable = char::from(*pick(rng, b"abcdfghjkmnpqrstuvwxyz"));
        let terms = between(rng, &self.terms);
        let place = below(rng, terms);
        let solution = between(rng, &self.value);
        let (mut left, mut right) = (String::new(), 0i128);
        for at in 0..terms {
            let constant = between(rng, &self.value);
            let (text, value) = match (at == place, constant) {
                (false, _) => (constant.to_string(), constant.into()),
                (true, 1) => (variable.to_string(), solution.into()),
                (true, _) => {
                    let value = i128::from(constant) * i128::from(solution);
                    (format!("{constant}*{variable}"), value)
                }
            };
            let plus = at == 0 || coin(rng);
            if at > 0 {
                left += if plus { " + " } else { " - " };
            }
            left += &text;
            right += if plus { value } else { -value };
        }
        let equation = format!("{left} = {right}");
        let prompt = format!(
            "Which {variable} solves {equation}? Answer with the value of {variable} only."
        );
        Some(
            Problem::new(prompt, solution.to_string())
                .with_metadata("equation", equation)
                .with_metadata("variable", variable.to_string()),
        )
    }
}
