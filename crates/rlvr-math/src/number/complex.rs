//! Complex numbers in ball arithmetic, and the functions that evaluation supports, with their
//! principal values.

use super::real::Real;
use dashu_ratio::RBig;
use std::cmp::Ordering;

/// A complex number. Without an imaginary part it is certainly real.
#[derive(Debug, Clone)]
pub(crate) struct Complex<R> {
    pub re: R,
    pub im: Option<R>,
}

/// The reason why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The point is outside of the domain: 1/0, the logarithm of zero, and among the reals the root
    /// of a negative number.
    Undefined,
    /// The value is not known at this precision, or the function is not supported.
    Unknown,
}

pub(crate) type Value<R> = Result<Complex<R>, Missing>;

use Missing::{Undefined, Unknown};

/// The field of an evaluation.
#[derive(Clone, Copy)]
pub(crate) struct Field<C> {
    pub cx: C,
    /// Whether roots and logarithms of negative numbers have a value.
    pub complex: bool,
}

pub(crate) fn real<R>(re: R) -> Complex<R> {
    Complex { re, im: None }
}

/// Converts `None`, a value that is not known at this precision, to an error.
fn known<T>(value: Option<T>) -> Result<T, Missing> {
    value.ok_or(Unknown)
}

impl<C: Copy> Field<C> {
    pub fn rational<R: Real<Context = C>>(&self, value: &RBig) -> Value<R> {
        known(R::rational(value, self.cx)).map(real)
    }

    fn small<R: Real<Context = C>>(&self, value: i64) -> Result<R, Missing> {
        known(R::rational(&RBig::from(value), self.cx))
    }

    pub fn add<R: Real<Context = C>>(&self, a: &Complex<R>, b: &Complex<R>) -> Value<R> {
        let im = match (&a.im, &b.im) {
            (None, None) => None,
            (Some(x), None) | (None, Some(x)) => Some(x.clone()),
            (Some(x), Some(y)) => Some(known(x.add(y, self.cx))?),
        };
        Ok(Complex {
            re: known(a.re.add(&b.re, self.cx))?,
            im,
        })
    }

    pub fn neg<R: Real<Context = C>>(&self, a: &Complex<R>) -> Complex<R> {
        Complex {
            re: a.re.neg(),
            im: a.im.as_ref().map(Real::neg),
        }
    }

    pub fn mul<R: Real<Context = C>>(&self, a: &Complex<R>, b: &Complex<R>) -> Value<R> {
        let m = |x: &R, y: &R| known(x.mul(y, self.cx));
        Ok(match (&a.im, &b.im) {
            (None, None) => real(m(&a.re, &b.re)?),
            (Some(i), None) => Complex {
                re: m(&a.re, &b.re)?,
                im: Some(m(i, &b.re)?),
            },
            (None, Some(i)) => Complex {
                re: m(&a.re, &b.re)?,
                im: Some(m(&a.re, i)?),
            },
            (Some(i), Some(j)) => Complex {
                re: known(m(&a.re, &b.re)?.sub(&m(i, j)?, self.cx))?,
                im: Some(known(m(&a.re, j)?.add(&m(i, &b.re)?, self.cx))?),
            },
        })
    }

    pub fn recip<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        match &a.im {
            None => match a.re.sign() {
                Some(Ordering::Equal) => Err(Undefined),
                _ => Ok(real(known(a.re.recip(self.cx))?)),
            },
            Some(im) => {
                let norm = self.norm_squared(&a.re, im)?;
                let inverse = known(norm.recip(self.cx))?;
                Ok(Complex {
                    re: known(a.re.mul(&inverse, self.cx))?,
                    im: Some(known(im.neg().mul(&inverse, self.cx))?),
                })
            }
        }
    }

    fn norm_squared<R: Real<Context = C>>(&self, re: &R, im: &R) -> Result<R, Missing> {
        let a = known(re.mul(re, self.cx))?;
        let b = known(im.mul(im, self.cx))?;
        known(a.add(&b, self.cx))
    }

    pub fn abs<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        match &a.im {
            None => match a.re.sign() {
                Some(Ordering::Less) => Ok(real(a.re.neg())),
                Some(_) => Ok(a.clone()),
                None => {
                    let square = known(a.re.mul(&a.re, self.cx))?;
                    Ok(real(known(square.sqrt(self.cx))?))
                }
            },
            Some(im) => Ok(real(known(self.norm_squared(&a.re, im)?.sqrt(self.cx))?)),
        }
    }

    /// Returns the argument in (-pi, pi].
    pub fn arg<R: Real<Context = C>>(&self, a: &Complex<R>) -> Result<R, Missing> {
        let pi = R::pi(self.cx);
        let Some(y) = &a.im else {
            return match a.re.sign() {
                Some(Ordering::Greater) => self.small(0),
                Some(Ordering::Less) => Ok(pi),
                Some(Ordering::Equal) => Err(Undefined),
                None => Err(Unknown),
            };
        };
        let half = known(pi.mul(
            &known(R::rational(
                &RBig::from_parts(1.into(), 2u8.into()),
                self.cx,
            ))?,
            self.cx,
        ))?;
        match (a.re.sign(), y.sign()) {
            (Some(Ordering::Greater), _) => known(known(y.div(&a.re, self.cx))?.atan(self.cx)),
            (_, Some(Ordering::Greater)) => {
                let t = known(known(a.re.div(y, self.cx))?.atan(self.cx))?;
                known(half.sub(&t, self.cx))
            }
            (_, Some(Ordering::Less)) => {
                let t = known(known(a.re.div(y, self.cx))?.atan(self.cx))?;
                known(half.neg().sub(&t, self.cx))
            }
            (Some(Ordering::Less), Some(Ordering::Equal)) => Ok(pi),
            (Some(Ordering::Equal), Some(Ordering::Equal)) => Err(Undefined),
            _ => Err(Unknown),
        }
    }

    pub fn exp<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        let size = known(a.re.exp(self.cx))?;
        let Some(im) = &a.im else {
            return Ok(real(size));
        };
        Ok(Complex {
            re: known(size.mul(&known(im.cos(self.cx))?, self.cx))?,
            im: Some(known(size.mul(&known(im.sin(self.cx))?, self.cx))?),
        })
    }

    pub fn ln<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        if a.im.is_none() {
            match a.re.sign() {
                Some(Ordering::Greater) => return Ok(real(known(a.re.ln(self.cx))?)),
                Some(Ordering::Equal) => return Err(Undefined),
                Some(Ordering::Less) if !self.complex => return Err(Undefined),
                Some(Ordering::Less) => {}
                None => return Err(Unknown),
            }
        }
        let size = self.abs(a)?;
        let im = self.arg(a)?;
        Ok(Complex {
            re: known(size.re.ln(self.cx))?,
            im: Some(im),
        })
    }

    pub fn sqrt<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        match (&a.im, a.re.sign()) {
            (None, Some(Ordering::Less)) if self.complex => {
                let zero = self.small(0)?;
                Ok(Complex {
                    re: zero,
                    im: Some(known(a.re.neg().sqrt(self.cx))?),
                })
            }
            (None, Some(Ordering::Less)) => Err(Undefined),
            (None, _) => Ok(real(known(a.re.sqrt(self.cx))?)),
            (Some(_), _) => {
                let half = self.rational(&RBig::from_parts(1.into(), 2u8.into()))?;
                let log = self.ln(a)?;
                self.exp(&self.mul(&half, &log)?)
            }
        }
    }

    /// Returns `a^n` by repeated squaring.
    pub fn powi<R: Real<Context = C>>(&self, a: &Complex<R>, n: i64) -> Value<R> {
        let mut base = a.clone();
        if n < 0 {
            base = self.recip(a)?;
        }
        let mut left = n.unsigned_abs();
        let mut out = real(self.small(1)?);
        while left > 0 {
            if left & 1 == 1 {
                out = self.mul(&out, &base)?;
            }
            left >>= 1;
            if left > 0 {
                base = self.mul(&base, &base)?;
            }
        }
        Ok(out)
    }

    /// Returns the principal value of `a^b`. Among the reals, a negative base needs an integer
    /// exponent.
    pub fn pow<R: Real<Context = C>>(&self, a: &Complex<R>, b: &Complex<R>) -> Value<R> {
        if b.im.is_none()
            && let Some(n) = b.re.as_integer()
        {
            return self.powi(a, n);
        }
        if a.im.is_none() && a.re.sign() == Some(Ordering::Equal) {
            return match (&b.im, b.re.sign()) {
                (None, Some(Ordering::Greater)) => Ok(a.clone()),
                (None, None) => Err(Unknown),
                _ => Err(Undefined),
            };
        }
        let log = self.ln(a)?;
        self.exp(&self.mul(b, &log)?)
    }

    /// Returns the real n-th root for odd n, otherwise `a^(1/n)`.
    pub fn root<R: Real<Context = C>>(&self, a: &Complex<R>, n: &Complex<R>) -> Value<R> {
        let inverse = self.recip(n)?;
        let odd = n.re.as_integer().is_some_and(|n| n % 2 != 0);
        if a.im.is_none() && odd && a.re.sign() == Some(Ordering::Less) {
            let root = self.pow(&self.neg(a), &inverse)?;
            return Ok(self.neg(&root));
        }
        self.pow(a, &inverse)
    }

    /// Returns the sine, or else the cosine.
    pub fn sin_cos<R: Real<Context = C>>(&self, a: &Complex<R>, sine: bool) -> Value<R> {
        if a.im.is_none() {
            let value = if sine {
                a.re.sin(self.cx)
            } else {
                a.re.cos(self.cx)
            };
            return Ok(real(known(value)?));
        }
        // sin(x + iy) = sin x cosh y + i cos x sinh y, and similarly for cos.
        let (x, y) = (real(a.re.clone()), real(a.im.clone().ok_or(Unknown)?));
        let (s, c) = (self.sin_cos(&x, true)?, self.sin_cos(&x, false)?);
        let (sh, ch) = (self.sinh_cosh(&y, true)?, self.sinh_cosh(&y, false)?);
        let (re, im) = if sine {
            (self.mul(&s, &ch)?, self.mul(&c, &sh)?)
        } else {
            (self.mul(&c, &ch)?, self.neg(&self.mul(&s, &sh)?))
        };
        Ok(Complex {
            re: re.re,
            im: Some(im.re),
        })
    }

    /// Returns (e^x - e^-x) / 2, or else (e^x + e^-x) / 2.
    pub fn sinh_cosh<R: Real<Context = C>>(&self, a: &Complex<R>, sinh: bool) -> Value<R> {
        let plus = self.exp(a)?;
        let minus = self.exp(&self.neg(a))?;
        let minus = if sinh { self.neg(&minus) } else { minus };
        let half = self.rational(&RBig::from_parts(1.into(), 2u8.into()))?;
        self.mul(&half, &self.add(&plus, &minus)?)
    }

    /// Returns `atan(x)`, for real x only.
    pub fn atan<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        if a.im.is_some() {
            return Err(Unknown);
        }
        Ok(real(known(a.re.atan(self.cx))?))
    }

    /// Returns `asin(x) = 2 atan(x / (1 + sqrt(1 - x^2)))`, for real x only.
    pub fn asin<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        if a.im.is_some() {
            return Err(Unknown);
        }
        let one = real(self.small(1)?);
        let square = self.mul(a, a)?;
        let rest = self.add(&one, &self.neg(&square))?;
        if rest.re.sign() == Some(Ordering::Less) {
            return Err(if self.complex { Unknown } else { Undefined });
        }
        let root = real(known(rest.re.sqrt(self.cx))?);
        let below = self.add(&one, &root)?;
        let half = self.atan(&self.mul(a, &self.recip(&below)?)?)?;
        self.add(&half, &half)
    }

    /// Returns `asinh(x) = ln(x + sqrt(x^2 + 1))`, or else `acosh(x) = ln(x + sqrt(x^2 - 1))`, for
    /// real x only.
    pub fn area<R: Real<Context = C>>(&self, a: &Complex<R>, sinh: bool) -> Value<R> {
        if a.im.is_some() {
            return Err(Unknown);
        }
        let one = real(self.small(if sinh { 1 } else { -1 })?);
        let inside = self.add(&self.mul(a, a)?, &one)?;
        let negative = a.re.sign() == Some(Ordering::Less);
        if !sinh && (negative || inside.re.sign() == Some(Ordering::Less)) {
            return Err(if self.complex { Unknown } else { Undefined });
        }
        // asinh(-x) = -asinh(x) avoids cancellation.
        let size = if negative { self.neg(a) } else { a.clone() };
        let value = self.ln(&self.add(&size, &self.sqrt(&inside)?)?)?;
        Ok(if negative { self.neg(&value) } else { value })
    }

    /// Returns `atanh(x) = ln((1 + x) / (1 - x)) / 2`.
    pub fn atanh<R: Real<Context = C>>(&self, a: &Complex<R>) -> Value<R> {
        let one = real(self.small(1)?);
        let top = self.add(&one, a)?;
        let bottom = self.add(&one, &self.neg(a))?;
        let half = self.rational(&RBig::from_parts(1.into(), 2u8.into()))?;
        let log = self.ln(&self.mul(&top, &self.recip(&bottom)?)?)?;
        self.mul(&half, &log)
    }

    /// Returns pi.
    pub fn pi<R: Real<Context = C>>(&self) -> Complex<R> {
        real(R::pi(self.cx))
    }
}
