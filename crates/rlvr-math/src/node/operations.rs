//! The operations that a text leaves unevaluated: `37+48` a sum, `10!` a factorial, `85` none.
//!
//! The constructors of nodes evaluate them during parsing, so they are recorded there, as far as
//! [`MathConfig::require_evaluated`](crate::MathConfig::require_evaluated) needs them.

use super::function::{BigOp, Func};

/// A set of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Operations(u64);

impl Operations {
    /// An addition of two numbers, or of two multiples of the same number.
    pub const SUM: Self = Self(1);
    /// A multiplication of two numbers.
    pub const PRODUCT: Self = Self(1 << 1);
    /// A division of numbers that is not a fraction in lowest terms.
    pub const QUOTIENT: Self = Self(1 << 2);
    /// A power of a number.
    pub const POWER: Self = Self(1 << 3);
    /// A root.
    pub const ROOT: Self = Self(1 << 4);

    /// Returns the operation of a function with a fixed meaning.
    pub fn function(f: Func) -> Self {
        Self(1 << (10 + f as u32))
    }

    /// Returns the operation of a sum, product, integral, limit or derivative.
    pub fn big(op: BigOp) -> Self {
        Self(1 << (5 + op as u32))
    }

    /// Returns the union of both sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether this set is a subset of `other`.
    pub fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}
