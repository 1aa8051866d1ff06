//! Numbers with a tag: percentages, degrees, ratios, times of day, numbers in another base.

use super::comparer::Comparer;
use super::verdict::{Comparison, Verdict};
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;
use dashu_int::IBig;
use dashu_ratio::RBig;

/// Compares nodes of which at least one has a tag.
pub(crate) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
    match (c.arena.node(gold).clone(), c.arena.node(answer).clone()) {
        (Node::Percent(g), Node::Percent(a)) | (Node::Degree(g), Node::Degree(a)) => {
            c.compare(g, a, depth + 1)
        }
        (Node::Based(g, g_base), Node::Based(a, a_base)) => {
            let (Some(g), Some(a)) = (based(c, g, g_base)?, based(c, a, a_base)?) else {
                return Ok(Comparison::different("different digits"));
            };
            c.compare(g, a, depth + 1)
        }
        // A base that only one side has is ignored.
        (Node::Based(g, _), _) => {
            let g = digits(c, g)?;
            c.compare(g, answer, depth + 1)
        }
        (_, Node::Based(a, _)) => {
            let a = digits(c, a)?;
            c.compare(gold, a, depth + 1)
        }
        (Node::App(_, g), Node::App(_, a)) => {
            for (g, a) in g.into_iter().zip(a) {
                let part = c.compare(g, a, depth + 1)?;
                if part.verdict != Verdict::Equal {
                    return Ok(part);
                }
            }
            Ok(Comparison::equal("the same time of day"))
        }
        (Node::Ratio(g), Node::Ratio(a)) => ratios(c, &g, &a, depth),
        (Node::Ratio(g), Node::App(_, a)) if c.kind(answer) == super::comparer::Kind::Tagged => {
            ratios(c, &g, &a, depth)
        }
        (Node::App(_, g), Node::Ratio(a)) if c.kind(gold) == super::comparer::Kind::Tagged => {
            ratios(c, &g, &a, depth)
        }
        _ => {
            // Compares each reading of one side with each of the other.
            let mut last = Comparison::different("different");
            for g in readings(c, gold)? {
                for a in readings(c, answer)? {
                    let one = c.values(g, a)?;
                    match one.verdict {
                        Verdict::Equal => return Ok(one),
                        Verdict::Undecided => last = one,
                        Verdict::Different if last.verdict == Verdict::Different => last = one,
                        Verdict::Different => {}
                    }
                }
            }
            Ok(last)
        }
    }
}

/// Returns the plain values that a number with a tag may mean.
fn readings(c: &mut Comparer, id: Id) -> Res<Vec<Id>> {
    let part = |n: i64, d: u64| RBig::from_parts(n.into(), d.into());
    Ok(match c.arena.node(id).clone() {
        Node::Percent(x) => {
            let hundredth = c.arena.num(part(1, 100))?;
            let value = c.arena.product(vec![x, hundredth])?;
            if c.config.percent_as_number && !c.config.require_evaluated {
                vec![value, x]
            } else {
                vec![value]
            }
        }
        Node::Degree(x) => {
            let step = c.arena.num(part(1, 180))?;
            let pi = c.arena.add_node(Node::Pi)?;
            let value = c.arena.product(vec![x, step, pi])?;
            if c.config.degree_as_number && c.config.require_evaluated {
                vec![x]
            } else if c.config.degree_as_number {
                vec![x, value]
            } else {
                vec![value]
            }
        }
        Node::Ratio(parts) if parts.len() == 2 => vec![c.arena.divide(parts[0], parts[1])?],
        _ => vec![id],
    })
}

/// Compares ratios: a : b : c = d : e : f if all cross products are equal.
fn ratios(c: &mut Comparer, g: &[Id], a: &[Id], depth: usize) -> Res<Comparison> {
    if g.len() != a.len() {
        return Ok(Comparison::different("ratios of different length"));
    }
    for at in 1..g.len() {
        let left = c.arena.product(vec![g[0], a[at]])?;
        let right = c.arena.product(vec![g[at], a[0]])?;
        let part = c.compare(left, right, depth + 1)?;
        if part.verdict != Verdict::Equal {
            return Ok(part);
        }
    }
    Ok(Comparison::equal("the same ratio"))
}

fn digits(c: &mut Comparer, digits: crate::node::arena::Name) -> Res<Id> {
    let text = c.arena.name(digits).to_owned();
    c.arena.budget.spend_bits(text.len() * 4)?;
    let value = IBig::from_str_radix(&text, 10).unwrap_or_default();
    c.arena.num(RBig::from(value))
}

/// Returns the value of digits in a base of 2 to 36, if they are valid.
fn based(c: &mut Comparer, digits: crate::node::arena::Name, base: Id) -> Res<Option<Id>> {
    let Some(base @ 2..=36) = c.arena.small_int(base) else {
        return Ok(None);
    };
    let text = c.arena.name(digits).to_owned();
    c.arena.budget.spend_bits(text.len() * 6)?;
    match IBig::from_str_radix(&text, base as u32) {
        Ok(value) => c.arena.num(RBig::from(value)).map(Some),
        Err(_) => Ok(None),
    }
}
