//! Batches of tokens.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{Error, Result};

/// A batch of ragged rows of tokens, padded on the right.
///
/// ```
/// use rlvr::policy::TokenBatch;
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let rows = [vec![5, 6, 7], vec![8]];
/// let batch = TokenBatch::from_rows(&rows, &burn::tensor::Device::flex())?;
/// assert_eq!(
///     (batch.ids.dims(), &batch.lengths[..]),
///     ([2, 3], &[3, 1][..])
/// );
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// Token ids `[B, T]`.
    pub ids: Tensor<2, Int>,
    /// The number of tokens of each row, `[B]`; the rest of the row is padding.
    pub lengths: Vec<usize>,
}

impl TokenBatch {
    /// Creates a batch of `rows`, padded on the right with token 0 to the longest row.
    ///
    /// # Errors
    /// Returns an error if there is no row, or every row is empty.
    pub fn from_rows(rows: &[impl AsRef<[u32]>], device: &Device) -> Result<Self> {
        let lengths: Vec<usize> = rows.iter().map(|row| row.as_ref().len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        if width == 0 {
            return Err(Error::shape(
                "token rows",
                format!("{} rows without a token", rows.len()),
                "at least one row with at least one token",
            ));
        }
        let mut ids = vec![0i32; rows.len() * width];
        for (row, target) in rows.iter().zip(ids.chunks_exact_mut(width)) {
            for (&id, slot) in row.as_ref().iter().zip(target) {
                *slot = id as i32;
            }
        }
        let ids = Tensor::from_data(TensorData::new(ids, [rows.len(), width]), device);
        Ok(Self { ids, lengths })
    }

    /// The number of rows, `B`.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The padded length, `T`.
    pub fn width(&self) -> usize {
        self.ids.dims()[1]
    }
}
