//! Sorting of numbers and words.

use std::ops::RangeInclusive;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::Generator;
use super::draw::{between, check, coin};
use super::words::WORDS;
use crate::Result;
use crate::prompt::Problem;
use crate::random::shuffle;

/// Generates numbers to be sorted in ascending or descending order.
///
/// The answer is a JSON list of numbers: `[52.2, 30.0, -81.0]`. Metadata: `direction` (`ascending`
/// or `descending`), `numbers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NumberSorting {
    /// The number of numbers, within 2..=1000. Default: `3..=10`.
    pub numbers: RangeInclusive<u64>,
    /// The number of digits after the decimal point of each number, within 0..=6. Default: `0..=2`.
    pub decimals: RangeInclusive<u64>,
    /// The range of each number, within -10^9..=10^9. Default: `-100..=100`.
    pub value: RangeInclusive<i64>,
}

impl Default for NumberSorting {
    fn default() -> Self {
        Self {
            numbers: 3..=10,
            decimals: 0..=2,
            value: -100..=100,
        }
    }
}

/// The maximum number of digits after the decimal point; numbers are compared in units of the last.
const DECIMALS: u32 = 6;

impl Generator for NumberSorting {
    fn validate(&self) -> Result<()> {
        check("numbers", &self.numbers, 2..=1000)?;
        check("decimals", &self.decimals, 0..=DECIMALS.into())?;
        check("value", &self.value, -1_000_000_000..=1_000_000_000)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let count = between(rng, &self.numbers);
        let drawn = |rng: &mut _| {
            let decimals = between(rng, &self.decimals) as u32;
            let unit = 10i64.pow(decimals);
            let (start, end) = (self.value.start() * unit, self.value.end() * unit);
            let units = start + between(rng, &(0..=start.abs_diff(end))) as i64;
            (
                units * 10i64.pow(DECIMALS - decimals),
                decimal(units, decimals),
            )
        };
        let mut numbers: Vec<(i64, String)> = (0..count).map(|_| drawn(rng)).collect();
        let texts = |numbers: &[(i64, String)]| -> Vec<String> {
            numbers.iter().map(|(_, text)| text.clone()).collect()
        };
        let asked = texts(&numbers);
        let direction = direction(rng);
        numbers.sort_by_key(|&(value, _)| value);
        if direction == "descending" {
            numbers.reverse();
        }
        let prompt = format!(
            "Sort these numbers in {direction} order: {}. Answer with a JSON list of the numbers, for example \
             [-7.5, 0, 12.25].",
            asked.join(", ")
        );
        Some(
            Problem::new(prompt, format!("[{}]", texts(&numbers).join(", ")))
                .with_metadata("direction", direction)
                .with_metadata("numbers", asked),
        )
    }
}

/// Writes a number in units of the last of `decimals` digits after the decimal point.
fn decimal(units: i64, decimals: u32) -> String {
    let (sign, size) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
    let unit = 10u64.pow(decimals);
    match decimals {
        0 => format!("{sign}{size}"),
        _ => {
            let width = decimals as usize;
            format!("{sign}{}.{:0width$}", size / unit, size % unit)
        }
    }
}

/// Generates words to be sorted in ascending or descending alphabetical order.
///
/// The words are distinct, lowercase, common English words. Metadata: `direction` (`ascending` or
/// `descending`), `words`, `sorted_words`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WordSorting {
    /// The number of words, within 2..=100. Default: `3..=10`.
    pub words: RangeInclusive<u64>,
}

impl Default for WordSorting {
    fn default() -> Self {
        Self { words: 3..=10 }
    }
}

impl Generator for WordSorting {
    fn validate(&self) -> Result<()> {
        check("words", &self.words, 2..=100)
    }

    fn draw(&self, rng: &mut impl Rng) -> Option<Problem> {
        let count = between(rng, &self.words) as usize;
        let mut words = WORDS.to_vec();
        shuffle(rng, &mut words);
        words.truncate(count);
        let asked = words.clone();
        let direction = direction(rng);
        words.sort_unstable();
        if direction == "descending" {
            words.reverse();
        }
        let prompt = format!(
            "Sort these words in {direction} alphabetical order: {}. Answer with the words, a comma and a space between \
             them.",
            asked.join(", ")
        );
        Some(
            Problem::new(prompt, words.join(", "))
                .with_metadata("direction", direction)
                .with_metadata("words", asked)
                .with_metadata("sorted_words", words),
        )
    }
}

fn direction(rng: &mut impl Rng) -> &'static str {
    match coin(rng) {
        true => "ascending",
        false => "descending",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_trailing_zeros() {
        for (units, decimals, text) in [
            (-4900, 2, "-49.00"),
            (-5, 2, "-0.05"),
            (0, 1, "0.0"),
            (123, 0, "123"),
            (-1_000_000_000_000_000, 6, "-1000000000.000000"),
        ] {
            assert_eq!(decimal(units, decimals), text);
        }
    }
}
