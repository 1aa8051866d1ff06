//! Ragged numbers: one for each trained token of each rollout.

use std::ops::{Index, IndexMut};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, host};

/// One number for each trained token of each rollout: log-probs, advantages, values, returns.
///
/// Row `i` belongs to rollout `i` in the order of [`RolloutBuffer::rollouts`](super::RolloutBuffer::rollouts) and has as many
/// entries as that rollout has trained tokens ([`Rollout::trained_tokens`](super::Rollout::trained_tokens)).
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
    /// `value` at every token of rollouts of these lengths.
    pub fn filled(lengths: &[usize], value: f64) -> Self {
        lengths.iter().map(|&length| vec![value; length]).collect()
    }

    /// The number of rollouts.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no rollout.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The number of tokens of each rollout.
    pub fn lengths(&self) -> Vec<usize> {
        self.rows.iter().map(Vec::len).collect()
    }

    /// The number of tokens of all rollouts.
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(Vec::len).sum()
    }

    /// The numbers of rollout `index`, or `None` if there is no such rollout.
    pub fn get(&self, index: usize) -> Option<&[f64]> {
        self.rows.get(index).map(Vec::as_slice)
    }

    /// The rows, in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.rows.iter().map(Vec::as_slice)
    }

    /// The rows, to be changed. Their lengths stay.
    pub fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f64]> {
        self.rows.iter_mut().map(Vec::as_mut_slice)
    }

    /// Every number, row by row.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.rows.iter().flatten().copied()
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: Vec<f64>) {
        self.rows.push(row);
    }

    /// `f` of every number.
    #[must_use]
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        let row = |row: &Vec<f64>| row.iter().map(|&x| f(x)).collect();
        self.rows.iter().map(row).collect()
    }

    /// `f` of the numbers of both at every token.
    ///
    /// # Errors
    /// [`Error::Shape`] if the two differ in the number of rollouts or in the length of a row.
    pub fn zip_with(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Result<Self> {
        other.check_lengths("the other numbers", &self.lengths())?;
        let row =
            |(a, b): (&Vec<f64>, &Vec<f64>)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
        Ok(self.rows.iter().zip(&other.rows).map(row).collect())
    }

    /// Checks that there is one row for each of `lengths`, of that length; `what` names the numbers in the error.
    ///
    /// # Errors
    /// [`Error::Shape`] naming the first row that does not fit.
    pub fn check_lengths(&self, what: &str, lengths: &[usize]) -> Result<()> {
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

    /// `[N, T]` on `device`: the rows, padded on the right with zeros to the longest.
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
    fn rows_that_do_not_fit_are_named() {
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
    fn it_is_written_as_its_rows() {
        let numbers = PerToken::from(vec![vec![0.5], vec![]]);
        let text = serde_json::to_string(&numbers).unwrap();
        assert_eq!(text, "[[0.5],[]]");
        assert_eq!(serde_json::from_str::<PerToken>(&text).unwrap(), numbers);
    }
}
