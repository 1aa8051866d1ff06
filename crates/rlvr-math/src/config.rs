//! What a comparison may assume and how much it may cost.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The settings of a [`MathVerifier`](super::MathVerifier).
///
/// The first group are conventions, on which honest data sets differ; the second are limits of work. Work is counted, never
/// timed, so a verdict is the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MathConfig {
    /// Decimals to which a decimal is compared with an exact value; at most 100. Default 6: `0.333333` is 1/3, `0.33333` is not.
    pub precision: u32,
    /// Whether names of variables matter. Default true: `x+1` is not `y+1`.
    pub strict: bool,
    /// Whether `50%` may also be read as `50`. Default true: `50`, `50%`, `1/2` and `0.5` all equal a gold of 50 %.
    pub percent_as_number: bool,
    /// Whether `1,5` may be read as 1.5 where it stands alone. Default true.
    pub decimal_comma: bool,
    /// Whether a unit that only one side has is ignored. Default true: `10 cm` equals `10`.
    pub ignore_missing_unit: bool,
    /// Whether a degree sign may be dropped: `60°` equals `60` besides pi/3. Default true.
    pub degree_as_number: bool,
    /// Whether a bare comma list equals a set and its own permutations. Default true.
    pub unordered_lists: bool,
    /// Whether `x = 3` equals `3`. Default true.
    pub assignment_as_value: bool,
    /// Whether an interval equals the inequality that describes it. Default true.
    pub interval_as_relation: bool,
    /// Whether an answer to a constant gold must be evaluated. Default false: `37+48` equals `85`.
    ///
    /// For rewards: the question itself must not be paid as its answer. With it
    ///
    /// - an integer, decimal or fraction wants one number: an integer, a decimal, a fraction in lowest terms, a mixed number, a
    ///   percentage or scientific notation, `1.5 \times 10^3`;
    /// - other constants, and what is made of constants such as lists and intervals, may leave operations to be carried out only if
    ///   the gold does, of the same kinds: `\frac{\sqrt{3}}{2}` is written with a root, so a root may occur;
    /// - an equation such as `37+48 = 85` says what its last side says;
    /// - a percentage is a hundredth and nothing else, whatever `percent_as_number` says, and with `degree_as_number` a number of
    ///   degrees is no number of radians: one answer does not equal two numbers that differ at the given `precision`.
    ///
    /// Golds with variables are compared as without it.
    pub require_evaluated: bool,
    /// The longest text that is read, in bytes. Default 20,000; longer is undecided.
    pub max_bytes: usize,
    /// The deepest nesting of brackets that is read. Default 1,000; deeper is undecided.
    pub max_depth: usize,
    /// The largest exact number, in bits of numerator or denominator. Default 200,000.
    pub max_bits: usize,
    /// The number of expression nodes of one comparison. Default 50,000.
    pub max_nodes: usize,
    /// The work of one comparison, in steps of about a hundred nanoseconds. Default 2,000,000.
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
    /// [`Error::Config`] if the precision is above 100 decimals, or a limit is zero or too large to be one.
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
