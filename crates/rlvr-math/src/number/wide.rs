//! Balls of any precision, with correctly rounded floats.

use super::real::Real;
use dashu_base::{Abs, Sign};
use dashu_float::round::mode::{HalfEven, Up};
use dashu_float::{Context, FBig, Repr};
use dashu_ratio::RBig;
use std::cmp::Ordering;

type Mid = FBig<HalfEven, 2>;
type Rad = FBig<Up, 2>;

/// The largest exponent. Larger numbers are not relevant to a comparison.
const MAX_EXPONENT: i64 = 1 << 40;

/// The precision of a radius in bits.
const RADIUS_BITS: usize = 32;

/// A midpoint and a radius.
#[derive(Debug, Clone)]
pub(crate) struct Wide {
    mid: Repr<2>,
    rad: Repr<2>,
}

/// The working precision in bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bits(pub usize);

/// Returns the exponent e with |x| < 2^e.
fn top(x: &Repr<2>) -> i64 {
    if *x.significand() == dashu_int::IBig::ZERO {
        i64::MIN
    } else {
        x.exponent() as i64 + x.digits() as i64
    }
}

fn is_zero(x: &Repr<2>) -> bool {
    *x.significand() == dashu_int::IBig::ZERO
}

fn two_to(e: i64) -> Repr<2> {
    Repr::new(1.into(), e as isize)
}

fn up() -> Context<Up> {
    Context::new(RADIUS_BITS)
}

fn rad_add(a: &Repr<2>, b: &Repr<2>) -> Option<Repr<2>> {
    Some(up().add(a, b).ok()?.value().into_repr())
}

fn rad_mul(a: &Repr<2>, b: &Repr<2>) -> Option<Repr<2>> {
    if is_zero(a) || is_zero(b) {
        return Some(Repr::zero());
    }
    Some(up().mul(a, b).ok()?.value().into_repr())
}

fn magnitude(x: &Repr<2>) -> Repr<2> {
    Rad::from_repr(x.clone(), Context::new(0)).abs().into_repr()
}

fn compare(a: &Repr<2>, b: &Repr<2>) -> Ordering {
    Mid::from_repr(a.clone(), Context::new(0)).cmp(&Mid::from_repr(b.clone(), Context::new(0)))
}

impl Wide {
    /// Creates a ball of precision `bits` with a propagated radius, adding the rounding error of
    /// the midpoint.
    fn new(
        mid: dashu_base::Approximation<Mid, dashu_float::round::Rounding>,
        rad: Repr<2>,
        bits: Bits,
    ) -> Option<Self> {
        let exact = matches!(mid, dashu_base::Approximation::Exact(_));
        let mid = mid.value().into_repr();
        if mid.is_infinite() || (!is_zero(&mid) && top(&mid).abs() > MAX_EXPONENT) {
            return None;
        }
        let rad = if exact || is_zero(&mid) {
            rad
        } else {
            rad_add(&rad, &two_to(top(&mid) - bits.0 as i64))?
        };
        if rad.is_infinite() || (!is_zero(&rad) && top(&rad) > MAX_EXPONENT) {
            return None;
        }
        Some(Self { mid, rad })
    }

    /// Returns a lower bound of |x|, if the ball does not contain zero.
    fn low(&self) -> Option<Repr<2>> {
        let low = Context::<dashu_float::round::mode::Zero>::new(RADIUS_BITS)
            .sub(&magnitude(&self.mid), &self.rad)
            .ok()?
            .value()
            .into_repr();
        (!is_zero(&low)
            && low.sign() == Sign::Positive
            && compare(&magnitude(&self.mid), &self.rad).is_gt())
        .then_some(low)
    }

    /// For a number below 2^(-bits - 64), returns a bound of twice its size and of its radius.
    /// Within it, `sin x` and `atan x` are x, and `cos x` and `e^x` are 1.
    fn tiny(&self, bits: Bits) -> Option<Repr<2>> {
        let size = top(&self.mid).max(top(&self.rad));
        (!is_zero(&self.mid) && size < -(bits.0 as i64) - 64).then(|| two_to(size + 3))
    }

    fn context(bits: Bits) -> Context<HalfEven> {
        Context::new(bits.0)
    }
}

impl Real for Wide {
    type Context = Bits;

    fn rational(value: &RBig, cx: Bits) -> Option<Self> {
        let c = Self::context(cx);
        let num = c.convert_int::<2>(value.numerator().clone());
        let den = c.convert_int::<2>(value.denominator().clone().into());
        let num = Self::new(num, Repr::zero(), cx)?;
        let den = Self::new(den, Repr::zero(), cx)?;
        if is_zero(&den.rad) {
            return Self::new(c.div(&num.mid, &den.mid).ok()?, num.rad, cx);
        }
        num.mul(&den.recip(cx)?, cx)
    }

    fn pi(cx: Bits) -> Self {
        let mid = Self::context(cx).pi::<2>(None).value().into_repr();
        Self {
            mid,
            rad: two_to(3 - cx.0 as i64),
        }
    }

    fn add(&self, other: &Self, cx: Bits) -> Option<Self> {
        // If one is negligible, it is added to the radius of the other, and the midpoints need not
        // be aligned.
        let (large, small) = if top(&self.mid) >= top(&other.mid) {
            (self, other)
        } else {
            (other, self)
        };
        let rad = rad_add(&self.rad, &other.rad)?;
        if !is_zero(&small.mid) && top(&large.mid) - top(&small.mid) > cx.0 as i64 + 64 {
            let rad = rad_add(&rad, &two_to(top(&small.mid)))?;
            return Some(Self {
                mid: large.mid.clone(),
                rad,
            });
        }
        Self::new(Self::context(cx).add(&self.mid, &other.mid).ok()?, rad, cx)
    }

    fn mul(&self, other: &Self, cx: Bits) -> Option<Self> {
        let a = rad_mul(&magnitude(&self.mid), &other.rad)?;
        let b = rad_mul(&magnitude(&other.mid), &self.rad)?;
        let c = rad_mul(&self.rad, &other.rad)?;
        let rad = rad_add(&rad_add(&a, &b)?, &c)?;
        Self::new(Self::context(cx).mul(&self.mid, &other.mid).ok()?, rad, cx)
    }

    fn neg(&self) -> Self {
        Self {
            mid: -self.mid.clone(),
            rad: self.rad.clone(),
        }
    }

    fn recip(&self, cx: Bits) -> Option<Self> {
        let low = self.low()?;
        let rad = if is_zero(&self.rad) {
            Repr::zero()
        } else {
            let squared = Context::<dashu_float::round::mode::Zero>::new(RADIUS_BITS)
                .mul(&low, &magnitude(&self.mid))
                .ok()?
                .value()
                .into_repr();
            up().div(&self.rad, &squared).ok()?.value().into_repr()
        };
        Self::new(
            Self::context(cx).div(&Repr::one(), &self.mid).ok()?,
            rad,
            cx,
        )
    }

    fn sqrt(&self, cx: Bits) -> Option<Self> {
        if is_zero(&self.mid) && is_zero(&self.rad) {
            return Some(self.clone());
        }
        if self.low().is_none() || self.mid.sign() == Sign::Negative {
            let high = rad_add(&magnitude(&self.mid), &self.rad)?;
            let half = two_to(top(&high) / 2 + 1);
            return Some(Self {
                mid: half.clone(),
                rad: half,
            });
        }
        let mid = Self::context(cx).sqrt(&self.mid).ok()?;
        let rad = if is_zero(&self.rad) {
            Repr::zero()
        } else {
            // sqrt(m) - sqrt(m - r) <= r / sqrt(m), and `below` is a lower bound of sqrt(m).
            let below = two_to(top(&self.mid).div_euclid(2) - 1);
            up().div(&self.rad, &below).ok()?.value().into_repr()
        };
        Self::new(mid, rad, cx)
    }

    fn exp(&self, cx: Bits) -> Option<Self> {
        if let Some(tiny) = self.tiny(cx) {
            return Some(Self {
                mid: Repr::one(),
                rad: tiny,
            });
        }
        if top(&self.mid) > 36 || top(&self.rad) > 0 {
            return None;
        }
        let mid = Self::context(cx).exp(&self.mid, None).ok()?;
        // e^r - 1 <= 2 r for r <= 1.
        let high = two_to(top(mid.value_ref().repr()) + 1);
        let rad = rad_mul(&high, &self.rad)?;
        Self::new(mid, rad, cx)
    }

    fn ln(&self, cx: Bits) -> Option<Self> {
        let low = self.low()?;
        if self.mid.sign() == Sign::Negative {
            return None;
        }
        let rad = if is_zero(&self.rad) {
            Repr::zero()
        } else {
            up().div(&self.rad, &low).ok()?.value().into_repr()
        };
        Self::new(Self::context(cx).ln(&self.mid, None).ok()?, rad, cx)
    }

    fn sin(&self, cx: Bits) -> Option<Self> {
        if let Some(tiny) = self.tiny(cx) {
            return Some(Self {
                mid: self.mid.clone(),
                rad: tiny,
            });
        }
        if top(&self.mid) > 64 {
            return None;
        }
        Self::new(
            Self::context(cx).sin(&self.mid, None).ok()?,
            self.rad.clone(),
            cx,
        )
    }

    fn cos(&self, cx: Bits) -> Option<Self> {
        if let Some(tiny) = self.tiny(cx) {
            return Some(Self {
                mid: Repr::one(),
                rad: tiny,
            });
        }
        if top(&self.mid) > 64 {
            return None;
        }
        Self::new(
            Self::context(cx).cos(&self.mid, None).ok()?,
            self.rad.clone(),
            cx,
        )
    }

    fn atan(&self, cx: Bits) -> Option<Self> {
        if let Some(tiny) = self.tiny(cx) {
            return Some(Self {
                mid: self.mid.clone(),
                rad: tiny,
            });
        }
        Self::new(
            Self::context(cx).atan(&self.mid, None).ok()?,
            self.rad.clone(),
            cx,
        )
    }

    fn sign(&self) -> Option<Ordering> {
        if is_zero(&self.mid) && is_zero(&self.rad) {
            return Some(Ordering::Equal);
        }
        self.low()?;
        Some(if self.mid.sign() == Sign::Negative {
            Ordering::Less
        } else {
            Ordering::Greater
        })
    }

    fn floor(&self, cx: Bits) -> Option<Self> {
        if top(&self.mid) > 128 || top(&self.rad) > 1 {
            return None;
        }
        if let Some(sign) = self.sign()
            && !is_zero(&self.mid)
            && top(&self.mid) < -64
        {
            let below = if sign.is_lt() {
                Repr::neg_one()
            } else {
                Repr::zero()
            };
            return Some(Self {
                mid: below,
                rad: Repr::zero(),
            });
        }
        let exact = Context::<HalfEven>::new(cx.0 + 512);
        let low = exact.sub(&self.mid, &self.rad).ok()?.value().floor();
        let high = exact.add(&self.mid, &self.rad).ok()?.value().floor();
        (low == high).then(|| Self {
            mid: low.into_repr(),
            rad: Repr::zero(),
        })
    }

    fn as_integer(&self) -> Option<i64> {
        if !is_zero(&self.rad) || !self.mid.is_int() || top(&self.mid) > 62 {
            return None;
        }
        i64::try_from(
            &Mid::from_repr(self.mid.clone(), Context::new(0))
                .to_int()
                .value(),
        )
        .ok()
    }

    fn log2_bounds(&self) -> (i64, i64) {
        (
            top(&self.rad),
            top(&self.mid).max(top(&self.rad)).saturating_add(1),
        )
    }

    fn approximate(&self) -> f64 {
        Mid::from_repr(self.mid.clone(), Context::new(53))
            .to_f64()
            .value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ball(n: i64, d: u64) -> Wide {
        Wide::rational(&RBig::from_parts(n.into(), d.into()), Bits(200)).unwrap()
    }

    #[test]
    fn the_ball_of_an_identity_contains_its_value() {
        let cx = Bits(200);
        for x in [ball(1, 3), ball(-7, 5), ball(12345, 7), ball(1, 1 << 60)] {
            let (s, c) = (x.sin(cx).unwrap(), x.cos(cx).unwrap());
            let one = s
                .mul(&s, cx)
                .unwrap()
                .add(&c.mul(&c, cx).unwrap(), cx)
                .unwrap();
            let gap = one.sub(&ball(1, 1), cx).unwrap();
            assert_eq!(gap.sign(), None, "the ball must contain zero");
            assert!(gap.log2_bounds().0 < -180);
        }
    }

    #[test]
    fn a_difference_below_the_precision_has_no_sign() {
        let cx = Bits(100);
        let tiny = Wide::rational(
            &RBig::from_parts(1.into(), dashu_int::UBig::from(10u8).pow(60)),
            cx,
        )
        .unwrap();
        let sum = ball(1, 3).add(&tiny, cx).unwrap();
        assert_eq!(sum.sub(&ball(1, 3), cx).unwrap().sign(), None);
        let wider = Bits(300);
        let third = Wide::rational(&RBig::from_parts(1.into(), 3u8.into()), wider).unwrap();
        let sum = third.add(&tiny, wider).unwrap();
        assert_eq!(
            sum.sub(&third, wider).unwrap().sign(),
            Some(Ordering::Greater)
        );
    }

    #[test]
    fn a_tiny_number_is_handled_without_its_digits() {
        let cx = Bits(128);
        let tiny = Wide {
            mid: two_to(-1_000_000_000),
            rad: Repr::zero(),
        };
        assert!(
            tiny.exp(cx)
                .unwrap()
                .sub(&ball(1, 1), cx)
                .unwrap()
                .sign()
                .is_none()
        );
        assert_eq!(tiny.floor(cx).unwrap().sign(), Some(Ordering::Equal));
        assert_eq!(tiny.neg().floor(cx).unwrap().as_integer(), Some(-1));
        assert_eq!(
            ball(1, 1).add(&tiny, cx).unwrap().sign(),
            Some(Ordering::Greater)
        );
    }

    #[test]
    fn the_floor_is_known_only_if_the_whole_ball_agrees() {
        let cx = Bits(100);
        assert_eq!(ball(-7, 2).floor(cx).unwrap().as_integer(), Some(-4));
        let unsure = Wide {
            mid: Repr::one(),
            rad: two_to(-50),
        };
        assert!(unsure.floor(cx).is_none());
    }
}
