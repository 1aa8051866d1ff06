//! Limits: by substitution, by l'Hôpital's rule, and of quotients of polynomials at infinity.

use super::rules::{bind, depends, derivative, fraction, same, substitute};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::Res;
use crate::node::function::{BigOp, Func};
use dashu_ratio::RBig;

/// The number of times that l'Hôpital's rule is applied.
const ROUNDS: usize = 6;

/// Returns `\lim_{variable \to target} body`. A target `a^+` or `a^-` has a direction.
pub(crate) fn limit(arena: &mut Arena, variable: Id, target: Id, body: Id) -> Res<Id> {
    let point = match *arena.node(target) {
        Node::Pow(point, direction) if matches!(arena.node(direction), Node::Sym(n) if matches!(arena.name(*n), "＋" | "−")) => {
            point
        }
        _ => target,
    };
    if !depends(arena, body, variable) {
        return Ok(body);
    }
    if let Some(value) = limit_value(arena, variable, point, body)? {
        return Ok(value);
    }
    let (bound, body) = bind(arena, variable, body)?;
    arena.add_node(Node::Big(BigOp::Limit, vec![bound, target, body]))
}

fn limit_value(arena: &mut Arena, x: Id, point: Id, body: Id) -> Res<Option<Id>> {
    let (top, bottom) = fraction(arena, body)?;
    if matches!(arena.node(point), Node::Infinity) {
        // (1 + u)^v with u -> 0 and v -> oo tends to e^(lim u v).
        if let Node::Pow(base, exponent) = *arena.node(body)
            && depends(arena, base, x)
            && depends(arena, exponent, x)
        {
            let one = arena.int(1)?;
            let excess = arena.subtract(base, one)?;
            let product = arena.product(vec![excess, exponent])?;
            let inner = if depends(arena, product, x) {
                limit_at_infinity(arena, x, product)?
            } else {
                Some(product)
            };
            let vanishing = limit_at_infinity(arena, x, excess)?;
            if let (Some(inner), Some(vanishing)) = (inner, vanishing)
                && arena.exact(vanishing) == Some(&RBig::ZERO)
            {
                let e = arena.add_node(Node::Euler)?;
                return arena.power(e, inner).map(Some);
            }
            return Ok(None);
        }
        return limit_at_infinity(arena, x, body);
    }
    // Substitution needs functions that are continuous where they are defined.
    let jumps = |n: &Node| {
        matches!(
            n,
            Node::Fn(
                Func::Floor | Func::Ceil | Func::Sign | Func::Mod | Func::Factorial,
                _
            ) | Node::Big(..)
                | Node::App(..)
        )
    };
    if arena.any(body, jumps) || arena.any(point, |n| matches!(n, Node::Infinity)) {
        return Ok(None);
    }
    let (mut top, mut bottom) = (top, bottom);
    for _ in 0..ROUNDS {
        let below = substitute(arena, bottom, x, point)?;
        let above = substitute(arena, top, x, point)?;
        if matches!(arena.node(below), Node::Undefined)
            || matches!(arena.node(above), Node::Undefined)
        {
            return Ok(None);
        }
        let zero = arena.int(0)?;
        if !same(arena, below, zero)? {
            return match arena.exact(below).is_some()
                || !arena.symbols(&[below]).is_empty()
                || below != zero
            {
                true => arena.divide(above, below).map(Some),
                false => Ok(None),
            };
        }
        if !same(arena, above, zero)? {
            return Ok(None);
        }
        top = derivative(arena, x, top)?;
        bottom = derivative(arena, x, bottom)?;
    }
    Ok(None)
}

/// Returns the limit of a quotient of polynomials at infinity.
fn limit_at_infinity(arena: &mut Arena, x: Id, body: Id) -> Res<Option<Id>> {
    let (mut top, mut bottom) = fraction(arena, body)?;
    let polynomial = |arena: &Arena, root: Id| {
        arena
            .reachable(&[root])
            .into_iter()
            .all(|id| match arena.node(id) {
                Node::Add(_) | Node::Mul(_) => true,
                Node::Pow(base, e) => {
                    !depends(arena, id, x)
                        || (arena.small_int(*e).is_some_and(|e| (0..=64).contains(&e))
                            && depends(arena, *base, x))
                }
                _ => id == x || !depends(arena, id, x),
            })
    };
    if !polynomial(arena, top) || !polynomial(arena, bottom) {
        return Ok(None);
    }
    for _ in 0..=64 {
        if !depends(arena, bottom, x) {
            return if depends(arena, top, x) {
                Ok(None)
            } else {
                arena.divide(top, bottom).map(Some)
            };
        }
        if !depends(arena, top, x) {
            return arena.int(0).map(Some);
        }
        top = derivative(arena, x, top)?;
        bottom = derivative(arena, x, bottom)?;
    }
    Ok(None)
}
