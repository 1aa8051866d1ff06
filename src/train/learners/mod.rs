//! Data-parallel training: several learners that share the work of a step.

mod group;
mod hash;
#[cfg(feature = "mpi")]
mod mpi;
mod threads;

use std::ops::Range;
use std::sync::Arc;

pub(super) use group::{LearnerGroup, dealt_to};
pub(super) use hash::{rollouts_hash, weights_hash};
#[cfg(feature = "mpi")]
pub use mpi::Mpi;
pub use threads::Threads;

use crate::{Error, Result};

/// The communicator of data-parallel training: one learner's connection to the others.
///
/// Every learner runs the same program with the same configuration and holds the whole policy. The
/// work of a step is divided: each learner generates and scores its share of the completions and
/// computes its share of the micro-batches. The results are gathered, and every learner computes
/// everything else (advantages, denominators, dynamic sampling, metrics, adaptive coefficients)
/// from the same numbers. Denominators count the whole step, so gradients are *summed*, not
/// averaged.
///
/// | implementation | learners are | |
/// |---|---|---|
/// | [`Alone`] | one | the default |
/// | [`Threads`] | threads of this process | for tests |
/// | `Mpi` (feature `mpi`) | processes on any number of machines | for training |
///
/// # The same bits for every number of learners
///
/// [`TrainerConfig::shards`](super::TrainerConfig::shards) is the number of parts that a step is
/// divided into. It is a setting of the run; the number of learners, which must divide it, is not.
/// Requests are divided into `shards` consecutive blocks, which are generated separately, and the
/// micro-batches of an update are distributed over `shards` shards. Each shard sums its gradients
/// in order, and the shards are summed pairwise in a fixed binary tree. With `shards = 4`, runs
/// with 1, 2 and 4 learners on equal hardware therefore have identical rollouts, metrics and
/// weights on the CPU, and each can continue a checkpoint of the others. With
/// [`TrainerConfig::all_reduce`](super::TrainerConfig::all_reduce) gradients are summed by
/// [`sum`](Self::sum): this allows any number of learners, but results differ by rounding.
///
/// # Memory and network traffic
///
/// For N trained parameters in f32 and W learners, an update sends `2 (W - 1) / W * 4N` bytes from
/// each learner, independent of the number of tokens. A learner holds `4N` bytes of weights, `8N`
/// of moments, and up to `4N (log2(shards / W) + 2)` of gradients; half-precision weights have `4N`
/// bytes of f32 copies. With
/// [`TrainerConfig::sharded_optimizer`](super::TrainerConfig::sharded_optimizer) (ZeRO-1, arXiv
/// 1910.02054) moments and copies are divided: `8N / W` and `4N / W`. Gradients are exchanged
/// through host memory, which takes up to `12N` more bytes.
///
/// # Contract
/// - Calls come in the same order on every learner. A call returns once every learner has made it.
/// - Mismatched calls, and numbers of different lengths, are an error on every learner.
/// - An error on one learner, or a lost learner, is an error on every learner. No call blocks
///   forever.
#[doc(alias("n_gpus_per_node", "nnodes"))]
pub trait Learners: Send + Sync {
    /// Returns the index of this learner, below [`size`](Self::size).
    fn rank(&self) -> usize;

    /// Returns the number of learners; at least 1.
    fn size(&self) -> usize;

    /// Returns the `bytes` of every learner, by rank (all-gather).
    ///
    /// # Errors
    /// Returns an error if a learner has failed or does not answer.
    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>>;

    /// Sends each learner its slice of `numbers` and returns this learner's slice of every
    /// learner's numbers, by rank (all-to-all). With `n` numbers, the slice of learner `r` of `w`
    /// is `r n / w .. (r + 1) n / w`. The default uses [`gather`](Self::gather), which sends more
    /// data.
    ///
    /// # Errors
    /// Returns the errors of [`gather`](Self::gather), and an error if the learners have different
    /// amounts of numbers.
    fn exchange(&self, numbers: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        let own = slice(numbers.len(), self.rank(), self.size());
        let all = self.gather(to_bytes(b'x', &numbers))?;
        let mut parts = Vec::with_capacity(all.len());
        for (rank, bytes) in all.iter().enumerate() {
            let part = from_bytes(b'x', bytes, rank)?;
            check_length(rank, part.len(), self.rank(), numbers.len())?;
            parts.push(part[own.clone()].to_vec());
        }
        Ok(parts)
    }

    /// Returns the concatenated numbers of all learners, by rank (all-gather). The default uses
    /// [`gather`](Self::gather).
    ///
    /// # Errors
    /// Returns the errors of [`gather`](Self::gather).
    fn concat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        let all = self.gather(to_bytes(b'c', &numbers))?;
        let mut joined = Vec::new();
        for (rank, bytes) in all.iter().enumerate() {
            joined.extend(from_bytes(b'c', bytes, rank)?);
        }
        Ok(joined)
    }

    /// Replaces `numbers` by their sum over all learners (all-reduce), with the same result on
    /// each. The order of summation is unspecified; the default sums by rank, with
    /// [`exchange`](Self::exchange) and [`concat`](Self::concat).
    ///
    /// # Errors
    /// Returns the errors of [`exchange`](Self::exchange).
    fn sum(&self, numbers: &mut Vec<f32>) -> Result<()> {
        let mut parts = self.exchange(std::mem::take(numbers))?.into_iter();
        let mut sum = parts.next().unwrap_or_default();
        parts.for_each(|part| add(&mut sum, &part));
        *numbers = self.concat(sum)?;
        Ok(())
    }
}

impl<L: Learners + ?Sized> Learners for Arc<L> {
    fn rank(&self) -> usize {
        (**self).rank()
    }

    fn size(&self) -> usize {
        (**self).size()
    }

    fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        (**self).gather(bytes)
    }

    fn exchange(&self, numbers: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        (**self).exchange(numbers)
    }

    fn concat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        (**self).concat(numbers)
    }

    fn sum(&self, numbers: &mut Vec<f32>) -> Result<()> {
        (**self).sum(numbers)
    }
}

/// A single learner: the default.
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

    fn exchange(&self, numbers: Vec<f32>) -> Result<Vec<Vec<f32>>> {
        Ok(vec![numbers])
    }

    fn concat(&self, numbers: Vec<f32>) -> Result<Vec<f32>> {
        Ok(numbers)
    }

    fn sum(&self, _numbers: &mut Vec<f32>) -> Result<()> {
        Ok(())
    }
}

/// Returns the range of part `index` when `count` items are divided into `parts` consecutive parts.
pub(super) fn slice(count: usize, index: usize, parts: usize) -> Range<usize> {
    index * count / parts..(index + 1) * count / parts
}

/// Adds `other` to `sum` element by element.
pub(super) fn add(sum: &mut [f32], other: &[f32]) {
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum += other;
    }
}

/// Returns an error if learner `rank` has `length` numbers but learner `own_rank` has `own`.
fn check_length(rank: usize, length: usize, own_rank: usize, own: usize) -> Result<()> {
    match length == own {
        true => Ok(()),
        false => Err(Error::shape(
            format!("numbers of learner {rank}"),
            length,
            format!("{own}, as on learner {own_rank}"),
        )),
    }
}

/// Encodes numbers as a message that begins with its kind.
fn to_bytes(kind: u8, numbers: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 4 * numbers.len());
    bytes.push(kind);
    bytes.extend(numbers.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

/// Decodes a message of [`to_bytes`] from learner `rank`.
fn from_bytes(kind: u8, bytes: &[u8], rank: usize) -> Result<Vec<f32>> {
    let (words, rest) = bytes.get(1..).unwrap_or_default().as_chunks::<4>();
    if bytes.first() != Some(&kind) || !rest.is_empty() {
        return Err(Error::learner(
            rank,
            "it is in another collective call than this learner",
        ));
    }
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}
