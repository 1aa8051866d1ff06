//! The operations that a written expression leaves to be carried out: `37+48` a sum, `10!` a factorial, `85` none.
//!
//! The constructors of nodes carry them out while reading, so they are noted there, as far as
//! [`MathConfig::require_evaluated`](crate::MathConfig::require_evaluated) needs them.

use super::function::{BigOp, Func};

/// A set of operations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Operations(u64);

impl Operations {
    /// Two numbers to add, or two multiples of one number.
    pub const SUM: Self = Self(1);
    /// Two numbers to multiply.
    pub const PRODUCT: Self = Self(1 << 1);
    /// A division of numbers that is no fraction in lowest terms.
    pub const QUOTIENT: Self = Self(1 << 2);
    /// A power of a number.
    pub const POWER: Self = Self(1 << 3);
    /// A root.
    pub const ROOT: Self = Self(1 << 4);

    /// A function of fixed meaning.
    pub fn function(f: Func) -> Self {
        Self(1 << (10 + f as u32))
    }

    /// A sum, product, integral, limit or derivative.
    pub fn big(op: BigOp) -> Self {
        Self(1 << (5 + op as u32))
    }

    /// Those of both.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `other` has all of them.
    pub fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}
