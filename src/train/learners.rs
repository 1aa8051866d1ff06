//! How several learners work on one run.

use crate::{Error, Result};

/// The learners of one run, seen from one of them.
///
/// Every learner runs the same program on the same configuration. Work on the device is divided: each learner generates and scores
/// its share of a step's completions and computes its share of the micro-batches. What was divided is gathered, so that
/// everything else - advantages, denominators, metrics, decisions - is computed by every learner from the same numbers.
/// Denominators count the whole step, so gradients are *summed*, never averaged.
///
/// The calls must come in the same order on every learner. [`Alone`] is one learner.
///
/// # Contract
/// - [`gather`](Self::gather) returns once every learner has called it, with the bytes of all of them in the order of their ranks.
/// - An error or a lost learner is an error on every learner; nothing waits forever.
pub trait Learners: Send + Sync {
    /// Which learner this is, below [`size`](Self::size).
    fn rank(&self) -> usize;

    /// How many learners there are; at least 1.
    fn size(&self) -> usize;

    /// The bytes that every learner gave, by rank.
    ///
    /// # Errors
    /// If a learner is gone.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Replaces `numbers` by their sum over all learners, the same on each. Provided: gathered and added in the order of the
    /// ranks. A faster way may add in another order.
    ///
    /// # Errors
    /// As [`gather`](Self::gather); also if the learners have different numbers of them.
    fn sum(&self, numbers: &mut [f32]) -> Result<()> {
        let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        numbers.fill(0.0);
        for part in self.gather(bytes)? {
            if part.len() != numbers.len() * 4 {
                return Err(Error::shape(
                    "numbers of a learner",
                    part.len() / 4,
                    format!("{}, as on learner {}", numbers.len(), self.rank()),
                ));
            }
            for (sum, bytes) in numbers.iter_mut().zip(part.chunks_exact(4)) {
                *sum += f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        Ok(())
    }
}

/// The only learner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Learners for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        Ok(vec![bytes])
    }

    fn sum(&self, _numbers: &mut [f32]) -> Result<()> {
        Ok(())
    }
}

/// The part of `count` things that learner `rank` of `size` takes: contiguous, by rank.
pub(super) fn share(learners: &dyn Learners, count: usize) -> std::ops::Range<usize> {
    let (rank, size) = (learners.rank(), learners.size());
    rank * count / size..(rank + 1) * count / size
}

/// The things that learner `rank` of `size` takes of a sorted list: every `size`-th, so that each learner has its share of the
/// large ones.
pub(super) fn dealt<'a, T>(
    learners: &dyn Learners,
    things: &'a [T],
) -> impl Iterator<Item = &'a T> {
    things.iter().skip(learners.rank()).step_by(learners.size())
}

/// The values of all learners, by rank.
pub(super) fn gather_values<T: serde::Serialize + serde::de::DeserializeOwned>(
    learners: &dyn Learners,
    mine: T,
) -> Result<Vec<T>> {
    if learners.size() == 1 {
        return Ok(vec![mine]);
    }
    let broken = |reason: serde_json::Error| {
        Error::shape("message of a learner", reason, "what every learner sends")
    };
    let bytes = serde_json::to_vec(&mine).map_err(broken)?;
    let all = learners.gather(bytes)?;
    let read = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(broken);
    all.into_iter().map(read).collect()
}
