//! Token counts and the distribution of completion lengths.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The number of tokens that a model reads, and the sum of the squared lengths of their sequences,
/// which determines the cost of attention.
///
/// If lengths differ, `squares` is larger than `count^2 / sequences`. Sums of integers are exact up
/// to 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Number of tokens, `T = sum s`.
    pub count: f64,
    /// Sum of squared lengths, `Q = sum s^2`.
    pub squares: f64,
}

impl Tokens {
    /// Counts one sequence of `length` tokens.
    pub fn sequence(length: f64) -> Self {
        Self {
            count: length,
            squares: length * length,
        }
    }

    /// Counts `length` tokens that are read after a cached prefix of `prefix` tokens.
    pub fn continuation(prefix: f64, length: f64) -> Self {
        Self {
            count: length,
            squares: length * (2.0 * prefix + length),
        }
    }
}

impl Add for Tokens {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            squares: self.squares + other.squares,
        }
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Tokens {
    fn sum<I: Iterator<Item = Self>>(tokens: I) -> Self {
        tokens.fold(Self::default(), Add::add)
    }
}

impl Mul<f64> for Tokens {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            count: self.count * factor,
            squares: self.squares * factor,
        }
    }
}

/// The distribution of completion lengths: lognormal, truncated at a cap.
///
/// The long tail matters: while the last completions are generated, devices are mostly idle.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lengths {
    /// Measured mean number of tokens, truncated completions included; above 0, at most `cap`.
    pub mean: f64,
    /// Coefficient of variation (standard deviation over mean) before truncation. Typically 0.5 to
    /// 1.2. Default 0.8.
    #[serde(default = "usual_cv")]
    pub cv: f64,
    /// The largest number of tokens of a completion (`max_new_tokens`).
    pub cap: usize,
}

fn usual_cv() -> f64 {
    0.8
}

impl Lengths {
    /// Creates a distribution with mean `mean` and cap `cap`, in tokens, and the default variation.
    pub fn new(mean: f64, cap: usize) -> Self {
        let cv = usual_cv();
        Self { mean, cv, cap }
    }

    /// Rejects invalid lengths.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and its range.
    pub fn validate(&self) -> Result<()> {
        if self.cap == 0 {
            return Err(Error::config("completion.cap", 0, "at least 1 token"));
        }
        let cap = self.cap as f64;
        if !(self.mean > 0.0 && self.mean <= cap) {
            let expected = format!("a number of tokens above 0 and at most the cap, {cap}");
            return Err(Error::config("completion.mean", self.mean, expected));
        }
        if !(0.0..=10.0).contains(&self.cv) {
            return Err(Error::config("completion.cv", self.cv, "0 to 10"));
        }
        Ok(())
    }

    /// Returns the share of unfinished completions at [`BINS`] points between 0 and the cap.
    pub(super) fn curve(&self) -> Curve {
        let cap = self.cap as f64;
        let sigma = (1.0 + self.cv * self.cv).ln().sqrt();
        let at = |location: f64| {
            let alive = |bin: usize| {
                let length = (bin as f64 + 0.5) * cap / BINS as f64;
                survival(length.ln() - location, sigma)
            };
            Curve {
                alive: (0..BINS).map(alive).collect(),
                width: cap / BINS as f64,
            }
        };
        // The mean increases with the location, up to the cap.
        let (mut low, mut high) = (self.mean.ln() - sigma * sigma, cap.ln() + 8.0 * sigma + 1.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            match at(middle).mean() < self.mean {
                true => low = middle,
                false => high = middle,
            }
        }
        at(0.5 * (low + high))
    }
}

/// The number of points of a [`Curve`].
const BINS: usize = 512;

/// `P(length >= t)` at the middle of each of [`BINS`] bins.
pub(super) struct Curve {
    pub alive: Vec<f64>,
    /// Tokens per bin.
    pub width: f64,
}

impl Curve {
    /// Returns the middle of a bin, in tokens.
    pub(super) fn length(&self, bin: usize) -> f64 {
        (bin as f64 + 0.5) * self.width
    }

    pub(super) fn mean(&self) -> f64 {
        self.alive.iter().sum::<f64>() * self.width
    }

    /// Returns the mean squared length.
    pub(super) fn mean_square(&self) -> f64 {
        let terms = self.alive.iter().enumerate();
        let sum: f64 = terms.map(|(bin, alive)| alive * self.length(bin)).sum();
        2.0 * sum * self.width
    }
}

/// `P(sigma Z >= x)` for a standard normal `Z`.
fn survival(x: f64, sigma: f64) -> f64 {
    if sigma == 0.0 {
        return f64::from(u8::from(x <= 0.0));
    }
    let z = x / (sigma * std::f64::consts::SQRT_2);
    // Abramowitz and Stegun 7.1.26: the error is below 1.5e-7.
    let t = 1.0 / (1.0 + 0.327_591_1 * z.abs());
    let polynomial = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
    ]
    .into_iter()
    .fold(0.0, |sum, coefficient| sum * t + coefficient);
    let tail = 0.5 * polynomial * t * (-z * z).exp();
    match z >= 0.0 {
        true => tail,
        false => 1.0 - tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_plus_its_continuation_counts_as_the_whole_sequence() {
        let parts = Tokens::sequence(100.0) + Tokens::continuation(100.0, 23.0);
        assert_eq!(parts, Tokens::sequence(123.0));
    }

    #[test]
    fn survival_matches_quantiles_of_the_normal_distribution() {
        for (z, expected) in [
            (0.0, 0.5),
            (1.0, 0.158_655_25),
            (-1.0, 0.841_344_75),
            (1.959_963_98, 0.025),
            (3.0, 0.001_349_898),
        ] {
            assert!((survival(2.0 * z, 2.0) - expected).abs() < 2e-7, "{z}");
        }
    }

    #[test]
    fn the_curve_has_the_measured_mean_at_every_cap() {
        for cv in [0.0, 0.5, 1.2] {
            for mean in [10.0, 500.0, 900.0, 1000.0] {
                let lengths = Lengths {
                    mean,
                    cv,
                    cap: 1000,
                };
                lengths.validate().unwrap();
                let curve = lengths.curve();
                // A bin is about two tokens.
                assert!((curve.mean() - mean).abs() < 2.0, "{mean} {cv}");
                assert!(curve.alive.windows(2).all(|pair| pair[0] >= pair[1]));
                assert!(curve.mean_square() >= 0.95 * mean * mean, "{mean} {cv}");
            }
        }
        // Without truncation the second moment is that of the lognormal distribution.
        let curve = Lengths {
            mean: 100.0,
            cv: 0.5,
            cap: 2000,
        }
        .curve();
        assert!((curve.mean_square() / 12_500.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn invalid_lengths_are_errors() {
        for (mean, cv, cap) in [
            (0.0, 0.8, 10),
            (11.0, 0.8, 10),
            (f64::NAN, 0.8, 10),
            (5.0, -0.1, 10),
            (5.0, f64::INFINITY, 10),
            (5.0, 0.8, 0),
        ] {
            let result = Lengths { mean, cv, cap }.validate();
            assert!(result.is_err(), "{mean} {cv} {cap}");
        }
    }
}
