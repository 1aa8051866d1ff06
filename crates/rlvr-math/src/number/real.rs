//! Real numbers as balls: a midpoint, and a radius that bounds every rounding error.
//!
//! A ball that does not contain zero proves that its number is not zero. There are two kinds:
//! `Double`, which is fast, to find differences, and `Wide` (in `wide`), of any precision, to
//! confirm equality.

use dashu_ratio::RBig;
use std::cmp::Ordering;

/// The arithmetic for evaluation. `None` means that the value is not known at this precision: an
/// overflow, or a ball that is too wide.
pub(crate) trait Real: Clone {
    /// The parameters of the arithmetic, such as its precision.
    type Context: Copy;

    fn rational(value: &RBig, cx: Self::Context) -> Option<Self>;
    fn pi(cx: Self::Context) -> Self;
    fn add(&self, other: &Self, cx: Self::Context) -> Option<Self>;
    fn mul(&self, other: &Self, cx: Self::Context) -> Option<Self>;
    fn neg(&self) -> Self;
    fn recip(&self, cx: Self::Context) -> Option<Self>;
    fn sqrt(&self, cx: Self::Context) -> Option<Self>;
    fn exp(&self, cx: Self::Context) -> Option<Self>;
    fn ln(&self, cx: Self::Context) -> Option<Self>;
    fn sin(&self, cx: Self::Context) -> Option<Self>;
    fn cos(&self, cx: Self::Context) -> Option<Self>;
    fn atan(&self, cx: Self::Context) -> Option<Self>;
    /// Returns the sign, if the whole ball has the same one. `Equal` only for an exact zero.
    fn sign(&self) -> Option<Ordering>;
    /// Returns the largest integer below, if it is the same for the whole ball.
    fn floor(&self, cx: Self::Context) -> Option<Self>;
    /// Returns the value, if the ball is a single integer of moderate size.
    fn as_integer(&self) -> Option<i64>;
    /// Returns upper bounds of log2 of the radius and of the magnitude, `i64::MIN` for zero.
    fn log2_bounds(&self) -> (i64, i64);
    /// Returns the approximate midpoint, for messages.
    fn approximate(&self) -> f64;

    fn sub(&self, other: &Self, cx: Self::Context) -> Option<Self> {
        self.add(&other.neg(), cx)
    }
    fn div(&self, other: &Self, cx: Self::Context) -> Option<Self> {
        self.mul(&other.recip(cx)?, cx)
    }
}

/// A ball of `f64`. The radius counts 4 units in the last place for the functions of `libm`, whose
/// errors stay below 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Double {
    mid: f64,
    rad: f64,
}

/// The relative spacing of doubles.
const EPS: f64 = f64::EPSILON;

/// Rounds a radius up.
const UP: f64 = 1.0 + 16.0 * EPS;

impl Double {
    fn new(mid: f64, rad: f64) -> Option<Self> {
        let rad = (rad + mid.abs() * EPS) * UP + f64::MIN_POSITIVE;
        (mid.is_finite() && rad < 1e300).then_some(Self { mid, rad })
    }
}

impl Real for Double {
    type Context = ();

    fn rational(value: &RBig, (): ()) -> Option<Self> {
        let (num, den) = (value.numerator(), value.denominator());
        if let (Ok(n), Ok(d)) = (i32::try_from(num), u32::try_from(den)) {
            let mid = f64::from(n) / f64::from(d);
            return Some(Self {
                mid,
                rad: if d.is_power_of_two() {
                    0.0
                } else {
                    mid.abs() * EPS
                },
            });
        }
        let mid = value.to_f64().value();
        Self::new(mid, mid.abs() * EPS)
    }

    fn pi((): ()) -> Self {
        Self {
            mid: std::f64::consts::PI,
            rad: 4.0 * EPS,
        }
    }

    fn add(&self, other: &Self, (): ()) -> Option<Self> {
        let mid = self.mid + other.mid;
        if self.rad == 0.0
            && other.rad == 0.0
            && mid - self.mid == other.mid
            && mid - other.mid == self.mid
        {
            return Some(Self { mid, rad: 0.0 });
        }
        Self::new(mid, self.rad + other.rad)
    }

    fn mul(&self, other: &Self, (): ()) -> Option<Self> {
        let mid = self.mid * other.mid;
        if self.rad == 0.0
            && other.rad == 0.0
            && self.mid.fract() == 0.0
            && other.mid.fract() == 0.0
            && mid.abs() < 1e15
        {
            return Some(Self { mid, rad: 0.0 });
        }
        Self::new(
            mid,
            self.mid.abs() * other.rad + other.mid.abs() * self.rad + self.rad * other.rad,
        )
    }

    fn neg(&self) -> Self {
        Self {
            mid: -self.mid,
            rad: self.rad,
        }
    }

    fn recip(&self, (): ()) -> Option<Self> {
        let low = self.mid.abs() - self.rad;
        if low <= 0.0 {
            return None;
        }
        Self::new(1.0 / self.mid, self.rad / (self.mid.abs() * low))
    }

    fn sqrt(&self, (): ()) -> Option<Self> {
        if self.mid <= self.rad {
            let top = libm::sqrt((self.mid + self.rad).max(0.0));
            return if top == 0.0 {
                Some(Self { mid: 0.0, rad: 0.0 })
            } else {
                Self::new(top / 2.0, top / 2.0)
            };
        }
        let mid = libm::sqrt(self.mid);
        if self.rad == 0.0 && mid.fract() == 0.0 && mid * mid == self.mid {
            return Some(Self { mid, rad: 0.0 });
        }
        Self::new(mid, self.rad / mid)
    }

    fn exp(&self, (): ()) -> Option<Self> {
        if self.mid.abs() > 600.0 || self.rad > 1.0 {
            return None;
        }
        let mid = libm::exp(self.mid);
        Self::new(mid, mid * (libm::expm1(self.rad) + 4.0 * EPS))
    }

    fn ln(&self, (): ()) -> Option<Self> {
        let low = self.mid - self.rad;
        if low <= 0.0 {
            return None;
        }
        let mid = libm::log(self.mid);
        Self::new(mid, self.rad / low + 4.0 * EPS * mid.abs())
    }

    fn sin(&self, (): ()) -> Option<Self> {
        Self::new(libm::sin(self.mid), self.rad.min(2.0) + 4.0 * EPS)
    }

    fn cos(&self, (): ()) -> Option<Self> {
        Self::new(libm::cos(self.mid), self.rad.min(2.0) + 4.0 * EPS)
    }

    fn atan(&self, (): ()) -> Option<Self> {
        Self::new(libm::atan(self.mid), self.rad.min(4.0) + 4.0 * EPS)
    }

    fn sign(&self) -> Option<Ordering> {
        if self.mid == 0.0 && self.rad == 0.0 {
            Some(Ordering::Equal)
        } else if self.mid > self.rad {
            Some(Ordering::Greater)
        } else if -self.mid > self.rad {
            Some(Ordering::Less)
        } else {
            None
        }
    }

    fn floor(&self, (): ()) -> Option<Self> {
        let low = (self.mid - self.rad).floor();
        (self.mid.abs() < 1e15 && low == (self.mid + self.rad).floor())
            .then_some(Self { mid: low, rad: 0.0 })
    }

    fn as_integer(&self) -> Option<i64> {
        (self.rad == 0.0 && self.mid.fract() == 0.0 && self.mid.abs() < 1e15)
            .then_some(self.mid as i64)
    }

    fn log2_bounds(&self) -> (i64, i64) {
        let log = |x: f64| {
            if x == 0.0 {
                i64::MIN
            } else {
                libm::log2(x).ceil() as i64
            }
        };
        (log(self.rad), log(self.mid.abs() + self.rad))
    }

    fn approximate(&self) -> f64 {
        self.mid
    }
}
