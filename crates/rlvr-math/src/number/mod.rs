//! Values of expressions: modulo primes, and in ball arithmetic with doubles or with any precision,
//! real and complex.

pub(crate) mod complex;
pub(crate) mod evaluate;
pub(crate) mod modular;
pub(crate) mod points;
pub(crate) mod real;
pub(crate) mod wide;
