//! The dispatch by kind: which rule decides about two nodes.

use super::budget::Res;
use super::config::MathConfig;
use super::expression::{self, Test};
use super::node::{Arena, Id, Node, RelOp};
use super::verdict::{Comparison, Verdict};
use super::{collection, interval, relation, tagged, unit};

/// The deepest nesting of structures (sets of tuples of ...) that is compared.
const MAX_DEPTH: usize = 24;

/// One comparison: the arena both sides live in, and the conventions.
pub(super) struct Comparer<'a, 'b> {
    pub arena: &'a mut Arena<'b>,
    pub config: &'a MathConfig,
    pub test: Test,
}

/// What a node is, as far as rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    /// Percent, degree, ratio, digits in a base, time of day.
    Tagged,
    Quantity,
    Equation,
    /// An interval, a union, or whatever else is a set of reals.
    Region,
    /// An inequality or several.
    Inequality,
    List,
    Set,
    Tuple,
    Matrix,
    Text,
}

impl Comparer<'_, '_> {
    pub fn kind(&self, id: Id) -> Kind {
        match self.arena.node(id) {
            Node::Percent(_) | Node::Degree(_) | Node::Ratio(_) | Node::Based(..) => Kind::Tagged,
            Node::App(name, _) if self.arena.name(*name) == "clock" => Kind::Tagged,
            Node::Quantity(..) => Kind::Quantity,
            Node::Rel(ops, _) if ops.iter().all(|op| matches!(op, RelOp::Eq | RelOp::Approx)) => {
                Kind::Equation
            }
            Node::Rel(..) | Node::And(_) | Node::Or(_) => Kind::Inequality,
            Node::Interval(..)
            | Node::Union(_)
            | Node::Intersection(_)
            | Node::Without(..)
            | Node::Numbers(_)
            | Node::Builder(..) => Kind::Region,
            Node::List(_) => Kind::List,
            Node::Set(_) => Kind::Set,
            Node::Tuple(_) => Kind::Tuple,
            Node::Matrix(..) => Kind::Matrix,
            Node::Text(_) => Kind::Text,
            _ => Kind::Value,
        }
    }

    /// The verdict on two nodes.
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
                "words and mathematics, or other words",
            )),
            (Quantity, _) | (_, Quantity) => unit::compare(self, gold, answer, depth),
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

    /// Whether a gold is made of constants, or gives a constant a name.
    pub fn is_constant(&self, id: Id) -> bool {
        let value = match self.arena.node(id) {
            Node::Rel(ops, sides) if ops.iter().all(|op| *op == RelOp::Eq) => {
                sides[sides.len() - 1]
            }
            _ => id,
        };
        let unknown = |n: &Node| matches!(n, Node::Sym(_) | Node::App(..));
        !self.arena.any(value, unknown)
    }

    /// Two expressions; without strict names the answer's symbols may be renamed, in the order of their occurrence.
    pub fn values(&mut self, gold: Id, answer: Id) -> Res<Comparison> {
        if self.config.require_evaluated
            && self.arena.exact(gold).is_some()
            && self.arena.exact(answer).is_none()
        {
            return Ok(Comparison::different("the answer is not one number"));
        }
        let first = expression::compare(self.arena, self.test, gold, answer)?;
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
            renamed = super::calculus::substitute(self.arena, renamed, *old, temporary)?;
            fresh.push(temporary);
        }
        for (temporary, new) in fresh.into_iter().zip(g) {
            renamed = super::calculus::substitute(self.arena, renamed, temporary, new)?;
        }
        expression::compare(self.arena, self.test, gold, renamed)
    }
}
