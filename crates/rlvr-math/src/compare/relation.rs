//! Equations and assignments.
//!
//! An assignment names a value (`x = 3`, `f(x) = 2x`, `AB = 4`) and equals the value. Two
//! assignments must also have the same name. Other equations are equal if the differences of their
//! sides, with denominators cleared, are proportional: `2x + 4y = 3` and `y = -x/2 + 3/4`.

use super::comparer::{Comparer, Kind};
use super::verdict::{Comparison, Verdict};
use crate::calculus::rules as calculus;
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::Res;
use crate::node::function::Func;
use crate::number::modular::{self, mix};

/// A value with or without a name.
struct Assignment {
    name: Option<Id>,
    value: Id,
}

/// Compares nodes of which at least one is an equation.
pub(crate) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    let g = assignment(c, gold, depth)?;
    let a = assignment(c, answer, depth)?;
    let (g_equation, a_equation) = (
        c.kind(gold) == Kind::Equation,
        c.kind(answer) == Kind::Equation,
    );
    match (g_equation, a_equation) {
        (true, true) => {
            if let (Some(g), Some(a)) = (&g, &a) {
                let (g_value, a_value) = (g.value, a.value);
                match (g.name, a.name) {
                    (Some(g_name), Some(a_name))
                        if c.config.strict && !same_name(c.arena, g_name, a_name) => {}
                    _ => return c.compare(g_value, a_value, depth + 1),
                }
            }
            equations(c, gold, answer, depth)
        }
        (true, false) => match g {
            Some(g) if c.config.assignment_as_value => c.compare(g.value, answer, depth + 1),
            _ => Ok(Comparison::different("an equation is not a value")),
        },
        _ => match a {
            Some(a) if c.config.assignment_as_value => c.compare(gold, a.value, depth + 1),
            _ => Ok(Comparison::different("an equation is not a value")),
        },
    }
}

/// Returns the name and value of an assignment. The value of a chain is its last side:
/// `x = 5+5+1 = 11`.
fn assignment(c: &mut Comparer, id: Id, depth: usize) -> Res<Option<Assignment>> {
    let Node::Rel(_, sides) = c.arena.node(id).clone() else {
        return Ok(None);
    };
    if c.kind(id) != Kind::Equation {
        return Ok(None);
    }
    let (first, last) = (sides[0], sides[sides.len() - 1]);
    let constant = |c: &Comparer, id: Id| {
        c.arena.symbols(&[id]).is_empty() && !c.arena.any(id, |n| matches!(n, Node::App(..)))
    };
    if sides.len() == 2 {
        if is_name(c.arena, first) {
            return Ok(Some(Assignment {
                name: Some(first),
                value: last,
            }));
        }
        if is_name(c.arena, last) && constant(c, first) {
            return Ok(Some(Assignment {
                name: Some(last),
                value: first,
            }));
        }
    }
    if sides.iter().all(|&s| constant(c, s)) {
        // `5 + 6 = 11` has the value 11 if it is true.
        for &side in &sides[..sides.len() - 1] {
            if c.compare(side, last, depth + 1)?.verdict != Verdict::Equal {
                return Ok(None);
            }
        }
        return Ok(Some(Assignment {
            name: None,
            value: last,
        }));
    }
    // `x = y = 5` assigns two names.
    if sides.len() == 2
        || (sides.len() == 3 && is_name(c.arena, first) && is_name(c.arena, sides[1]))
    {
        return Ok(None);
    }
    let name = sides.iter().copied().find(|&s| is_name(c.arena, s));
    Ok(name.map(|name| Assignment {
        name: Some(name),
        value: last,
    }))
}

/// Returns whether `id` can be the name of a value: a symbol, `f(x)`, `|AB|`, `AB`, a ratio or
/// quotient of segments, a tuple of names.
fn is_name(arena: &Arena, id: Id) -> bool {
    let upper = |id: Id| match arena.node(id) {
        Node::Sym(name) => {
            arena
                .name(*name)
                .chars()
                .next()
                .is_some_and(char::is_uppercase)
                || arena.name(*name).starts_with("vec ")
        }
        _ => false,
    };
    let segment = |id: Id| match arena.node(id) {
        Node::Mul(factors) => factors.len() <= 4 && factors.iter().all(|&f| upper(f)),
        // AA and the like.
        Node::Pow(base, _) => upper(*base),
        _ => upper(id),
    };
    match arena.node(id) {
        Node::Sym(_) | Node::Imaginary | Node::App(..) | Node::Text(_) => true,
        Node::Mul(factors) => factors
            .iter()
            .all(|&f| segment(f) || matches!(arena.node(f), Node::Pow(base, _) if segment(*base))),
        Node::Fn(Func::Abs | Func::Norm, args) => segment(args[0]),
        Node::Ratio(parts) => parts.iter().all(|&p| segment(p)),
        Node::Tuple(parts) | Node::List(parts) | Node::Matrix(_, parts) => parts
            .iter()
            .all(|&p| matches!(arena.node(p), Node::Sym(_) | Node::Imaginary)),
        Node::Degree(inner) => segment(*inner),
        _ => false,
    }
}

/// Returns whether two names are the same. The argument of a function may have another name.
fn same_name(arena: &Arena, a: Id, b: Id) -> bool {
    if a == b {
        return true;
    }
    match (arena.node(a), arena.node(b)) {
        (Node::App(f, x), Node::App(g, y)) => {
            let symbols = |args: &[Id]| {
                args.iter()
                    .all(|&id| matches!(arena.node(id), Node::Sym(_)))
            };
            f == g && x.len() == y.len() && symbols(x) && symbols(y)
        }
        // y = f(x)
        (Node::App(_, x), Node::Sym(y)) | (Node::Sym(y), Node::App(_, x)) => {
            arena.name(*y) == "y"
                && x.iter()
                    .all(|&id| matches!(arena.node(id), Node::Sym(n) if arena.name(*n) == "x"))
        }
        _ => false,
    }
}

/// Returns the numerator of the difference of the two sides of an equation.
fn difference(c: &mut Comparer, id: Id) -> Res<Option<Id>> {
    let Node::Rel(_, sides) = c.arena.node(id).clone() else {
        return Ok(None);
    };
    if sides.len() != 2 || sides.iter().any(|&s| c.kind(s) != Kind::Value) {
        return Ok(None);
    }
    let difference = c.arena.subtract(sides[0], sides[1])?;
    Ok(Some(calculus::fraction(c.arena, difference)?.0))
}

/// Compares two equations by the differences of their sides.
fn equations(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    let (Some(f), Some(g)) = (difference(c, gold)?, difference(c, answer)?) else {
        let (Node::Rel(_, g), Node::Rel(_, a)) =
            (c.arena.node(gold).clone(), c.arena.node(answer).clone())
        else {
            return Ok(Comparison::undecided("equations of different form"));
        };
        if g.len() != a.len() {
            return Ok(Comparison::undecided(
                "chains of equations of different length",
            ));
        }
        for (g, a) in g.into_iter().zip(a) {
            let part = c.compare(g, a, depth + 1)?;
            if part.verdict != Verdict::Equal {
                return Ok(part);
            }
        }
        return Ok(Comparison::equal("the same sides"));
    };
    match proportional(c, f, g)? {
        Some(_) => Ok(Comparison::equal("the same equation up to a factor")),
        None => {
            let atoms = |n: &Node| matches!(n, Node::Fn(..) | Node::Big(..));
            if c.arena.any(f, atoms) || c.arena.any(g, atoms) {
                return Ok(Comparison::undecided("equations that are not proportional"));
            }
            Ok(Comparison::different("equations that are not proportional"))
        }
    }
}

/// If f is a constant multiple of g, which is tested at random points, returns their values at one
/// point modulo a prime.
pub(crate) fn proportional(c: &mut Comparer, f: Id, g: Id) -> Res<Option<(u64, u64)>> {
    let order = c.arena.reachable(&[f, g]);
    let p = c.test.primes[0];
    let mut seen: Option<(u64, u64)> = None;
    let mut agreed = 0;
    for draw in 0..8 {
        let residues = modular::residues(c.arena, &order, p, mix(c.test.seed, 900 + draw))?;
        let value = |id: Id| residues.values.get(&id).copied().flatten();
        let (Some(x), Some(y)) = (value(f), value(g)) else {
            continue;
        };
        if x == 0 || y == 0 {
            if x != y {
                return Ok(None);
            }
            continue;
        }
        match seen {
            None => seen = Some((x, y)),
            Some((x0, y0)) => {
                let left = u128::from(x) * u128::from(y0) % u128::from(p);
                let right = u128::from(y) * u128::from(x0) % u128::from(p);
                if left != right {
                    return Ok(None);
                }
                agreed += 1;
                if agreed == 2 {
                    return Ok(seen);
                }
            }
        }
    }
    Ok(None)
}
