//! The order in which problems are asked: endless, anew each epoch, and found again by a resumed run.

use crate::random::generator;
use crate::random::shuffle;
use crate::{Error, Result};

/// The word in a generator's address that says "problem order".
const ORDER: u64 = u64::from_be_bytes(*b"pr.order");

/// An endless stream of problem indices: every epoch is a fresh permutation of `0..len`.
///
/// The index at a position is a pure function of `(len, seed, position)`: nothing has to be saved with a checkpoint but the
/// position itself, and any cutting of the stream into batches gives the same stream.
///
/// ```
/// use rlvr::prompt::ProblemOrder;
///
/// let order = ProblemOrder::new(5, 0)?;
/// let mut first_epoch = order.indices(0, 5);
/// // A run that stopped after three problems continues as if it had not.
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
    /// The order of `len` problems under `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] if `len` is 0.
    pub fn new(len: usize, seed: u64) -> Result<Self> {
        if len == 0 {
            return Err(Error::config("problems", "none", "at least one problem"));
        }
        Ok(Self { len, seed })
    }

    /// The problem indices at positions `start..start + count` of the stream.
    ///
    /// Costs one shuffle of `len` indices for every epoch that the positions touch.
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

    /// The order within one epoch.
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
    fn no_problems_have_no_order() {
        let error = ProblemOrder::new(0, 0).unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid `problems`: none; expected at least one problem"
        );
    }

    #[test]
    fn the_end_of_the_positions_is_not_a_panic() {
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
        fn any_cutting_gives_the_same_stream(
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
            // 64! orders: two equal ones would be a fault, not chance.
            let order = ProblemOrder::new(64, seed).unwrap();
            prop_assert_ne!(order.indices(0, 64), order.indices(64, 64));
            prop_assert_ne!(order.indices(0, 64), ProblemOrder::new(64, seed + 1).unwrap().indices(0, 64));
        }
    }
}
