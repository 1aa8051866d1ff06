//! Work on all threads of the current rayon pool, into memory that is written once.

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

use crate::simd::vectorised;

/// Memory that is about to be written.
pub(crate) type Spare = [MaybeUninit<f32>];

/// A loop over fewer floats is not worth a second thread.
const SERIAL: usize = 16 * 1024;

/// A vector of `len` floats in blocks of `block`, each filled by `fill`, which must write all of the block that it gets.
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
    // SAFETY: `fill` has written every element of every block, and the blocks cover the vector.
    unsafe { out.set_len(len) };
    out
}

/// Two vectors at once, as [`blocks`].
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
    // SAFETY: `fill` has written every element of every block, and the blocks cover both vectors.
    unsafe {
        a.set_len(len);
        b.set_len(len);
    }
    (a, b)
}

/// A vector of `count` rows of `width` floats; `fill` gets the number of a row and the row.
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

/// The sum over all rows of `width` floats. `add` adds a range of rows to what it gets.
///
/// Which rows are added first depends on the shape alone, and so does the rounding.
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

/// Rows that one thread takes at a time.
fn block_rows(width: usize) -> usize {
    (SERIAL / width.max(1)).max(1)
}

/// A pointer that threads share, each to write elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: whoever dereferences it says why no two threads touch the same element.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The capacity of `out`, `len` floats of it.
    pub(crate) fn new(out: &mut Vec<f32>, len: usize) -> Self {
        Self::of(&mut out.spare_capacity_mut()[..len])
    }

    /// A pointer to memory that is about to be written.
    pub(crate) fn of(spare: &mut Spare) -> Self {
        Self(spare.as_mut_ptr().cast())
    }

    /// A pointer to element `offset`.
    ///
    /// # Safety
    /// It must be within the allocation.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: promised by the caller.
        unsafe { self.0.add(offset) }
    }
}
