//! Ragged arrays with one number for each trained token of each rollout.

use std::ops::{Index, IndexMut};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, host};

/// One number for each trained token of each rollout: log-probs, advantages, values or returns.
///
/// Row `i` belongs to rollout `i` in the order of
/// [`RolloutBuffer::rollouts`](super::RolloutBuffer::rollouts) and has as many entries as that
/// rollout has trained tokens ([`Rollout::trained_tokens`](super::Rollout::trained_tokens)).
///
/// ```
/// use rlvr::types::PerToken;
///
/// let policy = PerToken::from(vec![vec![-0.5, -1.0], vec![-2.0]]);
/// let teacher = PerToken::from(vec![vec![-0.25, -1.5], vec![-1.0]]);
/// let advantages = teacher.zip_with(&policy, |teacher, policy| teacher - policy)?;
/// assert_eq!(advantages, [vec![0.25, -0.5], vec![1.0]]);
/// assert_eq!(advantages.lengths(), [2, 1]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PerToken {
    rows: Vec<Vec<f64>>,
}

impl PerToken {
    /// Creates rows of these lengths filled with `value`.
    pub fn filled(lengths: &[usize], value: f64) -> Self {
        lengths.iter().map(|&length| vec![value; length]).collect()
    }

    /// Returns the number of rollouts.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns true if there is no rollout.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Returns the number of tokens of each rollout.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(Vec::len).collect()
    }

    /// Returns the number of tokens of all rollouts.
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// Returns the numbers of rollout `index`, or `None` if there is no such rollout.
    pub fn get(&self, index: usize) -> Option<&[f64]> {
        self.rows.get(index).map(Vec::as_slice)
    }

    /// Iterates over the rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// Iterates over the rows mutably; their lengths are fixed.
    pub(crate) fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f64]> {
        self.rows.iter_mut().map(Vec::as_mut_slice)
    }

    /// Iterates over all numbers, row by row.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.rows.iter().flatten().copied()
    }

    /// Appends a row.
    pub fn push(&mut self, row: Vec<f64>) {
        self.rows.push(row);
    }

    /// Applies `f` to every number.
    #[must_use]
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let row = |row: &Vec<f64>| row.iter().map(|&x| f(x)).collect();
        self.rows.iter().map(row).collect()
    }

    /// Applies `f` to the numbers of `self` and `other` at every token.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] if the two differ in the number of rollouts or in the length of a
    /// row.
    pub fn zip_with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Result<Self> {
        other.check_lengths("the other numbers", &self.lengths())?;
        let row =
            |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
        Ok(self.rows.iter().zip(&other.rows).map(row).collect())
    }

    /// Checks that the rows have these lengths; `what` names the numbers in the error.
    ///
    /// # Errors
    /// Returns [`Error::Shape`] for the first row of another length.
    pub(crate) fn check_lengths(&self, what: &str, lengths: &[usize]) -> Result<()> {
        if self.len() != lengths.len() {
            return Err(Error::shape(
                format!("rows of `{what}`"),
                self.len(),
                format!("{}, one for each rollout", lengths.len()),
            ));
        }
        for (rollout, (row, &length)) in self.rows.iter().zip(lengths).enumerate() {
            if row.len() != length {
                return Err(Error::shape(
                    format!("length of `{what}[{rollout}]`"),
                    row.len(),
                    format!("{length}, one for each trained token"),
                ));
            }
        }
        Ok(())
    }

    /// Returns the rows as a tensor of shape `[rollouts, longest row]` on `device`, padded on the
    /// right with zeros.
    pub fn to_padded(&self, device: &Device) -> Tensor<2> {
        let width = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        host::float_rows(&self.rows, width, device)
    }
}

impl From<Vec<Vec<f64>>> for PerToken {
    fn from(rows: Vec<Vec<f64>>) -> Self {
        Self { rows }
    }
}

impl From<PerToken> for Vec<Vec<f64>> {
    fn from(numbers: PerToken) -> Self {
        numbers.rows
    }
}

impl FromIterator<Vec<f64>> for PerToken {
    fn from_iter<I: IntoIterator<Item = Vec<f64>>>(rows: I) -> Self {
        Self {
            rows: rows.into_iter().collect(),
        }
    }
}

impl Extend<Vec<f64>> for PerToken {
    fn extend<I: IntoIterator<Item = Vec<f64>>>(&mut self, rows: I) {
        self.rows.extend(rows);
    }
}

impl<'a> IntoIterator for &'a PerToken {
    type Item = &'a [f64];
    type IntoIter = std::iter::Map<std::slice::Iter<'a, Vec<f64>>, fn(&'a Vec<f64>) -> &'a [f64]>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.iter().map(Vec::as_slice)
    }
}

impl Index<usize> for PerToken {
    type Output = [f64];

    /// Returns the numbers of a rollout.
    ///
    /// # Panics
    /// Panics if there is no such rollout; [`get`](PerToken::get) returns `None`.
    fn index(&self, rollout: usize) -> &[f64] {
        &self.rows[rollout]
    }
}

impl IndexMut<usize> for PerToken {
    fn index_mut(&mut self, rollout: usize) -> &mut [f64] {
        &mut self.rows[rollout]
    }
}

impl PartialEq<Vec<Vec<f64>>> for PerToken {
    fn eq(&self, other: &Vec<Vec<f64>>) -> bool {
        self.rows == *other
    }
}

impl<const N: usize> PartialEq<[Vec<f64>; N]> for PerToken {
    fn eq(&self, other: &[Vec<f64>; N]) -> bool {
        self.rows == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_row_of_another_length() {
        let a = PerToken::from(vec![vec![1.0, 2.0], vec![3.0]]);
        let b = PerToken::from(vec![vec![1.0, 2.0], vec![]]);
        let message = a.zip_with(&b, f64::max).unwrap_err().to_string();
        assert!(
            message.contains("[1]") && message.contains('1'),
            "{message}"
        );
        let short = PerToken::filled(&[2], 0.0);
        assert!(a.zip_with(&short, f64::max).is_err());
    }

    #[test]
    fn serde_round_trip_as_nested_lists() {
        let numbers = PerToken::from(vec![vec![0.5], vec![]]);
        let text = serde_json::to_string(&numbers).unwrap();
        assert_eq!(text, "[[0.5],[]]");
        assert_eq!(serde_json::from_str::<PerToken>(&text).unwrap(), numbers);
    }
}
