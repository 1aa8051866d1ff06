//! Functions of literals with an exact and small value: factorials, binomials, gcd, floor, rational
//! logarithms.

use super::arena::bits;
use super::arena::{Arena, Id, Node};
use super::budget::Res;
use super::function::Func;
use dashu_base::{Abs, BitTest, Gcd};
use dashu_int::{IBig, UBig};
use dashu_ratio::RBig;

/// The largest n for which a factorial is computed.
const MAX_FACTORIAL: i64 = 5_000;

/// The largest k for which a binomial of a symbol is expanded to a polynomial.
const MAX_FALLING: i64 = 20;

/// Returns the value of `f(args)`, or `None` if it stays a node.
pub(crate) fn function(arena: &mut Arena, f: Func, args: &[Id]) -> Res<Option<Id>> {
    use Func::*;
    let exact: Option<Vec<RBig>> = args.iter().map(|&a| arena.exact(a).cloned()).collect();
    match f {
        Binom if args.len() == 2 => return binomial(arena, args[0], args[1]),
        Ln if matches!(arena.node(args[0]), Node::Euler) => return arena.int(1).map(Some),
        Ln => {
            // ln(e^x) = x and ln(2^x) = x ln 2 for real powers, which the parser makes of positive
            // literals.
            if let Node::Pow(base, exponent) = *arena.node(args[0])
                && matches!(arena.node(base), Node::Euler)
                && arena.exact(exponent).is_some()
            {
                return Ok(Some(exponent));
            }
        }
        Log if args.len() == 2 => return logarithm(arena, args[0], args[1]),
        _ => {}
    }
    let Some(values) = exact else { return Ok(None) };
    let Some(first) = values.first() else {
        return Ok(None);
    };
    for value in &values {
        arena.budget.spend_bits(bits(value))?;
    }
    let all_integers = values.iter().all(RBig::is_int);
    let integer = |n: IBig| RBig::from(n);
    let value = match f {
        Abs | Norm => first.clone().abs(),
        Floor => integer(first.floor()),
        Ceil => integer(first.ceil()),
        Sign if *first == RBig::ZERO => RBig::ZERO,
        Sign if *first < RBig::ZERO => -RBig::ONE,
        Sign => RBig::ONE,
        Re | Conj => first.clone(),
        Im => RBig::ZERO,
        Min => values.iter().min().cloned().unwrap_or_default(),
        Max => values.iter().max().cloned().unwrap_or_default(),
        Gcd | Lcm if all_integers => {
            let mut total = magnitude(first);
            for value in &values[1..] {
                let next = magnitude(value);
                arena.budget.spend_bits(total.bit_len() + next.bit_len())?;
                if total == UBig::ZERO && next == UBig::ZERO {
                    continue;
                }
                let gcd = (&total).gcd(&next);
                total = if f == Gcd { gcd } else { &total / gcd * next };
            }
            integer(IBig::from(total))
        }
        Mod if values.len() == 2 && all_integers && values[1] != RBig::ZERO => {
            let quotient = (first / &values[1]).floor();
            first - &values[1] * RBig::from(quotient)
        }
        Factorial | DoubleFactorial => return factorial(arena, f, first),
        Ln if *first == RBig::ONE => RBig::ZERO,
        Sin | Tan | Asin | Atan | Sinh | Tanh | Asinh | Atanh if *first == RBig::ZERO => RBig::ZERO,
        Cos | Sec | Cosh | Sech if *first == RBig::ZERO => RBig::ONE,
        _ => return Ok(None),
    };
    arena.num(value).map(Some)
}

fn magnitude(value: &RBig) -> UBig {
    value.numerator().clone().into_parts().1
}

fn factorial(arena: &mut Arena, f: Func, n: &RBig) -> Res<Option<Id>> {
    if !n.is_int() {
        return Ok(None);
    }
    let Ok(n) = i64::try_from(n.numerator()) else {
        return Ok(None);
    };
    if n < 0 {
        return arena.undefined().map(Some);
    }
    if n > MAX_FACTORIAL {
        return Ok(None);
    }
    let step = if f == Func::Factorial { 1 } else { 2 };
    let mut product = UBig::ONE;
    let mut k = n;
    while k > 1 {
        arena.budget.spend(1 + product.bit_len() as u64 / 640)?;
        product *= k as u64;
        k -= step;
    }
    arena.num(RBig::from(IBig::from(product))).map(Some)
}

/// `n (n-1) ... (n-k+1) / k!` for a small literal k and any n.
fn binomial(arena: &mut Arena, n: Id, k: Id) -> Res<Option<Id>> {
    let Some(mut k) = arena.small_int(k) else {
        return Ok(None);
    };
    if let Some(n) = arena.small_int(n)
        && n >= 0
        && k >= 0
    {
        if k > n {
            return arena.int(0).map(Some);
        }
        k = k.min(n - k);
        if k > MAX_FACTORIAL {
            return Ok(None);
        }
        let mut value = UBig::ONE;
        for i in 0..k {
            arena.budget.spend(1 + value.bit_len() as u64 / 320)?;
            value = value * (n - i) as u64 / (i + 1) as u64;
        }
        return arena.num(RBig::from(IBig::from(value))).map(Some);
    }
    if !(0..=MAX_FALLING).contains(&k) {
        return Ok(None);
    }
    let mut factors = Vec::new();
    let mut divisor = RBig::ONE;
    for i in 0..k {
        let shift = arena.int(-i)?;
        factors.push(arena.sum(vec![n, shift])?);
        divisor /= RBig::from(i + 1);
    }
    factors.push(arena.num(divisor)?);
    arena.product(factors).map(Some)
}

/// Returns `log_base(x)`: a number if both are powers of the same integer, otherwise the quotient
/// of natural logarithms.
fn logarithm(arena: &mut Arena, x: Id, base: Id) -> Res<Option<Id>> {
    if matches!(arena.node(base), Node::Euler) {
        return arena.function(Func::Ln, vec![x]).map(Some);
    }
    if let (Some(x), Some(base)) = (arena.exact(x).cloned(), arena.exact(base).cloned())
        && let Some(value) = rational_log(arena, &x, &base)?
    {
        return arena.num(value).map(Some);
    }
    let top = arena.function(Func::Ln, vec![x])?;
    let bottom = arena.function(Func::Ln, vec![base])?;
    arena.divide(top, bottom).map(Some)
}

/// Returns p/q with `x = base^(p/q)` and q up to 8, if it exists.
pub(crate) fn rational_log(arena: &Arena, x: &RBig, base: &RBig) -> Res<Option<RBig>> {
    if *x <= RBig::ZERO
        || *base <= RBig::ZERO
        || *base == RBig::ONE
        || bits(x) > 4096
        || bits(base) > 4096
    {
        return Ok(None);
    }
    if *x == RBig::ONE {
        return Ok(Some(RBig::ZERO));
    }
    for q in 1..=8isize {
        let power = x.pow(q);
        let size = |v: &RBig| v.numerator().bit_len() as f64 - v.denominator().bit_len() as f64;
        // |p| is about log(x^q) / log(base); the neighbors cover the rounding error.
        let scale = if size(base).abs() < 1.0 {
            1.0
        } else {
            size(base)
        };
        let guess = (size(&power) / scale).round() as isize;
        for p in guess - 3..=guess + 3 {
            if bits(base).saturating_mul(p.unsigned_abs()) > 1 << 16 {
                continue;
            }
            arena.budget.spend_bits(bits(base) * p.unsigned_abs())?;
            if base.pow(p) == power {
                return Ok(Some(RBig::from_parts(p.into(), (q as usize).into())));
            }
        }
    }
    Ok(None)
}
