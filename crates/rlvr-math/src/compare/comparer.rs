//! What every rule works with: the two sides, the conventions, and what kind a node is.

use super::precision::Test;
use crate::config::MathConfig;
use crate::node::arena::{Arena, Id, Node};
use crate::node::function::RelOp;

/// One comparison: the arena both sides live in, and the conventions.
pub(crate) struct Comparer<'a, 'b> {
    pub arena: &'a mut Arena<'b>,
    pub config: &'a MathConfig,
    pub test: Test,
}

/// What a node is, as far as rules differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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
}
