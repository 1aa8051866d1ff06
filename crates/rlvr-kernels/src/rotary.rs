//! Rotary positions (arXiv 2104.09864) in the half-rotation layout of Hugging Face's models.

use crate::parallel;

/// Cosines and sines: rows of half a head, a row for each token, or for each token of one sequence that all share.
#[derive(Clone, Copy, Debug)]
pub struct RotaryTable<'a> {
    /// The cosines.
    pub cos: &'a [f32],
    /// The sines.
    pub sin: &'a [f32],
}

/// Turns each pair `(x_i, x_{i + half})` of each head by its token's angle; `back` turns the other way.
///
/// `x` holds tokens of `heads` heads each, `half` pairs a head. Token `t` uses row `t` of the tables, modulo their length.
///
/// # Panics
/// If the lengths do not fit.
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
