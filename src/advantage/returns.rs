//! Discounted returns.

use super::moments::check_unit;
use crate::{Error, Result};

/// Computes `G_t = r_t + gamma * G_{t+1}`, with `G = 0` after the last token; `rewards` and the
/// result are `[T]`.
pub(super) fn discounted_returns(rewards: &[f64], gamma: f64) -> Result<Vec<f64>> {
    check_unit("gamma", gamma)?;
    let mut returns = vec![0.0; rewards.len()];
    let mut next = 0.0;
    for t in (0..rewards.len()).rev() {
        next = rewards[t] + gamma * next;
        returns[t] = next;
    }
    check_finite("returns", &returns)?;
    Ok(returns)
}

/// Rejects a slice that does not have one entry per token.
pub(super) fn check_tokens(what: &str, got: usize, tokens: usize) -> Result<()> {
    if got == tokens {
        return Ok(());
    }
    Err(Error::shape(
        format!("length of `{what}`"),
        got,
        format!("{tokens}, one entry per token in `rewards`"),
    ))
}

/// Rejects a result that is not finite: the input was not finite, or its sum overflowed.
pub(super) fn check_finite(what: &str, numbers: &[f64]) -> Result<()> {
    match numbers.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(t) => Err(Error::config(
            format!("{what}[{t}]"),
            numbers[t],
            "a finite number: rewards and values of the tokens must be finite and of moderate size",
        )),
    }
}
