//! Inequalities that were not solved for a set of reals, compared by their sides.

use super::comparer::Comparer;
use super::relation::proportional;
use super::values;
use super::verdict::{Comparison, Verdict};
use crate::calculus::rules::substitute;
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;
use crate::node::function::RelOp;
use dashu_ratio::RBig;

/// Compares unsolved inequalities: they are equal with the same sides in the same or the opposite
/// order, or up to a positive factor.
pub(crate) fn compare(c: &mut Comparer, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
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
            // The factor is the ratio of the values at any point. Its sign is irrelevant for `!=`.
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
                values::order(c.arena, at_f, zero)?,
                values::order(c.arena, at_h, zero)?,
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
