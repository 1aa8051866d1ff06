//! Records the unevaluated operations of the text that is being parsed.

use super::arena::{Arena, Id, Node};
use super::operations::Operations;
use dashu_base::Gcd;
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;
use std::collections::HashSet;

impl Arena<'_> {
    /// Records operations.
    pub fn note(&mut self, operations: Operations) {
        self.operations = self.operations.with(operations);
    }

    /// Returns whether `id` is a number, perhaps with a percent sign, a unit or the like.
    fn is_number(&self, id: Id) -> bool {
        match *self.node(id) {
            Node::Percent(inner)
            | Node::Degree(inner)
            | Node::Quantity(inner, _)
            | Node::PlusMinus(inner)
            | Node::MinusPlus(inner) => self.exact(inner).is_some(),
            _ => self.exact(id).is_some(),
        }
    }

    /// Records a sum of `terms` if some of them can be added.
    pub fn note_sum(&mut self, terms: &[Id]) {
        if terms.len() < 2 {
            return;
        }
        let numbers = terms.iter().filter(|&&id| self.is_number(id)).count();
        let matrices = terms
            .iter()
            .filter(|&&id| matches!(self.node(id), Node::Matrix(..)))
            .count();
        let mut seen = HashSet::new();
        let like = terms
            .iter()
            .filter(|&&id| !self.is_number(id))
            .any(|&id| !seen.insert(self.without_factor(id)));
        if numbers > 1 || matrices > 1 || like {
            self.note(Operations::SUM);
        }
    }

    /// Returns the factors of a term without its literal.
    fn without_factor(&self, id: Id) -> Vec<Id> {
        match self.node(id) {
            Node::Mul(factors) => {
                let mut rest = factors.clone();
                rest.retain(|&f| self.exact(f).is_none());
                rest
            }
            _ => vec![id],
        }
    }

    /// Records the operations left in a quotient of products.
    pub fn note_quotient(&mut self, above: &[Id], below: &[Id]) {
        if above.len() + below.len() < 2 {
            return;
        }
        let literal = |arena: &Self, ids: &[Id]| -> Vec<RBig> {
            let values = ids.iter().filter_map(|&id| match arena.node(id) {
                Node::Percent(inner) | Node::Degree(inner) => arena.exact(*inner).cloned(),
                Node::Mul(factors) => factors.iter().find_map(|&f| arena.exact(f)).cloned(),
                _ => arena.exact(id).cloned(),
            });
            values.collect()
        };
        let (top, bottom) = (literal(self, above), literal(self, below));
        if top.len() > 1 || bottom.len() > 1 {
            self.note(Operations::PRODUCT);
        }
        if !bottom.is_empty() && !lowest(top.first(), &bottom[0]) {
            self.note(Operations::QUOTIENT);
        }
        let matrix = |id: &Id| matches!(self.node(*id), Node::Matrix(..));
        if above.len() + below.len() > 1 && above.iter().chain(below).any(matrix) {
            self.note(Operations::PRODUCT);
        }
        let base = |id: Id| match *self.node(id) {
            Node::Pow(base, _) => base,
            _ => id,
        };
        let mut seen = HashSet::new();
        let mut factors = above.iter().chain(below).copied();
        let repeated = factors.any(|id| {
            let rest = self.without_factor(id);
            let mut rest = rest.into_iter().filter(|&f| self.exact(f).is_none());
            rest.any(|factor| !seen.insert(base(factor)))
        });
        if repeated {
            self.note(Operations::PRODUCT);
        }
    }

    /// Records the power `result` of `base`.
    pub fn note_power(&mut self, base: Id, exponent: Id, result: Id) {
        let whole = self.exact(exponent).map(RBig::is_int);
        if whole == Some(false) {
            self.note(Operations::ROOT);
        }
        let folded = self.exact(result).is_some();
        let literal = whole == Some(true) && self.exact(base).is_some();
        if folded || literal || matches!(self.node(base), Node::Matrix(..)) {
            self.note(Operations::POWER);
        }
    }

    /// Records a root, and a power if the root is rational.
    pub fn note_root(&mut self, result: Id) {
        self.note(Operations::ROOT);
        if self.exact(result).is_some() {
            self.note(Operations::POWER);
        }
    }
}

/// Returns whether `top / bottom` is a fraction in lowest terms. Without `top`, `bottom` is the
/// denominator of a coefficient, like the 2 of `\sqrt{3}/2`.
fn lowest(top: Option<&RBig>, bottom: &RBig) -> bool {
    let one = RBig::ONE;
    let top = top.unwrap_or(&one);
    if !top.is_int() || !bottom.is_int() {
        return false;
    }
    let size = |value: &RBig| -> UBig { value.numerator().clone().into_parts().1 };
    let (top, bottom) = (size(top), size(bottom));
    let zero = |value: &UBig| IBig::from(value.clone()) == IBig::ZERO;
    !zero(&top) && !zero(&bottom) && bottom != UBig::ONE && (&top).gcd(&bottom) == UBig::ONE
}
