//! Exact fractions with checked arithmetic.

use std::fmt;
use std::ops::Neg;

/// An exact fraction of two `i128`, in lowest terms with a positive denominator.
///
/// The form is unique, so `==` and hashing compare values. Every operation is checked: overflow and
/// division by zero return `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rational {
    numerator: i128,
    denominator: i128,
}

impl Rational {
    /// Returns `numerator / denominator`, or `None` if the denominator is 0 or the reduced form
    /// overflows.
    pub fn new(numerator: i128, denominator: i128) -> Option<Self> {
        let (top, bottom) = (numerator.unsigned_abs(), denominator.unsigned_abs());
        if bottom == 0 {
            return None;
        }
        let divisor = greatest_common_divisor(top, bottom);
        // `i128::MIN` is excluded, so that negation cannot overflow.
        let top = i128::try_from(top / divisor).ok()?;
        let bottom = i128::try_from(bottom / divisor).ok()?;
        let negative = (numerator < 0) != (denominator < 0);
        Some(Self {
            numerator: if negative { -top } else { top },
            denominator: bottom,
        })
    }

    /// Returns the numerator in lowest terms, which has the sign.
    pub fn numerator(self) -> i128 {
        self.numerator
    }

    /// Returns the value if it is an integer.
    pub fn to_integer(self) -> Option<i128> {
        (self.denominator == 1).then_some(self.numerator)
    }

    /// Returns an approximation of the value.
    #[cfg(test)]
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Returns `self + other`, or `None` if it overflows.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        // Both denominators are positive `i128`, and so is their divisor.
        let shared = greatest_common_divisor(
            self.denominator.unsigned_abs(),
            other.denominator.unsigned_abs(),
        ) as i128;
        let left = self.numerator.checked_mul(other.denominator / shared)?;
        let right = other.numerator.checked_mul(self.denominator / shared)?;
        Self::new(
            left.checked_add(right)?,
            (self.denominator / shared).checked_mul(other.denominator)?,
        )
    }

    /// Returns `self - other`, or `None` if it overflows.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.checked_add(-other)
    }

    /// Returns `self * other`, or `None` if it overflows.
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        // Reduced crosswise first, so that intermediate products do not overflow.
        let left = Self::new(self.numerator, other.denominator)?;
        let right = Self::new(other.numerator, self.denominator)?;
        Self::new(
            left.numerator.checked_mul(right.numerator)?,
            left.denominator.checked_mul(right.denominator)?,
        )
    }

    /// Returns `self / other`, or `None` if `other` is 0 or the quotient overflows.
    pub fn checked_div(self, other: Self) -> Option<Self> {
        self.checked_mul(Self::new(other.denominator, other.numerator)?)
    }
}

impl Neg for Rational {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            numerator: -self.numerator,
            denominator: self.denominator,
        }
    }
}

impl From<u64> for Rational {
    fn from(value: u64) -> Self {
        Self {
            numerator: i128::from(value),
            denominator: 1,
        }
    }
}

/// Writes an integer as such (`-9`), any other value as `numerator/denominator` (`3/5`).
impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_integer() {
            Some(integer) => write!(f, "{integer}"),
            None => write!(f, "{}/{}", self.numerator, self.denominator),
        }
    }
}

/// Euclid's algorithm; at least 1 unless both are 0.
fn greatest_common_divisor(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fractions_are_exact() {
        let third = Rational::new(2, 6).unwrap();
        let sum = third.checked_add(third).unwrap();
        assert_eq!(sum.to_string(), "2/3");
        assert_eq!(sum.checked_add(third), Some(Rational::from(1u64)));
        assert_eq!(third.checked_div(Rational::from(0u64)), None);
    }

    #[test]
    fn the_form_is_unique() {
        assert_eq!(Rational::new(-2, -4), Rational::new(1, 2));
        assert_eq!(Rational::new(0, -7), Some(Rational::from(0u64)));
        assert_eq!(Rational::new(3, -6).unwrap().to_string(), "-1/2");
        assert_eq!(Rational::new(1, 0), None);
    }

    #[test]
    fn overflow_is_none() {
        assert_eq!(Rational::new(i128::MIN, 1), None);
        assert_eq!(Rational::new(1, i128::MIN), None);
        let largest = Rational::new(i128::MAX, 1).unwrap();
        assert_eq!(largest.checked_add(Rational::from(1u64)), None);
        assert_eq!((-largest).checked_sub(Rational::from(1u64)), None);
        assert_eq!(largest.checked_mul(Rational::from(2u64)), None);
        let smallest = Rational::new(1, i128::MAX).unwrap();
        assert_eq!(smallest.checked_mul(largest), Some(Rational::from(1u64)));
    }

    proptest! {
        #[test]
        fn subtraction_and_division_are_inverse_operations(
            a in -999i128..999, b in 1i128..999, c in -999i128..999, d in 1i128..999,
        ) {
            let (x, y) = (Rational::new(a, b).unwrap(), Rational::new(c, d).unwrap());
            let sum = x.checked_add(y).unwrap();
            prop_assert_eq!(sum.checked_sub(y), Some(x));
            // The textbook formula, without intermediate reductions.
            prop_assert_eq!(sum.numerator() * b * d, (a * d + c * b) * sum.denominator);
            if c != 0 {
                prop_assert_eq!(x.checked_mul(y).unwrap().checked_div(y), Some(x));
            }
        }
    }
}
