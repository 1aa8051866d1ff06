//! Parses functions and commands with their arguments.

use super::cursor::{Cursor, MAX_CHAIN, arguments};
use super::token::{Bracket, Command, LogBase, Tok};
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::{Res, Stop};
use crate::node::fold;
use crate::node::function::Func;
use crate::node::matrix;
use crate::node::operations::Operations;
use dashu_ratio::RBig;

impl Cursor<'_, '_, '_> {
    /// Parses a function with its power (`\sin^2 x`, `\sin^{-1} x`), base and argument.
    pub(crate) fn function(&mut self, mut f: Func, log: Option<LogBase>, chain: usize) -> Res<Id> {
        let mut power = None;
        let mut base = None;
        self.arena.note(Operations::function(f));
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
            Some(Tok::Group {
                open: Bracket::Paren | Bracket::Brace | Bracket::Square | Bracket::Set,
                id: Some(id),
                ..
            }) => {
                self.at += 1;
                // In `\ln(x)^2` the caller parses the power; `\gcd(a, b)` has several arguments.
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
                    return Err(Stop::Syntax("a wrong number of arguments"));
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

    /// Parses an argument without brackets: factors up to an operator or another function.
    pub(crate) fn bare_argument(&mut self, chain: usize) -> Res<Id> {
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
                // `\sin \pi/6` is the sine of pi/6, `\sin x/2` half of the sine.
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
        self.arena.note_quotient(&factors, &[]);
        let id = self.arena.product(factors)?;
        if negative {
            self.arena.negate(id)
        } else {
            Ok(id)
        }
    }

    /// Parses an argument of a command: a group, a single digit or an operand.
    pub(crate) fn argument(&mut self, chain: usize) -> Res<Id> {
        match self.peek().cloned() {
            Some(Tok::Group {
                open: Bracket::Brace,
                id: Some(id),
                ..
            }) => {
                self.at += 1;
                Ok(id)
            }
            Some(Tok::Num {
                digits: Some(digits),
                spaced,
                ..
            }) if digits.len() > 1 => {
                // TeX takes one digit: `\frac12`.
                let (first, rest) = digits.split_at(1);
                let parse = |arena: &mut Arena, s: &str| -> Res<Id> {
                    arena.budget.spend_bits(s.len() * 4)?;
                    let value = dashu_int::IBig::from_str_radix(s, 10)
                        .map_err(|_| Stop::Syntax("invalid digits"))?;
                    arena.num(RBig::from(value))
                };
                let id = parse(self.arena, first)?;
                let rest_id = parse(self.arena, rest)?;
                self.tokens[self.at] = Tok::Num {
                    id: rest_id,
                    digits: Some(rest.to_owned()),
                    spaced,
                };
                Ok(id)
            }
            Some(Tok::Command(_) | Tok::Func(_) | Tok::Log(_)) if chain >= MAX_CHAIN => {
                Err(Stop::Syntax("a command as an argument"))
            }
            Some(_) => {
                // An operand, but not a mixed number.
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

    pub(crate) fn command(&mut self, command: Command, chain: usize) -> Res<Id> {
        match command {
            Command::Frac => {
                if let Some(id) = self.derivative(chain)? {
                    return Ok(id);
                }
                let top = self.argument(chain)?;
                let bottom = self.argument(chain)?;
                self.arena.note_quotient(&[top], &[bottom]);
                self.arena.divide(top, bottom)
            }
            Command::Binom => {
                self.arena.note(Operations::function(Func::Binom));
                if let Some(Tok::Group {
                    open: Bracket::Paren,
                    id: Some(id),
                    ..
                }) = self.peek()
                {
                    let args = arguments(self.arena, *id);
                    self.at += 1;
                    return match args[..] {
                        [n, k] => self.arena.function(Func::Binom, vec![n, k]),
                        _ => Err(Stop::Syntax("a binomial without two arguments")),
                    };
                }
                let n = self.argument(chain)?;
                let k = self.argument(chain)?;
                self.arena.function(Func::Binom, vec![n, k])
            }
            Command::Sqrt => {
                let index = match self.peek() {
                    Some(Tok::Group {
                        open: Bracket::Square,
                        id: Some(id),
                        ..
                    }) => Some(*id),
                    _ => None,
                };
                if index.is_some() {
                    self.at += 1;
                }
                let id = match self.peek().cloned() {
                    Some(Tok::Group {
                        open: Bracket::Brace | Bracket::Paren,
                        id: Some(id),
                        ..
                    }) => {
                        self.at += 1;
                        id
                    }
                    _ => self.primary(chain + 1)?,
                };
                let root = match index {
                    Some(n) => self.arena.root(id, n)?,
                    None => self.arena.sqrt(id)?,
                };
                self.arena.note_root(root);
                Ok(root)
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
            _ => Err(Stop::Syntax("an unexpected command")),
        }
    }
}

/// Returns the inverse function of `f`, for `f^{-1}`.
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

/// Returns the logarithm of `x` where no base is written.
fn bare_log(arena: &mut Arena, base: LogBase, x: Id) -> Res<Id> {
    let ten = arena.int(10)?;
    match base {
        LogBase::Natural => arena.function(Func::Ln, vec![x]),
        LogBase::Ten => arena.function(Func::Log, vec![x, ten]),
        LogBase::Two => {
            let two = arena.int(2)?;
            arena.function(Func::Log, vec![x, two])
        }
        LogBase::Convention => {
            if let Some(value) = arena.exact(x).cloned()
                && let Some(log) = fold::rational_log(arena, &value, &RBig::from(10))?
            {
                return arena.num(log);
            }
            arena.function(Func::Ln, vec![x])
        }
    }
}
