//! The state of a comparison, and the kinds of nodes.

use super::precision::Test;
use crate::config::MathConfig;
use crate::node::arena::{Arena, Id, Node};
use crate::node::function::RelOp;

/// A comparison: the arena of both sides, and the conventions.
pub(crate) struct Comparer<'a, 'b> {
    pub arena: &'a mut Arena<'b>,
    pub config: &'a MathConfig,
    pub test: Test,
}

/// The kind of a node, which determines the rules that apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Value,
    /// Percent, degree, ratio, digits in a base, time of day.
    Tagged,
    Quantity,
    Equation,
    /// A set of reals: an interval, a union, ...
    Region,
    /// One or several inequalities.
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

    /// Returns whether a gold is made of constants, or is an equation whose last side is.
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
