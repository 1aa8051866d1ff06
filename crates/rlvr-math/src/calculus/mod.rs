//! Derivatives, integrals, limits, finite sums and geometric series, as far as they occur in
//! answers.

pub(crate) mod limit;
pub(crate) mod rules;
pub(crate) mod series;
