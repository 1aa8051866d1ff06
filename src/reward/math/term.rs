//! From tokens to nodes: sums, products, powers, functions.

use super::budget::{Res, Stop};
use super::calculus;
use super::lexer::{bare_log, is_operator};
use super::matrix;
use super::node::{Arena, Func, Id, Node, RelOp};
use super::token::{Bracket, Command, LogBase, Tok};
use super::unit;
use dashu_ratio::RBig;

/// Operators that take what follows without brackets (`\sin\cos x`, `2^2^2`) nest by calls; this deep, and no deeper.
const MAX_CHAIN: usize = 60;

/// The elements of a group used as arguments.
pub(super) fn arguments(arena: &Arena, id: Id) -> Vec<Id> {
    match arena.node(id) {
        Node::List(items) => items.clone(),
        _ => vec![id],
    }
}

/// Terms with signs between them.
pub(super) fn sum(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
    let collapsed;
    let tokens = if tokens.contains(&Tok::Command(Command::Integral)) {
        collapsed = integrals(arena, text, tokens.to_vec())?;
        &collapsed[..]
    } else {
        tokens
    };
    let mut terms = Vec::new();
    let mut start = 0;
    let mut at = 0;
    // The body of a sum or a limit is one term, but signs inside its bounds are in groups.
    while at <= tokens.len() {
        let binary = at == tokens.len()
            || (tokens[at].is_sign() && at > start && (tokens[at - 1].ends_operand()));
        if binary {
            if start < at {
                terms.push(signed_term(arena, text, &tokens[start..at])?);
            } else if at == tokens.len() {
                return Err(Stop::Syntax("nothing where a term should be"));
            }
            start = at;
        }
        at += 1;
    }
    arena.sum(terms)
}

/// A term with any number of signs before it.
fn signed_term(arena: &mut Arena, text: &[char], mut tokens: &[Tok]) -> Res<Id> {
    let mut negative = false;
    let mut double: Option<bool> = None;
    while let [first, rest @ ..] = tokens
        && first.is_sign()
    {
        match first {
            Tok::Minus => negative = !negative,
            Tok::PlusMinus => double = Some(true),
            Tok::MinusPlus => double = Some(false),
            _ => {}
        }
        tokens = rest;
    }
    let mut cursor = Cursor { arena, text, tokens: tokens.to_vec(), at: 0, base: 0 };
    let (mut id, unit) = cursor.term()?;
    if negative {
        // The mark stays outside: -5% is a percentage.
        id = match *arena.node(id) {
            Node::Percent(x) => {
                let x = arena.negate(x)?;
                arena.add_node(Node::Percent(x))?
            }
            Node::Degree(x) => {
                let x = arena.negate(x)?;
                arena.add_node(Node::Degree(x))?
            }
            _ => arena.negate(id)?,
        };
    }
    if let Some(plus) = double {
        id = arena.add_node(if plus { Node::PlusMinus(id) } else { Node::MinusPlus(id) })?;
    }
    match unit {
        Some(unit) => {
            let unit = arena.intern(&unit);
            arena.add_node(Node::Quantity(id, unit))
        }
        None => Ok(id),
    }
}

/// Replaces `\int ... dx` by one value, the innermost (last) first.
fn integrals(arena: &mut Arena, text: &[char], mut tokens: Vec<Tok>) -> Res<Vec<Tok>> {
    while let Some(at) = tokens.iter().rposition(|t| *t == Tok::Command(Command::Integral)) {
        arena.budget.spend(tokens.len() as u64)?;
        let mut cursor = Cursor { arena, text, tokens: tokens[at + 1..].to_vec(), at: 0, base: 0 };
        let (low, high) = cursor.bounds()?;
        let rest = cursor.tokens[cursor.at..].to_vec();
        // The differential is a `d` before a name.
        let d = |t: &Tok| matches!(t, Tok::Ident { name, .. } if name == "d");
        let place = (0..rest.len().saturating_sub(1)).find(|&i| {
            d(&rest[i]) && matches!(rest[i + 1], Tok::Ident { .. })
        });
        let (body, variable, end) = match place {
            Some(i) => {
                let Tok::Ident { name, .. } = &rest[i + 1] else { return Err(Stop::Syntax("integral")) };
                (&rest[..i], arena.symbol(name)?, i + 2)
            }
            None => (&rest[..], arena.symbol("x")?, rest.len()),
        };
        let body = if body.is_empty() { arena.int(1)? } else { sum(arena, text, body)? };
        let id = calculus::integral(arena, variable, low, high, body)?;
        tokens.truncate(at);
        tokens.push(Tok::Value(id));
        tokens.extend_from_slice(&rest[end..]);
    }
    Ok(tokens)
}

/// A place in a flat sequence of tokens.
struct Cursor<'a, 'b, 't> {
    arena: &'a mut Arena<'b>,
    text: &'t [char],
    tokens: Vec<Tok>,
    at: usize,
    /// The calls that led here, see [`MAX_CHAIN`].
    base: usize,
}

impl Cursor<'_, '_, '_> {
    fn peek(&self) -> Option<&Tok> {
        self.tokens.get(self.at)
    }

    fn next_is(&self, tok: &Tok) -> bool {
        self.peek() == Some(tok)
    }

    fn take(&mut self, tok: &Tok) -> bool {
        let found = self.next_is(tok);
        self.at += usize::from(found);
        found
    }

    /// Factors, multiplied and divided from left to right, then a unit.
    fn term(&mut self) -> Res<(Id, Option<String>)> {
        let mut factors: Vec<Id> = Vec::new();
        let mut unit = None;
        let mut divide = false;
        let mut operator = true;
        let mut modulus = false;
        let mut after_number = false;
        while let Some(tok) = self.peek() {
            match tok {
                Tok::Times | Tok::Slash if operator => return Err(Stop::Syntax("two operators side by side")),
                Tok::Times => {
                    self.at += 1;
                    operator = true;
                    continue;
                }
                Tok::Slash => {
                    self.at += 1;
                    operator = true;
                    divide = true;
                    continue;
                }
                Tok::Mod => {
                    self.at += 1;
                    operator = true;
                    modulus = true;
                    continue;
                }
                Tok::Unit(_) | Tok::Text(_) if !factors.is_empty() && !operator => {
                    unit = Some(self.unit()?);
                    continue;
                }
                Tok::Text(words) if factors.is_empty() => {
                    let words = words.clone();
                    self.at += 1;
                    if self.at < self.tokens.len() {
                        return Err(Stop::Syntax("words among mathematics"));
                    }
                    let name = self.arena.intern(&words);
                    return Ok((self.arena.add_node(Node::Text(name))?, None));
                }
                _ => {}
            }
            if unit.is_some() {
                return Err(Stop::Syntax("mathematics after a unit"));
            }
            let number = matches!(tok, Tok::Num { .. });
            if number && after_number && !operator {
                return Err(Stop::Syntax("two numbers side by side"));
            }
            // A sign here belongs to the factor: `2 \cdot -3`.
            let mut negative = false;
            while let Some(sign) = self.peek()
                && sign.is_sign()
            {
                if !operator {
                    return Err(Stop::Syntax("a sign"));
                }
                negative ^= *sign == Tok::Minus;
                self.at += 1;
            }
            let before = self.at;
            let mut factor = self.factor(self.base)?;
            after_number = number && self.at == before + 1;
            if negative {
                factor = self.arena.negate(factor)?;
            }
            if modulus {
                let left = self.arena.product(std::mem::take(&mut factors))?;
                factors.push(self.arena.function(Func::Mod, vec![left, factor])?);
                modulus = false;
            } else if divide {
                let minus = self.arena.int(-1)?;
                factors.push(self.arena.power(factor, minus)?);
                divide = false;
            } else {
                factors.push(factor);
            }
            operator = false;
        }
        if operator {
            return Err(Stop::Syntax("an operator without its operand"));
        }
        Ok((self.arena.product(factors)?, unit))
    }

    /// `cm^2`, `km/h`, `miles per hour`.
    fn unit(&mut self) -> Res<String> {
        let mut words = String::new();
        while let Some(tok) = self.peek() {
            match tok {
                Tok::Unit(word) | Tok::Text(word) => {
                    if !words.is_empty() && !words.ends_with(['/', '*']) {
                        words.push(' ');
                    }
                    words.push_str(word);
                }
                Tok::Ident { name, .. } if !words.is_empty() => words.push_str(name),
                Tok::Slash => words.push('/'),
                Tok::Times => words.push('*'),
                Tok::Caret => {
                    self.at += 1;
                    let power = match self.peek() {
                        Some(Tok::Num { id, .. } | Tok::Group { id: Some(id), .. }) => self.arena.small_int(*id),
                        _ => None,
                    };
                    match power {
                        Some(n) => words.push_str(&format!("^{n}")),
                        None => return Err(Stop::Syntax("power of a unit")),
                    }
                }
                _ => break,
            }
            self.at += 1;
        }
        Ok(unit::canonical(&words).unwrap_or(words))
    }

    /// An operand with its powers, factorials, percent and degree signs.
    fn factor(&mut self, chain: usize) -> Res<Id> {
        if chain > MAX_CHAIN {
            return Err(Stop::Limit("operators without brackets"));
        }
        self.arena.budget.spend(1)?;
        let mut id = self.primary(chain)?;
        while let Some(tok) = self.peek() {
            match tok {
                Tok::Caret => {
                    self.at += 1;
                    id = self.raise(id, chain)?;
                }
                Tok::Bang => {
                    self.at += 1;
                    let f = if self.take(&Tok::Bang) { Func::DoubleFactorial } else { Func::Factorial };
                    id = self.arena.function(f, vec![id])?;
                }
                Tok::Percent => {
                    self.at += 1;
                    id = self.arena.add_node(Node::Percent(id))?;
                }
                Tok::Degree => {
                    self.at += 1;
                    id = self.arena.add_node(Node::Degree(id))?;
                }
                Tok::Prime => {
                    self.at += 1;
                    let name = self.arena.intern("′");
                    id = self.arena.add_node(Node::App(name, vec![id]))?;
                }
                _ => break,
            }
        }
        Ok(id)
    }

    /// `base^...`: a power, a degree sign or a prime.
    fn raise(&mut self, base: Id, chain: usize) -> Res<Id> {
        match self.peek() {
            Some(Tok::Degree) => {
                self.at += 1;
                return self.arena.add_node(Node::Degree(base));
            }
            Some(Tok::Prime) => return Ok(base),
            _ => {}
        }
        let exponent = self.exponent(chain)?;
        if let Node::Sym(name) = self.arena.node(exponent) {
            match self.arena.name(*name) {
                "°" => return self.arena.add_node(Node::Degree(base)),
                "′" => {
                    let name = self.arena.intern("′");
                    return self.arena.add_node(Node::App(name, vec![base]));
                }
                _ => {}
            }
        }
        self.arena.power(base, exponent)
    }

    /// What stands above: a group, or one operand with its sign. `3^+` is a direction.
    fn exponent(&mut self, chain: usize) -> Res<Id> {
        let mut negative = false;
        let mut signed = None;
        while let Some(sign) = self.peek()
            && sign.is_sign()
        {
            negative ^= *sign == Tok::Minus;
            signed = Some(sign.clone());
            self.at += 1;
        }
        if self.peek().is_none() && signed.is_some() {
            return self.arena.symbol(if negative { "−" } else { "＋" });
        }
        let mut id = self.primary(chain + 1)?;
        // Powers associate to the right.
        if self.take(&Tok::Caret) {
            if chain > MAX_CHAIN {
                return Err(Stop::Limit("operators without brackets"));
            }
            let next = self.exponent(chain + 1)?;
            id = self.arena.power(id, next)?;
        }
        if negative { self.arena.negate(id) } else { Ok(id) }
    }

    fn primary(&mut self, chain: usize) -> Res<Id> {
        if chain > MAX_CHAIN {
            return Err(Stop::Limit("operators without brackets"));
        }
        let Some(tok) = self.peek().cloned() else { return Err(Stop::Syntax("an operand is missing")) };
        self.at += 1;
        match tok {
            Tok::Num { id, digits, .. } => self.number(id, digits),
            Tok::Value(id) => Ok(id),
            Tok::Ident { name, .. } => self.identifier(name),
            // `(101)_2`
            Tok::Group { open: Bracket::Paren, id: Some(id), span, .. }
                if self.next_is(&Tok::Underscore) && self.text[span.0..span.1].iter().all(char::is_ascii_digit) =>
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

    /// A number; with a subscript digits in a base; before a proper fraction the whole part of a mixed number.
    fn number(&mut self, id: Id, digits: Option<String>) -> Res<Id> {
        let Some(digits) = digits else { return Ok(id) };
        if self.take(&Tok::Underscore) {
            let Some(Tok::Num { id: base, .. } | Tok::Group { id: Some(base), .. }) = self.peek().cloned() else {
                return Err(Stop::Syntax("a base"));
            };
            self.at += 1;
            let digits = self.arena.intern(&digits);
            return self.arena.add_node(Node::Based(digits, base));
        }
        if self.next_is(&Tok::Command(Command::Frac)) {
            let back = (self.at, self.tokens.clone());
            self.at += 1;
            if let (Some(n), Some(d)) = (self.literal_argument()?, self.literal_argument()?)
                && RBig::ZERO < n
                && n < d
            {
                let fraction = self.arena.num(n / d)?;
                return self.arena.sum(vec![id, fraction]);
            }
            (self.at, self.tokens) = back;
        }
        // `5 2/3`
        if let [Tok::Num { id: n, digits: Some(_), spaced: true }, Tok::Slash, Tok::Num { id: d, digits: Some(_), .. }, ..] =
            &self.tokens[self.at..]
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

    /// An argument of `\frac` that is a plain integer.
    fn literal_argument(&mut self) -> Res<Option<RBig>> {
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

    /// A name with its subscript and primes, perhaps applied to arguments.
    fn identifier(&mut self, mut name: String) -> Res<Id> {
        if self.take(&Tok::Underscore) {
            name.push('_');
            match self.peek().cloned() {
                Some(Tok::Group { span, .. }) => {
                    let written: String =
                        self.text[span.0..span.1].iter().filter(|c| !c.is_whitespace() && !"{}".contains(**c)).collect();
                    // `h_\theta` and `h_{\theta}` are one name.
                    match written.strip_prefix('\\').and_then(super::vocabulary::greek) {
                        Some(letter) => name.push_str(letter),
                        None => name.push_str(&written),
                    }
                }
                Some(Tok::Num { digits: Some(digits), .. }) => name.push_str(&digits),
                Some(Tok::Ident { name: sub, .. }) => name.push_str(&sub),
                Some(Tok::Value(id)) => name.push_str(&format!("{:?}", self.arena.node(id))),
                Some(Tok::Text(sub) | Tok::Unit(sub)) => name.push_str(&sub),
                _ => return Err(Stop::Syntax("a subscript")),
            }
            self.at += 1;
        }
        while self.take(&Tok::Prime) {
            name.push('′');
        }
        let function = matches!(name.trim_end_matches('′'), "f" | "g" | "h" | "F" | "G" | "H") || name.ends_with('′');
        if function
            && let Some(Tok::Group { open: Bracket::Paren, id: Some(id), spaced: false, .. }) = self.peek()
        {
            let args = arguments(self.arena, *id);
            self.at += 1;
            let name = self.arena.intern(&name);
            return self.arena.add_node(Node::App(name, args));
        }
        // `A(1,2)`: a point by its name.
        if name.len() == 1
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && let Some(tok @ Tok::Group { open: Bracket::Paren, id: Some(id), spaced: false, .. }) = self.peek()
            && matches!(self.arena.node(*id), Node::List(_))
        {
            let tok = tok.clone();
            self.at += 1;
            return self.group(&tok);
        }
        self.arena.symbol(&name)
    }

    /// The value of a bracketed group.
    fn group(&mut self, tok: &Tok) -> Res<Id> {
        let Tok::Group { open, closed_low, closed_high, id, .. } = tok else { return Err(Stop::Syntax("group")) };
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
        match (open, items) {
            (Bracket::Abs | Bracket::Norm, None) if matches!(self.arena.node(id), Node::Matrix(..)) => {
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
            (Bracket::Paren, Some(items)) if items.len() == 2 && high => {
                self.arena.add_node(Node::Interval(items[0], items[1], low, high))
            }
            (Bracket::Square | Bracket::French, Some(items)) if items.len() == 2 => {
                self.arena.add_node(Node::Interval(items[0], items[1], low, high))
            }
            (Bracket::Abs | Bracket::Norm | Bracket::Floor | Bracket::Ceil, Some(_)) => Err(Stop::Syntax("a list in bars")),
            (_, Some(items)) => self.arena.add_node(Node::Tuple(items)),
            (_, None) => Ok(id),
        }
    }

    /// A function with its power (`\sin^2 x`, `\sin^{-1} x`), base and argument.
    fn function(&mut self, mut f: Func, log: Option<LogBase>, chain: usize) -> Res<Id> {
        let mut power = None;
        let mut base = None;
        loop {
            if self.take(&Tok::Caret) {
                let exponent = self.exponent(chain)?;
                match (self.arena.small_int(exponent), inverse(f)) {
                    (Some(-1), Some(arc)) => f = arc,
                    _ => power = Some(exponent),
                }
            } else if self.take(&Tok::Underscore) {
                base = Some(self.primary(chain + 1)?);
            } else {
                break;
            }
        }
        if f == Func::Det
            && let Some(Tok::Group { id: Some(id), .. }) = self.peek()
            && matches!(self.arena.node(*id), Node::Matrix(..))
        {
            let id = *id;
            self.at += 1;
            return matrix::determinant(self.arena, id);
        }
        let args = match self.peek().cloned() {
            Some(Tok::Group { open: Bracket::Paren | Bracket::Brace | Bracket::Square, id: Some(id), .. }) => {
                self.at += 1;
                // `\ln(x)^2` leaves the power to the caller; `\gcd(a, b)` has several arguments.
                arguments(self.arena, id)
            }
            _ => vec![self.bare_argument(chain)?],
        };
        let valued = match (log, base) {
            (Some(_), Some(base)) => self.arena.function(Func::Log, vec![args[0], base])?,
            (Some(log), None) => bare_log(self.arena, log, args[0])?,
            (None, _) => {
                let arity = match f {
                    Func::Binom | Func::Mod => 2,
                    Func::Gcd | Func::Lcm | Func::Min | Func::Max => args.len(),
                    _ => 1,
                };
                if args.len() != arity || args.is_empty() {
                    return Err(Stop::Syntax("number of arguments"));
                }
                let mut args = args;
                if f == Func::Root {
                    args.push(self.arena.int(3)?);
                    self.arena.root(args[0], args[1])?
                } else {
                    self.arena.function(f, args)?
                }
            }
        };
        match power {
            Some(exponent) => self.arena.power(valued, exponent),
            None => Ok(valued),
        }
    }

    /// An argument without brackets: factors up to an operator or another function.
    fn bare_argument(&mut self, chain: usize) -> Res<Id> {
        let mut factors = Vec::new();
        let mut constant = true;
        let mut negative = false;
        while self.next_is(&Tok::Minus) {
            negative = !negative;
            self.at += 1;
        }
        while let Some(tok) = self.peek() {
            let stop = match tok {
                Tok::Func(_) | Tok::Log(_) => !factors.is_empty(),
                Tok::Num { .. } | Tok::Value(_) => false,
                Tok::Ident { .. } | Tok::Command(_) => {
                    constant = false;
                    false
                }
                Tok::Group { .. } => {
                    constant = false;
                    false
                }
                // `\sin \pi/6` means the sine of pi/6; `\sin x/2` half the sine.
                Tok::Slash if constant && !factors.is_empty() => {
                    if let Some(Tok::Num { id, .. }) = self.tokens.get(self.at + 1) {
                        let id = *id;
                        let minus = self.arena.int(-1)?;
                        self.at += 2;
                        factors.push(self.arena.power(id, minus)?);
                        continue;
                    }
                    true
                }
                _ => true,
            };
            if stop {
                break;
            }
            factors.push(self.factor(chain + 1)?);
        }
        if factors.is_empty() {
            return Err(Stop::Syntax("a function without an argument"));
        }
        let id = self.arena.product(factors)?;
        if negative { self.arena.negate(id) } else { Ok(id) }
    }

    /// One argument of a command: a group, or a single digit or operand.
    fn argument(&mut self, chain: usize) -> Res<Id> {
        match self.peek().cloned() {
            Some(Tok::Group { open: Bracket::Brace, id: Some(id), .. }) => {
                self.at += 1;
                Ok(id)
            }
            Some(Tok::Num { digits: Some(digits), spaced, .. }) if digits.len() > 1 => {
                // TeX takes one digit: `\frac12`.
                let (first, rest) = digits.split_at(1);
                let parse = |arena: &mut Arena, s: &str| -> Res<Id> {
                    arena.budget.spend_bits(s.len() * 4)?;
                    let value = dashu_int::IBig::from_str_radix(s, 10).map_err(|_| Stop::Syntax("digits"))?;
                    arena.num(RBig::from(value))
                };
                let id = parse(self.arena, first)?;
                let rest_id = parse(self.arena, rest)?;
                self.tokens[self.at] = Tok::Num { id: rest_id, digits: Some(rest.to_owned()), spaced };
                Ok(id)
            }
            Some(Tok::Command(_) | Tok::Func(_) | Tok::Log(_)) if chain >= MAX_CHAIN => {
                Err(Stop::Syntax("a command as an argument"))
            }
            Some(_) => {
                // One operand, not a mixed number.
                if let Some(Tok::Num { id, .. }) = self.peek() {
                    let id = *id;
                    self.at += 1;
                    return Ok(id);
                }
                self.primary(chain.min(MAX_CHAIN - 1) + 1)
            }
            None => Err(Stop::Syntax("an argument is missing")),
        }
    }

    fn command(&mut self, command: Command, chain: usize) -> Res<Id> {
        match command {
            Command::Frac => {
                if let Some(id) = self.derivative(chain)? {
                    return Ok(id);
                }
                let top = self.argument(chain)?;
                let bottom = self.argument(chain)?;
                self.arena.divide(top, bottom)
            }
            Command::Binom => {
                if let Some(Tok::Group { open: Bracket::Paren, id: Some(id), .. }) = self.peek() {
                    let args = arguments(self.arena, *id);
                    self.at += 1;
                    return match args[..] {
                        [n, k] => self.arena.function(Func::Binom, vec![n, k]),
                        _ => Err(Stop::Syntax("binomial")),
                    };
                }
                let n = self.argument(chain)?;
                let k = self.argument(chain)?;
                self.arena.function(Func::Binom, vec![n, k])
            }
            Command::Sqrt => {
                let index = match self.peek() {
                    Some(Tok::Group { open: Bracket::Square, id: Some(id), .. }) => Some(*id),
                    _ => None,
                };
                if index.is_some() {
                    self.at += 1;
                }
                let id = match self.peek().cloned() {
                    Some(Tok::Group { open: Bracket::Brace | Bracket::Paren, id: Some(id), .. }) => {
                        self.at += 1;
                        id
                    }
                    _ => self.primary(chain + 1)?,
                };
                match index {
                    Some(n) => self.arena.root(id, n),
                    None => self.arena.sqrt(id),
                }
            }
            Command::Decorate(mark) => {
                let id = self.argument(chain)?;
                match self.arena.node(id) {
                    Node::Sym(name) => {
                        let name = format!("{mark} {}", self.arena.name(*name));
                        self.arena.symbol(&name)
                    }
                    _ => Ok(id),
                }
            }
            _ => Err(Stop::Syntax("command")),
        }
    }

    /// `\frac{d}{dx} ...`: the derivative of the rest of the term, or of what stands above.
    fn derivative(&mut self, chain: usize) -> Res<Option<Id>> {
        let [Tok::Group { span: top, .. }, Tok::Group { span: bottom, .. }, ..] = &self.tokens[self.at..] else {
            return Ok(None);
        };
        let clean = |span: &(usize, usize)| -> String {
            let raw: String = self.text[span.0..span.1].iter().filter(|c| !c.is_whitespace()).collect();
            raw.replace("\\mathrm{d}", "d").replace("\\partial", "d").replace("\\,", "")
        };
        let (top, bottom) = (clean(top), clean(bottom));
        let Some(variable) = bottom.strip_prefix('d') else { return Ok(None) };
        let variable = variable.trim_start_matches('\\');
        let name = super::vocabulary::greek(variable).unwrap_or(variable).to_owned();
        if top != "d" || name.chars().count() != 1 {
            return Ok(None);
        }
        self.at += 2;
        let variable = match name.as_str() {
            "e" | "i" => return Err(Stop::Syntax("derivative")),
            _ => self.arena.symbol(&name)?,
        };
        let body = self.rest(chain)?;
        calculus::derivative(self.arena, variable, body).map(Some)
    }

    /// The rest of the term.
    fn rest(&mut self, chain: usize) -> Res<Id> {
        if chain > MAX_CHAIN {
            return Err(Stop::Limit("operators without brackets"));
        }
        self.arena.budget.spend((self.tokens.len() - self.at) as u64)?;
        let tokens = self.tokens[self.at..].to_vec();
        self.at = self.tokens.len();
        let mut cursor = Cursor { arena: self.arena, text: self.text, tokens, at: 0, base: chain + 1 };
        let (id, unit) = cursor.term()?;
        if unit.is_some() { Err(Stop::Syntax("unit")) } else { Ok(id) }
    }

    /// What stands below and above a large operator.
    fn bounds(&mut self) -> Res<(Option<Id>, Option<Id>)> {
        let (mut low, mut high) = (None, None);
        loop {
            let below = match self.peek() {
                Some(Tok::Underscore) => true,
                Some(Tok::Caret) => false,
                _ => return Ok((low, high)),
            };
            self.at += 1;
            let bound = match self.peek().cloned() {
                Some(Tok::Group { open: Bracket::Brace, id, .. }) => {
                    self.at += 1;
                    id
                }
                // Without braces one token, for `\sum^n_k` has two bounds and no subscript.
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

    /// Sums, products and limits: bounds, then the rest of the term.
    fn operator(&mut self, command: Command, chain: usize) -> Res<Id> {
        let (low, high) = self.bounds()?;
        let body = self.rest(chain)?;
        let side = |arena: &Arena, op: RelOp| match low.map(|id| arena.node(id)) {
            Some(Node::Rel(ops, sides)) if ops[..] == [op] => Some((sides[0], sides[1])),
            _ => None,
        };
        match command {
            Command::Limit => {
                let Some((variable, target)) = side(self.arena, RelOp::To) else { return Err(Stop::Syntax("limit")) };
                calculus::limit(self.arena, variable, target, body)
            }
            _ => {
                let Some((variable, from)) = side(self.arena, RelOp::Eq) else { return Err(Stop::Syntax("sum")) };
                let Some(to) = high else { return Err(Stop::Syntax("sum")) };
                calculus::series(self.arena, command == Command::Product, variable, from, to, body)
            }
        }
    }
}

/// The function undone by `f`, for `f^{-1}`.
fn inverse(f: Func) -> Option<Func> {
    use Func::*;
    Some(match f {
        Sin => Asin,
        Cos => Acos,
        Tan => Atan,
        Cot => Acot,
        Sec => Asec,
        Csc => Acsc,
        Sinh => Asinh,
        Cosh => Acosh,
        Tanh => Atanh,
        Coth => Acoth,
        _ => return None,
    })
}
