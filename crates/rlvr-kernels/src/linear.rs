//! Linear maps.

use crate::matrix::{Matrix, add_product, product};
use crate::parallel;

/// Computes `x W + b`, `[N, outputs]`, for `x` `[N, inputs]`, `W` `[inputs, outputs]` and an
/// optional bias `b` `[outputs]`.
///
/// # Panics
/// Panics if the shapes do not match.
pub fn linear(x: Matrix<'_>, weight: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let Some(bias) = bias else {
        return product(x, weight);
    };
    assert_eq!(bias.len(), weight.shape()[1], "length of the bias");
    let mut y = parallel::rows(
        x.shape()[0],
        bias.len(),
        #[inline(always)]
        |_, out| {
            for (out, &bias) in out.iter_mut().zip(bias) {
                out.write(bias);
            }
        },
    );
    add_product(&mut y, x, weight);
    y
}

/// Returns the sum of the rows of `x` `[N, width]`: the gradient of the bias of [`linear`] if `x`
/// is the gradient of its output.
///
/// # Panics
/// Panics if `width` is 0 or `x` is not a whole number of rows.
pub fn sum_of_rows(x: &[f32], width: usize) -> Vec<f32> {
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} values in rows of {width}",
        x.len()
    );
    parallel::sum_over_rows(
        x.len() / width,
        width,
        #[inline(always)]
        |rows, sum| {
            for row in x[rows.start * width..rows.end * width].chunks_exact(width) {
                for (sum, &x) in sum.iter_mut().zip(row) {
                    *sum += x;
                }
            }
        },
    )
}
