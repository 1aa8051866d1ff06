//! Mean 0 and variance 1 over the tokens of a batch.

use super::moments::{Moments, check_epsilon};
use crate::{Error, Result};

/// `x <- (x - mean) / sqrt(var + epsilon)`, in place, with the moments of all valid tokens of all rows together.
///
/// `rows` and `masks` are `[N][T_i]`, rows may differ in length; without `masks` every token is valid. `var` is unbiased
/// (divisor `n - 1`). With `shift_mean = false` the mean is put back afterwards: `(x - mean) / sqrt(var + epsilon) + mean`, which
/// is how rewards are whitened when their sign must keep its meaning. verl's and TRL's `masked_whiten` (`epsilon` 1e-8), one of
/// the choices compared by Andrychowicz et al. (arXiv 2006.05990).
///
/// A long row weighs more than a short one here, by its tokens. Tokens with `mask = false` are neither read nor changed.
///
/// Where the valid tokens are all equal, or there is only one, the variance is 0 or undefined: they are centred and not
/// scaled, which makes them exactly 0 (or leaves them as they are with `shift_mean = false`). verl raises an error there.
///
/// # Errors
///
/// Masks of another shape, a negative `epsilon`, a valid token that is not finite. `rows` are then unchanged.
///
/// ```
/// use rlvr::advantage::whiten;
///
/// let mut rows = [vec![5.5, 4.0, 1.5]];
/// whiten(&mut rows, Some(&[vec![true, false, true]]), 0.0, true)?;
/// assert!((rows[0][0] - 0.5_f64.sqrt()).abs() < 1e-12);
/// assert_eq!(rows[0][1], 4.0);
/// # Ok::<(), rlvr::Error>(())
/// ```
pub fn whiten(
    rows: &mut [Vec<f64>],
    masks: Option<&[Vec<bool>]>,
    epsilon: f64,
    shift_mean: bool,
) -> Result<()> {
    check_epsilon("epsilon", epsilon)?;
    if let Some(masks) = masks {
        check_masks(rows, masks)?;
    }
    let valid = |row: usize, token: usize| masks.is_none_or(|masks| masks[row][token]);

    let mut tokens = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        for (t, x) in row.iter().enumerate().filter(|(t, _)| valid(i, *t)) {
            if !x.is_finite() {
                return Err(Error::config(
                    format!("rows[{i}][{t}]"),
                    x,
                    "a finite number",
                ));
            }
            tokens.push(*x);
        }
    }
    let Some(moments) = Moments::of(&tokens, || "tokens to whiten".into())? else {
        return Ok(());
    };
    let std = (moments.std * moments.std + epsilon).sqrt();
    // Squares of differences below 1e-162 underflow: such a batch is flat for every purpose.
    let scale = if std > 0.0 { 1.0 / std } else { 0.0 };
    let shift = if shift_mean { 0.0 } else { moments.mean };
    for (i, row) in rows.iter_mut().enumerate() {
        for (_, x) in row.iter_mut().enumerate().filter(|(t, _)| valid(i, *t)) {
            *x = moments.centered(*x) * scale + shift;
        }
    }
    Ok(())
}

/// [`whiten`] over the tokens of the rollouts that have a score.
pub(super) fn whiten_scored(
    per_token: &mut [Vec<f64>],
    scores: &[Option<f64>],
    epsilon: f64,
) -> Result<()> {
    let mask = |(row, score): (&Vec<f64>, &Option<f64>)| vec![score.is_some(); row.len()];
    let masks: Vec<_> = per_token.iter().zip(scores).map(mask).collect();
    whiten(per_token, Some(&masks), epsilon, true)
}

fn check_masks(rows: &[Vec<f64>], masks: &[Vec<bool>]) -> Result<()> {
    if masks.len() != rows.len() {
        return Err(Error::shape(
            "length of `masks`",
            masks.len(),
            format!("{}, one mask per row", rows.len()),
        ));
    }
    for (i, (row, mask)) in rows.iter().zip(masks).enumerate() {
        if mask.len() != row.len() {
            return Err(Error::shape(
                format!("length of `masks[{i}]`"),
                mask.len(),
                format!("{}, the length of `rows[{i}]`", row.len()),
            ));
        }
    }
    Ok(())
}
