//! Evaluates an expression at a point, in one loop over its nodes.

use super::complex::{Complex, Field, Missing, Value, real};
use super::real::Real;
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::Res;
use crate::node::function::Func;
use dashu_ratio::RBig;
use std::collections::HashMap;

/// The largest n for which a factorial is evaluated at a sampled integer.
const MAX_FACTORIAL: i64 = 2_000;

/// A point at which an expression is evaluated.
pub(crate) struct Point<'a> {
    /// The values of the symbols.
    pub symbols: &'a HashMap<Id, RBig>,
    /// Returns a number for a node without a known value, such as an unknown function or an
    /// unevaluated integral. Equal for equal arguments.
    pub opaque: &'a dyn Fn(Id) -> Option<RBig>,
}

/// Returns the values of `roots`. `cost` is the fuel of one elementary function.
pub(crate) fn evaluate<R: Real>(
    arena: &Arena,
    order: &[Id],
    roots: &[Id],
    point: &Point,
    field: Field<R::Context>,
    cost: u64,
) -> Res<Vec<Value<R>>> {
    let mut values: HashMap<Id, Value<R>> = HashMap::with_capacity(order.len());
    for &id in order {
        arena.budget.spend(1 + cost / 256)?;
        let node = arena.node(id);
        let of = |child: &Id| values.get(child).cloned().unwrap_or(Err(Missing::Unknown));
        let value = match node {
            Node::Num(v) | Node::Decimal(v) => field.rational(v),
            Node::Sym(_) => match point.symbols.get(&id) {
                Some(v) => field.rational(v),
                None => Err(Missing::Unknown),
            },
            Node::Pi => Ok(field.pi()),
            Node::Euler => {
                arena.budget.spend(cost)?;
                field
                    .rational::<R>(&RBig::ONE)
                    .and_then(|one| field.exp(&one))
            }
            Node::Imaginary => match (
                R::rational(&RBig::ZERO, field.cx),
                R::rational(&RBig::ONE, field.cx),
            ) {
                (Some(re), Some(im)) => Ok(Complex { re, im: Some(im) }),
                _ => Err(Missing::Unknown),
            },
            Node::Undefined => Err(Missing::Undefined),
            Node::Add(terms) => fold(terms.iter().map(of), |a, b| field.add(&a, &b)),
            Node::Mul(factors) => fold(factors.iter().map(of), |a, b| field.mul(&a, &b)),
            Node::Pow(base, exponent) => {
                // Integer and half-integer powers need no logarithm.
                let simple = arena
                    .exact(*exponent)
                    .is_some_and(|e| *e.denominator() <= dashu_int::UBig::from(2u8));
                arena
                    .budget
                    .spend(if simple { 1 + cost / 16 } else { 2 * cost })?;
                power(arena, &field, *base, *exponent, of(base), of(exponent))
            }
            Node::Fn(f, args) => {
                arena.budget.spend(2 * cost)?;
                let args: Result<Vec<_>, _> = args.iter().map(of).collect();
                match args {
                    Ok(args) => function(arena, &field, *f, &args)?,
                    Err(missing) => Err(missing),
                }
            }
            Node::Percent(a) => of(a).and_then(|a| {
                let hundredth = field.rational(&RBig::from_parts(1.into(), 100u8.into()))?;
                field.mul(&a, &hundredth)
            }),
            Node::Degree(a) => of(a).and_then(|a| {
                let step = field.rational(&RBig::from_parts(1.into(), 180u8.into()))?;
                field.mul(&field.mul(&a, &step)?, &field.pi())
            }),
            Node::Quantity(a, _) => of(a),
            Node::Ratio(parts) if parts.len() == 2 => {
                of(&parts[0]).and_then(|a| field.mul(&a, &field.recip(&of(&parts[1])?)?))
            }
            Node::App(..) | Node::Big(..) | Node::Bound(_) => match (point.opaque)(id) {
                Some(v) => field.rational(&v),
                None => Err(Missing::Unknown),
            },
            _ => Err(Missing::Unknown),
        };
        values.insert(id, value);
    }
    Ok(roots
        .iter()
        .map(|root| values.get(root).cloned().unwrap_or(Err(Missing::Unknown)))
        .collect())
}

/// Folds from the left. `Undefined` takes precedence over `Unknown`, because it decides that the
/// point is outside of the domain.
fn fold<R: Real>(
    values: impl Iterator<Item = Value<R>>,
    mut join: impl FnMut(Complex<R>, Complex<R>) -> Value<R>,
) -> Value<R> {
    let mut total: Option<Value<R>> = None;
    for value in values {
        total = Some(match (total, value) {
            (_, Err(Missing::Undefined)) => return Err(Missing::Undefined),
            (None, value) => value,
            (Some(Ok(a)), Ok(b)) => join(a, b),
            (Some(Err(missing)), _) | (_, Err(missing)) => Err(missing),
        });
    }
    total.unwrap_or(Err(Missing::Unknown))
}

fn power<R: Real>(
    arena: &Arena,
    field: &Field<R::Context>,
    base: Id,
    exponent: Id,
    a: Value<R>,
    b: Value<R>,
) -> Value<R> {
    if let Node::Num(e) | Node::Decimal(e) = arena.node(exponent) {
        let a = a?;
        if e.is_int() {
            return match i64::try_from(e.numerator()) {
                Ok(n) if n.unsigned_abs() < 1 << 40 => field.powi(&a, n),
                _ => Err(Missing::Unknown),
            };
        }
        if *e == RBig::from_parts(1.into(), 2u8.into()) {
            return field.sqrt(&a);
        }
        // x^(3/2) = sqrt(x)^3 needs no logarithm, and allows a ball that touches zero.
        if *e.denominator() == dashu_int::UBig::from(2u8) {
            let root = field.sqrt(&a)?;
            return match i64::try_from(e.numerator()) {
                Ok(n) => field.powi(&root, n),
                Err(_) => Err(Missing::Unknown),
            };
        }
        return field.pow(&a, &b?);
    }
    if matches!(arena.node(base), Node::Euler) {
        return field.exp(&b?);
    }
    field.pow(&a?, &b?)
}

fn function<R: Real>(
    arena: &Arena,
    field: &Field<R::Context>,
    f: Func,
    args: &[Complex<R>],
) -> Res<Value<R>> {
    use Func::*;
    let Some(x) = args.first() else {
        return Ok(Err(Missing::Unknown));
    };
    if matches!(f, Factorial | DoubleFactorial | Binom | Gcd | Lcm) {
        return combinatorial(arena, field, f, args);
    }
    Ok((|| {
        let one = || field.rational::<R>(&RBig::ONE);
        let quotient = |a: Value<R>, b: Value<R>| field.mul(&a?, &field.recip(&b?)?);
        let only_real = |x: &Complex<R>| {
            if x.im.is_some() {
                Err(Missing::Unknown)
            } else {
                Ok(())
            }
        };
        match f {
            Sin => field.sin_cos(x, true),
            Cos => field.sin_cos(x, false),
            Tan => quotient(field.sin_cos(x, true), field.sin_cos(x, false)),
            Cot => quotient(field.sin_cos(x, false), field.sin_cos(x, true)),
            Sec => quotient(one(), field.sin_cos(x, false)),
            Csc => quotient(one(), field.sin_cos(x, true)),
            Sinh => field.sinh_cosh(x, true),
            Cosh => field.sinh_cosh(x, false),
            Tanh => quotient(field.sinh_cosh(x, true), field.sinh_cosh(x, false)),
            Coth => quotient(field.sinh_cosh(x, false), field.sinh_cosh(x, true)),
            Sech => quotient(one(), field.sinh_cosh(x, false)),
            Csch => quotient(one(), field.sinh_cosh(x, true)),
            Asin => field.asin(x),
            Acos | Acsc | Asec => {
                let x = if f == Acos {
                    x.clone()
                } else {
                    field.recip(x)?
                };
                let sine = field.asin(&x)?;
                if f == Acsc {
                    return Ok(sine);
                }
                complement(field, &sine)
            }
            Atan => field.atan(x),
            Acot => complement(field, &field.atan(x)?),
            Asinh => field.area(x, true),
            Acosh => field.area(x, false),
            Atanh => field.atanh(x),
            Acoth => field.atanh(&field.recip(x)?),
            Ln => field.ln(x),
            Log => quotient(field.ln(x), field.ln(&args[1])),
            Root => field.root(x, &args[1]),
            Abs | Norm => field.abs(x),
            Re => Ok(real(x.re.clone())),
            Im => match &x.im {
                Some(im) => Ok(real(im.clone())),
                None => field.rational(&RBig::ZERO),
            },
            Conj => Ok(Complex {
                re: x.re.clone(),
                im: x.im.as_ref().map(Real::neg),
            }),
            Arg => field.arg(x).map(real),
            Floor => {
                only_real(x)?;
                x.re.floor(field.cx).map(real).ok_or(Missing::Unknown)
            }
            Ceil => {
                only_real(x)?;
                let low = x.re.neg().floor(field.cx).ok_or(Missing::Unknown)?;
                Ok(real(low.neg()))
            }
            Sign => {
                only_real(x)?;
                let sign = x.re.sign().ok_or(Missing::Unknown)?;
                field.rational(&RBig::from(sign as i8))
            }
            Min | Max => {
                let mut best = x.clone();
                for other in &args[1..] {
                    only_real(other)?;
                    let difference = field.add(other, &field.neg(&best))?;
                    let sign = difference.re.sign().ok_or(Missing::Unknown)?;
                    if (f == Max) == sign.is_gt() && sign.is_ne() {
                        best = other.clone();
                    }
                }
                Ok(best)
            }
            Mod => {
                let q = field.mul(x, &field.recip(&args[1])?)?;
                only_real(&q)?;
                let whole = real(q.re.floor(field.cx).ok_or(Missing::Unknown)?);
                field.add(x, &field.neg(&field.mul(&args[1], &whole)?))
            }
            Factorial | DoubleFactorial | Binom | Gcd | Lcm | Det => Err(Missing::Unknown),
        }
    })())
}

/// Returns pi/2 - x.
fn complement<R: Real>(field: &Field<R::Context>, x: &Complex<R>) -> Value<R> {
    let half = field.rational(&RBig::from_parts(1.into(), 2u8.into()))?;
    field.add(&field.mul(&half, &field.pi())?, &field.neg(x))
}

/// Evaluates functions of integers.
fn combinatorial<R: Real>(
    arena: &Arena,
    field: &Field<R::Context>,
    f: Func,
    args: &[Complex<R>],
) -> Res<Value<R>> {
    let mut integers = Vec::with_capacity(args.len());
    for arg in args {
        match (arg.im.is_none(), arg.re.as_integer()) {
            (true, Some(n)) => integers.push(n),
            _ => return Ok(Err(Missing::Unknown)),
        }
    }
    let product = |from: i64, to: i64, step: i64| -> Res<Value<R>> {
        let mut out = field.rational::<R>(&RBig::ONE);
        let mut k = to;
        while k >= from.max(1) {
            arena.budget.spend(2)?;
            out = out.and_then(|out| field.mul(&out, &field.rational(&RBig::from(k))?));
            k -= step;
        }
        Ok(out)
    };
    let n = integers[0];
    match f {
        Func::Factorial | Func::DoubleFactorial if n < 0 => Ok(Err(Missing::Undefined)),
        Func::Factorial | Func::DoubleFactorial if n > MAX_FACTORIAL => Ok(Err(Missing::Unknown)),
        Func::Factorial => product(1, n, 1),
        Func::DoubleFactorial => product(1, n, 2),
        Func::Binom if integers.len() == 2 => {
            let k = integers[1];
            if !(0..=MAX_FACTORIAL).contains(&n) {
                return Ok(Err(Missing::Unknown));
            }
            if k < 0 || k > n {
                return Ok(field.rational(&RBig::ZERO));
            }
            let top = product(n - k + 1, n, 1)?;
            let bottom = product(1, k, 1)?;
            Ok(top.and_then(|top| field.mul(&top, &field.recip(&bottom?)?)))
        }
        Func::Gcd | Func::Lcm => {
            let mut total = i128::from(n).abs();
            for &next in &integers[1..] {
                let (mut a, mut b) = (total, i128::from(next).abs());
                while b > 0 {
                    arena.budget.spend(1)?;
                    (a, b) = (b, a % b);
                }
                total = if f == Func::Gcd || a == 0 {
                    a
                } else {
                    match (total / a).checked_mul(i128::from(next).abs()) {
                        Some(lcm) => lcm,
                        None => return Ok(Err(Missing::Unknown)),
                    }
                };
            }
            Ok(field.rational(&RBig::from(dashu_int::IBig::from(total))))
        }
        _ => Ok(Err(Missing::Unknown)),
    }
}
