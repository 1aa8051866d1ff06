//! Sums and products over an index: expanded, in closed form, or as a node.

use super::rules::{bind, degree, depends, same, substitute};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::function::{BigOp, Func};
use dashu_ratio::RBig;

/// The largest number of terms that are expanded.
const MAX_TERMS: i64 = 10_000;

/// Returns the sum or product of `body` for `variable` from `from` to `to`.
pub(crate) fn series(
    arena: &mut Arena,
    product: bool,
    variable: Id,
    from: Id,
    to: Id,
    body: Id,
) -> Res<Id> {
    if let (Some(low), Some(high)) = (arena.small_int(from), arena.small_int(to)) {
        if high.saturating_sub(low) > MAX_TERMS {
            return Err(Stop::Limit("terms of a sum"));
        }
        let mut parts = Vec::new();
        for k in low..=high {
            let k = arena.int(k)?;
            parts.push(substitute(arena, body, variable, k)?);
        }
        return if product {
            arena.product(parts)
        } else {
            arena.sum(parts)
        };
    }
    if !product
        && matches!(arena.node(to), Node::Infinity)
        && let Some(start) = arena.small_int(from)
        && let Some(value) = infinite_sum(arena, variable, start, body)?
    {
        return Ok(value);
    }
    if !product
        && !matches!(arena.node(to), Node::Infinity)
        && let Some(value) = polynomial_sum(arena, variable, from, to, body)?
    {
        return Ok(value);
    }
    let (bound, body) = bind(arena, variable, body)?;
    arena.add_node(Node::Big(
        if product { BigOp::Product } else { BigOp::Sum },
        vec![bound, from, to, body],
    ))
}

/// Returns the sum of a polynomial p by Newton's forward differences: the sum over j of D^j p(from) *
/// binom(to - from + 1, j + 1).
fn polynomial_sum(arena: &mut Arena, k: Id, from: Id, to: Id, body: Id) -> Res<Option<Id>> {
    let zero = arena.int(0)?;
    let Some(degree) = degree(arena, k, body)? else {
        return Ok(None);
    };
    let mut values = Vec::new();
    for i in 0..=degree {
        let i = arena.int(i as i64)?;
        let at = arena.sum(vec![from, i])?;
        values.push(substitute(arena, body, k, at)?);
    }
    let one = arena.int(1)?;
    let below = arena.subtract(to, from)?;
    let count = arena.sum(vec![below, one])?;
    let mut terms = vec![zero];
    for j in 0..=degree {
        let j = arena.int(j as i64 + 1)?;
        let choose = arena.function(Func::Binom, vec![count, j])?;
        terms.push(arena.product(vec![values[0], choose])?);
        for i in 0..values.len() - 1 {
            values[i] = arena.subtract(values[i + 1], values[i])?;
        }
        values.pop();
        if values.is_empty() {
            break;
        }
    }
    arena.sum(terms).map(Some)
}

/// Returns the sum of a geometric series, or of c/k^2, c/k^4 or c/k!.
fn infinite_sum(arena: &mut Arena, k: Id, start: i64, body: Id) -> Res<Option<Id>> {
    let one = arena.int(1)?;
    let first_k = arena.int(start)?;
    let second_k = arena.int(start + 1)?;
    let next_k = arena.sum(vec![k, one])?;
    let next = substitute(arena, body, k, next_k)?;
    let first = substitute(arena, body, k, first_k)?;
    let second = substitute(arena, body, k, second_k)?;
    let left = arena.product(vec![next, first])?;
    let right = arena.product(vec![body, second])?;
    if !matches!(arena.node(first), Node::Undefined) && same(arena, left, right)? {
        let ratio = arena.divide(second, first)?;
        if arena
            .exact(ratio)
            .is_none_or(|r| *r < RBig::ONE && *r > -RBig::ONE)
        {
            let rest = arena.subtract(one, ratio)?;
            return arena.divide(first, rest).map(Some);
        }
        return Ok(None);
    }
    let factorial = arena.function(Func::Factorial, vec![k])?;
    let scaled = arena.product(vec![body, factorial])?;
    if !depends(arena, scaled, k) && (0..=1).contains(&start) {
        let e = arena.add_node(Node::Euler)?;
        let shift = arena.int(-start)?;
        let value = arena.sum(vec![e, shift])?;
        return arena.product(vec![scaled, value]).map(Some);
    }
    for (power, divisor) in [(2, 6), (4, 90)] {
        let p = arena.int(power)?;
        let k_power = arena.power(k, p)?;
        let scaled = arena.product(vec![body, k_power])?;
        if !depends(arena, scaled, k) && start == 1 {
            let pi = arena.add_node(Node::Pi)?;
            let pi = arena.power(pi, p)?;
            let divisor = arena.num(RBig::from_parts(1.into(), (divisor as u32).into()))?;
            return arena.product(vec![scaled, pi, divisor]).map(Some);
        }
    }
    Ok(None)
}
