//! Sets of real numbers: intervals, their unions, and the inequalities that describe them.
//!
//! Both sides are converted to sorted, merged pieces with open or closed ends, which are compared
//! as expressions. A pair `(1, 2)` compared with a set is an open interval. Inequalities in one
//! variable are solved if they are linear, quadratic or linear in an absolute value.

use super::comparer::{Comparer, Kind};
use super::inequality;
use super::region::{End, INFINITE, Piece, Region, complement, intersect, merge};
use super::sign::{self, Side};
use super::values;
use super::verdict::{Comparison, Verdict};
use crate::calculus::rules::substitute;
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;
use crate::node::function::RelOp;
use std::cmp::Ordering;

/// The largest nesting depth of set operations.
const MAX_DEPTH: usize = 24;

/// Compares nodes of which at least one is a set of reals or an inequality.
pub(crate) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    // `x \in S` means S.
    if let Some(set) = member_of(c, gold) {
        return c.compare(set, answer, depth + 1);
    }
    if let Some(set) = member_of(c, answer) {
        return c.compare(gold, set, depth + 1);
    }
    let relation = |kind| kind == Kind::Inequality;
    let (g_kind, a_kind) = (c.kind(gold), c.kind(answer));
    if relation(g_kind) != relation(a_kind) && !c.config.interval_as_relation {
        return Ok(Comparison::different("a set is not a relation"));
    }
    // A pair in square brackets may also be a vector.
    if let (Node::Interval(a, b, true, true), Node::Matrix(1, cells))
    | (Node::Matrix(1, cells), Node::Interval(a, b, true, true)) =
        (c.arena.node(gold).clone(), c.arena.node(answer).clone())
    {
        let left = c.arena.add_node(Node::Tuple(vec![a, b]))?;
        let right = c.arena.add_node(Node::Tuple(cells))?;
        return c.compare(left, right, depth + 1);
    }
    let regions = (region(c, gold, 0)?, region(c, answer, 0)?);
    if let (Some(g), Some(a)) = regions {
        if let (Some(g), Some(a)) = (g.name, a.name)
            && g != a
            && c.config.strict
        {
            return Ok(Comparison::different("sets of different variables"));
        }
        return same_pieces(c, g.pieces, a.pieces);
    }
    if relation(g_kind) && relation(a_kind) {
        return inequality::compare(c, gold, answer, depth);
    }
    let plain = |kind| {
        matches!(
            kind,
            Kind::Value | Kind::Tagged | Kind::Quantity | Kind::Matrix | Kind::Text
        )
    };
    if plain(g_kind) || plain(a_kind) {
        return Ok(Comparison::different("a set of numbers is not a number"));
    }
    if let (Node::Interval(a, b, x, y), Node::Interval(d, e, u, v)) =
        (c.arena.node(gold).clone(), c.arena.node(answer).clone())
    {
        if (x, y) != (u, v) {
            return Ok(Comparison::different("different ends are included"));
        }
        let left = c.arena.add_node(Node::Tuple(vec![a, b]))?;
        let right = c.arena.add_node(Node::Tuple(vec![d, e]))?;
        return c.compare(left, right, depth + 1);
    }
    Ok(Comparison::undecided(
        "sets that could not be converted to intervals",
    ))
}

fn member_of(c: &Comparer, id: Id) -> Option<Id> {
    match c.arena.node(id) {
        Node::Rel(ops, sides) if ops[..] == [RelOp::In] => Some(sides[1]),
        _ => None,
    }
}

/// Compares merged pieces end by end.
fn same_pieces(c: &mut Comparer, g: Vec<Piece>, a: Vec<Piece>) -> Res<Comparison> {
    if g.len() != a.len() {
        return Ok(Comparison::different(format!(
            "{} intervals are not {}",
            a.len(),
            g.len()
        )));
    }
    let mut unsure = None;
    for (g, a) in g.into_iter().zip(a) {
        for (g, a) in [(g.low, a.low), (g.high, a.high)] {
            match (g.value, a.value) {
                (None, None) => continue,
                (Some(x), Some(y)) => {
                    if g.closed != a.closed {
                        return Ok(Comparison::different(
                            "an end is included in only one of the sets",
                        ));
                    }
                    let part = values::compare(c.arena, c.test, x, y)?;
                    match part.verdict {
                        Verdict::Equal => {}
                        Verdict::Different => {
                            return Ok(Comparison::different(format!(
                                "ends of intervals: {}",
                                part.reason
                            )));
                        }
                        Verdict::Undecided => unsure = Some(part),
                    }
                }
                _ => {
                    return Ok(Comparison::different(
                        "only one of the sets is bounded there",
                    ));
                }
            }
        }
    }
    Ok(unsure.unwrap_or_else(|| Comparison::equal("the same set of numbers")))
}

/// Returns the set that `id` denotes, if it can be converted to pieces.
fn region(c: &mut Comparer, id: Id, depth: usize) -> Res<Option<Region>> {
    if depth > MAX_DEPTH {
        return Ok(None);
    }
    let unnamed = |pieces: Option<Vec<Piece>>| pieces.map(|pieces| Region { name: None, pieces });
    c.arena.budget.spend(4)?;
    Ok(match c.arena.node(id).clone() {
        Node::Interval(low, high, l, h) => unnamed(interval(c, low, high, l, h)?),
        Node::Tuple(items) if items.len() == 2 => {
            unnamed(interval(c, items[0], items[1], false, false)?)
        }
        Node::Set(items) => {
            let mut pieces = Vec::new();
            for item in items {
                if c.kind(item) != Kind::Value {
                    return Ok(None);
                }
                let end = End {
                    value: Some(item),
                    closed: true,
                };
                pieces.push(Piece {
                    low: end,
                    high: end,
                });
            }
            unnamed(merge(c, pieces)?)
        }
        Node::Numbers('R') => unnamed(Some(vec![Piece {
            low: INFINITE,
            high: INFINITE,
        }])),
        Node::Union(parts) | Node::Or(parts) => {
            let Some(parts) = regions(c, parts, depth)? else {
                return Ok(None);
            };
            let name = parts.iter().find_map(|p| p.name);
            let pieces = parts.into_iter().flat_map(|p| p.pieces).collect();
            merge(c, pieces)?.map(|pieces| Region { name, pieces })
        }
        Node::Intersection(parts) | Node::And(parts) => {
            let Some(parts) = regions(c, parts, depth)? else {
                return Ok(None);
            };
            let name = parts.iter().find_map(|p| p.name);
            let mut total = vec![Piece {
                low: INFINITE,
                high: INFINITE,
            }];
            for part in parts {
                let Some(next) = intersect(c, &total, &part.pieces)? else {
                    return Ok(None);
                };
                total = next;
            }
            Some(Region {
                name,
                pieces: total,
            })
        }
        Node::Without(whole, part) => {
            let Some(parts) = regions(c, vec![whole, part], depth)? else {
                return Ok(None);
            };
            let rest = complement(&parts[1].pieces);
            let Some(pieces) = intersect(c, &parts[0].pieces, &rest)? else {
                return Ok(None);
            };
            Some(Region {
                name: parts[0].name,
                pieces,
            })
        }
        Node::Builder(variable, condition) => {
            let bound = member_of(c, variable);
            let Some(mut inner) = region(c, condition, depth + 1)? else {
                return Ok(None);
            };
            if let Some(outer) = bound {
                let Some(outer) = region(c, outer, depth + 1)? else {
                    return Ok(None);
                };
                let Some(pieces) = intersect(c, &inner.pieces, &outer.pieces)? else {
                    return Ok(None);
                };
                inner.pieces = pieces;
            }
            Some(Region {
                name: None,
                pieces: inner.pieces,
            })
        }
        Node::Rel(ops, sides) => solve_chain(c, &ops, &sides, depth)?,
        _ => None,
    })
}

/// Returns all regions, unless they are about different names.
fn regions(c: &mut Comparer, ids: Vec<Id>, depth: usize) -> Res<Option<Vec<Region>>> {
    let mut out: Vec<Region> = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(next) = region(c, id, depth + 1)? else {
            return Ok(None);
        };
        if let (Some(a), Some(b)) = (out.iter().find_map(|r| r.name), next.name)
            && a != b
        {
            return Ok(None);
        }
        out.push(next);
    }
    Ok(Some(out))
}

/// Returns an interval, if its ends are in order.
fn interval(c: &mut Comparer, low: Id, high: Id, l: bool, h: bool) -> Res<Option<Vec<Piece>>> {
    // The lower end may be only -oo, and the upper one only +oo.
    let end = |c: &Comparer, id: Id, closed: bool, sign: i8| match c.arena.infinity_sign(id) {
        Some(s) if s == sign => Some(INFINITE),
        Some(_) => None,
        None if c.arena.any(id, |n| matches!(n, Node::Infinity)) => None,
        None => Some(End {
            value: Some(id),
            closed,
        }),
    };
    if c.kind(low) != Kind::Value || c.kind(high) != Kind::Value {
        return Ok(None);
    }
    let (Some(low), Some(high)) = (end(c, low, l, -1), end(c, high, h, 1)) else {
        return Ok(None);
    };
    if let (Some(a), Some(b)) = (low.value, high.value) {
        match values::order(c.arena, a, b)? {
            Some(Ordering::Greater) => return Ok(None),
            Some(Ordering::Equal) if !(l && h) => return Ok(Some(Vec::new())),
            _ => {}
        }
    }
    Ok(Some(vec![Piece { low, high }]))
}

/// Solves all relations of a chain, `a < x <= b`.
fn solve_chain(c: &mut Comparer, ops: &[RelOp], sides: &[Id], depth: usize) -> Res<Option<Region>> {
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

/// Returns the reals that satisfy `left op right` in its only unknown.
fn solve(c: &mut Comparer, op: RelOp, left: Id, right: Id, depth: usize) -> Res<Option<Region>> {
    if op == RelOp::In {
        let Some(mut inner) = region(c, right, depth + 1)? else {
            return Ok(None);
        };
        inner.name = Some(left);
        return Ok(Some(inner));
    }
    let Some(side) = Side::of(op) else {
        return Ok(None);
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
        // A variable takes the place of an unknown function value.
        let fresh = c.arena.symbol("value of a function")?;
        f = substitute(c.arena, f, x, fresh)?;
        let pieces = sign::solve(c, f, fresh, side)?;
        return Ok(pieces.map(|pieces| Region {
            name: Some(x),
            pieces,
        }));
    }
    let pieces = sign::solve(c, f, x, side)?;
    Ok(pieces.map(|pieces| Region {
        name: Some(x),
        pieces,
    }))
}
