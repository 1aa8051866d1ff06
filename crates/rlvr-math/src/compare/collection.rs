//! Lists, finite sets, tuples and matrices: element by element.
//!
//! | gold | equals |
//! |---|---|
//! | list `1, 2` without brackets | the same elements in any order, as a list or a set |
//! | set `{1, 2}` | the same; repeated elements count once |
//! | tuple `(1, 2)` | a tuple, a list without brackets or a column vector with the same elements in the same order |
//! | matrix | a matrix of the same shape |

use super::comparer::{Comparer, Kind};
use super::verdict::{Comparison, Verdict};
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;
use std::collections::HashSet;

/// The largest number of pairs of elements that are compared.
const MAX_PAIRS: usize = 40_000;

/// Compares nodes of which at least one is a collection.
pub(crate) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    if let (Node::Matrix(g_columns, g), Node::Matrix(a_columns, a)) =
        (c.arena.node(gold), c.arena.node(answer))
    {
        if g_columns != a_columns || g.len() != a.len() {
            return Ok(Comparison::different("matrices of different shapes"));
        }
        let (g, a) = (g.clone(), a.clone());
        return ordered(c, &g, &a, depth);
    }
    let (Some((g, g_kind)), Some((a, a_kind))) = (elements(c, gold), elements(c, answer)) else {
        return single(c, gold, answer, depth);
    };
    match (g_kind, a_kind) {
        (Kind::Tuple, Kind::Tuple) => ordered(c, &g, &a, depth),
        (Kind::Tuple, Kind::Set) | (Kind::Set, Kind::Tuple) => {
            Ok(Comparison::different("a tuple is not a set"))
        }
        (Kind::Tuple, _) | (_, Kind::Tuple) => ordered(c, &g, &a, depth),
        _ if c.config.unordered_lists || (g_kind == Kind::Set && a_kind == Kind::Set) => {
            unordered(c, &g, &a, depth)
        }
        _ => ordered(c, &g, &a, depth),
    }
}

/// Returns the elements and the kind of a collection. A column vector is a tuple.
fn elements(c: &Comparer, id: Id) -> Option<(Vec<Id>, Kind)> {
    Some(match c.arena.node(id) {
        Node::List(items) => (items.clone(), Kind::List),
        Node::Set(items) => (items.clone(), Kind::Set),
        Node::Tuple(items) => (items.clone(), Kind::Tuple),
        Node::Matrix(1, items) => (items.clone(), Kind::Tuple),
        _ => return None,
    })
}

/// Compares a collection with a single value: a set or list of one element equals the element.
fn single(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    let only = |c: &Comparer, id: Id| match c.arena.node(id) {
        Node::Set(items) | Node::List(items) if items.len() == 1 => Some(items[0]),
        _ => None,
    };
    match (only(c, gold), only(c, answer)) {
        (Some(g), None) => c.compare(g, answer, depth + 1),
        (None, Some(a)) => c.compare(gold, a, depth + 1),
        _ => Ok(Comparison::different("one value and several")),
    }
}

fn ordered(c: &mut Comparer, g: &[Id], a: &[Id], depth: usize) -> Res<Comparison> {
    if g.len() != a.len() {
        return Ok(Comparison::different(format!(
            "{} elements are not {}",
            a.len(),
            g.len()
        )));
    }
    let mut unsure = None;
    for (place, (&g, &a)) in g.iter().zip(a).enumerate() {
        let part = c.compare(g, a, depth + 1)?;
        match part.verdict {
            Verdict::Equal => {}
            Verdict::Different => {
                return Ok(Comparison::different(format!(
                    "element {}: {}",
                    place + 1,
                    part.reason
                )));
            }
            Verdict::Undecided => unsure = unsure.or(Some(part)),
        }
    }
    Ok(unsure.unwrap_or_else(|| Comparison::equal("the same elements in order")))
}

/// Compares sets: each element of one must equal an element of the other, so that repeated elements
/// count once.
fn unordered(c: &mut Comparer, g: &[Id], a: &[Id], depth: usize) -> Res<Comparison> {
    let mut unsure = None;
    for (from, into, from_gold) in [(g, a, true), (a, g, false)] {
        let known: HashSet<Id> = into.iter().copied().collect();
        let rest: Vec<Id> = from
            .iter()
            .copied()
            .filter(|id| !known.contains(id))
            .collect();
        if rest.len() * into.len() > MAX_PAIRS {
            return Ok(Comparison::undecided("over the limit of elements"));
        }
        for item in rest {
            let mut doubt = None;
            let mut partner = false;
            for &other in into {
                let part = if from_gold {
                    c.compare(item, other, depth + 1)?
                } else {
                    c.compare(other, item, depth + 1)?
                };
                match part.verdict {
                    Verdict::Equal => {
                        partner = true;
                        break;
                    }
                    Verdict::Undecided => doubt = Some(part),
                    Verdict::Different => {}
                }
            }
            if !partner && doubt.is_none() {
                return Ok(Comparison::different(
                    "an element has no equal on the other side",
                ));
            }
            if !partner {
                unsure = doubt;
            }
        }
    }
    Ok(unsure.unwrap_or_else(|| Comparison::equal("the same elements")))
}
