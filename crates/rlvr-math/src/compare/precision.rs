//! The parameters and the precision of numerical comparisons.

use crate::node::arena::{Arena, Id, bits};
use crate::number::wide::Bits;

/// The fuel of an elementary function in wide balls is this times `w (4 + w)` for w words of 64
/// bits.
const WIDE_COST: u64 = 50;

/// The parameters of a comparison of expressions.
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub primes: [u64; 2],
    pub seed: u64,
    pub precision: u32,
}

/// Returns the working precision, which grows with the literals so that a tiny literal is not lost.
pub(crate) fn precision(arena: &Arena, order: &[Id], step: u32) -> Bits {
    let literals: usize = order
        .iter()
        .filter_map(|&id| arena.exact(id))
        .map(bits)
        .max()
        .unwrap_or(0);
    Bits(192 * 3usize.pow(step) + 2 * literals.min(1500))
}

pub(crate) fn wide_cost(cx: Bits) -> u64 {
    let words = cx.0 as u64 / 64 + 1;
    WIDE_COST * words * (4 + words)
}
