//! Parses single operands: numbers, names, groups.

use super::cursor::{Cursor, MAX_CHAIN, arguments};
use super::operator::is_operator;
use super::token::{Bracket, Command, Tok};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::function::Func;
use crate::node::matrix;
use crate::node::operations::Operations;
use dashu_ratio::RBig;

impl Cursor<'_, '_, '_> {
    pub(crate) fn primary(&mut self, chain: usize) -> Res<Id> {
        if chain > MAX_CHAIN {
            return Err(Stop::Limit("operators without brackets"));
        }
        let Some(tok) = self.peek().cloned() else {
            return Err(Stop::Syntax("an operand is missing"));
        };
        self.at += 1;
        match tok {
            Tok::Num { id, digits, .. } => self.number(id, digits),
            Tok::Value(id) => Ok(id),
            Tok::Ident { name, .. } => self.identifier(name),
            // `(101)_2`
            Tok::Group {
                open: Bracket::Paren,
                id: Some(id),
                span,
                ..
            } if self.next_is(&Tok::Underscore)
                && self.text[span.0..span.1].iter().all(char::is_ascii_digit) =>
            {
                let digits = self.text[span.0..span.1].iter().collect();
                self.number(id, Some(digits))
            }
            Tok::Group { .. } => self.group(&tok),
            Tok::Func(f) => self.function(f, None, chain),
            Tok::Log(base) => self.function(Func::Ln, Some(base), chain),
            Tok::Command(command) if is_operator(command) => self.operator(command, chain),
            Tok::Command(command) => self.command(command, chain),
            Tok::Text(words) => {
                let name = self.arena.intern(&words);
                self.arena.add_node(Node::Text(name))
            }
            Tok::Unit(word) => self.arena.symbol(&word),
            Tok::Ellipsis => Err(Stop::Syntax("an ellipsis")),
            _ => Err(Stop::Syntax("an operand is missing")),
        }
    }

    /// Parses a number. With a subscript it is written in another base; before a proper fraction it
    /// is the integer part of a mixed number.
    pub(crate) fn number(&mut self, id: Id, digits: Option<String>) -> Res<Id> {
        let Some(digits) = digits else { return Ok(id) };
        if self.take(&Tok::Underscore) {
            let Some(Tok::Num { id: base, .. } | Tok::Group { id: Some(base), .. }) =
                self.peek().cloned()
            else {
                return Err(Stop::Syntax("an invalid base"));
            };
            self.at += 1;
            let digits = self.arena.intern(&digits);
            return self.arena.add_node(Node::Based(digits, base));
        }
        if self.next_is(&Tok::Command(Command::Frac)) {
            let back = (self.at, self.tokens.clone());
            self.at += 1;
            if let (Some(n), Some(d)) = (self.literal_argument()?, self.literal_argument()?)
                && RBig::ZERO <= n
                && n < d
            {
                let fraction = self.arena.num(n / d)?;
                return self.arena.sum(vec![id, fraction]);
            }
            (self.at, self.tokens) = back;
        }
        // `5 2/3`
        if let [
            Tok::Num {
                id: n,
                digits: Some(_),
                spaced: true,
            },
            Tok::Slash,
            Tok::Num {
                id: d,
                digits: Some(_),
                ..
            },
            ..,
        ] = &self.tokens[self.at..]
            && let (Some(n), Some(d)) = (self.arena.exact(*n), self.arena.exact(*d))
            && n < d
        {
            let fraction = n / d;
            self.at += 3;
            let fraction = self.arena.num(fraction)?;
            return self.arena.sum(vec![id, fraction]);
        }
        Ok(id)
    }

    /// Parses an argument of `\frac` that is an integer literal.
    pub(crate) fn literal_argument(&mut self) -> Res<Option<RBig>> {
        let id = match self.argument(MAX_CHAIN) {
            Ok(id) => id,
            Err(Stop::Limit(what)) => return Err(Stop::Limit(what)),
            Err(_) => return Ok(None),
        };
        Ok(match self.arena.node(id) {
            Node::Num(value) if value.is_int() => Some(value.clone()),
            _ => None,
        })
    }

    /// Parses a name with its subscript and primes, perhaps applied to arguments.
    pub(crate) fn identifier(&mut self, mut name: String) -> Res<Id> {
        if self.take(&Tok::Underscore) {
            name.push('_');
            match self.peek().cloned() {
                Some(Tok::Group { span, .. }) => {
                    let written: String = self.text[span.0..span.1]
                        .iter()
                        .filter(|c| !c.is_whitespace() && !"{}".contains(**c))
                        .collect();
                    // `h_\theta` and `h_{\theta}` are the same name.
                    match written
                        .strip_prefix('\\')
                        .and_then(super::vocabulary::greek)
                    {
                        Some(letter) => name.push_str(letter),
                        None => name.push_str(&written),
                    }
                }
                Some(Tok::Num {
                    digits: Some(digits),
                    ..
                }) => name.push_str(&digits),
                Some(Tok::Ident { name: sub, .. }) => name.push_str(&sub),
                Some(Tok::Value(id)) => name.push_str(&format!("{:?}", self.arena.node(id))),
                Some(Tok::Text(sub) | Tok::Unit(sub)) => name.push_str(&sub),
                _ => return Err(Stop::Syntax("an invalid subscript")),
            }
            self.at += 1;
        }
        while self.take(&Tok::Prime) {
            name.push('′');
        }
        let function = matches!(
            name.trim_end_matches('′'),
            "f" | "g" | "h" | "F" | "G" | "H"
        ) || name.ends_with('′');
        // `f(x)`, and `f{\left(x \right)}` as SymPy prints it. With several arguments any name is a
        // function.
        let several = |id: Id| {
            matches!(self.arena.node(id), Node::List(_) | Node::Tuple(_))
                && !name.starts_with(|c: char| c.is_ascii_uppercase())
        };
        if let Some(Tok::Group {
            open: Bracket::Paren | Bracket::Brace,
            id: Some(id),
            spaced: false,
            ..
        }) = self.peek()
            && (function || several(*id))
        {
            let args = arguments(self.arena, *id);
            self.at += 1;
            let name = self.arena.intern(&name);
            return self.arena.add_node(Node::App(name, args));
        }
        // `A(1,2)`: a named point.
        if name.len() == 1
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && let Some(
                tok @ Tok::Group {
                    open: Bracket::Paren,
                    id: Some(id),
                    spaced: false,
                    ..
                },
            ) = self.peek()
            && matches!(self.arena.node(*id), Node::List(_))
        {
            let tok = tok.clone();
            self.at += 1;
            return self.group(&tok);
        }
        self.arena.symbol(&name)
    }

    /// Returns the value of a bracketed group.
    pub(crate) fn group(&mut self, tok: &Tok) -> Res<Id> {
        let Tok::Group {
            open,
            closed_low,
            closed_high,
            id,
            ..
        } = tok
        else {
            return Err(Stop::Syntax("not a group"));
        };
        let (low, high) = (*closed_low, *closed_high);
        let Some(id) = *id else {
            return if *open == Bracket::Set {
                self.arena.add_node(Node::Set(Vec::new()))
            } else {
                Err(Stop::Syntax("empty brackets"))
            };
        };
        let items = match self.arena.node(id) {
            Node::List(items) => Some(items.clone()),
            _ => None,
        };
        let function = match open {
            Bracket::Abs => Some(Func::Abs),
            Bracket::Norm => Some(Func::Norm),
            Bracket::Floor => Some(Func::Floor),
            Bracket::Ceil => Some(Func::Ceil),
            Bracket::Determinant => Some(Func::Det),
            _ => None,
        };
        if let Some(f) = function {
            self.arena.note(Operations::function(f));
        }
        match (open, items) {
            (Bracket::Abs | Bracket::Norm, None)
                if matches!(self.arena.node(id), Node::Matrix(..)) =>
            {
                matrix::determinant(self.arena, id)
            }
            (Bracket::Abs, None) => self.arena.function(Func::Abs, vec![id]),
            (Bracket::Norm, None) => self.arena.function(Func::Norm, vec![id]),
            (Bracket::Floor, None) => self.arena.function(Func::Floor, vec![id]),
            (Bracket::Ceil, None) => self.arena.function(Func::Ceil, vec![id]),
            (Bracket::Determinant, None) => matrix::determinant(self.arena, id),
            (Bracket::Set, None) => match self.arena.node(id) {
                Node::Builder(..) => Ok(id),
                _ => self.arena.add_node(Node::Set(vec![id])),
            },
            (Bracket::Set | Bracket::Brace, Some(items)) => self.arena.add_node(Node::Set(items)),
            (Bracket::Paren, Some(items)) if items.len() == 2 && high => self
                .arena
                .add_node(Node::Interval(items[0], items[1], low, high)),
            // `[[1, 2], [3, 4]]`: a matrix given by its rows.
            (Bracket::Square, Some(items)) if rows(self.arena, &items).is_some() => {
                let (columns, cells) = rows(self.arena, &items).unwrap_or_default();
                self.arena.add_node(Node::Matrix(columns, cells))
            }
            (Bracket::Square | Bracket::French, Some(items)) if items.len() == 2 => self
                .arena
                .add_node(Node::Interval(items[0], items[1], low, high)),
            (Bracket::Abs | Bracket::Norm | Bracket::Floor | Bracket::Ceil, Some(_)) => {
                Err(Stop::Syntax("a list in bars"))
            }
            (_, Some(items)) => self.arena.add_node(Node::Tuple(items)),
            (_, None) => Ok(id),
        }
    }
}

/// Returns the number of columns and the cells of rows in square brackets.
fn rows(arena: &Arena, items: &[Id]) -> Option<(u32, Vec<Id>)> {
    let mut cells = Vec::new();
    let mut columns = None;
    for &item in items {
        let row = match arena.node(item) {
            Node::Interval(a, b, true, true) => vec![*a, *b],
            Node::Tuple(cells) if cells.len() > 2 => cells.clone(),
            _ => return None,
        };
        if *columns.get_or_insert(row.len()) != row.len() {
            return None;
        }
        cells.extend(row);
    }
    Some((columns? as u32, cells))
}
