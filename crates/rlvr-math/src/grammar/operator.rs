//! Parses sums, products, limits and derivatives, which apply to the rest of their term.

use super::cursor::{Cursor, MAX_CHAIN};
use super::token::{Bracket, Command, Tok};
use crate::calculus::{limit, rules, series};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::function::{BigOp, RelOp};
use crate::node::operations::Operations;

impl Cursor<'_, '_, '_> {
    /// Parses `\frac{d}{dx} ...`, the derivative of the rest of the term, or the name
    /// `\frac{dy}{dx}`.
    pub(crate) fn derivative(&mut self, chain: usize) -> Res<Option<Id>> {
        let [
            Tok::Group { span: top, .. },
            Tok::Group { span: bottom, .. },
            ..,
        ] = &self.tokens[self.at..]
        else {
            return Ok(None);
        };
        let clean = |span: &(usize, usize)| -> String {
            let raw: String = self.text[span.0..span.1]
                .iter()
                .filter(|c| !c.is_whitespace())
                .collect();
            raw.replace("\\mathrm{d}", "d")
                .replace("\\partial", "d")
                .replace("\\,", "")
        };
        let (top, bottom) = (clean(top), clean(bottom));
        let Some(variable) = bottom.strip_prefix('d') else {
            return Ok(None);
        };
        // `\frac{dy}{dx}` and `\frac{d^2y}{dx^2}` alone are names.
        let letters = |s: &str| !s.is_empty() && s.chars().all(|c| c.is_ascii_alphabetic());
        let function = top
            .strip_prefix("d^2")
            .or_else(|| top.strip_prefix("d^{2}"))
            .or_else(|| top.strip_prefix('d'));
        if let Some(function) = function
            && letters(function)
            && letters(variable.trim_end_matches(|c: char| !c.is_ascii_alphabetic()))
        {
            self.at += 2;
            let function = self.arena.symbol(function)?;
            let order = top.contains("^");
            let name = self.arena.intern(&format!("d/d{variable} {order}"));
            return self
                .arena
                .add_node(Node::App(name, vec![function]))
                .map(Some);
        }
        let variable = variable.trim_start_matches('\\');
        let name = super::vocabulary::greek(variable)
            .unwrap_or(variable)
            .to_owned();
        if top != "d" || name.chars().count() != 1 {
            return Ok(None);
        }
        self.at += 2;
        let variable = match name.as_str() {
            "e" | "i" => return Err(Stop::Syntax("a derivative by a constant")),
            _ => self.arena.symbol(&name)?,
        };
        let body = self.rest(chain)?;
        self.arena.note(Operations::big(BigOp::Derivative));
        rules::derivative(self.arena, variable, body).map(Some)
    }

    /// Parses the rest of the term.
    pub(crate) fn rest(&mut self, chain: usize) -> Res<Id> {
        if chain > MAX_CHAIN {
            return Err(Stop::Limit("operators without brackets"));
        }
        self.arena
            .budget
            .spend((self.tokens.len() - self.at) as u64)?;
        let tokens = self.tokens[self.at..].to_vec();
        self.at = self.tokens.len();
        let mut cursor = Cursor {
            arena: self.arena,
            text: self.text,
            tokens,
            at: 0,
            base: chain + 1,
        };
        let (id, unit) = cursor.term()?;
        if unit.is_some() {
            Err(Stop::Syntax("a unit in an operand"))
        } else {
            Ok(id)
        }
    }

    /// Parses the bounds of a large operator, below and above.
    pub(crate) fn bounds(&mut self) -> Res<(Option<Id>, Option<Id>)> {
        let (mut low, mut high) = (None, None);
        loop {
            let below = match self.peek() {
                Some(Tok::Underscore) => true,
                Some(Tok::Caret) => false,
                _ => return Ok((low, high)),
            };
            self.at += 1;
            let bound = match self.peek().cloned() {
                Some(Tok::Group {
                    open: Bracket::Brace,
                    id,
                    ..
                }) => {
                    self.at += 1;
                    id
                }
                // Without braces a single token, because `\sum^n_k` has two bounds and no
                // subscript.
                Some(Tok::Num { id, .. } | Tok::Value(id)) => {
                    self.at += 1;
                    Some(id)
                }
                Some(Tok::Ident { name, .. }) => {
                    self.at += 1;
                    Some(self.arena.symbol(&name)?)
                }
                Some(Tok::Minus) => Some(self.exponent(MAX_CHAIN)?),
                _ => Some(self.primary(MAX_CHAIN)?),
            };
            if below {
                low = bound;
            } else {
                high = bound;
            }
        }
    }

    /// Parses a sum, product or limit: its bounds, then the rest of the term.
    pub(crate) fn operator(&mut self, command: Command, chain: usize) -> Res<Id> {
        let (low, high) = self.bounds()?;
        let body = self.rest(chain)?;
        self.arena.note(Operations::big(match command {
            Command::Limit => BigOp::Limit,
            Command::Product => BigOp::Product,
            _ => BigOp::Sum,
        }));
        let side = |arena: &Arena, op: RelOp| match low.map(|id| arena.node(id)) {
            Some(Node::Rel(ops, sides)) if ops[..] == [op] => Some((sides[0], sides[1])),
            _ => None,
        };
        match command {
            Command::Limit => {
                let Some((variable, target)) = side(self.arena, RelOp::To) else {
                    return Err(Stop::Syntax("a limit without its target"));
                };
                limit::limit(self.arena, variable, target, body)
            }
            _ => {
                let Some((variable, from)) = side(self.arena, RelOp::Eq) else {
                    return Err(Stop::Syntax("a sum without its start"));
                };
                let Some(to) = high else {
                    return Err(Stop::Syntax("a sum without its end"));
                };
                series::series(
                    self.arena,
                    command == Command::Product,
                    variable,
                    from,
                    to,
                    body,
                )
            }
        }
    }
}

/// Returns whether a command is a large operator.
pub(crate) fn is_operator(command: Command) -> bool {
    matches!(
        command,
        Command::Sum | Command::Product | Command::Integral | Command::Limit
    )
}
