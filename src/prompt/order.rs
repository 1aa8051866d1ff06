//! The order of problems in training: shuffled anew in each epoch and reproducible from any
//! position.

use crate::random::generator;
use crate::random::shuffle;
use crate::{Error, Result};

/// The word of the problem order in a generator's address.
const ORDER: u64 = u64::from_be_bytes(*b"pr.order");

/// An infinite stream of problem indices. Every epoch is a new permutation of `0..len`.
///
/// The index at a position is a pure function of `(len, seed, position)`. A checkpoint therefore
/// needs only the position, and the stream does not depend on the batch size.
///
/// ```
/// use rlvr::prompt::ProblemOrder;
///
/// let order = ProblemOrder::new(5, 0)?;
/// let mut first_epoch = order.indices(0, 5);
/// // A run that is resumed after three problems continues with the same stream.
/// assert_eq!(order.indices(3, 7), order.indices(0, 10)[3..]);
/// first_epoch.sort();
/// assert_eq!(first_epoch, [0, 1, 2, 3, 4]);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProblemOrder {
    len: usize,
    seed: u64,
}

impl ProblemOrder {
    /// Creates the order of `len` problems for `seed`.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `len` is 0.
    pub fn new(len: usize, seed: u64) -> Result<Self> {
        if len == 0 {
            return Err(Error::config("problems", "none", "at least one problem"));
        }
        Ok(Self { len, seed })
    }

    /// Returns the problem indices at the positions `start..start + count` of the stream.
    ///
    /// The cost is one shuffle of `len` indices for every epoch in this range.
    pub fn indices(&self, start: u64, count: usize) -> Vec<usize> {
        let len = self.len as u64;
        let mut epoch = start / len;
        let mut offset = (start % len) as usize;
        let mut indices = Vec::new();
        while indices.len() < count {
            let take = (count - indices.len()).min(self.len - offset);
            indices.extend_from_slice(&self.permutation(epoch)[offset..offset + take]);
            offset = 0;
            epoch = epoch.wrapping_add(1);
        }
        indices
    }

    /// The permutation of one epoch.
    fn permutation(&self, epoch: u64) -> Vec<usize> {
        let mut indices: Vec<usize> = (0..self.len).collect();
        shuffle(&mut generator(&[self.seed, ORDER, epoch]), &mut indices);
        indices
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn zero_problems_are_an_error() {
        let error = ProblemOrder::new(0, 0).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid `problems`: none; expected at least one problem"
        );
    }

    #[test]
    fn the_last_position_does_not_panic() {
        let order = ProblemOrder::new(3, 0).unwrap();
        assert_eq!(order.indices(u64::MAX, 4).len(), 4);
    }

    #[test]
    fn the_order_of_seed_0_is_stable_across_releases() {
        let order = ProblemOrder::new(6, 0).unwrap();
        assert_eq!(order.indices(0, 12), [5, 2, 4, 1, 3, 0, 5, 2, 3, 4, 1, 0]);
    }

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(len in 1usize..40, seed: u64, epoch in 0u64..1000) {
            let order = ProblemOrder::new(len, seed).unwrap();
            let mut indices = order.indices(epoch * len as u64, len);
            indices.sort_unstable();
            prop_assert_eq!(indices, (0..len).collect::<Vec<_>>());
        }

        #[test]
        fn the_stream_does_not_depend_on_batch_sizes(
            len in 1usize..12, seed: u64, start in 0u64..1000, cuts in prop::collection::vec(0usize..20, 0..8),
        ) {
            let order = ProblemOrder::new(len, seed).unwrap();
            let whole = order.indices(start, cuts.iter().sum());
            let mut pieces = Vec::new();
            for cut in cuts {
                pieces.extend(order.indices(start + pieces.len() as u64, cut));
            }
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn seeds_and_epochs_differ(seed in 0u64..u64::MAX) {
            // Two equal orders out of 64! are not a coincidence.
            let order = ProblemOrder::new(64, seed).unwrap();
            prop_assert_ne!(order.indices(0, 64), order.indices(64, 64));
            prop_assert_ne!(order.indices(0, 64), ProblemOrder::new(64, seed + 1).unwrap().indices(0, 64));
        }
    }
}
