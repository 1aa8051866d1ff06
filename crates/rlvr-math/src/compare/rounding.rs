//! Decimals: a number written with a decimal point equals every number that rounds to the same
//! `precision` decimals.
//!
//! A value that rounds to zero is compared exactly: 0.0000000001 does not equal 0.

use super::precision::{Test, precision, wide_cost};
use super::verdict::Comparison;
use crate::node::arena::{Arena, Id, Node};
use crate::node::budget::Res;
use crate::number::complex::{Complex, Field};
use crate::number::evaluate::{Point, evaluate};
use crate::number::real::Real;
use crate::number::wide::Wide;
use dashu_base::Abs;
use dashu_int::IBig;
use dashu_ratio::RBig;
use std::collections::HashMap;

/// Compares two constants of which at least one is a decimal. `None` if rounding does not apply.
pub(crate) fn compare(arena: &Arena, test: Test, a: Id, b: Id) -> Res<Option<Comparison>> {
    if let (Some(x), Some(y)) = (arena.exact(a), arena.exact(b))
        && x == y
    {
        return Ok(Some(Comparison::equal("the same decimal")));
    }
    let (Some(x), Some(y)) = (rounded(arena, test, a)?, rounded(arena, test, b)?) else {
        return Ok(None);
    };
    let zero = |parts: &[IBig; 2]| parts.iter().all(|p| *p == IBig::ZERO);
    if zero(&x) || zero(&y) {
        return Ok(match (arena.exact(a), arena.exact(b)) {
            (Some(_), Some(_)) => Some(Comparison::different("different small numbers")),
            _ => None,
        });
    }
    Ok(Some(if x == y {
        Comparison::equal(format!("equal when rounded to {} decimals", test.precision))
    } else {
        Comparison::different(format!(
            "different when rounded to {} decimals",
            test.precision
        ))
    }))
}

/// Returns the real and imaginary part times 10^precision, rounded half away from zero.
fn rounded(arena: &Arena, test: Test, id: Id) -> Res<Option<[IBig; 2]>> {
    let scale = RBig::from(IBig::from(10).pow(test.precision as usize));
    if let Some(value) = arena.exact(id) {
        arena.budget.spend_bits(crate::node::arena::bits(value))?;
        return Ok(Some([round(&(value * &scale)), IBig::ZERO]));
    }
    if matches!(arena.node(id), Node::Infinity) {
        return Ok(None);
    }
    let order = arena.reachable(&[id]);
    let none = HashMap::new();
    let point = Point {
        symbols: &none,
        opaque: &|_| None,
    };
    for complex in [false, true] {
        for step in 0..2 {
            let cx = precision(arena, &order, step);
            let field = Field { cx, complex };
            let values = evaluate::<Wide>(arena, &order, &[id], &point, field, wide_cost(cx))?;
            let Ok(value) = &values[0] else { continue };
            if let Some(parts) = round_ball(&field, value, &scale) {
                return Ok(Some(parts));
            }
        }
    }
    Ok(None)
}

fn round(value: &RBig) -> IBig {
    let half = RBig::from_parts(1.into(), 2u8.into());
    let whole = (value.clone().abs() + half).floor();
    if *value < RBig::ZERO { -whole } else { whole }
}

/// Returns floor(|x| 10^p + 1/2) with the sign of x, if it is the same for the whole ball.
fn round_ball(
    field: &Field<crate::number::wide::Bits>,
    value: &Complex<Wide>,
    scale: &RBig,
) -> Option<[IBig; 2]> {
    let half = Wide::rational(&RBig::from_parts(1.into(), 2u8.into()), field.cx)?;
    let scale = Wide::rational(scale, field.cx)?;
    let part = |x: &Wide| -> Option<IBig> {
        let scaled = x.mul(&scale, field.cx)?.add(&half, field.cx)?;
        let whole = scaled.floor(field.cx)?;
        whole.as_integer().map(IBig::from)
    };
    let im = match &value.im {
        Some(im) => part(im)?,
        None => IBig::ZERO,
    };
    Some([part(&value.re)?, im])
}
