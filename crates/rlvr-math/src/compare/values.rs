//! Compares two expressions: they are equal if they have the same value wherever both have one.
//!
//! 1. The same node is equal. Two literals are compared exactly, decimals after rounding
//!    (`rounding`).
//! 2. Values modulo two primes (`modular`) show that rational functions are equal (with an error
//!    probability below 2^-82) or prove that they are different.
//! 3. Values at random points of the common real domain, in balls of doubles, prove that the
//!    expressions are different if the ball of their difference does not contain zero.
//! 4. In wide balls, a constant is equal if the difference is below 2^-96 at a precision that grows
//!    with its literals, and a function if that holds at two of the twelve points of step 3.
//!    Analytic functions on a connected domain that agree at a random real point are identical with
//!    probability 1. This is a heuristic because the points are dyadic rationals of 20 bits.
//!    Piecewise functions (|x|) are covered by drawing both signs of every variable.
//! 5. Otherwise the verdict is undecided.
//!
//! Constants without a real value, and functions without a common real domain, are compared by
//! complex principal values.

use super::precision::{Test, precision, wide_cost};
use super::rounding;
use super::verdict::Comparison;
use crate::node::arena::{Arena, Id, Node, bits};
use crate::node::budget::Res;
use crate::number::complex::{Complex, Field, Missing, Value};
use crate::number::evaluate::{Point, evaluate};
use crate::number::modular::{self, Formal, mix};
use crate::number::points::Sampler;
use crate::number::real::{Double, Real};
use crate::number::wide::Wide;
use dashu_int::IBig;
use dashu_ratio::RBig;
use std::cmp::Ordering;
use std::collections::HashMap;

/// The number of points drawn before the common domain counts as empty.
const DRAWS: u64 = 64;

/// The number of points at which doubles must agree, and of those that are confirmed in wide balls.
const POINTS: usize = 12;
const WIDE_POINTS: usize = 2;

/// The smallest number of points that count as a domain.
const FEWEST: usize = 3;

/// The exponent of the difference below which wide balls count as equal.
const CLOSE: i64 = -96;

/// The fuel of an elementary function in doubles.
const DOUBLE_COST: u64 = 2;

/// Compares two expressions.
pub(crate) fn compare(arena: &Arena, test: Test, a: Id, b: Id) -> Res<Comparison> {
    let undefined = |id| arena.any(id, |n| matches!(n, Node::Undefined));
    if undefined(a) || undefined(b) {
        return Ok(Comparison::different(
            "an undefined value does not equal anything",
        ));
    }
    if a == b {
        return Ok(Comparison::equal("the same expression"));
    }
    if let (Node::Num(x), Node::Num(y)) = (arena.node(a), arena.node(b)) {
        // Equal literals are the same node.
        return Ok(Comparison::different(format!(
            "{} is not {}",
            short(y),
            short(x)
        )));
    }
    let decimal = |id| arena.any(id, |n| matches!(n, Node::Decimal(_)));
    if (decimal(a) || decimal(b))
        && arena.symbols(&[a, b]).is_empty()
        && let Some(comparison) = rounding::compare(arena, test, a, b)?
    {
        return Ok(comparison);
    }
    if let Some(comparison) = infinite(arena, a, b) {
        return Ok(comparison);
    }
    match modular::compare(arena, a, b, test.primes, test.seed)? {
        Formal::Same => {
            return Ok(Comparison::equal(
                "equal as functions of their symbols, modulo two primes",
            ));
        }
        Formal::Different => return Ok(Comparison::different("different rational functions")),
        Formal::Unclear => {}
    }
    numeric(arena, test, a, b)
}

/// Formats a number for a reason.
fn short(value: &RBig) -> String {
    if bits(value) > 80 {
        format!("a number of {} bits", bits(value))
    } else {
        value.to_string()
    }
}

/// Compares infinity with itself and with everything else.
fn infinite(arena: &Arena, a: Id, b: Id) -> Option<Comparison> {
    match (arena.infinity_sign(a), arena.infinity_sign(b)) {
        (None, None) => None,
        (x, y) if x == y => Some(Comparison::equal("the same infinity")),
        _ => Some(Comparison::different("only one is that infinity")),
    }
}

/// Returns the sign of `a - b` for constants, if ball arithmetic can tell. `Equal` may mean a
/// difference below 2^-96.
pub(crate) fn order(arena: &Arena, a: Id, b: Id) -> Res<Option<Ordering>> {
    if a == b {
        return Ok(Some(Ordering::Equal));
    }
    if let (Some(x), Some(y)) = (arena.exact(a), arena.exact(b)) {
        return Ok(Some(x.cmp(y)));
    }
    if !arena.symbols(&[a, b]).is_empty() {
        return Ok(None);
    }
    let order = arena.reachable(&[a, b]);
    let none = HashMap::new();
    let point = Point {
        symbols: &none,
        opaque: &|_| None,
    };
    let field = Field {
        cx: (),
        complex: false,
    };
    let values = evaluate::<Double>(arena, &order, &[a, b], &point, field, DOUBLE_COST)?;
    if let [Ok(x), Ok(y)] = &values[..]
        && let Ok(difference) = field.add(x, &field.neg(y))
        && let Some(sign) = difference.re.sign()
    {
        return Ok(Some(sign));
    }
    for step in 0..2 {
        let cx = precision(arena, &order, step);
        let field = Field { cx, complex: false };
        let values = evaluate::<Wide>(arena, &order, &[a, b], &point, field, wide_cost(cx))?;
        if let [Ok(x), Ok(y)] = &values[..]
            && let Ok(difference) = field.add(x, &field.neg(y))
        {
            if let Some(sign) = difference.re.sign() {
                return Ok(Some(sign));
            }
            if difference.re.log2_bounds().0 < CLOSE {
                return Ok(Some(Ordering::Equal));
            }
        }
    }
    Ok(None)
}

/// Takes steps 3 to 5 of the module documentation.
fn numeric(arena: &Arena, test: Test, a: Id, b: Id) -> Res<Comparison> {
    let order = arena.reachable(&[a, b]);
    let sampler = Sampler::new(arena, &[a, b], test.seed);
    let residues = modular::residues(arena, &order, test.primes[0], mix(test.seed, 77))?;
    let opaque = |id: Id| -> Option<RBig> {
        let word = residues.values.get(&id).copied().flatten()?;
        Some(RBig::from_parts(
            IBig::from((word % (6 << 16)) as i64 - (3 << 16)),
            (1u32 << 16).into(),
        ))
    };
    // The random value of an unevaluated sum or integral does not prove a difference.
    let stand_ins = order
        .iter()
        .any(|&id| matches!(arena.node(id), Node::Big(..) | Node::Bound(_)));
    let difference = |reason: String| {
        if stand_ins {
            Comparison::undecided("not evaluated: a sum, integral or limit")
        } else {
            Comparison::different(reason)
        }
    };
    let mut fields = vec![false];
    if sampler.is_constant()
        || order
            .iter()
            .any(|&id| matches!(arena.node(id), Node::Imaginary))
    {
        fields.push(true);
    }
    for complex in fields {
        let field = Field { cx: (), complex };
        let mut points: Vec<HashMap<Id, RBig>> = Vec::new();
        let mut unsure = 0;
        let (draws, wanted) = if sampler.is_constant() {
            (1, 1)
        } else {
            (DRAWS, POINTS)
        };
        for draw in 0..draws {
            let symbols = sampler.draw(draw);
            let point = Point {
                symbols: &symbols,
                opaque: &opaque,
            };
            let values = evaluate::<Double>(arena, &order, &[a, b], &point, field, DOUBLE_COST)?;
            match gap(&field, &values) {
                Ok(gap) if is_apart(&gap) => {
                    let at = sampler.describe(arena, &symbols);
                    let values = describe_values(&values);
                    return Ok(difference(if at.is_empty() {
                        values
                    } else {
                        format!("{values} at {at}")
                    }));
                }
                Ok(_) => points.push(symbols),
                Err(Missing::Undefined) => {}
                Err(Missing::Unknown) => {
                    unsure += 1;
                    if unsure <= 8 {
                        points.push(symbols);
                    }
                }
            }
            if points.len() >= wanted {
                break;
            }
        }
        let enough = if sampler.is_constant() { 1 } else { FEWEST };
        if points.len() < enough {
            continue;
        }
        let mut agreed = 0;
        // From the end, where the signs of the points are mixed.
        for symbols in points.iter().rev() {
            let point = Point {
                symbols,
                opaque: &opaque,
            };
            match confirm(arena, &order, a, b, &point, complex)? {
                Some(true) => agreed += 1,
                Some(false) => {
                    let at = sampler.describe(arena, symbols);
                    return Ok(difference(if at.is_empty() {
                        "different numbers".into()
                    } else {
                        format!("differ at {at}")
                    }));
                }
                None => {}
            }
            if agreed >= WIDE_POINTS.min(points.len()) {
                return Ok(Comparison::equal(if sampler.is_constant() {
                    "the same number to more than 28 digits".to_owned()
                } else {
                    format!("the same values at {} random points", points.len())
                }));
            }
        }
        return Ok(Comparison::undecided(
            "the values are too close or too large to compare",
        ));
    }
    Ok(Comparison::undecided(
        "no common domain was found, or a function without a known value occurs",
    ))
}

/// Returns the difference of two values.
fn gap<R: Real>(field: &Field<R::Context>, values: &[Value<R>]) -> Value<R> {
    match values {
        [Err(Missing::Undefined), _] | [_, Err(Missing::Undefined)] => Err(Missing::Undefined),
        [Ok(x), Ok(y)] => field.add(x, &field.neg(y)),
        _ => Err(Missing::Unknown),
    }
}

/// Returns whether a difference is certainly not zero.
fn is_apart<R: Real>(gap: &Complex<R>) -> bool {
    let nonzero = |r: &R| matches!(r.sign(), Some(Ordering::Less | Ordering::Greater));
    nonzero(&gap.re) || gap.im.as_ref().is_some_and(nonzero)
}

fn describe_values<R: Real>(values: &[Value<R>]) -> String {
    match values {
        [Ok(x), Ok(y)] if x.im.is_none() && y.im.is_none() => {
            format!(
                "{:.6} against {:.6}",
                y.re.approximate(),
                x.re.approximate()
            )
        }
        _ => "different values".into(),
    }
}

/// Compares the values at one point in wide balls. `None` if they cannot be told apart.
fn confirm(
    arena: &Arena,
    order: &[Id],
    a: Id,
    b: Id,
    point: &Point,
    complex: bool,
) -> Res<Option<bool>> {
    for step in 0..3 {
        let cx = precision(arena, order, step);
        let field = Field { cx, complex };
        let values = evaluate::<Wide>(arena, order, &[a, b], point, field, wide_cost(cx))?;
        let gap = match gap(&field, &values) {
            Ok(gap) => gap,
            Err(Missing::Undefined) => return Ok(None),
            Err(Missing::Unknown) => continue,
        };
        if is_apart(&gap) {
            return Ok(Some(false));
        }
        let close = |r: &Wide| r.log2_bounds().0 < CLOSE && r.log2_bounds().1 < CLOSE;
        if close(&gap.re) && gap.im.as_ref().is_none_or(close) {
            return Ok(Some(true));
        }
    }
    Ok(None)
}
