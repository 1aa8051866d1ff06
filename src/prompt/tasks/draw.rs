//! Random draws and range checks that the generators share.

use std::ops::RangeInclusive;

use rand::Rng;

use crate::random::below;
use crate::{Error, Result};

/// Returns a uniform integer in `range`, which must not be empty.
pub(super) fn between(rng: &mut impl Rng, range: &RangeInclusive<u64>) -> u64 {
    range.start() + below(rng, range.end().saturating_sub(*range.start()) + 1)
}

/// Returns one of `items`, uniformly. There must be at least one.
pub(super) fn pick<'a, T>(rng: &mut impl Rng, items: &'a [T]) -> &'a T {
    &items[below(rng, items.len() as u64) as usize]
}

/// Returns true or false with equal probability.
pub(super) fn coin(rng: &mut impl Rng) -> bool {
    below(rng, 2) == 1
}

/// Returns a uniform number of `digits` digits without leading zeros. One digit may be 0.
pub(super) fn number(rng: &mut impl Rng, digits: u64) -> u64 {
    let largest = 10u64.pow(digits as u32) - 1;
    let smallest = if digits == 1 { 0 } else { largest / 10 + 1 };
    between(rng, &(smallest..=largest))
}

/// Rejects a range that is empty or exceeds `bounds`.
pub(super) fn check<T: PartialOrd + std::fmt::Display>(
    field: &str,
    range: &RangeInclusive<T>,
    bounds: RangeInclusive<T>,
) -> Result<()> {
    let inside = bounds.contains(range.start()) && bounds.contains(range.end());
    match inside && range.start() <= range.end() {
        true => Ok(()),
        false => Err(Error::config(
            field,
            format!("{}..={}", range.start(), range.end()),
            format!(
                "a non-empty range within {}..={}",
                bounds.start(),
                bounds.end()
            ),
        )),
    }
}
