//! The tokens of the parser.

use crate::node::arena::Id;
use crate::node::function::{Func, RelOp};
use crate::node::operations::Operations;

/// Brackets and environments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bracket {
    Paren,
    Square,
    /// An opening `]`: `]0,1[`.
    French,
    /// TeX's `{ }`, or a set written without backslashes.
    Brace,
    /// `\{ \}`
    Set,
    Abs,
    Norm,
    Floor,
    Ceil,
    Angle,
    Matrix,
    Determinant,
    /// `align` and the like, which have no meaning.
    Plain,
}

/// Commands that take arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Frac,
    Sqrt,
    Binom,
    Sum,
    Product,
    Integral,
    Limit,
    /// A decoration that changes a name: `\vec`, `\hat`.
    Decorate(&'static str),
}

/// A token, or a bracketed group that is already parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tok {
    /// A number. `digits` is its text if it consists only of digits.
    Num {
        id: Id,
        digits: Option<String>,
        spaced: bool,
    },
    /// A name.
    Ident {
        name: String,
        spaced: bool,
    },
    /// A value.
    Value(Id),
    /// A bracketed group. `span` is its content in the text. `id` is `None` if it is empty.
    Group {
        open: Bracket,
        closed_low: bool,
        closed_high: bool,
        id: Option<Id>,
        span: (usize, usize),
        spaced: bool,
        operations: Operations,
    },
    Func(Func),
    /// A logarithm, which may have a base in its subscript.
    Log(LogBase),
    Command(Command),
    Text(String),
    Unit(String),
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Slash,
    Caret,
    Underscore,
    Bang,
    Percent,
    Degree,
    Prime,
    Mod,
    Rel(RelOp),
    To,
    Colon,
    Comma,
    Semicolon,
    And,
    Or,
    Mid,
    Union,
    Intersection,
    Without,
    Choose,
    Over,
    Ampersand,
    Row,
    Ellipsis,
}

/// The base of a logarithm without a subscript.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogBase {
    Natural,
    Ten,
    Two,
    /// `\log`: ten if the value is then rational, natural otherwise.
    Convention,
}

impl Tok {
    /// Returns whether an operand may end here, so that a following sign is binary and a following
    /// bar closes.
    pub fn ends_operand(&self) -> bool {
        matches!(
            self,
            Self::Num { .. }
                | Self::Ident { .. }
                | Self::Value(_)
                | Self::Group { .. }
                | Self::Bang
                | Self::Percent
                | Self::Degree
                | Self::Prime
                | Self::Text(_)
                | Self::Unit(_)
                | Self::Ellipsis
        )
    }

    /// Returns whether this is a sign that adds or subtracts.
    pub fn is_sign(&self) -> bool {
        matches!(
            self,
            Self::Plus | Self::Minus | Self::PlusMinus | Self::MinusPlus
        )
    }
}
