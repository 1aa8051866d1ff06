//! A vectorizable exponential with the same result on every platform.

/// Computes `exp(x)` for `x <= 0`, within two units in the last place. Returns 0 below -708, where
/// results would be subnormal.
///
/// It writes `x = n ln 2 + r` with `|r| <= ln 2 / 2`, computes `exp(r)` by its Taylor polynomial,
/// and adds `n` to the exponent. There are no branches and no operations whose rounding depends on
/// the platform, so a loop over it compiles to vector instructions.
#[inline(always)]
pub(super) fn exp(x: f64) -> f64 {
    // ln 2 in two parts; the first has few enough digits that its product with n is exact.
    const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
    // Adding this constant leaves the nearest integer in the lowest bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LOWEST: f64 = -708.0;
    let clamped = if x > LOWEST { x } else { LOWEST };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2[0] - n * LN_2[1];
    // 1 / k!
    const INVERSE_FACTORIALS: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    let mut series = INVERSE_FACTORIALS[0];
    for &factor in &INVERSE_FACTORIALS[1..] {
        series = series * r + factor;
    }
    let exp_r = r * r * series + r + 1.0;
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    if x > LOWEST { exp_r * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_at_most_two_units_in_the_last_place() {
        let mut worst = 0u64;
        for step in 0..2_000_000u32 {
            let x = -707.9 * (f64::from(step) / 2e6).powi(3);
            let (got, want) = (exp(x), x.exp());
            worst = worst.max(got.to_bits().abs_diff(want.to_bits()));
        }
        assert!(worst <= 2, "{worst} units");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
        assert_eq!([exp(-708.5), exp(-1e300), exp(f64::NEG_INFINITY)], [0.0; 3]);
    }
}
