//! A position in a flat sequence of tokens, from which terms are parsed.

use super::token::Tok;
use crate::node::arena::{Arena, Id, Node};

/// The limit of recursion for operators that apply to the following operand without brackets:
/// `\sin\cos x`, `2^2^2`.
pub(crate) const MAX_CHAIN: usize = 60;

/// Returns the elements of a group that is used as arguments.
pub(crate) fn arguments(arena: &Arena, id: Id) -> Vec<Id> {
    match arena.node(id) {
        Node::List(items) | Node::Tuple(items) => items.clone(),
        // `\ln\left\{x\right\}`: here braces group.
        Node::Set(items) if items.len() == 1 => items.clone(),
        _ => vec![id],
    }
}

/// A position in a flat sequence of tokens.
pub(crate) struct Cursor<'a, 'b, 't> {
    pub(crate) arena: &'a mut Arena<'b>,
    pub(crate) text: &'t [char],
    pub(crate) tokens: Vec<Tok>,
    pub(crate) at: usize,
    /// The depth of recursion so far, see [`MAX_CHAIN`].
    pub(crate) base: usize,
}

impl Cursor<'_, '_, '_> {
    pub(crate) fn peek(&self) -> Option<&Tok> {
        self.tokens.get(self.at)
    }

    pub(crate) fn next_is(&self, tok: &Tok) -> bool {
        self.peek() == Some(tok)
    }

    pub(crate) fn take(&mut self, tok: &Tok) -> bool {
        let found = self.next_is(tok);
        self.at += usize::from(found);
        found
    }
}
