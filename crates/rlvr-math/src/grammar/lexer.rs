//! Splits a text into tokens, and parses bracketed groups, in one pass from left to right.
//!
//! Open brackets are kept on an explicit stack. `sequence` parses a group when its bracket closes,
//! at which point everything inside of it is parsed, so that nesting needs no recursion.

use super::numeral::{self, Comma};
use super::sequence as grammar;
use super::token::{Bracket, Tok};
use super::unit;
use super::vocabulary::{self, Constant, Word};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::function::RelOp;
use dashu_ratio::RBig;

/// The interpretation of an ambiguous text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Mode {
    pub comma: Comma,
    /// Whether a single letter after a space, as in `5 m`, is a unit.
    pub letter_units: bool,
    /// Whether a bar after an operand opens if an operand follows: `||x||y||`.
    pub bars_open: bool,
    /// Whether `I` is the imaginary unit, as some systems write it.
    pub upper_i: bool,
    /// Whether `i` is an index, as in `\sum_{i=1}^n i`, and not the imaginary unit.
    pub index_i: bool,
}

/// An open bracket.
pub(crate) struct Frame {
    pub(crate) bracket: Bracket,
    pub(crate) tokens: Vec<Tok>,
    pub(crate) start: usize,
    pub(crate) spaced: bool,
}

pub(crate) struct Lexer<'a, 'b> {
    pub(crate) arena: &'a mut Arena<'b>,
    pub(crate) text: &'a [char],
    pub(crate) at: usize,
    pub(crate) spaced: bool,
    pub(crate) frames: Vec<Frame>,
    pub(crate) mode: Mode,
}

/// Parses a whole text into one node.
pub(crate) fn read(arena: &mut Arena, text: &[char], mode: Mode) -> Res<Id> {
    let mut lexer = Lexer {
        arena,
        text,
        at: 0,
        spaced: false,
        frames: vec![Frame {
            bracket: Bracket::Plain,
            tokens: Vec::new(),
            start: 0,
            spaced: false,
        }],
        mode,
    };
    while lexer.at < text.len() {
        lexer.arena.budget.spend(1)?;
        lexer.step()?;
    }
    // Brackets that are left open end at the end of the text.
    while lexer.frames.len() > 1 {
        let bracket = lexer.top().bracket;
        if matches!(bracket, Bracket::Brace | Bracket::Set) {
            return Err(Stop::Syntax("an unmatched brace"));
        }
        if matches!(bracket, Bracket::Abs | Bracket::Norm) && !mode.bars_open {
            return Err(Stop::Syntax("an unmatched bar"));
        }
        lexer.close(true)?;
    }
    let tokens = lexer.frames.pop().map(|f| f.tokens).unwrap_or_default();
    grammar::sequence(lexer.arena, text, tokens)?.ok_or(Stop::Syntax("an empty text"))
}

impl Lexer<'_, '_> {
    pub(crate) fn top(&mut self) -> &mut Frame {
        // The bottom frame is never popped while lexing.
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    pub(crate) fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    pub(crate) fn push(&mut self, tok: Tok) {
        self.spaced = false;
        self.top().tokens.push(tok);
    }

    pub(crate) fn previous(&mut self) -> Option<&Tok> {
        self.top().tokens.last()
    }

    pub(crate) fn after_operand(&mut self) -> bool {
        self.previous().is_some_and(Tok::ends_operand)
    }

    pub(crate) fn open(&mut self, bracket: Bracket, length: usize) -> Res<()> {
        if self.frames.len() > self.arena.budget.max_depth {
            return Err(Stop::Limit("depth"));
        }
        self.at += length;
        let frame = Frame {
            bracket,
            tokens: Vec::new(),
            start: self.at,
            spaced: self.spaced,
        };
        self.spaced = false;
        self.frames.push(frame);
        Ok(())
    }

    /// Closes the innermost bracket. `closed_high` says whether an interval would include its upper
    /// end.
    pub(crate) fn close(&mut self, closed_high: bool) -> Res<()> {
        let Some(frame) = self.frames.pop() else {
            return Err(Stop::Syntax("an unmatched bracket"));
        };
        let span = (frame.start, self.at.min(self.text.len()));
        let outer = std::mem::take(&mut self.arena.operations);
        let id = match frame.bracket {
            Bracket::Matrix | Bracket::Determinant => {
                Some(grammar::matrix(self.arena, self.text, frame.tokens)?)
            }
            Bracket::Set => grammar::set(self.arena, self.text, frame.tokens)?,
            _ => grammar::sequence(self.arena, self.text, frame.tokens)?,
        };
        let tok = Tok::Group {
            open: frame.bracket,
            closed_low: frame.bracket == Bracket::Square,
            closed_high,
            id,
            span,
            spaced: frame.spaced,
            operations: std::mem::replace(&mut self.arena.operations, outer),
        };
        self.spaced = false;
        self.top().tokens.push(tok);
        Ok(())
    }

    /// Closes the innermost bracket that satisfies `fits`, and all brackets inside of it. Ignores a
    /// closing bracket without a matching one.
    pub(crate) fn close_matching(
        &mut self,
        fits: impl Fn(Bracket) -> bool,
        closed_high: bool,
        length: usize,
    ) -> Res<()> {
        if self.frames[1..].iter().any(|f| fits(f.bracket)) {
            while !fits(self.top().bracket) {
                if matches!(self.top().bracket, Bracket::Brace | Bracket::Set) {
                    return Err(Stop::Syntax("an unmatched brace"));
                }
                self.close(false)?;
            }
            self.close(closed_high)?;
        }
        self.at += length;
        Ok(())
    }

    pub(crate) fn step(&mut self) -> Res<()> {
        let c = self.text[self.at];
        let interval = |b| matches!(b, Bracket::Paren | Bracket::Square | Bracket::French);
        match c {
            ' ' | '\t' | '\n' | '\r' | '~' | '\u{a0}' | '\u{2009}' | '\u{202f}' | '\u{2005}' => {
                self.at += 1;
                self.spaced = true;
                Ok(())
            }
            '$' | '`' | '"' | '\u{200b}' | '\u{feff}' => {
                self.at += 1;
                Ok(())
            }
            '0'..='9' => self.number(),
            '.' if self.peek(1).is_some_and(|d| d.is_ascii_digit()) => self.number(),
            '.' if self.peek(1) == Some('.') => {
                while self.peek(0) == Some('.') {
                    self.at += 1;
                }
                self.push(Tok::Ellipsis);
                Ok(())
            }
            '.' => {
                self.at += 1;
                Ok(())
            }
            '(' => self.open(Bracket::Paren, 1),
            ')' => self.close_matching(interval, false, 1),
            '[' => {
                // `]0,1[` and `[0,1[`: the opening bracket closes.
                let comma = self.top().tokens.contains(&Tok::Comma)
                    || self.top().tokens.contains(&Tok::Semicolon);
                if comma
                    && matches!(self.top().bracket, Bracket::French | Bracket::Square)
                    && self.after_operand()
                {
                    self.at += 1;
                    return self.close(false);
                }
                self.open(Bracket::Square, 1)
            }
            ']' => {
                if self.frames[1..].iter().any(|f| interval(f.bracket)) {
                    self.close_matching(interval, true, 1)
                } else {
                    self.open(Bracket::French, 1)
                }
            }
            '{' => self.open(Bracket::Brace, 1),
            '}' if self.frames.iter().all(|f| f.bracket != Bracket::Brace) => {
                Err(Stop::Syntax("an unmatched brace"))
            }
            '}' => self.close_matching(|b| b == Bracket::Brace, true, 1),
            '⟨' => self.open(Bracket::Angle, 1),
            '⟩' => self.close_matching(|b| b == Bracket::Angle, false, 1),
            '⌊' => self.open(Bracket::Floor, 1),
            '⌋' => self.close_matching(|b| b == Bracket::Floor, false, 1),
            '⌈' => self.open(Bracket::Ceil, 1),
            '⌉' => self.close_matching(|b| b == Bracket::Ceil, false, 1),
            '|' => self.bar(Bracket::Abs, 1),
            '\\' => self.command(),
            '&' => self.single(Tok::Ampersand),
            '+' => self.single(Tok::Plus),
            '-' => self.single(Tok::Minus),
            '*' if self.peek(1) == Some('*') => {
                self.at += 2;
                self.push(Tok::Caret);
                Ok(())
            }
            '*' => self.single(Tok::Times),
            '/' => self.single(Tok::Slash),
            '^' => self.single(Tok::Caret),
            '_' => self.single(Tok::Underscore),
            '!' if self.peek(1) == Some('=') => {
                self.at += 2;
                self.push(Tok::Rel(RelOp::Ne));
                Ok(())
            }
            '!' => self.single(Tok::Bang),
            '%' => self.single(Tok::Percent),
            '\'' => self.single(Tok::Prime),
            ',' => self.single(Tok::Comma),
            ';' => self.single(Tok::Semicolon),
            ':' => self.single(Tok::Colon),
            '<' | '>' | '=' => self.relation(c),
            _ if c.is_ascii_alphabetic() => self.word(),
            _ => self.sign(c),
        }
    }

    pub(crate) fn single(&mut self, tok: Tok) -> Res<()> {
        self.at += 1;
        self.push(tok);
        Ok(())
    }

    pub(crate) fn relation(&mut self, c: char) -> Res<()> {
        let equals = self.peek(1) == Some('=');
        let (tok, length) = match (c, equals, self.peek(1)) {
            ('<', true, _) => (RelOp::Le, 2),
            ('>', true, _) => (RelOp::Ge, 2),
            ('<', _, Some('>')) => (RelOp::Ne, 2),
            ('<', ..) => (RelOp::Lt, 1),
            ('>', ..) => (RelOp::Gt, 1),
            ('=', true, _) => (RelOp::Eq, 2),
            ('=', _, Some('<')) => (RelOp::Le, 2),
            _ => (RelOp::Eq, 1),
        };
        self.at += length;
        self.push(Tok::Rel(tok));
        Ok(())
    }

    pub(crate) fn number(&mut self) -> Res<()> {
        let outside = self.frames.len() == 1;
        let numeral = numeral::read(self.arena, self.text, self.at, self.mode.comma, outside)?;
        self.at = numeral.end;
        let spaced = self.spaced;
        self.push(Tok::Num {
            id: numeral.id,
            digits: numeral.digits,
            spaced,
        });
        Ok(())
    }

    /// Reads a bar. It opens after an operator and closes after an operand, unless it separates the
    /// elements of a set from their condition.
    pub(crate) fn bar(&mut self, bracket: Bracket, length: usize) -> Res<()> {
        let after = self.after_operand();
        let open_bar = self.top().bracket == bracket;
        if after
            && !open_bar
            && matches!(self.top().bracket, Bracket::Set | Bracket::Brace)
            && !self.top().tokens.contains(&Tok::Mid)
        {
            return self.single(Tok::Mid);
        }
        let operand_follows = self.text[self.at + length..]
            .iter()
            .find(|c| !c.is_whitespace())
            .is_some_and(|c| c.is_alphanumeric() || matches!(c, '\\' | '('));
        if after && open_bar && !(self.mode.bars_open && operand_follows) {
            self.at += length;
            return self.close(true);
        }
        self.open(bracket, length)
    }

    /// Reads a run of letters: a known word, a unit, or a product of letters.
    pub(crate) fn word(&mut self) -> Res<()> {
        let start = self.at;
        let mut end = start;
        while self.text.get(end).is_some_and(char::is_ascii_alphabetic) {
            end += 1;
        }
        let word: String = self.text[start..end].iter().collect();
        let spaced = self.spaced;
        let operand_before = self.after_operand();
        if word.len() > 1 {
            // `60 min`, `30 sec` and `5 in`: at the end of the text these are units, not functions
            // or relations.
            let last = self.text[end..]
                .iter()
                .all(|c| c.is_whitespace() || "$.}^23".contains(*c));
            if operand_before && last && matches!(word.as_str(), "min" | "sec" | "in") {
                self.at = end;
                self.push(Tok::Unit(word));
                return Ok(());
            }
            if let Some(known) = vocabulary::plain(&word) {
                self.at = end;
                return self.known(known, spaced);
            }
            if operand_before && unit::is_word(&word) {
                self.at = end;
                self.push(Tok::Unit(word));
                return Ok(());
            }
            // `x=1orx=-1`
            for (connective, tok) in [("or", Tok::Or), ("and", Tok::And)] {
                if operand_before
                    && word.starts_with(connective)
                    && word.len() <= connective.len() + 2
                {
                    self.at = start + connective.len();
                    self.push(tok);
                    return Ok(());
                }
            }
            // `sinx`, `lnx`: a function and its argument without a space.
            for prefix in ["sin", "cos", "tan", "log", "ln", "sqrt", "pi"] {
                if word.starts_with(prefix)
                    && word.len() <= prefix.len() + 2
                    && let Some(known) = vocabulary::plain(prefix)
                {
                    self.at = start + prefix.len();
                    return self.known(known, spaced);
                }
            }
        } else if operand_before
            && spaced
            && self.mode.letter_units
            && unit::is_letter(&word)
            && self.text[end..]
                .iter()
                .all(|c| c.is_whitespace() || "^/23{}$.*".contains(*c) || c.is_ascii_alphabetic())
        {
            self.at = end;
            self.push(Tok::Unit(word));
            return Ok(());
        }
        if word.len() == 1 {
            self.at = end;
            return self.letter(&word, spaced);
        }
        // A product of letters, read one at a time.
        self.at = start + 1;
        let first = word[..1].to_owned();
        self.letter(&first, spaced)
    }

    pub(crate) fn letter(&mut self, letter: &str, spaced: bool) -> Res<()> {
        // A letter with a subscript is a name, even if the letter alone has a meaning.
        let subscript = self.peek(0) == Some('_');
        match letter {
            "e" if !subscript => {
                let id = self.arena.add_node(Node::Euler)?;
                self.push(Tok::Value(id));
            }
            "I" if !subscript && self.mode.upper_i => {
                let id = self.arena.add_node(Node::Imaginary)?;
                self.push(Tok::Value(id));
            }
            "i" if !subscript && !self.mode.index_i => {
                let id = self.arena.add_node(Node::Imaginary)?;
                self.push(Tok::Value(id));
            }
            _ => self.push(Tok::Ident {
                name: letter.to_owned(),
                spaced,
            }),
        }
        Ok(())
    }

    pub(crate) fn known(&mut self, word: Word, spaced: bool) -> Res<()> {
        match word {
            Word::Tok(tok) => self.push(tok),
            Word::Symbol("exp") => {
                let id = self.arena.add_node(Node::Euler)?;
                self.push(Tok::Value(id));
                self.push(Tok::Caret);
            }
            Word::Symbol(name) => self.push(Tok::Ident {
                name: name.to_owned(),
                spaced,
            }),
            Word::Constant(constant) => {
                let node = match constant {
                    Constant::Pi => Node::Pi,
                    Constant::Imaginary => Node::Imaginary,
                    Constant::Infinity => Node::Infinity,
                    Constant::Empty => Node::Set(Vec::new()),
                    Constant::Numbers(set) => Node::Numbers(set),
                    Constant::Undefined => Node::Undefined,
                };
                let id = self.arena.add_node(node)?;
                self.push(Tok::Value(id));
            }
            Word::Nothing | Word::Drop => self.spaced = true,
            Word::Font => {}
        }
        Ok(())
    }

    /// Reads a sign that is not ASCII.
    pub(crate) fn sign(&mut self, c: char) -> Res<()> {
        let spaced = self.spaced;
        self.at += 1;
        if let Some((up, digit)) = vocabulary::raised(c) {
            let mut digits = String::from(digit);
            while let Some((same, digit)) = self.peek(0).and_then(vocabulary::raised) {
                if same != up {
                    break;
                }
                digits.push(digit);
                self.at += 1;
            }
            let value: i64 = digits
                .parse()
                .map_err(|_| Stop::Syntax("an invalid superscript"))?;
            let id = self.arena.int(value)?;
            self.push(if up { Tok::Caret } else { Tok::Underscore });
            self.push(Tok::Num {
                id,
                digits: Some(digits),
                spaced: false,
            });
            return Ok(());
        }
        if let Some((n, d)) = vocabulary::vulgar(c) {
            let id = self
                .arena
                .num(RBig::from_parts(n.into(), (d as u64).into()))?;
            if let Some(Tok::Num {
                id: whole,
                digits: Some(_),
                ..
            }) = self.previous()
            {
                let whole = *whole;
                self.top().tokens.pop();
                let sum = self.arena.sum(vec![whole, id])?;
                self.push(Tok::Value(sum));
            } else {
                self.push(Tok::Value(id));
            }
            return Ok(());
        }
        match vocabulary::unicode(c) {
            Some(word) => self.known(word, spaced),
            None if matches!(c, '€' | '£' | '¥' | '₹' | '¢') => Ok(()),
            None if c.is_alphabetic() => {
                self.push(Tok::Ident {
                    name: c.to_string(),
                    spaced,
                });
                Ok(())
            }
            None => Err(Stop::Syntax("an unknown sign")),
        }
    }
}
