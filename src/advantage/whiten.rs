//! Whitening: mean 0 and variance 1 over the tokens of a batch.

use super::moments::{Moments, check_epsilon};
use crate::types::PerToken;
use crate::{Error, Result};

/// Whitens `rows` in place, over all tokens of all rows together.
///
/// ```text
/// x <- (x - mean) / sqrt(var + epsilon)
/// ```
///
/// `rows` are `[N][T_i]` and may differ in length. `var` is unbiased (divisor `n - 1`). With
/// `shift_mean = false` the mean is added back: `(x - mean) / sqrt(var + epsilon) + mean`, which is
/// usual for rewards, whose sign carries meaning. verl's and TRL's `masked_whiten` (`epsilon`
/// 1e-8), one of the choices compared by Andrychowicz et al. (arXiv 2006.05990).
///
/// A row counts in proportion to its number of tokens.
///
/// If all tokens are equal, or there is only one, they are centred and not scaled: the result is
/// exactly 0 (or unchanged with `shift_mean = false`). verl raises an error in that case.
///
/// # Errors
///
/// Returns an error for a negative `epsilon` or a token that is not finite; `rows` are then
/// unchanged.
///
/// ```
/// use rlvr::advantage::whiten;
/// use rlvr::types::PerToken;
///
/// let mut rows = PerToken::from(vec![vec![5.5], vec![1.5]]);
/// whiten(&mut rows, 0.0, true)?;
/// assert!((rows[0][0] - 0.5_f64.sqrt()).abs() < 1e-12);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn whiten(rows: &mut PerToken, epsilon: f64, shift_mean: bool) -> Result<()> {
    whiten_where(rows, |_| true, epsilon, shift_mean)
}

/// [`whiten`] over the tokens of the rollouts that have a score.
pub(super) fn whiten_scored(
    per_token: &mut PerToken,
    scores: &[Option<f64>],
    epsilon: f64,
) -> Result<()> {
    whiten_where(per_token, |row| scores[row].is_some(), epsilon, true)
}

/// [`whiten`] over the rows that are `included`; the others are neither read nor changed.
fn whiten_where(
    rows: &mut PerToken,
    included: impl Fn(usize) -> bool,
    epsilon: f64,
    shift_mean: bool,
) -> Result<()> {
    check_epsilon("epsilon", epsilon)?;
    let mut tokens = Vec::new();
    for (i, row) in rows.rows().enumerate().filter(|(i, _)| included(*i)) {
        if let Some(t) = row.iter().position(|x| !x.is_finite()) {
            let what = format!("rows[{i}][{t}]");
            return Err(Error::config(what, row[t], "a finite number"));
        }
        tokens.extend_from_slice(row);
    }
    let Some(moments) = Moments::of(&tokens, || "tokens to whiten".into())? else {
        return Ok(());
    };
    let std = (moments.std * moments.std + epsilon).sqrt();
    // Squares of differences below 1e-162 underflow to 0; such a batch counts as flat.
    let scale = if std > 0.0 { 1.0 / std } else { 0.0 };
    let shift = if shift_mean { 0.0 } else { moments.mean };
    for (_, row) in rows.rows_mut().enumerate().filter(|(i, _)| included(*i)) {
        for x in row {
            *x = moments.centered(*x) * scale + shift;
        }
    }
    Ok(())
}
