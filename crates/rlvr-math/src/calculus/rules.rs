//! Rules for integrals and derivatives. Without a rule the result is a node, which equals the same
//! one with another name of its bound variable.

use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::Res;
use crate::node::function::{BigOp, Func};
use crate::number::modular::{self, Formal};
use dashu_int::IBig;
use dashu_ratio::RBig;

/// Primes for checking the conditions of the rules (two of the largest below 2^61).
const PRIMES: [u64; 2] = [2_305_843_009_213_693_951, 2_305_843_009_213_693_921];

pub(crate) fn same(arena: &Arena, a: Id, b: Id) -> Res<bool> {
    Ok(a == b || modular::compare(arena, a, b, PRIMES, 0x5eed)? == Formal::Same)
}

pub(crate) fn depends(arena: &Arena, id: Id, variable: Id) -> bool {
    id == variable || arena.reachable(&[id]).contains(&variable)
}

/// Replaces `variable` by `value` in `root`.
pub(crate) fn substitute(arena: &mut Arena, root: Id, variable: Id, value: Id) -> Res<Id> {
    let order = arena.reachable(&[root]);
    let mut map = std::collections::HashMap::with_capacity(order.len());
    for id in order {
        arena.budget.spend(2)?;
        let new = if id == variable {
            value
        } else {
            let node = arena.node(id);
            let mut changed = false;
            node.each_child(|c| changed |= map.get(&c).is_some_and(|m| *m != c));
            if changed {
                let node = node.with_children(|c| map.get(&c).copied().unwrap_or(c));
                arena.remake(node)?
            } else {
                id
            }
        };
        map.insert(id, new);
    }
    Ok(map.get(&root).copied().unwrap_or(root))
}

/// Replaces `variable` by a bound variable, numbered from the inside, so that its name does not
/// matter.
pub(crate) fn bind(arena: &mut Arena, variable: Id, body: Id) -> Res<(Id, Id)> {
    let deepest = arena
        .reachable(&[body])
        .into_iter()
        .filter_map(|id| match arena.node(id) {
            Node::Bound(n) => Some(*n + 1),
            _ => None,
        })
        .max()
        .unwrap_or(0);
    let bound = arena.add_node(Node::Bound(deepest))?;
    let body = substitute(arena, body, variable, bound)?;
    Ok((bound, body))
}

/// Returns the degree of `body` as a polynomial in `x`, up to 8, found by the first derivative that
/// vanishes.
pub(crate) fn degree(arena: &mut Arena, x: Id, body: Id) -> Res<Option<usize>> {
    let zero = arena.int(0)?;
    let mut next = body;
    for degree in 0..=8 {
        next = derivative(arena, x, next)?;
        if matches!(arena.node(next), Node::Big(..)) {
            return Ok(None);
        }
        if same(arena, next, zero)? {
            return Ok(Some(degree));
        }
    }
    Ok(None)
}

/// Returns `\int_low^high body d(variable)`.
pub(crate) fn integral(
    arena: &mut Arena,
    variable: Id,
    low: Option<Id>,
    high: Option<Id>,
    body: Id,
) -> Res<Id> {
    let (Some(low), Some(high)) = (low, high) else {
        return arena.add_node(Node::Big(BigOp::Integral, vec![variable, body]));
    };
    let finite = |arena: &Arena, id: Id| !arena.any(id, |n| matches!(n, Node::Infinity));
    if finite(arena, low)
        && finite(arena, high)
        && let Some(primitive) = antiderivative(arena, variable, body)?
    {
        let top = substitute(arena, primitive, variable, high)?;
        let bottom = substitute(arena, primitive, variable, low)?;
        let value = arena.subtract(top, bottom)?;
        if !matches!(arena.node(value), Node::Undefined) {
            return Ok(value);
        }
    }
    if let Some(value) = improper(arena, variable, low, high, body)? {
        return Ok(value);
    }
    let (bound, body) = bind(arena, variable, body)?;
    arena.add_node(Node::Big(BigOp::Integral, vec![bound, low, high, body]))
}

/// Integrates to infinity, if the antiderivative vanishes there term by term, and the Gaussian
/// integral.
fn improper(arena: &mut Arena, x: Id, low: Id, high: Id, body: Id) -> Res<Option<Id>> {
    if !matches!(arena.node(high), Node::Infinity) {
        return Ok(None);
    }
    if arena.any(low, |n| matches!(n, Node::Infinity)) {
        let two = arena.int(2)?;
        let square = arena.power(x, two)?;
        let exponent = arena.negate(square)?;
        let e = arena.add_node(Node::Euler)?;
        if body != arena.power(e, exponent)? {
            return Ok(None);
        }
        let pi = arena.add_node(Node::Pi)?;
        return arena.sqrt(pi).map(Some);
    }
    let Some(primitive) = antiderivative(arena, x, body)? else {
        return Ok(None);
    };
    let terms = match arena.node(primitive) {
        Node::Add(terms) => terms.clone(),
        _ => vec![primitive],
    };
    for term in terms {
        let factors = match arena.node(term) {
            Node::Mul(factors) => factors.clone(),
            _ => vec![term],
        };
        let mut vanishes = false;
        for factor in factors
            .into_iter()
            .filter(|f| depends(arena, *f, x))
            .collect::<Vec<_>>()
        {
            let negative = |arena: &Arena, id: Id| arena.exact(id).is_some_and(|v| *v < RBig::ZERO);
            vanishes = match *arena.node(factor) {
                Node::Pow(base, e) if base == x => negative(arena, e),
                Node::Pow(base, e) if matches!(arena.node(base), Node::Euler) => {
                    let slope = derivative(arena, x, e)?;
                    negative(arena, slope)
                }
                _ => false,
            };
        }
        if !vanishes {
            return Ok(None);
        }
    }
    let at_low = substitute(arena, primitive, x, low)?;
    arena.negate(at_low).map(Some)
}

/// Returns an antiderivative of a sum of c x^n, c e^(ax), c sin(ax), c cos(ax).
fn antiderivative(arena: &mut Arena, x: Id, body: Id) -> Res<Option<Id>> {
    let terms = match arena.node(body) {
        Node::Add(terms) => terms.clone(),
        _ => vec![body],
    };
    if let Some(degree) = degree(arena, x, body)? {
        // The Taylor polynomial, integrated.
        let zero = arena.int(0)?;
        let mut out = Vec::new();
        let mut next = body;
        let mut factorial = RBig::ONE;
        for n in 0..=degree {
            let coefficient = substitute(arena, next, x, zero)?;
            factorial *= RBig::from(n as u64 + 1);
            let scale = arena.num(RBig::ONE / &factorial)?;
            let e = arena.int(n as i64 + 1)?;
            let power = arena.power(x, e)?;
            out.push(arena.product(vec![coefficient, scale, power])?);
            next = derivative(arena, x, next)?;
        }
        return arena.sum(out).map(Some);
    }
    let mut out = Vec::new();
    for term in terms {
        let factors = match arena.node(term) {
            Node::Mul(factors) => factors.clone(),
            _ => vec![term],
        };
        let (inner, outer): (Vec<Id>, Vec<Id>) =
            factors.into_iter().partition(|f| depends(arena, *f, x));
        let primitive = match inner[..] {
            [] => x,
            [f] => match primitive(arena, x, f)? {
                Some(id) => id,
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let mut factors = outer;
        factors.push(primitive);
        out.push(arena.product(factors)?);
    }
    arena.sum(out).map(Some)
}

fn primitive(arena: &mut Arena, x: Id, f: Id) -> Res<Option<Id>> {
    let one = arena.int(1)?;
    if f == x {
        let two = arena.int(2)?;
        let square = arena.power(x, two)?;
        return arena.divide(square, two).map(Some);
    }
    match arena.node(f).clone() {
        Node::Pow(base, n) if base == x && arena.exact(n).is_some() => {
            let next = arena.sum(vec![n, one])?;
            if arena.exact(next) == Some(&RBig::ZERO) {
                let size = arena.function(Func::Abs, vec![x])?;
                return arena.function(Func::Ln, vec![size]).map(Some);
            }
            let power = arena.power(x, next)?;
            arena.divide(power, next).map(Some)
        }
        // 1/(1 + x^2) and 1/sqrt(1 - x^2)
        Node::Pow(base, n)
            if matches!(arena.node(base), Node::Add(_)) && arena.exact(n).is_some() =>
        {
            let two = arena.int(2)?;
            let square = arena.power(x, two)?;
            let (plus, minus) = (arena.sum(vec![one, square])?, arena.subtract(one, square)?);
            let half = RBig::from_parts((-1).into(), 2u8.into());
            match arena.exact(n) {
                Some(n) if *n == -RBig::ONE && base == plus => {
                    arena.function(Func::Atan, vec![x]).map(Some)
                }
                Some(n) if *n == half && base == minus => {
                    arena.function(Func::Asin, vec![x]).map(Some)
                }
                _ => Ok(None),
            }
        }
        Node::Pow(base, n) if matches!(arena.node(base), Node::Euler) => {
            let Some(slope) = slope(arena, x, n)? else {
                return Ok(None);
            };
            arena.divide(f, slope).map(Some)
        }
        Node::Fn(kind @ (Func::Sin | Func::Cos), args) => {
            let Some(slope) = slope(arena, x, args[0])? else {
                return Ok(None);
            };
            let other = arena.function(
                if kind == Func::Sin {
                    Func::Cos
                } else {
                    Func::Sin
                },
                args,
            )?;
            let value = arena.divide(other, slope)?;
            if kind == Func::Sin {
                arena.negate(value).map(Some)
            } else {
                Ok(Some(value))
            }
        }
        _ => Ok(None),
    }
}

/// Returns a if `id` is `a x + b`.
fn slope(arena: &mut Arena, x: Id, id: Id) -> Res<Option<Id>> {
    let slope = derivative(arena, x, id)?;
    Ok((!depends(arena, slope, x) && arena.exact(slope) != Some(&RBig::ZERO)).then_some(slope))
}

/// Returns the derivative of `body`, node by node.
pub(crate) fn derivative(arena: &mut Arena, variable: Id, body: Id) -> Res<Id> {
    let zero = arena.int(0)?;
    let order = arena.reachable(&[body]);
    let mut map: std::collections::HashMap<Id, Id> =
        std::collections::HashMap::with_capacity(order.len());
    for id in order {
        arena.budget.spend(4)?;
        let of = |child: Id| map.get(&child).copied().unwrap_or(zero);
        let mut constant = id != variable;
        arena.node(id).each_child(|c| constant &= of(c) == zero);
        let value = if id == variable {
            arena.int(1)?
        } else if constant {
            zero
        } else {
            match arena.node(id).clone() {
                Node::Add(terms) => arena.sum(terms.iter().map(|t| of(*t)).collect())?,
                Node::Mul(factors) => {
                    arena.budget.spend((factors.len() * factors.len()) as u64)?;
                    let mut terms = Vec::new();
                    for (at, &factor) in factors.iter().enumerate() {
                        if of(factor) == zero {
                            continue;
                        }
                        let mut product = factors.clone();
                        product[at] = of(factor);
                        terms.push(arena.product(product)?);
                    }
                    arena.sum(terms)?
                }
                Node::Pow(base, exponent) => {
                    // (b^e)' = b^e (e' ln b + e b'/b)
                    let mut terms = Vec::new();
                    if of(exponent) != zero {
                        let log = if matches!(arena.node(base), Node::Euler) {
                            arena.int(1)?
                        } else {
                            arena.function(Func::Ln, vec![base])?
                        };
                        terms.push(arena.product(vec![of(exponent), log, id])?);
                    }
                    if of(base) != zero {
                        let minus = arena.int(-1)?;
                        let lower = arena.sum(vec![exponent, minus])?;
                        let power = arena.power(base, lower)?;
                        terms.push(arena.product(vec![exponent, power, of(base)])?);
                    }
                    arena.sum(terms)?
                }
                Node::Fn(f, args) if args.len() == 1 => {
                    match outer_derivative(arena, f, args[0])? {
                        Some(outer) => arena.product(vec![outer, of(args[0])])?,
                        None => {
                            return arena
                                .add_node(Node::Big(BigOp::Derivative, vec![variable, body]));
                        }
                    }
                }
                _ => return arena.add_node(Node::Big(BigOp::Derivative, vec![variable, body])),
            }
        };
        map.insert(id, value);
    }
    Ok(map.get(&body).copied().unwrap_or(zero))
}

/// Returns f'(x).
fn outer_derivative(arena: &mut Arena, f: Func, x: Id) -> Res<Option<Id>> {
    use Func::*;
    let one = arena.int(1)?;
    let minus = arena.int(-1)?;
    let two = arena.int(2)?;
    Ok(Some(match f {
        Sin => arena.function(Cos, vec![x])?,
        Cos => {
            let s = arena.function(Sin, vec![x])?;
            arena.negate(s)?
        }
        Tan => {
            let c = arena.function(Cos, vec![x])?;
            let minus_two = arena.int(-2)?;
            arena.power(c, minus_two)?
        }
        Sinh => arena.function(Cosh, vec![x])?,
        Cosh => arena.function(Sinh, vec![x])?,
        Ln => arena.power(x, minus)?,
        Atan | Asin | Acos => {
            let square = arena.power(x, two)?;
            if f == Atan {
                let below = arena.sum(vec![one, square])?;
                arena.power(below, minus)?
            } else {
                let rest = arena.subtract(one, square)?;
                let root = arena.sqrt(rest)?;
                let value = arena.power(root, minus)?;
                if f == Acos {
                    arena.negate(value)?
                } else {
                    value
                }
            }
        }
        _ => return Ok(None),
    }))
}

/// Returns the numerator and denominator of a product or a sum of products. The denominator is the
/// product of all denominators.
pub(crate) fn fraction(arena: &mut Arena, body: Id) -> Res<(Id, Id)> {
    let terms = match arena.node(body) {
        Node::Add(terms) => terms.clone(),
        _ => vec![body],
    };
    let mut tops: Vec<(Id, Id)> = Vec::new();
    for term in terms {
        let factors = match arena.node(term) {
            Node::Mul(factors) => factors.clone(),
            _ => vec![term],
        };
        let (mut top, mut bottom) = (Vec::new(), Vec::new());
        for factor in factors {
            match *arena.node(factor) {
                Node::Pow(base, e)
                    if arena.exact(e).is_some_and(|e| *e.numerator() < IBig::ZERO) =>
                {
                    let e = arena.negate(e)?;
                    bottom.push(arena.power(base, e)?);
                }
                _ => top.push(factor),
            }
        }
        tops.push((arena.product(top)?, arena.product(bottom)?));
    }
    let (mut top, mut bottom) = tops[0];
    for &(t, b) in &tops[1..] {
        let left = arena.product(vec![top, b])?;
        let right = arena.product(vec![t, bottom])?;
        top = arena.sum(vec![left, right])?;
        bottom = arena.product(vec![bottom, b])?;
    }
    Ok((top, bottom))
}
