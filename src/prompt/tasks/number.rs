//! Tasks about the digits, factors, divisors and multiples of integers.

use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check};
use crate::Result;
use crate::prompt::Problem;

/// Generates numbers to be converted to another base, such as `115` in base 11 with the answer `92`
/// in base 15.
///
/// Metadata: `source_base`, `target_base`, `source_repr`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BaseConversion {
    /// The range of both bases, which differ, within 2..=36. Default: `2..=16`.
    pub base: RangeInclusive<u64>,
    /// The range of the number, within 0..=10^15. Default: `0..=1000`.
    pub value: RangeInclusive<u64>,
}

impl Default for BaseConversion {
    fn default() -> Self {
        Self {
            base: 2..=16,
            value: 0..=1000,
        }
    }
}

impl Generator for BaseConversion {
    fn validate(&self) -> Result<()> {
        check("base", &self.base, 2..=36)?;
        check("value", &self.value, 0..=10u64.pow(15))
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let value = between(rng, &self.value);
        let source = between(rng, &self.base);
        let target = between(rng, &self.base);
        if source == target {
            return None;
        }
        let written = in_base(value, source);
        let prompt = format!(
            "The number {written} is written in base {source}. Write it in base {target}, with the letters a to z as \
             the digits from 10 on. Answer with the digits only."
        );
        Some(
            Problem::new(prompt, in_base(value, target))
                .with_metadata("source_base", source)
                .with_metadata("target_base", target)
                .with_metadata("source_repr", written),
        )
    }
}

/// The digits of `value` in `base`, which is in 2..=36.
fn in_base(mut value: u64, base: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.extend(char::from_digit((value % base) as u32, 36));
        value /= base;
        if value == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

/// Generates numbers to be written as a product of primes, such as `12` with the answer
/// `2 × 2 × 3`.
///
/// Metadata: `number`, `factors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrimeFactorization {
    /// The range of the number, within 2..=10^9. Default: `2..=1000`.
    pub value: RangeInclusive<u64>,
}

impl Default for PrimeFactorization {
    fn default() -> Self {
        Self { value: 2..=1000 }
    }
}

impl Generator for PrimeFactorization {
    fn validate(&self) -> Result<()> {
        check("value", &self.value, 2..=1_000_000_000)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let number = between(rng, &self.value);
        let factors = prime_factors(number);
        let written: Vec<String> = factors.iter().map(u64::to_string).collect();
        let prompt = format!(
            "Write {number} as a product of primes, the factors with × between them, as in 2 × 2 × 3 for 12. Answer with \
             the product only."
        );
        Some(
            Problem::new(prompt, written.join(" × "))
                .with_metadata("number", number)
                .with_metadata("factors", factors),
        )
    }
}

/// The prime factors of `number` in ascending order.
fn prime_factors(mut number: u64) -> Vec<u64> {
    let mut factors = Vec::new();
    let mut divisor = 2;
    while divisor * divisor <= number {
        while number.is_multiple_of(divisor) {
            factors.push(divisor);
            number /= divisor;
        }
        divisor += 1;
    }
    if number > 1 {
        factors.push(number);
    }
    factors
}

/// Generates fractions to be reduced to lowest terms, such as `13524/57134` with the answer
/// `138/583`.
///
/// Metadata: `numerator`, `denominator`, `simplified_numerator`, `simplified_denominator`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FractionSimplification {
    /// The range of the numerator and the denominator that are drawn, before they are reduced to
    /// lowest terms and multiplied by the factor, within 1..=10^6. Default: `1..=1000`.
    pub value: RangeInclusive<u64>,
    /// The range of the factor that the fraction in lowest terms is expanded by, within 2..=10^6.
    /// Default: `2..=100`.
    pub factor: RangeInclusive<u64>,
}

impl Default for FractionSimplification {
    fn default() -> Self {
        Self {
            value: 1..=1000,
            factor: 2..=100,
        }
    }
}

impl Generator for FractionSimplification {
    fn validate(&self) -> Result<()> {
        check("value", &self.value, 1..=1_000_000)?;
        check("factor", &self.factor, 2..=1_000_000)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let (top, bottom) = (between(rng, &self.value), between(rng, &self.value));
        let shared = gcd(top, bottom);
        let (top, bottom) = (top / shared, bottom / shared);
        if bottom == 1 {
            return None;
        }
        let factor = between(rng, &self.factor);
        let (numerator, denominator) = (top * factor, bottom * factor);
        let prompt = format!(
            "Reduce the fraction {numerator}/{denominator} to lowest terms. Answer with the fraction only."
        );
        Some(
            Problem::new(prompt, format!("{top}/{bottom}"))
                .with_metadata("numerator", numerator)
                .with_metadata("denominator", denominator)
                .with_metadata("simplified_numerator", top)
                .with_metadata("simplified_denominator", bottom),
        )
    }
}

/// Generates numbers and asks for their greatest common divisor.
///
/// The numbers are multiples of a random divisor, so that the answer is rarely 1. Metadata:
/// `numbers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gcd {
    /// The number of numbers, within 2..=10. Default: `2..=2`.
    pub numbers: RangeInclusive<u64>,
    /// The range of each number, within 1..=10^9. Default: `1..=1000`.
    pub value: RangeInclusive<u64>,
}

impl Default for Gcd {
    fn default() -> Self {
        Self {
            numbers: 2..=2,
            value: 1..=1000,
        }
    }
}

impl Generator for Gcd {
    fn validate(&self) -> Result<()> {
        check("numbers", &self.numbers, 2..=10)?;
        check("value", &self.value, 1..=1_000_000_000)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let (start, end) = (*self.value.start(), *self.value.end());
        let divisor = between(rng, &(1..=end.isqrt()));
        let multiples = start.div_ceil(divisor)..=end / divisor;
        if multiples.is_empty() {
            return None;
        }
        let count = between(rng, &self.numbers);
        let numbers: Vec<u64> = (0..count)
            .map(|_| divisor * between(rng, &multiples))
            .collect();
        let result = numbers.iter().copied().fold(0, gcd);
        let prompt = format!(
            "What is the greatest common divisor of {}? Answer with the number only.",
            listed(&numbers)
        );
        Some(Problem::new(prompt, result.to_string()).with_metadata("numbers", numbers))
    }
}

/// Generates numbers and asks for their least common multiple.
///
/// Metadata: `numbers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lcm {
    /// The number of numbers, within 2..=6. Default: `2..=2`.
    pub numbers: RangeInclusive<u64>,
    /// The range of each number, within 1..=1000. Default: `1..=100`.
    pub value: RangeInclusive<u64>,
}

impl Default for Lcm {
    fn default() -> Self {
        Self {
            numbers: 2..=2,
            value: 1..=100,
        }
    }
}

impl Generator for Lcm {
    fn validate(&self) -> Result<()> {
        check("numbers", &self.numbers, 2..=6)?;
        check("value", &self.value, 1..=1000)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let count = between(rng, &self.numbers);
        let numbers: Vec<u64> = (0..count).map(|_| between(rng, &self.value)).collect();
        // 1000^6 fits in 64 bits.
        let lcm = |a: u64, b: u64| a / gcd(a, b) * b;
        let result = numbers.iter().copied().fold(1, lcm);
        let prompt = format!(
            "What is the least common multiple of {}? Answer with the number only.",
            listed(&numbers)
        );
        Some(Problem::new(prompt, result.to_string()).with_metadata("numbers", numbers))
    }
}

/// Euclid's algorithm.
fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn listed(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    numbers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_factors_agree_with_the_standard_library() {
        for value in (0..3000).chain([10u64.pow(15)]) {
            assert_eq!(in_base(value, 2), format!("{value:b}"));
            assert_eq!(in_base(value, 16), format!("{value:x}"));
            for base in 2..=36 {
                assert_eq!(
                    u64::from_str_radix(&in_base(value, base), base as u32),
                    Ok(value)
                );
            }
        }
        for number in 2..3000 {
            let factors = prime_factors(number);
            assert_eq!(factors.iter().product::<u64>(), number);
            assert!(factors.is_sorted());
            assert!(factors.iter().all(|&f| (2..f).all(|d| f % d != 0)));
        }
        assert_eq!(prime_factors(999_999_937), [999_999_937]);
    }
}
