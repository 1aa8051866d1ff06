//! Derivatives, integrals, limits, finite and geometric sums, as far as answers need them.

pub(crate) mod limit;
pub(crate) mod rules;
pub(crate) mod series;
