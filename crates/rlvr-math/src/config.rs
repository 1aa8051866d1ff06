//! The conventions and limits of a comparison.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The settings of a [`MathVerifier`](super::MathVerifier).
///
/// The first group are conventions, in which data sets differ; the second are limits. Work is
/// counted, not timed, so that the verdict is the same on every machine.
///
/// ```
/// use rlvr_math::{MathConfig, MathVerifier};
///
/// let config = MathConfig {
///     require_evaluated: true,
///     ..MathConfig::default()
/// };
/// let verifier = MathVerifier::new(config)?;
/// assert!(verifier.compare("85", "85.0").is_equal());
/// assert!(!verifier.compare("85", "37+48").is_equal());
/// # Ok::<(), rlvr_math::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathConfig {
    /// The number of decimals to which a decimal number is compared with another value, at most 100.
    /// Default: 6; `0.333333` equals 1/3, `0.33333` does not.
    pub precision: u32,
    /// Whether the names of variables matter. Default: true; `x+1` does not equal `y+1`.
    pub strict: bool,
    /// Whether `50%` can also mean `50`. Default: true; `50`, `50%`, `1/2` and `0.5` all equal a
    /// gold of 50 %.
    pub percent_as_number: bool,
    /// Whether `1,5` alone can mean 1.5. Default: true.
    pub decimal_comma: bool,
    /// Whether a unit that only one side has is ignored. Default: true; `10 cm` equals `10`.
    pub ignore_missing_unit: bool,
    /// Whether `60°` can also mean `60`, besides pi/3. Default: true.
    pub degree_as_number: bool,
    /// Whether a list without brackets equals a set, and its own permutations. Default: true.
    pub unordered_lists: bool,
    /// Whether `x = 3` equals `3`. Default: true.
    pub assignment_as_value: bool,
    /// Whether an interval equals the inequality that describes it. Default: true.
    pub interval_as_relation: bool,
    /// Whether the answer to a constant gold must be evaluated. Default: false; `37+48` equals
    /// `85`.
    ///
    /// Rewards should set it, so that the question is not accepted as its own answer. If it is set,
    ///
    /// - the answer to an integer, decimal or fraction must be a single number: an integer, a
    ///   decimal, a fraction in lowest terms, a mixed number, a percentage, or scientific notation
    ///   such as `1.5 \times 10^3`;
    /// - the answer to any other constant, or to a list, interval or the like of constants, may
    ///   leave an operation to carry out only if the gold has an operation of that kind: a root for
    ///   a gold of `\frac{\sqrt{3}}{2}`;
    /// - an equation such as `37+48 = 85` counts as its last side;
    /// - a percentage means hundredths only, regardless of `percent_as_number`, and with
    ///   `degree_as_number` a number of degrees is not converted to radians, so that one answer
    ///   never equals two numbers that differ at the given `precision`.
    ///
    /// Golds with variables are compared as if it were not set.
    pub require_evaluated: bool,
    /// The length of a text in bytes, beyond which the verdict is undecided. Default: 20,000.
    pub max_bytes: usize,
    /// The nesting depth of brackets, beyond which the verdict is undecided. Default: 1,000.
    pub max_depth: usize,
    /// The size of an exact number in bits of its numerator or denominator, beyond which the
    /// verdict is undecided. Default: 200,000.
    pub max_bits: usize,
    /// The number of expression nodes of a comparison, beyond which the verdict is undecided.
    /// Default: 50,000.
    pub max_nodes: usize,
    /// The work of a comparison in steps of about a hundred nanoseconds, beyond which the verdict
    /// is undecided. Default: 2,000,000.
    pub fuel: u64,
}

impl Default for MathConfig {
    fn default() -> Self {
        Self {
            precision: 6,
            strict: true,
            percent_as_number: true,
            decimal_comma: true,
            ignore_missing_unit: true,
            degree_as_number: true,
            unordered_lists: true,
            assignment_as_value: true,
            interval_as_relation: true,
            require_evaluated: false,
            max_bytes: 20_000,
            max_depth: 1_000,
            max_bits: 200_000,
            max_nodes: 50_000,
            fuel: 2_000_000,
        }
    }
}

impl MathConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] if the precision is above 100 decimals, or a limit is zero or too large.
    pub fn validate(&self) -> Result<()> {
        if self.precision > 100 {
            return Err(Error::config(
                "precision",
                self.precision,
                "0 to 100 decimals",
            ));
        }
        let limits = [
            ("max_bytes", self.max_bytes as u64, 1 << 30),
            ("max_depth", self.max_depth as u64, 1 << 20),
            ("max_bits", self.max_bits as u64, 1 << 30),
            ("max_nodes", self.max_nodes as u64, u64::from(u32::MAX)),
            ("fuel", self.fuel, u64::MAX),
        ];
        for (field, value, most) in limits {
            if value == 0 || value > most {
                return Err(Error::config(field, value, format!("1 to {most}")));
            }
        }
        Ok(())
    }
}
