//! Values of expressions: modulo primes, in balls of doubles, in wide balls, real and complex.

pub(crate) mod complex;
pub(crate) mod evaluate;
pub(crate) mod modular;
pub(crate) mod points;
pub(crate) mod real;
pub(crate) mod wide;
