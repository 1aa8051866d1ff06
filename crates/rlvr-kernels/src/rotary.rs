//! Rotary positions (arXiv 2104.09864) in the half-rotation layout of Hugging Face's models.

use crate::parallel;

/// Cosines and sines of the rotation angles, `[T, half]`: a row for each token, or for each
/// position of a sequence if all sequences use the same positions.
#[derive(Clone, Copy, Debug)]
pub struct RotaryTable<'a> {
    /// The cosines, `[T, half]`.
    pub cos: &'a [f32],
    /// The sines, `[T, half]`.
    pub sin: &'a [f32],
}

/// Rotates each pair `(x_i, x_{i + half})` of each head by the angle of its token.
///
/// `x` is `[tokens, heads, 2 half]`. Token `t` uses row `t % T` of the table. With `back`, the
/// rotation is inverted, which is also the backward pass.
///
/// # Panics
/// Panics if `x` is not a whole number of tokens, or the table is empty or not a whole number of
/// rows.
pub fn rotate(
    x: &[f32],
    heads: usize,
    half: usize,
    table: RotaryTable<'_>,
    back: bool,
) -> Vec<f32> {
    let width = heads * 2 * half;
    assert!(
        width > 0 && x.len().is_multiple_of(width),
        "{} values in tokens of {width}",
        x.len()
    );
    let RotaryTable { cos, sin } = table;
    let positions = cos.len() / half;
    assert!(
        positions > 0 && cos.len() == sin.len() && cos.len().is_multiple_of(half),
        "tables"
    );
    let sign = if back { -1.0 } else { 1.0 };
    parallel::rows(
        x.len() / width,
        width,
        #[inline(always)]
        |token, out| {
            let at = token % positions * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            let x = &x[token * width..(token + 1) * width];
            for (out, x) in out.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
                let (first, second) = x.split_at(half);
                let (out_first, out_second) = out.split_at_mut(half);
                for i in 0..half {
                    let (a, b, c, s) = (first[i], second[i], cos[i], sign * sin[i]);
                    out_first[i].write(a * c - b * s);
                    out_second[i].write(b * c + a * s);
                }
            }
        },
    )
}
