//! Chooses the rule by the kinds of two nodes.

use super::comparer::{Comparer, Kind};
use super::verdict::{Comparison, Verdict};
use super::{collection, interval, quantity, relation, tagged, values};
use crate::calculus::rules::substitute;
use crate::node::arena::{Id, Node};
use crate::node::budget::Res;

/// The largest nesting depth of structures (sets of tuples of ...) that is compared.
const MAX_DEPTH: usize = 24;

impl Comparer<'_, '_> {
    /// Compares two nodes.
    pub fn compare(&mut self, gold: Id, answer: Id, depth: usize) -> Res<Comparison> {
        if depth > MAX_DEPTH {
            return Ok(Comparison::undecided("over the limit of nested structures"));
        }
        if gold == answer && !self.arena.any(gold, |n| matches!(n, Node::Undefined)) {
            return Ok(Comparison::equal("the same expression"));
        }
        use Kind::*;
        match (self.kind(gold), self.kind(answer)) {
            (Text, _) | (_, Text) => Ok(Comparison::different(
                "words and mathematics, or different words",
            )),
            (Quantity, _) | (_, Quantity) => quantity::compare(self, gold, answer, depth),
            (Equation, _) | (_, Equation) => relation::compare(self, gold, answer, depth),
            (Region | Inequality, _) | (_, Region | Inequality) => {
                interval::compare(self, gold, answer, depth)
            }
            (List | Set | Tuple | Matrix, _) | (_, List | Set | Tuple | Matrix) => {
                collection::compare(self, gold, answer, depth)
            }
            (Tagged, _) | (_, Tagged) => tagged::compare(self, gold, answer, depth),
            (Value, Value) => self.values(gold, answer),
        }
    }

    /// Compares two expressions. Unless names are strict, the symbols of the answer may be renamed,
    /// in the order of their IDs.
    pub fn values(&mut self, gold: Id, answer: Id) -> Res<Comparison> {
        if self.config.require_evaluated
            && self.arena.exact(gold).is_some()
            && self.arena.exact(answer).is_none()
        {
            return Ok(Comparison::different("the answer is not one number"));
        }
        let first = values::compare(self.arena, self.test, gold, answer)?;
        if self.config.strict || first.verdict == Verdict::Equal {
            return Ok(first);
        }
        let (g, a) = (self.arena.symbols(&[gold]), self.arena.symbols(&[answer]));
        if g.len() != a.len() {
            return Ok(first);
        }
        let mut renamed = answer;
        let mut fresh = Vec::new();
        for (place, old) in a.iter().enumerate() {
            let temporary = self.arena.symbol(&format!("renamed {place}"))?;
            renamed = substitute(self.arena, renamed, *old, temporary)?;
            fresh.push(temporary);
        }
        for (temporary, new) in fresh.into_iter().zip(g) {
            renamed = substitute(self.arena, renamed, temporary, new)?;
        }
        values::compare(self.arena, self.test, gold, renamed)
    }
}
