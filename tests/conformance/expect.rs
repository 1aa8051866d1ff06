//! Comparisons that return the difference instead of panicking.

use serde_json::Value;

/// `|got - want| <= atol + rtol |want|`.
pub struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
}

pub const LOSS: Tolerance = Tolerance {
    rtol: 2e-5,
    atol: 1e-6,
};
/// Gradients, metrics, weights, KL values.
pub const DERIVED: Tolerance = Tolerance {
    rtol: 1e-4,
    atol: 1e-6,
};
/// What is computed in f64 on the host.
pub const HOST: Tolerance = Tolerance {
    rtol: 1e-6,
    atol: 1e-6,
};

impl Tolerance {
    pub fn check(&self, got: f64, want: f64, what: &str) -> Result<(), String> {
        let same = got == want
            || (got.is_nan() && want.is_nan())
            || (got - want).abs() <= self.atol + self.rtol * want.abs();
        match same {
            true => Ok(()),
            false => Err(format!("{what}: got {got}, want {want}")),
        }
    }

    /// Compares `got`, row by row, with a golden matrix, where `mask` is 1 or everywhere.
    pub fn check_rows(
        &self,
        got: &[f64],
        want: &Value,
        mask: Option<&[Vec<f64>]>,
        what: &str,
    ) -> Result<(), String> {
        let want = rows(want).ok_or(format!("{what}: no matrix to compare with"))?;
        let width = want[0].len();
        let want = want.concat();
        if got.len() != want.len() {
            return Err(format!(
                "{what}: {} numbers, want {}",
                got.len(),
                want.len()
            ));
        }
        for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let (row, column) = (i / width, i % width);
            if mask.is_none_or(|mask| mask[row][column] != 0.0) {
                self.check(got, want, &format!("{what} [{row}][{column}]"))?;
            }
        }
        Ok(())
    }
}

/// Compares a golden mask exactly, where `mask` is 1.
pub fn check_selection(
    got: &[f64],
    want: &Value,
    mask: &[Vec<f64>],
    what: &str,
) -> Result<(), String> {
    const EXACT: Tolerance = Tolerance {
        rtol: 0.0,
        atol: 0.0,
    };
    EXACT.check_rows(got, want, Some(mask), what)
}

/// The text of a field that must be there.
pub fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field]
        .as_str()
        .ok_or(format!("no text in `{field}`: {}", value[field]))
}

/// The number of a field that must be there.
pub fn get(value: &Value, field: &str) -> Result<f64, String> {
    match &value[field] {
        Value::Number(_) | Value::String(_) => Ok(number(&value[field])),
        other => Err(format!("no number in `{field}`: {other}")),
    }
}

/// A number of a golden file; NaN and infinities are strings.
pub fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        Some(other) => panic!("no number: {other}"),
        None => value.as_f64().unwrap(),
    }
}

/// A matrix of a golden file, or `None` for null.
pub fn rows(value: &Value) -> Option<Vec<Vec<f64>>> {
    let rows = value.as_array()?;
    Some(
        rows.iter()
            .map(|row| row.as_array().unwrap().iter().map(number).collect())
            .collect(),
    )
}
