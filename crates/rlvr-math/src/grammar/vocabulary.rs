//! The vocabulary: commands, function names, Greek letters, Unicode signs.

use super::token::{Command, LogBase, Tok};
use crate::node::function::{Func, RelOp};

/// The meaning of a known word or command.
#[derive(Debug, Clone)]
pub(crate) enum Word {
    Tok(Tok),
    /// A symbol with its canonical name.
    Symbol(&'static str),
    Constant(Constant),
    /// Layout: spacing, sizes, styles.
    Nothing,
    /// A font or text command: its argument is text or mathematics.
    Font,
    /// A decoration that is ignored: `\overline{AB}` is AB.
    Drop,
}

/// Constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Constant {
    Pi,
    Imaginary,
    Infinity,
    Empty,
    Numbers(char),
    Undefined,
}

fn func(f: Func) -> Word {
    Word::Tok(Tok::Func(f))
}

/// Function names that are the same with and without a backslash.
pub(crate) fn function(name: &str) -> Option<Word> {
    use Func::*;
    Some(match name {
        "sin" => func(Sin),
        "cos" => func(Cos),
        "tan" | "tg" => func(Tan),
        "cot" | "ctg" | "cotg" => func(Cot),
        "sec" => func(Sec),
        "csc" | "cosec" => func(Csc),
        "arcsin" | "asin" => func(Asin),
        "arccos" | "acos" => func(Acos),
        "arctan" | "atan" | "arctg" => func(Atan),
        "arccot" | "acot" => func(Acot),
        "arcsec" | "asec" => func(Asec),
        "arccsc" | "acsc" => func(Acsc),
        "sinh" | "sh" => func(Sinh),
        "cosh" => func(Cosh),
        "tanh" | "th" => func(Tanh),
        "coth" => func(Coth),
        "sech" => func(Sech),
        "csch" => func(Csch),
        "arsinh" | "arcsinh" | "asinh" => func(Asinh),
        "arcosh" | "arccosh" | "acosh" => func(Acosh),
        "artanh" | "arctanh" | "atanh" => func(Atanh),
        "arcoth" | "arccoth" | "acoth" => func(Acoth),
        "ln" => Word::Tok(Tok::Log(LogBase::Natural)),
        "log" => Word::Tok(Tok::Log(LogBase::Convention)),
        "lg" => Word::Tok(Tok::Log(LogBase::Ten)),
        "lb" => Word::Tok(Tok::Log(LogBase::Two)),
        "abs" => func(Abs),
        "floor" => func(Floor),
        "ceil" | "ceiling" => func(Ceil),
        "sgn" | "sign" | "signum" => func(Sign),
        "gcd" | "GCD" | "gcf" | "hcf" => func(Gcd),
        "lcm" | "LCM" => func(Lcm),
        "min" => func(Min),
        "max" => func(Max),
        "Re" => func(Re),
        "Im" => func(Im),
        "arg" => func(Arg),
        "conj" => func(Conj),
        "exp" => Word::Symbol("exp"),
        "sqrt" => Word::Tok(Tok::Command(Command::Sqrt)),
        "cbrt" => func(Root),
        "binom" => Word::Tok(Tok::Command(Command::Binom)),
        "factorial" => func(Factorial),
        "det" => func(Det),
        _ => return None,
    })
}

/// Greek letters by name.
pub(crate) fn greek(name: &str) -> Option<&'static str> {
    const NAMES: [(&str, &str); 34] = [
        ("alpha", "α"),
        ("beta", "β"),
        ("gamma", "γ"),
        ("delta", "δ"),
        ("epsilon", "ε"),
        ("varepsilon", "ε"),
        ("zeta", "ζ"),
        ("eta", "η"),
        ("theta", "θ"),
        ("vartheta", "θ"),
        ("iota", "ι"),
        ("kappa", "κ"),
        ("lambda", "λ"),
        ("mu", "μ"),
        ("nu", "ν"),
        ("xi", "ξ"),
        ("rho", "ρ"),
        ("sigma", "σ"),
        ("tau", "τ"),
        ("upsilon", "υ"),
        ("phi", "φ"),
        ("varphi", "φ"),
        ("chi", "χ"),
        ("psi", "ψ"),
        ("omega", "ω"),
        ("Gamma", "Γ"),
        ("Delta", "Δ"),
        ("Theta", "Θ"),
        ("Lambda", "Λ"),
        ("Sigma", "Σ"),
        ("Phi", "Φ"),
        ("Psi", "Ψ"),
        ("Omega", "Ω"),
        ("ell", "l"),
    ];
    NAMES
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, letter)| *letter)
}

/// Words with a meaning in plain text.
pub(crate) fn plain(name: &str) -> Option<Word> {
    if let Some(word) = function(name) {
        return Some(word);
    }
    Some(match name {
        "pi" | "Pi" => Word::Constant(Constant::Pi),
        "infinity" | "inf" | "oo" | "Infinity" | "infty" => Word::Constant(Constant::Infinity),
        "nan" | "NaN" | "undefined" => Word::Constant(Constant::Undefined),
        "and" => Word::Tok(Tok::And),
        "or" => Word::Tok(Tok::Or),
        "in" => Word::Tok(Tok::Rel(RelOp::In)),
        "union" => Word::Tok(Tok::Union),
        "mod" => Word::Tok(Tok::Mod),
        "percent" | "percentage" | "pct" => Word::Tok(Tok::Percent),
        "degree" | "degrees" | "deg" => Word::Tok(Tok::Degree),
        "theta" | "alpha" | "beta" | "gamma" | "delta" | "lambda" | "sigma" | "omega" | "phi"
        | "psi" | "epsilon" => Word::Symbol(greek(name)?),
        _ => return None,
    })
}

/// LaTeX commands, without the backslash.
pub(crate) fn command(name: &str) -> Option<Word> {
    use Word::*;
    if let Some(letter) = greek(name) {
        return Some(Symbol(letter));
    }
    Some(match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" | "sfrac" | "nicefrac" => {
            Tok(super::token::Tok::Command(Command::Frac))
        }
        "binom" | "dbinom" | "tbinom" => Tok(super::token::Tok::Command(Command::Binom)),
        "sum" => Tok(super::token::Tok::Command(Command::Sum)),
        "prod" => Tok(super::token::Tok::Command(Command::Product)),
        "int" | "intop" => Tok(super::token::Tok::Command(Command::Integral)),
        "lim" => Tok(super::token::Tok::Command(Command::Limit)),
        "vec" | "overrightarrow" => Tok(super::token::Tok::Command(Command::Decorate("vec"))),
        "hat" | "widehat" => Tok(super::token::Tok::Command(Command::Decorate("hat"))),
        "bar" | "overline" | "widebar" => Tok(super::token::Tok::Command(Command::Decorate("bar"))),
        "tilde" | "widetilde" => Tok(super::token::Tok::Command(Command::Decorate("tilde"))),
        "dot" => Tok(super::token::Tok::Command(Command::Decorate("dot"))),
        "cdot" | "times" | "ast" | "bullet" | "star" => Tok(super::token::Tok::Times),
        "div" => Tok(super::token::Tok::Slash),
        "pm" => Tok(super::token::Tok::PlusMinus),
        "mp" => Tok(super::token::Tok::MinusPlus),
        "le" | "leq" | "leqslant" | "leqq" => Tok(super::token::Tok::Rel(RelOp::Le)),
        "ge" | "geq" | "geqslant" | "geqq" => Tok(super::token::Tok::Rel(RelOp::Ge)),
        "lt" => Tok(super::token::Tok::Rel(RelOp::Lt)),
        "gt" => Tok(super::token::Tok::Rel(RelOp::Gt)),
        "ne" | "neq" => Tok(super::token::Tok::Rel(RelOp::Ne)),
        "approx" | "simeq" | "sim" | "cong" | "doteq" => Tok(super::token::Tok::Rel(RelOp::Approx)),
        "equiv" => Tok(super::token::Tok::Rel(RelOp::Equiv)),
        "in" | "isin" => Tok(super::token::Tok::Rel(RelOp::In)),
        "to" | "rightarrow" | "longrightarrow" | "Rightarrow" | "Longrightarrow" | "mapsto" => {
            Tok(super::token::Tok::To)
        }
        "cup" | "bigcup" => Tok(super::token::Tok::Union),
        "cap" | "bigcap" => Tok(super::token::Tok::Intersection),
        "setminus" | "backslash" | "smallsetminus" => Tok(super::token::Tok::Without),
        "mid" | "vert" | "lvert" | "rvert" => Tok(super::token::Tok::Mid),
        "mod" | "bmod" => Tok(super::token::Tok::Mod),
        "circ" | "degree" => Tok(super::token::Tok::Degree),
        "prime" => Tok(super::token::Tok::Prime),
        "land" | "wedge" => Tok(super::token::Tok::And),
        "lor" | "vee" => Tok(super::token::Tok::Or),
        "choose" => Tok(super::token::Tok::Choose),
        "over" => Tok(super::token::Tok::Over),
        "ldots" | "dots" | "cdots" | "dotsc" | "dotsb" | "vdots" | "ddots" => {
            Tok(super::token::Tok::Ellipsis)
        }
        "colon" => Tok(super::token::Tok::Colon),
        "cr" => Tok(super::token::Tok::Row),
        "infty" | "infin" => Constant(self::Constant::Infinity),
        "pi" => Constant(self::Constant::Pi),
        "imath" | "iu" => Constant(self::Constant::Imaginary),
        "emptyset" | "varnothing" | "empty" => Constant(self::Constant::Empty),
        "R" | "reals" | "Reals" => Constant(self::Constant::Numbers('R')),
        "Z" => Constant(self::Constant::Numbers('Z')),
        "N" => Constant(self::Constant::Numbers('N')),
        "Q" => Constant(self::Constant::Numbers('Q')),
        "text" | "textbf" | "textit" | "textrm" | "textnormal" | "textsf" | "texttt" | "textup"
        | "mbox" | "hbox" | "mathrm" | "mathbf" | "mathit" | "mathsf" | "mathtt" | "mathcal"
        | "mathscr" | "mathfrak" | "mathnormal" | "boldsymbol" | "bm" | "bf" | "rm" | "it"
        | "pmb" | "operatorname" | "emph" | "mathbb" | "Bbb" | "unit" => Font,
        "underline" | "underbrace" | "overbrace" | "overarc" | "boxed" | "fbox" | "cancel"
        | "angle" | "triangle" | "measuredangle" | "bigtriangleup" | "odot" | "square" => Drop,
        "displaystyle" | "textstyle" | "scriptstyle" | "limits" | "nolimits" | "quad" | "qquad"
        | "left" | "right" | "big" | "Big" | "bigg" | "Bigg" | "bigl" | "bigr" | "Bigl"
        | "Bigr" | "biggl" | "biggr" | "Biggl" | "Biggr" | "middle" | "hline" | "thinspace"
        | "enspace" | "space" | "nobreak" | "protect" | "hfill" | "newline" | "noindent"
        | "therefore" | "implies" | "smash" | "tiny" | "small" | "large" | "Large"
        | "mathstrut" | "strut" => Nothing,
        _ => return function(name),
    })
}

/// Signs that are not ASCII.
pub(crate) fn unicode(c: char) -> Option<Word> {
    use super::token::Tok as T;
    Some(match c {
        '−' | '–' | '—' | '‐' | '‑' | '﹣' | '－' => Word::Tok(T::Minus),
        '＋' => Word::Tok(T::Plus),
        '×' | '·' | '⋅' | '∙' | '•' | '∗' | '⨯' | '✕' => Word::Tok(T::Times),
        '÷' | '∕' | '⁄' | '／' => Word::Tok(T::Slash),
        '±' => Word::Tok(T::PlusMinus),
        '∓' => Word::Tok(T::MinusPlus),
        '≤' | '⩽' | '≦' => Word::Tok(T::Rel(RelOp::Le)),
        '≥' | '⩾' | '≧' => Word::Tok(T::Rel(RelOp::Ge)),
        '＜' => Word::Tok(T::Rel(RelOp::Lt)),
        '＞' => Word::Tok(T::Rel(RelOp::Gt)),
        '＝' => Word::Tok(T::Rel(RelOp::Eq)),
        '≠' => Word::Tok(T::Rel(RelOp::Ne)),
        '≈' | '≃' | '≅' | '∼' => Word::Tok(T::Rel(RelOp::Approx)),
        '≡' => Word::Tok(T::Rel(RelOp::Equiv)),
        '∈' => Word::Tok(T::Rel(RelOp::In)),
        '→' => Word::Tok(T::To),
        '∪' | '⋃' => Word::Tok(T::Union),
        '∩' => Word::Tok(T::Intersection),
        '∖' => Word::Tok(T::Without),
        '∧' => Word::Tok(T::And),
        '∨' => Word::Tok(T::Or),
        '°' | 'º' | '˚' => Word::Tok(T::Degree),
        '′' | '’' => Word::Tok(T::Prime),
        '…' | '⋯' => Word::Tok(T::Ellipsis),
        '√' => Word::Tok(T::Command(Command::Sqrt)),
        '∑' => Word::Tok(T::Command(Command::Sum)),
        '∏' => Word::Tok(T::Command(Command::Product)),
        '∫' => Word::Tok(T::Command(Command::Integral)),
        '％' => Word::Tok(T::Percent),
        '：' => Word::Tok(T::Colon),
        '，' | '、' => Word::Tok(T::Comma),
        '；' => Word::Tok(T::Semicolon),
        '！' => Word::Tok(T::Bang),
        '∣' => Word::Tok(T::Mid),
        'π' | 'Π' => Word::Constant(Constant::Pi),
        '∞' => Word::Constant(Constant::Infinity),
        '∅' | '⌀' => Word::Constant(Constant::Empty),
        'ℝ' => Word::Constant(Constant::Numbers('R')),
        'ℤ' => Word::Constant(Constant::Numbers('Z')),
        'ℕ' => Word::Constant(Constant::Numbers('N')),
        'ℚ' => Word::Constant(Constant::Numbers('Q')),
        'ℂ' => Word::Constant(Constant::Numbers('C')),
        _ => return None,
    })
}

/// Superscript and subscript digits: `x²`, `x₁`.
pub(crate) fn raised(c: char) -> Option<(bool, char)> {
    const UP: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    const DOWN: &str = "₀₁₂₃₄₅₆₇₈₉";
    let digit = |n: usize| char::from_digit(n as u32, 10).unwrap_or('0');
    if c == '⁻' {
        return Some((true, '-'));
    }
    if let Some(n) = UP.chars().position(|u| u == c) {
        return Some((true, digit(n)));
    }
    DOWN.chars().position(|d| d == c).map(|n| (false, digit(n)))
}

/// Fractions such as ½.
pub(crate) fn vulgar(c: char) -> Option<(i64, i64)> {
    Some(match c {
        '½' => (1, 2),
        '⅓' => (1, 3),
        '⅔' => (2, 3),
        '¼' => (1, 4),
        '¾' => (3, 4),
        '⅕' => (1, 5),
        '⅖' => (2, 5),
        '⅗' => (3, 5),
        '⅘' => (4, 5),
        '⅙' => (1, 6),
        '⅚' => (5, 6),
        '⅛' => (1, 8),
        '⅜' => (3, 8),
        '⅝' => (5, 8),
        '⅞' => (7, 8),
        _ => return None,
    })
}
