//! Parses sums, products, powers and integrals.

use super::cursor::{Cursor, MAX_CHAIN};
use super::token::{Command, Tok};
use super::unit;
use crate::calculus::rules;
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::function::{BigOp, Func};
use crate::node::operations::Operations;
use dashu_base::Abs;
use dashu_ratio::RBig;

/// Parses terms with signs between them.
pub(crate) fn sum(arena: &mut Arena, text: &[char], tokens: &[Tok]) -> Res<Id> {
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
                return Err(Stop::Syntax("a term is missing"));
            }
            start = at;
        }
        at += 1;
    }
    // `\mathbb{R} - \{1\}`: a set difference.
    if let [whole, negative] = terms[..]
        && matches!(arena.node(whole), Node::Numbers(_) | Node::Interval(..))
        && let Node::Mul(factors) = arena.node(negative)
        && let Some(&part) = factors
            .iter()
            .find(|f| matches!(arena.node(**f), Node::Set(_) | Node::Interval(..)))
    {
        return arena.add_node(Node::Without(whole, part));
    }
    arena.note_sum(&terms);
    arena.sum(terms)
}

/// Parses a term with any number of signs before it.
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
    let mut cursor = Cursor {
        arena,
        text,
        tokens: tokens.to_vec(),
        at: 0,
        base: 0,
    };
    let (mut id, unit) = cursor.term()?;
    if negative {
        // The percent sign stays outside: -5% is a percentage.
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
        id = arena.add_node(if plus {
            Node::PlusMinus(id)
        } else {
            Node::MinusPlus(id)
        })?;
    }
    match unit {
        Some(unit) => {
            let unit = arena.intern(&unit);
            arena.add_node(Node::Quantity(id, unit))
        }
        None => Ok(id),
    }
}

impl Cursor<'_, '_, '_> {
    /// Parses factors, multiplied and divided from left to right, then a unit.
    pub(crate) fn term(&mut self) -> Res<(Id, Option<String>)> {
        let mut factors: Vec<Id> = Vec::new();
        // The factors as written, before and after the slashes.
        let (mut above, mut below): (Vec<Id>, Vec<Id>) = (Vec::new(), Vec::new());
        let mut powers_of_ten = 0;
        let mut unit = None;
        let mut divide = false;
        let mut operator = true;
        let mut modulus = false;
        let mut after_number = false;
        while let Some(tok) = self.peek() {
            match tok {
                Tok::Times | Tok::Slash if operator => {
                    return Err(Stop::Syntax("two operators side by side"));
                }
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
            // A sign belongs to the factor: `2 \cdot -3`.
            let mut negative = false;
            while let Some(sign) = self.peek()
                && sign.is_sign()
            {
                if !operator {
                    return Err(Stop::Syntax("a misplaced sign"));
                }
                negative ^= *sign == Tok::Minus;
                self.at += 1;
            }
            let before = self.at;
            let noted = self.arena.operations;
            let mut factor = self.factor(self.base)?;
            after_number = number && self.at == before + 1;
            if self.is_power_of_ten(before) {
                self.arena.operations = noted;
                powers_of_ten += 1;
            }
            if negative {
                factor = self.arena.negate(factor)?;
            }
            if modulus {
                self.arena.note(Operations::function(Func::Mod));
                let left = self.arena.product(std::mem::take(&mut factors))?;
                factors.push(self.arena.function(Func::Mod, vec![left, factor])?);
                modulus = false;
            } else if divide {
                let minus = self.arena.int(-1)?;
                factors.push(self.arena.power(factor, minus)?);
                below.push(factor);
                divide = false;
            } else {
                factors.push(factor);
                above.push(factor);
            }
            operator = false;
        }
        if operator {
            return Err(Stop::Syntax("an operator without its operand"));
        }
        if powers_of_ten > 0 && !(powers_of_ten == 1 && self.is_scientific(&above, &below)) {
            self.arena.note(Operations::POWER);
            self.arena.note_quotient(&above, &below);
        } else if powers_of_ten == 0 {
            self.arena.note_quotient(&above, &below);
        }
        Ok((self.arena.product(factors)?, unit))
    }

    /// Returns whether the tokens from `start` to here are `10^n`.
    fn is_power_of_ten(&self, start: usize) -> bool {
        match &self.tokens[start..self.at] {
            [
                Tok::Num {
                    digits: Some(digits),
                    ..
                },
                Tok::Caret,
                exponent @ ..,
            ] => {
                digits == "10"
                    && exponent.iter().all(|tok| match tok {
                        Tok::Minus => true,
                        Tok::Num { digits, .. } => digits.is_some(),
                        Tok::Group {
                            id: Some(id),
                            operations,
                            ..
                        } => {
                            self.arena.small_int(*id).is_some()
                                && *operations == Operations::default()
                        }
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    /// Returns whether the factors are a number in scientific notation: `1.5 \times 10^3`.
    fn is_scientific(&self, above: &[Id], below: &[Id]) -> bool {
        let [mantissa, power] = above else {
            return false;
        };
        let (Some(mantissa), Some(power)) = (self.arena.exact(*mantissa), self.arena.exact(*power))
        else {
            return false;
        };
        let size = mantissa.clone().abs();
        let ten = RBig::from(10);
        below.is_empty() && RBig::ONE <= size && size < ten && *power != RBig::ONE
    }

    /// Parses a unit: `cm^2`, `km/h`, `miles per hour`.
    pub(crate) fn unit(&mut self) -> Res<String> {
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
                        Some(Tok::Num { id, .. } | Tok::Group { id: Some(id), .. }) => {
                            self.arena.small_int(*id)
                        }
                        _ => None,
                    };
                    match power {
                        Some(n) => words.push_str(&format!("^{n}")),
                        None => return Err(Stop::Syntax("an invalid power of a unit")),
                    }
                }
                _ => break,
            }
            self.at += 1;
        }
        Ok(unit::canonical(&words).unwrap_or(words))
    }

    /// Parses an operand with its powers, factorials, percent and degree signs.
    pub(crate) fn factor(&mut self, chain: usize) -> Res<Id> {
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
                    // `n!!` is the double factorial; any other number of marks are nested
                    // factorials.
                    let marks = self.tokens[self.at..]
                        .iter()
                        .take_while(|t| **t == Tok::Bang)
                        .count();
                    self.at += if marks == 2 { 2 } else { 1 };
                    let f = if marks == 2 {
                        Func::DoubleFactorial
                    } else {
                        Func::Factorial
                    };
                    self.arena.note(Operations::function(f));
                    if marks > 2 {
                        for _ in 1..marks {
                            self.at += 1;
                            id = self.arena.function(f, vec![id])?;
                        }
                    }
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
                // `\overline{x}_n`
                Tok::Underscore if matches!(self.arena.node(id), Node::Sym(_)) => {
                    let Node::Sym(name) = *self.arena.node(id) else {
                        break;
                    };
                    let name = self.arena.name(name).to_owned();
                    id = self.identifier(name)?;
                }
                _ => break,
            }
        }
        Ok(id)
    }

    /// Parses the part after `base^`: a power, a degree sign or a prime.
    pub(crate) fn raise(&mut self, base: Id, chain: usize) -> Res<Id> {
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
        let id = self.arena.power(base, exponent)?;
        self.arena.note_power(base, exponent, id);
        Ok(id)
    }

    /// Parses an exponent: a group, or one operand with its sign. `3^+` is a direction.
    pub(crate) fn exponent(&mut self, chain: usize) -> Res<Id> {
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
        // Powers are right-associative.
        if self.take(&Tok::Caret) {
            if chain > MAX_CHAIN {
                return Err(Stop::Limit("operators without brackets"));
            }
            let next = self.exponent(chain + 1)?;
            let base = id;
            id = self.arena.power(base, next)?;
            self.arena.note_power(base, next, id);
        }
        if negative {
            self.arena.negate(id)
        } else {
            Ok(id)
        }
    }
}

/// Replaces each `\int ... dx` by its value, the innermost (last) first.
pub(crate) fn integrals(arena: &mut Arena, text: &[char], mut tokens: Vec<Tok>) -> Res<Vec<Tok>> {
    while let Some(at) = tokens
        .iter()
        .rposition(|t| *t == Tok::Command(Command::Integral))
    {
        arena.budget.spend(tokens.len() as u64)?;
        arena.note(Operations::big(BigOp::Integral));
        let mut cursor = Cursor {
            arena,
            text,
            tokens: tokens[at + 1..].to_vec(),
            at: 0,
            base: 0,
        };
        let (low, high) = cursor.bounds()?;
        let rest = cursor.tokens[cursor.at..].to_vec();
        // The differential is a `d` before a name.
        let d = |t: &Tok| matches!(t, Tok::Ident { name, .. } if name == "d");
        let place = (0..rest.len().saturating_sub(1))
            .find(|&i| d(&rest[i]) && matches!(rest[i + 1], Tok::Ident { .. }));
        let (body, variable, end) = match place {
            Some(i) => {
                let Tok::Ident { name, .. } = &rest[i + 1] else {
                    return Err(Stop::Syntax("an integral without its variable"));
                };
                (&rest[..i], arena.symbol(name)?, i + 2)
            }
            None => (&rest[..], arena.symbol("x")?, rest.len()),
        };
        let mut variable = variable;
        let mut body = if body.is_empty() {
            arena.int(1)?
        } else {
            sum(arena, text, body)?
        };
        // `\int \frac{dz}{z}`: the differential is a factor of the numerator.
        if place.is_none()
            && let Some(name) = inner_differential(arena, text, &rest)?
        {
            variable = arena.symbol(&name)?;
            let d = arena.symbol("d")?;
            let minus = arena.int(-1)?;
            let differential = arena.product(vec![d, variable])?;
            let inverse = arena.power(differential, minus)?;
            body = arena.product(vec![body, d, inverse])?;
            body = arena.divide(body, d)?;
        }
        let id = rules::integral(arena, variable, low, high, body)?;
        tokens.truncate(at);
        tokens.push(Tok::Value(id));
        tokens.extend_from_slice(&rest[end..]);
    }
    Ok(tokens)
}

/// Returns the name after a `d` inside of the groups of an integrand.
fn inner_differential(arena: &Arena, text: &[char], tokens: &[Tok]) -> Res<Option<String>> {
    for tok in tokens {
        let Tok::Group { span, .. } = tok else {
            continue;
        };
        let inner = &text[span.0..span.1];
        arena.budget.spend(inner.len() as u64 / 4)?;
        for (place, _) in inner.iter().enumerate().filter(|(_, c)| **c == 'd') {
            if place > 0 && inner[place - 1].is_ascii_alphabetic() {
                continue;
            }
            let after: String = inner[place + 1..]
                .iter()
                .skip_while(|c| **c == ' ')
                .take_while(|c| c.is_ascii_alphabetic() || **c == '\\')
                .collect();
            let name = after
                .strip_prefix('\\')
                .and_then(super::vocabulary::greek)
                .unwrap_or(&after);
            if name.chars().count() == 1 {
                return Ok(Some(name.to_owned()));
            }
        }
    }
    Ok(None)
}
