//! Loops that the compiler vectorises, and the reductions that the kernels share.
//!
//! [`vectorised`] compiles a closure once for each instruction set and chooses the best version at
//! run time. Reductions keep [`LANES`] partial sums, whatever the width of the registers, and use
//! `mul_add`, so that their results are the same on every processor.

/// The number of partial sums in a reduction.
pub(crate) const LANES: usize = 16;

/// Runs `work` with the widest vector instructions of the processor.
///
/// `work` and everything that it calls must be `#[inline(always)]`: code that is not inlined is
/// compiled for the baseline of the target.
///
/// ```
/// let (a, b) = ([1.0f32, 2.0, 3.0], [4.0f32, 5.0, 6.0]);
/// let sum = rlvr_kernels::vectorised(
///     #[inline(always)]
///     || a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>(),
/// );
/// assert_eq!(sum, 32.0);
/// ```
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    struct Work<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Work<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Work(work))
}

/// Returns `e^x` within 2 units in the last place: 0 below -87.3, where the result is no normal
/// f32, and infinity above 88.7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts. The first is short enough that its product with a small integer is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    /// Adding this rounds a small number to an integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x.clamp(-87.336_54, 88.722_83).mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(
        -LN2_LOW,
        n.mul_add(-LN2_HIGH, x.clamp(-87.336_54, 88.722_83)),
    );
    let mut p = 1.987_569_1e-4f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let value = p.mul_add(r * r, r) + 1.0;
    // 2^n in two factors: 2^128 overflows although the largest results do not.
    let n = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let scaled = value * power(half) * power(n - half);
    if x < -87.336_54 {
        0.0
    } else if x > 88.722_83 {
        f32::INFINITY
    } else if x.is_nan() {
        x
    } else {
        scaled
    }
}

/// Folds two slices of the same length: `f(a, b, sum)` returns the next partial sum.
#[inline(always)]
pub(crate) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            lanes[lane] = f(a[lane], b[lane], lanes[lane]);
        }
    }
    for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[lane] = f(a, b, lanes[lane]);
    }
    total(lanes)
}

/// Returns the sum of `a_i b_i`.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum2(
        a,
        b,
        #[inline(always)]
        |a, b, sum| a.mul_add(b, sum),
    )
}

/// Returns the pairwise sum of the lanes.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Returns the largest of `values`, ignoring NaN; negative infinity if there is none.
#[inline(always)]
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] {
                chunk[lane]
            } else {
                lanes[lane]
            };
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        lanes[lane] = lanes[lane].max(value);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

/// Computes `to += factor * from`.
#[inline(always)]
pub(crate) fn add_scaled(to: &mut [f32], factor: f32, from: &[f32]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = factor.mul_add(from, *to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64_within_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -870_000..=887_000 {
            let x = i as f32 * 1e-4;
            let (got, exact) = (f64::from(exp(x)), f64::from(x).exp());
            worst = worst.max(((got - exact) / exact).abs());
        }
        assert!(worst < 2.4e-7, "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(89.0), f32::INFINITY);
        assert!(exp(88.7).is_finite());
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_include_every_value() {
        for n in [0, 1, 15, 16, 17, 100] {
            let a: Vec<f32> = (1..=n).map(|i| i as f32).collect();
            let sum: f32 = a.iter().map(|a| a * a).sum();
            assert_eq!(
                vectorised(
                    #[inline(always)]
                    || dot(&a, &a)
                ),
                sum
            );
            assert_eq!(
                largest(&a),
                if n == 0 { f32::NEG_INFINITY } else { n as f32 }
            );
        }
    }
}
