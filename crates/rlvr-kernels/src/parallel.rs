//! Parallel loops on the current rayon pool that fill new vectors without zeroing them first.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::simd::vectorised;

/// Uninitialised memory to be written.
pub(crate) type Spare = [MaybeUninit<f32>];

/// Loops over at most this many floats use one thread.
const SERIAL: usize = 16 * 1024;

/// Returns a vector of `len` floats. `fill` is called with the range and the memory of each block
/// of `block` floats and must write all of it.
pub(crate) fn blocks(
    len: usize,
    block: usize,
    fill: impl Fn(Range<usize>, &mut Spare) + Sync,
) -> Vec<f32> {
    let mut out: Vec<f32> = Vec::with_capacity(len);
    let work = |(index, part): (usize, &mut Spare)| {
        let start = index * block;
        vectorised(
            #[inline(always)]
            || fill(start..start + part.len(), part),
        );
    };
    let spare = &mut out.spare_capacity_mut()[..len];
    match len > SERIAL {
        true => spare.par_chunks_mut(block).enumerate().for_each(work),
        false => spare.chunks_mut(block).enumerate().for_each(work),
    }
    // SAFETY: `fill` wrote every element of every block, and the blocks cover the vector.
    unsafe { out.set_len(len) };
    out
}

/// As [`blocks`], for two vectors at once.
pub(crate) fn blocks2(
    len: usize,
    block: usize,
    fill: impl Fn(Range<usize>, &mut Spare, &mut Spare) + Sync,
) -> (Vec<f32>, Vec<f32>) {
    let (mut a, mut b): (Vec<f32>, Vec<f32>) = (Vec::with_capacity(len), Vec::with_capacity(len));
    let work = |(index, (a, b)): (usize, (&mut Spare, &mut Spare))| {
        let start = index * block;
        vectorised(
            #[inline(always)]
            || fill(start..start + a.len(), a, b),
        );
    };
    let (spare_a, spare_b) = (
        &mut a.spare_capacity_mut()[..len],
        &mut b.spare_capacity_mut()[..len],
    );
    match len > SERIAL {
        true => {
            let parts = spare_a
                .par_chunks_mut(block)
                .zip(spare_b.par_chunks_mut(block));
            parts.enumerate().for_each(work);
        }
        false => {
            let parts = spare_a.chunks_mut(block).zip(spare_b.chunks_mut(block));
            parts.enumerate().for_each(work);
        }
    }
    // SAFETY: `fill` wrote every element of every block, and the blocks cover both vectors.
    unsafe {
        a.set_len(len);
        b.set_len(len);
    }
    (a, b)
}

/// Returns a vector of `count` rows of `width` floats. `fill` is called with the index and the
/// memory of each row and must write all of it.
pub(crate) fn rows(
    count: usize,
    width: usize,
    fill: impl Fn(usize, &mut Spare) + Sync,
) -> Vec<f32> {
    blocks(
        count * width,
        block_rows(width) * width,
        #[inline(always)]
        |range, out| {
            for (row, out) in (range.start / width..).zip(out.chunks_exact_mut(width)) {
                fill(row, out);
            }
        },
    )
}

/// Returns the sum over `count` rows of `width` floats. `add` adds a range of rows to a partial
/// sum.
///
/// The order of the additions, and so the rounding, depends only on the shape.
pub(crate) fn sum_over_rows(
    count: usize,
    width: usize,
    add: impl Fn(Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let block = block_rows(width);
    let sums: Vec<Vec<f32>> = (0..count.div_ceil(block))
        .into_par_iter()
        .map(|index| {
            let mut sum = vec![0f32; width];
            let rows = index * block..count.min((index + 1) * block);
            vectorised(
                #[inline(always)]
                || add(rows, &mut sum),
            );
            sum
        })
        .collect();
    let add = |mut a: Vec<f32>, b: Vec<f32>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    sums.into_iter()
        .reduce(add)
        .unwrap_or_else(|| vec![0.0; width])
}

/// Rows per block.
fn block_rows(width: usize) -> usize {
    (SERIAL / width.max(1)).max(1)
}

/// A pointer that threads share to write disjoint elements.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: every dereference states why no two threads access the same element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A pointer to the first `len` floats of the spare capacity of `out`.
    pub(crate) fn new(out: &mut Vec<f32>, len: usize) -> Self {
        Self::of(&mut out.spare_capacity_mut()[..len])
    }

    /// A pointer to uninitialised memory.
    pub(crate) fn of(spare: &mut Spare) -> Self {
        Self(spare.as_mut_ptr().cast())
    }

    /// Returns a pointer to element `offset`.
    ///
    /// # Safety
    /// `offset` must be within the allocation.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: guaranteed by the caller.
        unsafe { self.0.add(offset) }
    }
}
