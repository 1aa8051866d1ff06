//! Solves for where a function of one variable is positive, negative or zero, if it is linear or
//! quadratic in the variable or in one absolute value.

use super::comparer::Comparer;
use super::region::{End, INFINITE, Piece, complement, intersect, merge};
use super::values;
use super::verdict::Verdict;
use crate::calculus::rules::{derivative, substitute};
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;
use crate::node::function::{Func, RelOp};
use dashu_ratio::RBig;
use std::cmp::Ordering;

/// The condition on the values of the function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Above { closed: bool },
    Below { closed: bool },
    Zero,
    NotZero,
}

impl Side {
    /// Returns the condition of `f op 0`.
    pub fn of(op: RelOp) -> Option<Self> {
        Some(match op {
            RelOp::Gt => Self::Above { closed: false },
            RelOp::Ge => Self::Above { closed: true },
            RelOp::Lt => Self::Below { closed: false },
            RelOp::Le => Self::Below { closed: true },
            RelOp::Eq => Self::Zero,
            RelOp::Ne => Self::NotZero,
            _ => return None,
        })
    }
}

/// Returns the `x` for which `f` satisfies the condition.
pub(crate) fn solve(c: &mut Comparer, f: Id, x: Id, side: Side) -> Res<Option<Vec<Piece>>> {
    let absolute: Vec<Id> = c
        .arena
        .reachable(&[f])
        .into_iter()
        .filter(|&id| matches!(c.arena.node(id), Node::Fn(Func::Abs, _)))
        .collect();
    let [abs] = absolute[..] else {
        return if absolute.is_empty() {
            solve_polynomial(c, f, x, side)
        } else {
            Ok(None)
        };
    };
    let Node::Fn(_, args) = c.arena.node(abs).clone() else {
        return Ok(None);
    };
    let size = c.arena.symbol("absolute value")?;
    let g = substitute(c.arena, f, abs, size)?;
    match solve_polynomial(c, g, size, side)? {
        Some(pieces) => undo_absolute(c, pieces, args[0], x),
        None => Ok(None),
    }
}

/// `base + slope x + curve x^2 / 2`
struct Quadratic {
    base: Id,
    slope: Id,
    curve: Id,
}

/// Returns the coefficients of `f`, if it is quadratic or linear for every `x`.
fn quadratic(c: &mut Comparer, f: Id, x: Id) -> Res<Option<Quadratic>> {
    let zero = c.arena.int(0)?;
    let first = derivative(c.arena, x, f)?;
    let second = derivative(c.arena, x, first)?;
    let base = substitute(c.arena, f, x, zero)?;
    let slope = substitute(c.arena, first, x, zero)?;
    let curve = substitute(c.arena, second, x, zero)?;
    if !c.arena.symbols(&[base, slope, curve]).is_empty() {
        return Ok(None);
    }
    let half = c.arena.num(RBig::from_parts(1.into(), 2u8.into()))?;
    let two = c.arena.int(2)?;
    let square = c.arena.power(x, two)?;
    let linear = c.arena.product(vec![slope, x])?;
    let square = c.arena.product(vec![half, curve, square])?;
    let model = c.arena.sum(vec![base, linear, square])?;
    let same = values::compare(c.arena, c.test, f, model)?.verdict == Verdict::Equal;
    Ok(same.then_some(Quadratic { base, slope, curve }))
}

/// The roots in ascending order, and the sign of the function above the last one (everywhere if
/// there is none).
struct Roots {
    at: Vec<Id>,
    last: Ordering,
    /// Whether the only root is a double root, at which the sign does not change.
    double: bool,
}

/// Returns the roots of a function that is not constant, if the signs of its coefficients are
/// known.
fn roots(c: &mut Comparer, f: &Quadratic) -> Res<Option<Roots>> {
    let zero = c.arena.int(0)?;
    let sign = |c: &Comparer, id: Id| values::order(c.arena, id, zero);
    let (Some(curve), Some(slope)) = (sign(c, f.curve)?, sign(c, f.slope)?) else {
        return Ok(None);
    };
    if curve.is_eq() {
        if slope.is_eq() {
            return Ok(None);
        }
        let root = c.arena.divide(f.base, f.slope)?;
        return Ok(Some(Roots {
            at: vec![c.arena.negate(root)?],
            last: slope,
            double: false,
        }));
    }
    let two = c.arena.int(2)?;
    let minus_two = c.arena.int(-2)?;
    let b2 = c.arena.power(f.slope, two)?;
    let ac = c.arena.product(vec![minus_two, f.curve, f.base])?;
    let discriminant = c.arena.sum(vec![b2, ac])?;
    let minus_b = c.arena.negate(f.slope)?;
    let at = match sign(c, discriminant)? {
        None => return Ok(None),
        Some(Ordering::Less) => Vec::new(),
        Some(Ordering::Equal) => vec![c.arena.divide(minus_b, f.curve)?],
        Some(Ordering::Greater) => {
            let root = c.arena.sqrt(discriminant)?;
            let low = c.arena.subtract(minus_b, root)?;
            let high = c.arena.sum(vec![minus_b, root])?;
            let low = c.arena.divide(low, f.curve)?;
            let high = c.arena.divide(high, f.curve)?;
            if curve.is_gt() {
                vec![low, high]
            } else {
                vec![high, low]
            }
        }
    };
    Ok(Some(Roots {
        double: at.len() == 1,
        at,
        last: curve,
    }))
}

fn solve_polynomial(c: &mut Comparer, f: Id, x: Id, side: Side) -> Res<Option<Vec<Piece>>> {
    let Some(f) = quadratic(c, f, x)? else {
        return Ok(None);
    };
    Ok(roots(c, &f)?.map(|roots| on_side(&roots, side)))
}

/// Returns the reals between and beyond the roots that satisfy the condition.
fn on_side(roots: &Roots, side: Side) -> Vec<Piece> {
    let everything = Piece {
        low: INFINITE,
        high: INFINITE,
    };
    let (positive, closed) = match side {
        Side::Zero => return roots.at.iter().map(|&root| point(root)).collect(),
        Side::NotZero => {
            let points: Vec<Piece> = roots.at.iter().map(|&root| point(root)).collect();
            return complement(&points);
        }
        Side::Above { closed } => (roots.last.is_gt(), closed),
        Side::Below { closed } => (roots.last.is_lt(), closed),
    };
    let end = |id: Id| End {
        value: Some(id),
        closed,
    };
    let below = |id: Id| Piece {
        low: INFINITE,
        high: end(id),
    };
    let above = |id: Id| Piece {
        low: end(id),
        high: INFINITE,
    };
    match roots.at[..] {
        [] if positive => vec![everything],
        [root] if roots.double => match (positive, closed) {
            (true, true) => vec![everything],
            (true, false) => complement(&[point(root)]),
            (false, true) => vec![point(root)],
            (false, false) => Vec::new(),
        },
        [root] if positive => vec![above(root)],
        [root] => vec![below(root)],
        [low, high] if positive => vec![below(low), above(high)],
        [low, high] => vec![Piece {
            low: end(low),
            high: end(high),
        }],
        _ => Vec::new(),
    }
}

/// Returns the piece of a single number.
fn point(id: Id) -> Piece {
    let end = End {
        value: Some(id),
        closed: true,
    };
    Piece {
        low: end,
        high: end,
    }
}

/// Returns the `x` for which the absolute value of `inside`, linear in `x`, is in the pieces:
/// `inside` is in them or in their mirror images.
fn undo_absolute(
    c: &mut Comparer,
    pieces: Vec<Piece>,
    inside: Id,
    x: Id,
) -> Res<Option<Vec<Piece>>> {
    let zero = c.arena.int(0)?;
    let slope = derivative(c.arena, x, inside)?;
    let shift = substitute(c.arena, inside, x, zero)?;
    let linear = c.arena.symbols(&[slope, shift]).is_empty();
    let Some(negative) = c
        .arena
        .exact(slope)
        .filter(|slope| linear && **slope != RBig::ZERO)
        .map(|slope| *slope < RBig::ZERO)
    else {
        return Ok(None);
    };
    let nonnegative = Piece {
        low: End {
            value: Some(zero),
            closed: true,
        },
        high: INFINITE,
    };
    let Some(positive) = intersect(c, &pieces, &[nonnegative])? else {
        return Ok(None);
    };
    let mut moved = Vec::new();
    for piece in positive {
        let mirrored = Piece {
            low: mirror(c, piece.high)?,
            high: mirror(c, piece.low)?,
        };
        for piece in [piece, mirrored] {
            let mut undo = |end: End| -> Res<End> {
                let Some(value) = end.value else {
                    return Ok(end);
                };
                let shifted = c.arena.subtract(value, shift)?;
                Ok(End {
                    value: Some(c.arena.divide(shifted, slope)?),
                    closed: end.closed,
                })
            };
            let (low, high) = (undo(piece.low)?, undo(piece.high)?);
            moved.push(if negative {
                Piece {
                    low: high,
                    high: low,
                }
            } else {
                Piece { low, high }
            });
        }
    }
    merge(c, moved)
}

fn mirror(c: &mut Comparer, end: End) -> Res<End> {
    Ok(match end.value {
        Some(value) => End {
            value: Some(c.arena.negate(value)?),
            closed: end.closed,
        },
        None => end,
    })
}
