//! RMSNorm (arXiv 1910.07467).

use crate::parallel;
use crate::simd::{LANES, dot, total};

/// Computes `y = x * f * gain` with `f = 1 / sqrt(mean(x^2) + epsilon)` for every row of `x`
/// `[N, width]`, where `gain` is `[width]`.
///
/// Returns `y` `[N, width]` and the factors `f` `[N]`, which the backward pass needs.
///
/// # Panics
/// Panics if `gain` is empty or `x` is not a whole number of rows.
pub fn rms_norm(x: &[f32], gain: &[f32], epsilon: f32) -> (Vec<f32>, Vec<f32>) {
    let width = gain.len();
    let count = rows_of(x, width);
    let row = |row: usize| &x[row * width..(row + 1) * width];
    let factors = parallel::rows(
        count,
        1,
        #[inline(always)]
        |index, out| {
            let x = row(index);
            out[0].write(1.0 / (dot(x, x) / width as f32 + epsilon).sqrt());
        },
    );
    let y = parallel::rows(
        count,
        width,
        #[inline(always)]
        |index, out| {
            let factor = factors[index];
            for ((out, &x), &gain) in out.iter_mut().zip(row(index)).zip(gain) {
                out.write(x * factor * gain);
            }
        },
    );
    (y, factors)
}

/// Returns the gradient of `x` `[N, width]` in [`rms_norm`], given its factors `[N]` and the
/// gradient `to_y` `[N, width]` of its result.
///
/// # Panics
/// Panics if the lengths do not match.
pub fn rms_norm_backward(x: &[f32], gain: &[f32], factors: &[f32], to_y: &[f32]) -> Vec<f32> {
    let width = gain.len();
    let count = rows_of(x, width);
    assert_eq!(to_y.len(), x.len(), "length of the gradient");
    assert_eq!(factors.len(), count, "number of factors");
    parallel::rows(
        count,
        width,
        #[inline(always)]
        |index, out| {
            let range = index * width..(index + 1) * width;
            let (x, to_y, factor) = (&x[range.clone()], &to_y[range], factors[index]);
            let back = product_sum(x, to_y, gain) * factor * factor * factor / width as f32;
            for (((out, &x), &to_y), &gain) in out.iter_mut().zip(x).zip(to_y).zip(gain) {
                out.write((to_y * gain).mul_add(factor, -(x * back)));
            }
        },
    )
}

/// Returns the gradient of the gain `[width]` in [`rms_norm`], given its input `x` `[N, width]`,
/// its factors `[N]` and the gradient `to_y` `[N, width]` of its result.
///
/// # Panics
/// Panics if the lengths do not match.
pub fn rms_norm_gain_gradient(x: &[f32], width: usize, factors: &[f32], to_y: &[f32]) -> Vec<f32> {
    let count = rows_of(x, width);
    assert_eq!(to_y.len(), x.len(), "length of the gradient");
    assert_eq!(factors.len(), count, "number of factors");
    parallel::sum_over_rows(
        count,
        width,
        #[inline(always)]
        |rows, sum| {
            for row in rows {
                let (x, to_y) = (&x[row * width..][..width], &to_y[row * width..][..width]);
                let factor = factors[row];
                for ((sum, &x), &to_y) in sum.iter_mut().zip(x).zip(to_y) {
                    *sum = (x * factor).mul_add(to_y, *sum);
                }
            }
        },
    )
}

/// Returns the sum of `a_i b_i c_i`.
#[inline(always)]
fn product_sum(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let (c, c_rest) = c.as_chunks::<LANES>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] = (a[lane] * b[lane]).mul_add(c[lane], lanes[lane]);
        }
    }
    for (lane, ((a, b), c)) in a_rest.iter().zip(b_rest).zip(c_rest).enumerate() {
        lanes[lane] = (a * b).mul_add(*c, lanes[lane]);
    }
    total(lanes)
}

fn rows_of(x: &[f32], width: usize) -> usize {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} values in rows of {width}",
        x.len()
    );
    x.len() / width
}
