//! Sets of real numbers: intervals, their unions, and the inequalities that describe them.
//!
//! Both sides become sorted, merged pieces with open or closed ends; ends are compared as expressions. A pair `(1, 2)` against
//! a set is an open interval. Inequalities in one variable are solved if they are linear, quadratic or linear in an absolute value.

use super::budget::Res;
use super::calculus::{derivative, substitute};
use super::compare::{Comparer, Kind};
use super::expression;
use super::node::{Func, Id, Node, RelOp};
use super::relation::proportional;
use super::verdict::{Comparison, Verdict};
use dashu_ratio::RBig;
use std::cmp::Ordering;

/// An end of a piece: infinite, or a value that belongs to it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    value: Option<Id>,
    closed: bool,
}

/// The numbers between two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    low: End,
    high: End,
}

/// The deepest nesting of set operations that is followed.
const MAX_DEPTH: usize = 24;

const INFINITE: End = End { value: None, closed: false };

/// A set of reals, and the name of what lies in it if there is one.
struct Region {
    name: Option<Id>,
    pieces: Vec<Piece>,
}

/// The verdict where at least one side is a set of reals or an inequality.
pub(super) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    // `x \in S` says no more than S.
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
    // A closed pair may also be a vector.
    if let (Node::Interval(a, b, true, true), Node::Matrix(1, cells)) | (Node::Matrix(1, cells), Node::Interval(a, b, true, true)) =
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
            return Ok(Comparison::different("sets of differently named numbers"));
        }
        return same_pieces(c, g.pieces, a.pieces);
    }
    if relation(g_kind) && relation(a_kind) {
        return inequalities(c, gold, answer, depth);
    }
    let plain = |kind| matches!(kind, Kind::Value | Kind::Tagged | Kind::Quantity | Kind::Matrix | Kind::Text);
    if plain(g_kind) || plain(a_kind) {
        return Ok(Comparison::different("a set of numbers is not a number"));
    }
    if let (Node::Interval(a, b, x, y), Node::Interval(d, e, u, v)) = (c.arena.node(gold).clone(), c.arena.node(answer).clone()) {
        if (x, y) != (u, v) {
            return Ok(Comparison::different("other ends belong to the interval"));
        }
        let left = c.arena.add_node(Node::Tuple(vec![a, b]))?;
        let right = c.arena.add_node(Node::Tuple(vec![d, e]))?;
        return c.compare(left, right, depth + 1);
    }
    Ok(Comparison::undecided("sets that were not brought to intervals"))
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
        return Ok(Comparison::different(format!("{} intervals are not {}", a.len(), g.len())));
    }
    let mut unsure = None;
    for (g, a) in g.into_iter().zip(a) {
        for (g, a) in [(g.low, a.low), (g.high, a.high)] {
            match (g.value, a.value) {
                (None, None) => continue,
                (Some(x), Some(y)) => {
                    if g.closed != a.closed {
                        return Ok(Comparison::different("an end belongs to only one of the sets"));
                    }
                    let part = expression::compare(c.arena, c.test, x, y)?;
                    match part.verdict {
                        Verdict::Equal => {}
                        Verdict::Different => return Ok(Comparison::different(format!("ends of intervals: {}", part.reason))),
                        Verdict::Undecided => unsure = Some(part),
                    }
                }
                _ => return Ok(Comparison::different("only one of the sets is bounded there")),
            }
        }
    }
    Ok(unsure.unwrap_or_else(|| Comparison::equal("the same set of numbers")))
}

/// The set that `id` denotes, if it can be brought to pieces.
fn region(c: &mut Comparer, id: Id, depth: usize) -> Res<Option<Region>> {
    if depth > MAX_DEPTH {
        return Ok(None);
    }
    let unnamed = |pieces: Option<Vec<Piece>>| pieces.map(|pieces| Region { name: None, pieces });
    c.arena.budget.spend(4)?;
    Ok(match c.arena.node(id).clone() {
        Node::Interval(low, high, l, h) => unnamed(interval(c, low, high, l, h)?),
        Node::Tuple(items) if items.len() == 2 => unnamed(interval(c, items[0], items[1], false, false)?),
        Node::Set(items) => {
            let mut pieces = Vec::new();
            for item in items {
                if c.kind(item) != Kind::Value {
                    return Ok(None);
                }
                let end = End { value: Some(item), closed: true };
                pieces.push(Piece { low: end, high: end });
            }
            unnamed(merge(c, pieces)?)
        }
        Node::Numbers('R') => unnamed(Some(vec![Piece { low: INFINITE, high: INFINITE }])),
        Node::Union(parts) | Node::Or(parts) => {
            let Some(parts) = regions(c, parts, depth)? else { return Ok(None) };
            let name = parts.iter().find_map(|p| p.name);
            let pieces = parts.into_iter().flat_map(|p| p.pieces).collect();
            merge(c, pieces)?.map(|pieces| Region { name, pieces })
        }
        Node::Intersection(parts) | Node::And(parts) => {
            let Some(parts) = regions(c, parts, depth)? else { return Ok(None) };
            let name = parts.iter().find_map(|p| p.name);
            let mut total = vec![Piece { low: INFINITE, high: INFINITE }];
            for part in parts {
                let Some(next) = intersect(c, &total, &part.pieces)? else { return Ok(None) };
                total = next;
            }
            Some(Region { name, pieces: total })
        }
        Node::Without(whole, part) => {
            let Some(parts) = regions(c, vec![whole, part], depth)? else { return Ok(None) };
            let rest = complement(&parts[1].pieces);
            let Some(pieces) = intersect(c, &parts[0].pieces, &rest)? else { return Ok(None) };
            Some(Region { name: parts[0].name, pieces })
        }
        Node::Builder(variable, condition) => {
            let bound = member_of(c, variable);
            let Some(mut inner) = region(c, condition, depth + 1)? else { return Ok(None) };
            if let Some(outer) = bound {
                let Some(outer) = region(c, outer, depth + 1)? else { return Ok(None) };
                let Some(pieces) = intersect(c, &inner.pieces, &outer.pieces)? else { return Ok(None) };
                inner.pieces = pieces;
            }
            Some(Region { name: None, pieces: inner.pieces })
        }
        Node::Rel(ops, sides) => solve_chain(c, &ops, &sides, depth)?,
        _ => None,
    })
}

/// All regions, if they speak of one name.
fn regions(c: &mut Comparer, ids: Vec<Id>, depth: usize) -> Res<Option<Vec<Region>>> {
    let mut out: Vec<Region> = Vec::with_capacity(ids.len());
    for id in ids {
        let Some(next) = region(c, id, depth + 1)? else { return Ok(None) };
        if let (Some(a), Some(b)) = (out.iter().find_map(|r| r.name), next.name)
            && a != b
        {
            return Ok(None);
        }
        out.push(next);
    }
    Ok(Some(out))
}

/// An interval whose ends are in order.
fn interval(c: &mut Comparer, low: Id, high: Id, l: bool, h: bool) -> Res<Option<Vec<Piece>>> {
    // Only -oo may stand below, and only +oo above.
    let end = |c: &Comparer, id: Id, closed: bool, sign: i8| match expression::infinity_sign(c.arena, id) {
        Some(s) if s == sign => Some(INFINITE),
        Some(_) => None,
        None if c.arena.any(id, |n| matches!(n, Node::Infinity)) => None,
        None => Some(End { value: Some(id), closed }),
    };
    if c.kind(low) != Kind::Value || c.kind(high) != Kind::Value {
        return Ok(None);
    }
    let (Some(low), Some(high)) = (end(c, low, l, -1), end(c, high, h, 1)) else { return Ok(None) };
    if let (Some(a), Some(b)) = (low.value, high.value) {
        match expression::order(c.arena, a, b)? {
            Some(Ordering::Greater) => return Ok(None),
            Some(Ordering::Equal) if !(l && h) => return Ok(Some(Vec::new())),
            _ => {}
        }
    }
    Ok(Some(vec![Piece { low, high }]))
}

/// Orders two ends; `low` tells whether they are lower ends.
fn order_ends(c: &Comparer, a: End, b: End, low: bool) -> Res<Option<Ordering>> {
    let outer = if low { Ordering::Less } else { Ordering::Greater };
    Ok(match (a.value, b.value) {
        (None, None) => Some(Ordering::Equal),
        (None, Some(_)) => Some(outer),
        (Some(_), None) => Some(outer.reverse()),
        (Some(x), Some(y)) => match expression::order(c.arena, x, y)? {
            Some(Ordering::Equal) if a.closed != b.closed => Some(if a.closed { outer } else { outer.reverse() }),
            other => other,
        },
    })
}

/// Sorted pieces that neither overlap nor touch.
fn merge(c: &Comparer, pieces: Vec<Piece>) -> Res<Option<Vec<Piece>>> {
    // Insertion: the order of ends may be unknown, and then there is none.
    let mut sorted: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        c.arena.budget.spend(1 + sorted.len() as u64)?;
        let mut place = sorted.len();
        while place > 0 {
            match order_ends(c, piece.low, sorted[place - 1].low, true)? {
                Some(Ordering::Less) => place -= 1,
                Some(_) => break,
                None => return Ok(None),
            }
        }
        sorted.insert(place, piece);
    }
    let mut out: Vec<Piece> = Vec::with_capacity(sorted.len());
    for piece in sorted {
        let Some(last) = out.last_mut() else {
            out.push(piece);
            continue;
        };
        let touches = match (last.high.value, piece.low.value) {
            (None, _) | (_, None) => true,
            (Some(x), Some(y)) => match expression::order(c.arena, x, y)? {
                Some(Ordering::Greater) => true,
                Some(Ordering::Equal) => last.high.closed || piece.low.closed,
                Some(Ordering::Less) => false,
                None => return Ok(None),
            },
        };
        if !touches {
            out.push(piece);
            continue;
        }
        match order_ends(c, piece.high, last.high, false)? {
            Some(Ordering::Greater) => last.high = piece.high,
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(out))
}

fn intersect(c: &Comparer, a: &[Piece], b: &[Piece]) -> Res<Option<Vec<Piece>>> {
    let mut out = Vec::new();
    for x in a {
        for y in b {
            c.arena.budget.spend(4)?;
            let (Some(lows), Some(highs)) = (order_ends(c, x.low, y.low, true)?, order_ends(c, x.high, y.high, false)?) else {
                return Ok(None);
            };
            let low = if lows.is_lt() { y.low } else { x.low };
            let high = if highs.is_gt() { y.high } else { x.high };
            let empty = match (low.value, high.value) {
                (Some(l), Some(h)) => match expression::order(c.arena, l, h)? {
                    Some(Ordering::Greater) => true,
                    Some(Ordering::Equal) => !(low.closed && high.closed),
                    Some(Ordering::Less) => false,
                    None => return Ok(None),
                },
                _ => false,
            };
            if !empty {
                out.push(Piece { low, high });
            }
        }
    }
    merge(c, out)
}

/// The reals outside sorted pieces.
fn complement(pieces: &[Piece]) -> Vec<Piece> {
    let flip = |end: End| End { value: end.value, closed: !end.closed };
    let mut out = Vec::new();
    let mut low = Some(INFINITE);
    for piece in pieces {
        if let Some(low) = low
            && piece.low.value.is_some()
        {
            out.push(Piece { low, high: flip(piece.low) });
        }
        low = piece.high.value.map(|_| flip(piece.high));
    }
    if let Some(low) = low {
        out.push(Piece { low, high: INFINITE });
    }
    out
}

/// `a < x <= b`: all its links.
fn solve_chain(c: &mut Comparer, ops: &[RelOp], sides: &[Id], depth: usize) -> Res<Option<Region>> {
    let mut total = Region { name: None, pieces: vec![Piece { low: INFINITE, high: INFINITE }] };
    for (place, &op) in ops.iter().enumerate() {
        let Some(link) = solve(c, op, sides[place], sides[place + 1], depth)? else { return Ok(None) };
        if let (Some(a), Some(b)) = (total.name, link.name)
            && a != b
        {
            return Ok(None);
        }
        total.name = total.name.or(link.name);
        let Some(pieces) = intersect(c, &total.pieces, &link.pieces)? else { return Ok(None) };
        total.pieces = pieces;
    }
    Ok(total.name.is_some().then_some(total))
}

/// The reals that satisfy `left op right` in its only unknown.
fn solve(c: &mut Comparer, op: RelOp, left: Id, right: Id, depth: usize) -> Res<Option<Region>> {
    if op == RelOp::In {
        let Some(mut inner) = region(c, right, depth + 1)? else { return Ok(None) };
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
    let order = c.arena.reachable(&[left, right]);
    let applied: Vec<Id> = order.iter().copied().filter(|&id| matches!(c.arena.node(id), Node::App(..))).collect();
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
        return Ok(pieces.map(|pieces| Region { name: Some(x), pieces }));
    }
    let pieces = solve_sign(c, f, x, keeps_above, closed, not_equal, op == RelOp::Eq)?;
    Ok(pieces.map(|pieces| Region { name: Some(x), pieces }))
}

/// Where `f(x)` is positive (or negative, or zero): by its roots, if f is linear, quadratic, or linear in |x - a|.
fn solve_sign(c: &mut Comparer, f: Id, x: Id, above: bool, closed: bool, not_equal: bool, equal: bool) -> Res<Option<Vec<Piece>>> {
    let zero = c.arena.int(0)?;
    let absolute: Vec<Id> =
        c.arena.reachable(&[f]).into_iter().filter(|&id| matches!(c.arena.node(id), Node::Fn(Func::Abs, _))).collect();
    let (slope_in, inner) = match absolute[..] {
        [] => (x, None),
        [abs] => {
            let Node::Fn(_, args) = c.arena.node(abs).clone() else { return Ok(None) };
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
    if !constant(c, slope) || !constant(c, curve) || expression::compare(c.arena, c.test, g, model)?.verdict != Verdict::Equal {
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
                    (if s.is_gt() { vec![low, high] } else { vec![high, low] }, s)
                }
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let point = |id: Id| {
        let end = End { value: Some(id), closed: true };
        Piece { low: end, high: end }
    };
    let end = |id: Id| End { value: Some(id), closed };
    let double = roots.len() == 1 && sign(c, curve)? != Some(Ordering::Equal);
    if !above {
        leading = leading.reverse();
    }
    let positive = leading.is_gt();
    let mut pieces = match roots[..] {
        _ if not_equal => complement(&roots.iter().map(|&r| point(r)).collect::<Vec<_>>()),
        _ if equal => roots.iter().map(|&r| point(r)).collect(),
        [] => if positive { vec![Piece { low: INFINITE, high: INFINITE }] } else { Vec::new() },
        [r] if double => match (positive, closed) {
            (true, true) => vec![Piece { low: INFINITE, high: INFINITE }],
            (true, false) => complement(&[point(r)]),
            (false, true) => vec![point(r)],
            (false, false) => Vec::new(),
        },
        [r] => vec![if positive { Piece { low: end(r), high: INFINITE } } else { Piece { low: INFINITE, high: end(r) } }],
        [l, h] if positive => vec![Piece { low: INFINITE, high: end(l) }, Piece { low: end(h), high: INFINITE }],
        [l, h] => vec![Piece { low: end(l), high: end(h) }],
        _ => return Ok(None),
    };
    if let Some((_, inside)) = inner {
        // |u| in a piece means u in it or in its mirror image; only u = x - a (or -x + a) is undone.
        let slope = derivative(c.arena, x, inside)?;
        let constant_term = substitute(c.arena, inside, x, zero)?;
        if !constant(c, slope) || !constant(c, constant_term) || c.arena.exact(slope).is_none_or(|s| *s == RBig::ZERO) {
            return Ok(None);
        }
        let mut both = Vec::new();
        let nonnegative = vec![Piece { low: End { value: Some(zero), closed: true }, high: INFINITE }];
        let Some(positive) = intersect(c, &pieces, &nonnegative)? else { return Ok(None) };
        for piece in positive {
            let mirrored = Piece { low: mirror(c, piece.high)?, high: mirror(c, piece.low)? };
            both.push(piece);
            both.push(mirrored);
        }
        let negative = c.arena.exact(slope).is_some_and(|s| *s < RBig::ZERO);
        let mut moved = Vec::new();
        for piece in both {
            let mut undo = |end: End| -> Res<End> {
                let Some(value) = end.value else { return Ok(end) };
                let shifted = c.arena.subtract(value, constant_term)?;
                Ok(End { value: Some(c.arena.divide(shifted, slope)?), closed: end.closed })
            };
            let (low, high) = (undo(piece.low)?, undo(piece.high)?);
            moved.push(if negative { Piece { low: high, high: low } } else { Piece { low, high } });
        }
        let Some(merged) = merge(c, moved)? else { return Ok(None) };
        pieces = merged;
    }
    Ok(Some(pieces))
}

fn mirror(c: &mut Comparer, end: End) -> Res<End> {
    Ok(match end.value {
        Some(value) => End { value: Some(c.arena.negate(value)?), closed: end.closed },
        None => end,
    })
}

/// Inequalities that were not solved: the same sides in the same or the opposite order, or a positive factor.
fn inequalities(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    let (Node::Rel(mut g_ops, mut g), Node::Rel(mut a_ops, mut a)) = (c.arena.node(gold).clone(), c.arena.node(answer).clone()) else {
        let ((Node::And(g), Node::And(a)) | (Node::Or(g), Node::Or(a))) = (c.arena.node(gold).clone(), c.arena.node(answer).clone()) else {
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
                let value = c.arena.num(RBig::from_parts((17 + 5 * place as i64).into(), 7u8.into()))?;
                at_f = substitute(c.arena, at_f, symbol, value)?;
                at_h = substitute(c.arena, at_h, symbol, value)?;
            }
            let zero = c.arena.int(0)?;
            let (f_sign, h_sign) =
                (expression::order(c.arena, at_f, zero)?, expression::order(c.arena, at_h, zero)?);
            return Ok(match (f_sign, h_sign) {
                (Some(x), Some(y)) if x == y && x.is_ne() => Comparison::equal("the same inequality up to a positive factor"),
                (Some(x), Some(y)) if x.is_ne() && y.is_ne() => Comparison::different("the opposite inequality"),
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
