//! Linear maps of rows.

use crate::matrix::{Matrix, add_product, product};
use crate::parallel;

/// `x W + b` of every row of `x`.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear(x: Matrix<'_>, weight: Matrix<'_>, bias: Option<&[f32]>) -> Vec<f32> {
    let Some(bias) = bias else {
        return product(x, weight);
    };
    assert_eq!(bias.len(), weight.shape()[1], "a bias for each column");
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

/// The sum of the rows of `x`, each `width` long: the gradient at a bias.
///
/// # Panics
/// If `x` does not consist of such rows.
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
