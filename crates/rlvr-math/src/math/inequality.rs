//! Inequalities: the set of reals that satisfies one, and what is compared where none is found.

use super::budget::Res;
use super::calculus::{derivative, substitute};
use super::compare::Comparer;
use super::expression;
use super::interval::{End, INFINITE, Piece, Region, complement, intersect, merge, region};
use super::node::{Func, Id, Node, RelOp};
use super::relation::proportional;
use super::verdict::{Comparison, Verdict};
use dashu_ratio::RBig;
use std::cmp::Ordering;

/// `a < x <= b`: all its links.
pub(super) fn solve_chain(
    c: &mut Comparer,
    ops: &[RelOp],
    sides: &[Id],
    depth: usize,
) -> Res<Option<Region>> {
    let mut total = Region {
        name: None,
        pieces: vec![Piece {
            low: INFINITE,
            high: INFINITE,
        }],
    };
    for (place, &op) in ops.iter().enumerate() {
        let Some(link) = solve(c, op, sides[place], sides[place + 1], depth)? else {
            return Ok(None);
        };
        if let (Some(a), Some(b)) = (total.name, link.name)
            && a != b
        {
            return Ok(None);
        }
        total.name = total.name.or(link.name);
        let Some(pieces) = intersect(c, &total.pieces, &link.pieces)? else {
            return Ok(None);
        };
        total.pieces = pieces;
    }
    Ok(total.name.is_some().then_some(total))
}

/// The reals that satisfy `left op right` in its only unknown.
fn solve(c: &mut Comparer, op: RelOp, left: Id, right: Id, depth: usize) -> Res<Option<Region>> {
    if op == RelOp::In {
        let Some(mut inner) = region(c, right, depth + 1)? else {
            return Ok(None);
        };
        inner.name = Some(left);
        return Ok(Some(inner));
    }
    let (keeps_above, closed, not_equal) = match op {
        RelOp::Gt => (true, false, false),
        RelOp::Ge => (true, true, false),
        RelOp::Lt => (false, false, false),
        RelOp::Le => (false, true, false),
        RelOp::Ne => (true, false, true),
        RelOp::Eq => (true, true, false),
        _ => return Ok(None),
    };
    // `-oo < x` holds for every real.
    let infinite = (c.arena.infinity_sign(left), c.arena.infinity_sign(right));
    let everything =
        match (infinite, op) {
            ((Some(-1), None), RelOp::Lt | RelOp::Le)
            | ((Some(1), None), RelOp::Gt | RelOp::Ge) => Some(right),
            ((None, Some(1)), RelOp::Lt | RelOp::Le)
            | ((None, Some(-1)), RelOp::Gt | RelOp::Ge) => Some(left),
            _ => None,
        };
    if let Some(name) = everything {
        let symbol = matches!(c.arena.node(name), Node::Sym(_));
        let pieces = vec![Piece {
            low: INFINITE,
            high: INFINITE,
        }];
        return Ok(symbol.then_some(Region {
            name: Some(name),
            pieces,
        }));
    }
    let order = c.arena.reachable(&[left, right]);
    let applied: Vec<Id> = order
        .iter()
        .copied()
        .filter(|&id| matches!(c.arena.node(id), Node::App(..)))
        .collect();
    let x = match applied[..] {
        [] => match c.arena.symbols(&[left, right])[..] {
            [x] => x,
            _ => return Ok(None),
        },
        [f] => f,
        _ => return Ok(None),
    };
    let mut f = c.arena.subtract(left, right)?;
    if !applied.is_empty() {
        // An unknown function value takes the place of a variable.
        let fresh = c.arena.symbol("value of a function")?;
        f = substitute(c.arena, f, x, fresh)?;
        let pieces = solve_sign(c, f, fresh, keeps_above, closed, not_equal, op == RelOp::Eq)?;
        return Ok(pieces.map(|pieces| Region {
            name: Some(x),
            pieces,
        }));
    }
    let pieces = solve_sign(c, f, x, keeps_above, closed, not_equal, op == RelOp::Eq)?;
    Ok(pieces.map(|pieces| Region {
        name: Some(x),
        pieces,
    }))
}

/// Where `f(x)` is positive (or negative, or zero): by its roots, if f is linear, quadratic, or linear in |x - a|.
fn solve_sign(
    c: &mut Comparer,
    f: Id,
    x: Id,
    above: bool,
    closed: bool,
    not_equal: bool,
    equal: bool,
) -> Res<Option<Vec<Piece>>> {
    let zero = c.arena.int(0)?;
    let absolute: Vec<Id> = c
        .arena
        .reachable(&[f])
        .into_iter()
        .filter(|&id| matches!(c.arena.node(id), Node::Fn(Func::Abs, _)))
        .collect();
    let (slope_in, inner) = match absolute[..] {
        [] => (x, None),
        [abs] => {
            let Node::Fn(_, args) = c.arena.node(abs).clone() else {
                return Ok(None);
            };
            (c.arena.symbol("absolute value")?, Some((abs, args[0])))
        }
        _ => return Ok(None),
    };
    let g = match inner {
        Some((abs, _)) => substitute(c.arena, f, abs, slope_in)?,
        None => f,
    };
    let constant = |c: &Comparer, id: Id| c.arena.symbols(&[id]).is_empty();
    let first = derivative(c.arena, slope_in, g)?;
    let second = derivative(c.arena, slope_in, first)?;
    let base = substitute(c.arena, g, slope_in, zero)?;
    if !constant(c, base) {
        return Ok(None);
    }
    let slope = substitute(c.arena, first, slope_in, zero)?;
    let curve = substitute(c.arena, second, slope_in, zero)?;
    // g = base + slope x + curve x^2 / 2 must hold identically.
    let half = c.arena.num(RBig::from_parts(1.into(), 2u8.into()))?;
    let two = c.arena.int(2)?;
    let square = c.arena.power(slope_in, two)?;
    let linear = c.arena.product(vec![slope, slope_in])?;
    let quadratic = c.arena.product(vec![half, curve, square])?;
    let model = c.arena.sum(vec![base, linear, quadratic])?;
    if !constant(c, slope)
        || !constant(c, curve)
        || expression::compare(c.arena, c.test, g, model)?.verdict != Verdict::Equal
    {
        return Ok(None);
    }
    let sign = |c: &Comparer, id: Id| expression::order(c.arena, id, zero);
    let (roots, mut leading) = match (sign(c, curve)?, sign(c, slope)?) {
        (Some(Ordering::Equal), Some(s)) if s.is_ne() => {
            let root = c.arena.divide(base, slope)?;
            (vec![c.arena.negate(root)?], s)
        }
        (Some(s), Some(_)) if s.is_ne() => {
            let four = c.arena.int(-2)?;
            let b2 = c.arena.power(slope, two)?;
            let ac = c.arena.product(vec![four, curve, base])?;
            let discriminant = c.arena.sum(vec![b2, ac])?;
            let minus_b = c.arena.negate(slope)?;
            match sign(c, discriminant)? {
                Some(Ordering::Less) => (Vec::new(), s),
                Some(Ordering::Equal) => (vec![c.arena.divide(minus_b, curve)?], s),
                Some(Ordering::Greater) => {
                    let root = c.arena.sqrt(discriminant)?;
                    let low = c.arena.subtract(minus_b, root)?;
                    let high = c.arena.sum(vec![minus_b, root])?;
                    let (low, high) = (c.arena.divide(low, curve)?, c.arena.divide(high, curve)?);
                    (
                        if s.is_gt() {
                            vec![low, high]
                        } else {
                            vec![high, low]
                        },
                        s,
                    )
                }
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let point = |id: Id| {
        let end = End {
            value: Some(id),
            closed: true,
        };
        Piece {
            low: end,
            high: end,
        }
    };
    let end = |id: Id| End {
        value: Some(id),
        closed,
    };
    let double = roots.len() == 1 && sign(c, curve)? != Some(Ordering::Equal);
    if !above {
        leading = leading.reverse();
    }
    let positive = leading.is_gt();
    let mut pieces = match roots[..] {
        _ if not_equal => complement(&roots.iter().map(|&r| point(r)).collect::<Vec<_>>()),
        _ if equal => roots.iter().map(|&r| point(r)).collect(),
        [] => {
            if positive {
                vec![Piece {
                    low: INFINITE,
                    high: INFINITE,
                }]
            } else {
                Vec::new()
            }
        }
        [r] if double => match (positive, closed) {
            (true, true) => vec![Piece {
                low: INFINITE,
                high: INFINITE,
            }],
            (true, false) => complement(&[point(r)]),
            (false, true) => vec![point(r)],
            (false, false) => Vec::new(),
        },
        [r] => vec![if positive {
            Piece {
                low: end(r),
                high: INFINITE,
            }
        } else {
            Piece {
                low: INFINITE,
                high: end(r),
            }
        }],
        [l, h] if positive => vec![
            Piece {
                low: INFINITE,
                high: end(l),
            },
            Piece {
                low: end(h),
                high: INFINITE,
            },
        ],
        [l, h] => vec![Piece {
            low: end(l),
            high: end(h),
        }],
        _ => return Ok(None),
    };
    if let Some((_, inside)) = inner {
        // |u| in a piece means u in it or in its mirror image; only u = x - a (or -x + a) is undone.
        let slope = derivative(c.arena, x, inside)?;
        let constant_term = substitute(c.arena, inside, x, zero)?;
        if !constant(c, slope)
            || !constant(c, constant_term)
            || c.arena.exact(slope).is_none_or(|s| *s == RBig::ZERO)
        {
            return Ok(None);
        }
        let mut both = Vec::new();
        let nonnegative = vec![Piece {
            low: End {
                value: Some(zero),
                closed: true,
            },
            high: INFINITE,
        }];
        let Some(positive) = intersect(c, &pieces, &nonnegative)? else {
            return Ok(None);
        };
        for piece in positive {
            let mirrored = Piece {
                low: mirror(c, piece.high)?,
                high: mirror(c, piece.low)?,
            };
            both.push(piece);
            both.push(mirrored);
        }
        let negative = c.arena.exact(slope).is_some_and(|s| *s < RBig::ZERO);
        let mut moved = Vec::new();
        for piece in both {
            let mut undo = |end: End| -> Res<End> {
                let Some(value) = end.value else {
                    return Ok(end);
                };
                let shifted = c.arena.subtract(value, constant_term)?;
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
        let Some(merged) = merge(c, moved)? else {
            return Ok(None);
        };
        pieces = merged;
    }
    Ok(Some(pieces))
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

/// Inequalities that were not solved: the same sides in the same or the opposite order, or a positive factor.
pub(super) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    let (Node::Rel(mut g_ops, mut g), Node::Rel(mut a_ops, mut a)) =
        (c.arena.node(gold).clone(), c.arena.node(answer).clone())
    else {
        let ((Node::And(g), Node::And(a)) | (Node::Or(g), Node::Or(a))) =
            (c.arena.node(gold).clone(), c.arena.node(answer).clone())
        else {
            return Ok(Comparison::undecided("inequalities of different form"));
        };
        let g = c.arena.add_node(Node::List(g))?;
        let a = c.arena.add_node(Node::List(a))?;
        return c.compare(g, a, depth + 1);
    };
    ascending(&mut g_ops, &mut g);
    ascending(&mut a_ops, &mut a);
    if g_ops.len() != a_ops.len() {
        return Ok(Comparison::undecided("inequalities of different form"));
    }
    if g_ops == a_ops {
        let mut same = true;
        for (&g, &a) in g.iter().zip(&a) {
            same &= c.compare(g, a, depth + 1)?.verdict == Verdict::Equal;
        }
        if same {
            return Ok(Comparison::equal("the same inequality"));
        }
    }
    if g_ops[..] == a_ops[..] && g_ops.len() == 1 {
        let f = c.arena.subtract(g[0], g[1])?;
        let h = c.arena.subtract(a[0], a[1])?;
        if proportional(c, f, h)?.is_some() {
            // The factor is the ratio of the values anywhere; `!=` does not mind its sign.
            if g_ops[0] == RelOp::Ne {
                return Ok(Comparison::equal("the same inequality up to a factor"));
            }
            let symbols = c.arena.symbols(&[f, h]);
            let (mut at_f, mut at_h) = (f, h);
            for (place, symbol) in symbols.into_iter().enumerate() {
                let value = c
                    .arena
                    .num(RBig::from_parts((17 + 5 * place as i64).into(), 7u8.into()))?;
                at_f = substitute(c.arena, at_f, symbol, value)?;
                at_h = substitute(c.arena, at_h, symbol, value)?;
            }
            let zero = c.arena.int(0)?;
            let (f_sign, h_sign) = (
                expression::order(c.arena, at_f, zero)?,
                expression::order(c.arena, at_h, zero)?,
            );
            return Ok(match (f_sign, h_sign) {
                (Some(x), Some(y)) if x == y && x.is_ne() => {
                    Comparison::equal("the same inequality up to a positive factor")
                }
                (Some(x), Some(y)) if x.is_ne() && y.is_ne() => {
                    Comparison::different("the opposite inequality")
                }
                _ => Comparison::undecided("inequalities with a factor of unknown sign"),
            });
        }
    }
    Ok(Comparison::different("different inequalities"))
}

/// Turns `a > b >= c` into `c <= b < a`.
fn ascending(ops: &mut [RelOp], sides: &mut [Id]) {
    if ops.iter().any(|op| matches!(op, RelOp::Gt | RelOp::Ge)) {
        ops.reverse();
        sides.reverse();
        for op in ops {
            *op = match *op {
                RelOp::Gt => RelOp::Lt,
                RelOp::Ge => RelOp::Le,
                RelOp::Lt => RelOp::Gt,
                RelOp::Le => RelOp::Ge,
                other => other,
            };
        }
    }
}
