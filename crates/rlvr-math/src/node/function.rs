//! Functions, relations and large operators with a fixed meaning.

/// Functions with a fixed meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Func {
    Sin,
    Cos,
    Tan,
    Cot,
    Sec,
    Csc,
    Asin,
    Acos,
    Atan,
    Acot,
    Asec,
    Acsc,
    Sinh,
    Cosh,
    Tanh,
    Coth,
    Sech,
    Csch,
    Asinh,
    Acosh,
    Atanh,
    Acoth,
    Ln,
    /// `Log(x, base)`.
    Log,
    Abs,
    Floor,
    Ceil,
    Sign,
    Factorial,
    DoubleFactorial,
    /// `Binom(n, k)`.
    Binom,
    Gcd,
    Lcm,
    Min,
    Max,
    /// `Mod(a, m)`, in `0..m`.
    Mod,
    /// `Root(x, n)`: the real root for odd n.
    Root,
    Re,
    Im,
    Conj,
    Arg,
    Norm,
    /// The determinant of an expression that is not a matrix node.
    Det,
}

/// Relations between two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RelOp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Approx,
    In,
    Equiv,
    /// `x \to a`, in the subscript of a limit.
    To,
}

/// Operators that bind a variable, or stay unevaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum BigOp {
    /// `[bound variable, from, to, body]`
    Sum,
    /// `[bound variable, from, to, body]`
    Product,
    /// `[bound variable, from, to, body]`, or without limits `[variable, body]`
    Integral,
    /// `[bound variable, target, direction (-1, 0, 1), body]`
    Limit,
    /// `[variable, body]`: the derivative
    Derivative,
}
