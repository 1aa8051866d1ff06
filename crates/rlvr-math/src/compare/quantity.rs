//! Values with units: converted if both units are known, ignored if only one side has a unit.

use super::comparer::Comparer;
use super::verdict::Comparison;
use crate::grammar::unit::worth;
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;

/// Returns an unknown unit in lower case and singular.
fn singular(words: &str) -> String {
    words
        .to_lowercase()
        .trim()
        .trim_end_matches('.')
        .trim_end_matches('s')
        .to_owned()
}

/// Compares quantities, of which one may have no unit.
pub(crate) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    let split = |c: &Comparer, id: Id| match c.arena.node(id) {
        Node::Quantity(value, unit) => (
            *value,
            Some(c.arena.name(*unit).to_owned()).filter(|u| !u.is_empty()),
        ),
        _ => (id, None),
    };
    let (g, g_unit) = split(c, gold);
    let (a, a_unit) = split(c, answer);
    let (Some(g_unit), Some(a_unit)) = (g_unit.clone(), a_unit.clone()) else {
        if !c.config.ignore_missing_unit && g_unit != a_unit {
            return Ok(Comparison::different("only one side has a unit"));
        }
        return c.compare(g, a, depth + 1);
    };
    if g_unit == a_unit || singular(&g_unit) == singular(&a_unit) {
        return c.compare(g, a, depth + 1);
    }
    let (Some((g_what, g_worth)), Some((a_what, a_worth))) = (worth(&g_unit), worth(&a_unit))
    else {
        return Ok(Comparison::different(format!("{a_unit} is not {g_unit}")));
    };
    if g_what != a_what {
        return Ok(Comparison::different(format!(
            "{a_unit} and {g_unit} measure different quantities"
        )));
    }
    let g_worth = c.arena.num(g_worth)?;
    let a_worth = c.arena.num(a_worth)?;
    let g = c.arena.product(vec![g, g_worth])?;
    let a = c.arena.product(vec![a, a_worth])?;
    c.compare(g, a, depth + 1)
}
