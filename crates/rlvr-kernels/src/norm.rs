//! Root-mean-square norms (arXiv 1910.07467).

use crate::parallel;
use crate::simd::{LANES, dot, total};

/// `y = x * f * gain` with `f = 1 / sqrt(mean(x^2) + epsilon)` for every row of `x`; `y` and the `f` of each row.
///
/// # Panics
/// If `x` does not consist of rows as long as `gain`.
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

/// The gradient at `x`, given that at `y` and the factors of [`rms_norm`].
///
/// # Panics
/// If lengths do not fit.
pub fn rms_norm_backward(x: &[f32], gain: &[f32], factors: &[f32], to_y: &[f32]) -> Vec<f32> {
    let width = gain.len();
    let count = rows_of(x, width);
    assert_eq!(to_y.len(), x.len(), "gradients at the outputs");
    assert_eq!(factors.len(), count, "factors");
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

/// The gradient at `gain`, `width` floats, given the rows `x`, their factors and the gradient at `y`.
///
/// # Panics
/// If lengths do not fit.
pub fn rms_norm_gain_gradient(x: &[f32], width: usize, factors: &[f32], to_y: &[f32]) -> Vec<f32> {
    let count = rows_of(x, width);
    assert_eq!(to_y.len(), x.len(), "gradients at the outputs");
    assert_eq!(factors.len(), count, "factors");
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

/// `sum of a_i b_i c_i`.
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
