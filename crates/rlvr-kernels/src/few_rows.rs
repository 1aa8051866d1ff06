//! Products of few rows with a large matrix, as in decoding, where each sequence has one row.
//!
//! A general product first repacks the matrix, which pays off only for many rows. The products here
//! read it once, in memory order, and the result of a row does not depend on the other rows.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::parallel::Shared;

/// The most columns of a part.
const WIDEST: usize = 512;
/// The number of columns of a part is a multiple of this.
const NARROWEST: usize = 64;

/// Products of fewer multiplications than this use one thread.
const SERIAL: usize = 1 << 18;

/// The number of columns of a part. No result depends on it.
fn columns_at_a_time(columns: usize, work: usize) -> usize {
    let threads = match work < SERIAL {
        true => 1,
        false => rayon::current_num_threads(),
    };
    let share = columns.div_ceil(2 * threads).next_multiple_of(NARROWEST);
    share.clamp(NARROWEST, WIDEST)
}

/// Calls `part` with the first column and the number of columns of every part, on several threads
/// if `work` is large enough.
fn over_columns(columns: usize, work: usize, part: impl Fn(usize, usize) + Sync) {
    let width = columns_at_a_time(columns, work);
    let starts = 0..columns.div_ceil(width);
    let one = |index: usize| part(index * width, width.min(columns - index * width));
    match work < SERIAL {
        true => starts.for_each(one),
        false => starts.into_par_iter().for_each(one),
    }
}

/// Fills `to` `[m, n]`. For each part, `compute` gets its first column, its number of columns and
/// its sums `[m, columns]`, which are zero at first.
fn by_parts(
    to: &mut [MaybeUninit<f32>],
    [m, k, n]: [usize; 3],
    compute: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    assert_eq!(to.len(), m * n, "a product of {m} x {n}");
    let to = Shared::of(to);
    over_columns(n, m * k * n, |start, width| {
        let mut sums = vec![0f32; m * width];
        compute(start, width, &mut sums);
        for (row, sums) in sums.chunks_exact(width).enumerate() {
            // SAFETY: only this part writes these columns of this row.
            unsafe { std::ptr::copy_nonoverlapping(sums.as_ptr(), to.at(row * n + start), width) };
        }
    });
}

/// Computes `to = x W` for row-major `x` `[m, k]` and `W` `[k, n]`.
pub(crate) fn by_rows(
    to: &mut [MaybeUninit<f32>],
    x: &[f32],
    weight: &[f32],
    [m, k, n]: [usize; 3],
) {
    assert!(x.len() == m * k && weight.len() >= k * n);
    by_parts(to, [m, k, n], |start, width, sums| {
        pulp::Arch::new().dispatch(AddRows {
            sums,
            x,
            weight,
            k,
            n,
            start,
            width,
        });
    });
}

/// Adds `x W` at columns `start..start + width` to `sums`, in the order of the rows of `W`.
struct AddRows<'a> {
    sums: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    k: usize,
    n: usize,
    start: usize,
    width: usize,
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            sums,
            x,
            weight,
            k,
            n,
            start,
            width,
        } = self;
        for index in (0..k).step_by(4) {
            if index + 4 > k {
                for index in index..k {
                    let w = &weight[index * n + start..][..width];
                    for (sums, x) in sums.chunks_exact_mut(width).zip(x.chunks_exact(k)) {
                        add_scaled(simd, sums, x[index], w);
                    }
                }
                break;
            }
            let at = |i: usize| &weight[(index + i) * n + start..][..width];
            let w = [at(0), at(1), at(2), at(3)];
            let mut fours = sums.chunks_exact_mut(4 * width);
            let mut row = 0;
            for four in &mut fours {
                let (a, rest) = four.split_at_mut(width);
                let (b, rest) = rest.split_at_mut(width);
                let (c, d) = rest.split_at_mut(width);
                let x = |r: usize| &x[(row + r) * k + index..][..4];
                add_four_to_four(simd, [a, b, c, d], [x(0), x(1), x(2), x(3)], w);
                row += 4;
            }
            for sums in fours.into_remainder().chunks_exact_mut(width) {
                add_four(simd, sums, &x[row * k + index..][..4], w);
                row += 1;
            }
        }
    }
}

/// Computes `sum += x0 w0 + x1 w1 + x2 w2 + x3 w3`, in this order.
#[inline(always)]
fn add_four<S: Simd>(simd: S, sums: &mut [f32], x: &[f32], w: [&[f32]; 4]) {
    let (sums, sums_rest) = S::as_mut_simd_f32s(sums);
    let ((w0, r0), (w1, r1)) = (S::as_simd_f32s(w[0]), S::as_simd_f32s(w[1]));
    let ((w2, r2), (w3, r3)) = (S::as_simd_f32s(w[2]), S::as_simd_f32s(w[3]));
    let [x0, x1, x2, x3] = [x[0], x[1], x[2], x[3]];
    let xs = [
        simd.splat_f32s(x0),
        simd.splat_f32s(x1),
        simd.splat_f32s(x2),
        simd.splat_f32s(x3),
    ];
    for ((((sum, &w0), &w1), &w2), &w3) in sums.iter_mut().zip(w0).zip(w1).zip(w2).zip(w3) {
        *sum = chain(simd, *sum, xs, [w0, w1, w2, w3]);
    }
    for ((((sum, &w0), &w1), &w2), &w3) in sums_rest.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
        *sum = x3.mul_add(w3, x2.mul_add(w2, x1.mul_add(w1, x0.mul_add(w0, *sum))));
    }
}

/// As [`add_four`], for four rows at once.
#[inline(always)]
fn add_four_to_four<S: Simd>(simd: S, sums: [&mut [f32]; 4], x: [&[f32]; 4], w: [&[f32]; 4]) {
    let [s0, s1, s2, s3] = sums;
    let whole = s0.len() / S::F32_LANES * S::F32_LANES;
    if whole < s0.len() {
        for (sums, x) in [
            &mut s0[whole..],
            &mut s1[whole..],
            &mut s2[whole..],
            &mut s3[whole..],
        ]
        .into_iter()
        .zip(x)
        {
            add_four(
                simd,
                sums,
                x,
                [
                    &w[0][whole..],
                    &w[1][whole..],
                    &w[2][whole..],
                    &w[3][whole..],
                ],
            );
        }
    }
    let splat = |x: &[f32]| {
        [
            simd.splat_f32s(x[0]),
            simd.splat_f32s(x[1]),
            simd.splat_f32s(x[2]),
            simd.splat_f32s(x[3]),
        ]
    };
    let (x0, x1, x2, x3) = (splat(x[0]), splat(x[1]), splat(x[2]), splat(x[3]));
    let (s0, s1) = (S::as_mut_simd_f32s(s0).0, S::as_mut_simd_f32s(s1).0);
    let (s2, s3) = (S::as_mut_simd_f32s(s2).0, S::as_mut_simd_f32s(s3).0);
    let (w0, w1) = (S::as_simd_f32s(w[0]).0, S::as_simd_f32s(w[1]).0);
    let (w2, w3) = (S::as_simd_f32s(w[2]).0, S::as_simd_f32s(w[3]).0);
    let sums = s0.iter_mut().zip(s1).zip(s2.iter_mut().zip(s3));
    let weights = w0.iter().zip(w1).zip(w2.iter().zip(w3));
    for (((s0, s1), (s2, s3)), ((&w0, &w1), (&w2, &w3))) in sums.zip(weights) {
        let w = [w0, w1, w2, w3];
        *s0 = chain(simd, *s0, x0, w);
        *s1 = chain(simd, *s1, x1, w);
        *s2 = chain(simd, *s2, x2, w);
        *s3 = chain(simd, *s3, x3, w);
    }
}

#[inline(always)]
fn chain<S: Simd>(simd: S, sum: S::f32s, x: [S::f32s; 4], w: [S::f32s; 4]) -> S::f32s {
    let sum = simd.mul_add_f32s(x[0], w[0], sum);
    let sum = simd.mul_add_f32s(x[1], w[1], sum);
    let sum = simd.mul_add_f32s(x[2], w[2], sum);
    simd.mul_add_f32s(x[3], w[3], sum)
}

/// Computes `sum += x w`.
#[inline(always)]
fn add_scaled<S: Simd>(simd: S, sums: &mut [f32], x: f32, w: &[f32]) {
    let ((sums, sums_rest), (w, w_rest)) = (S::as_mut_simd_f32s(sums), S::as_simd_f32s(w));
    let xs = simd.splat_f32s(x);
    for (sum, &w) in sums.iter_mut().zip(w) {
        *sum = simd.mul_add_f32s(xs, w, *sum);
    }
    for (sum, &w) in sums_rest.iter_mut().zip(w_rest) {
        *sum = x.mul_add(w, *sum);
    }
}

/// Computes `to = x W^T` for row-major `x` `[m, k]` and `W` `[n, k]`.
pub(crate) fn by_columns(
    to: &mut [MaybeUninit<f32>],
    x: &[f32],
    weight: &[f32],
    [m, k, n]: [usize; 3],
) {
    assert!(x.len() == m * k && weight.len() >= k * n);
    by_parts(to, [m, k, n], |start, width, sums| {
        let weight = &weight[start * k..(start + width) * k];
        pulp::Arch::new().dispatch(DotColumns {
            sums,
            x,
            weight,
            k,
            width,
        });
    });
}

/// Computes `sums = x W^T` for `W` `[width, k]`.
struct DotColumns<'a> {
    sums: &'a mut [f32],
    x: &'a [f32],
    weight: &'a [f32],
    k: usize,
    width: usize,
}

impl WithSimd for DotColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            sums,
            x,
            weight,
            k,
            width,
        } = self;
        let rows = sums.len() / width;
        let (pairs, fours) = (width / 2 * 2, rows / 4 * 4);
        let w = |column: usize| &weight[column * k..][..k];
        let x = |row: usize| &x[row * k..][..k];
        for column in (0..pairs).step_by(2) {
            let w = [w(column), w(column + 1)];
            for row in (0..fours).step_by(4) {
                let eight = dots_2x4(simd, w, [x(row), x(row + 1), x(row + 2), x(row + 3)]);
                for r in 0..4 {
                    sums[(row + r) * width + column] = eight[r];
                    sums[(row + r) * width + column + 1] = eight[4 + r];
                }
            }
            for row in fours..rows {
                sums[row * width + column] = dot(simd, w[0], x(row));
                sums[row * width + column + 1] = dot(simd, w[1], x(row));
            }
        }
        for column in pairs..width {
            for row in 0..rows {
                sums[row * width + column] = dot(simd, w(column), x(row));
            }
        }
    }
}

#[inline(always)]
fn dot<S: Simd>(simd: S, w: &[f32], x: &[f32]) -> f32 {
    let ((w, w_rest), (x, x_rest)) = (S::as_simd_f32s(w), S::as_simd_f32s(x));
    let mut sum = simd.splat_f32s(0.0);
    for (&w, &x) in w.iter().zip(x) {
        sum = simd.mul_add_f32s(w, x, sum);
    }
    finish(simd, sum, w_rest, x_rest)
}

#[inline(always)]
fn finish<S: Simd>(simd: S, sum: S::f32s, w: &[f32], x: &[f32]) -> f32 {
    let sum = simd.reduce_sum_f32s(sum);
    w.iter().zip(x).fold(sum, |sum, (w, x)| w.mul_add(*x, sum))
}

/// Returns the dot products of each of `w` with each of `x`, bit for bit those of [`dot`].
#[inline(always)]
fn dots_2x4<S: Simd>(simd: S, w: [&[f32]; 2], x: [&[f32]; 4]) -> [f32; 8] {
    let ((w0, w0_rest), (w1, w1_rest)) = (S::as_simd_f32s(w[0]), S::as_simd_f32s(w[1]));
    let ((x0, x0_rest), (x1, x1_rest)) = (S::as_simd_f32s(x[0]), S::as_simd_f32s(x[1]));
    let ((x2, x2_rest), (x3, x3_rest)) = (S::as_simd_f32s(x[2]), S::as_simd_f32s(x[3]));
    let zero = simd.splat_f32s(0.0);
    let (mut a0, mut a1, mut a2, mut a3) = (zero, zero, zero, zero);
    let (mut b0, mut b1, mut b2, mut b3) = (zero, zero, zero, zero);
    let chunks = w0
        .iter()
        .zip(w1)
        .zip(x0.iter().zip(x1))
        .zip(x2.iter().zip(x3));
    for (((&w0, &w1), (&x0, &x1)), (&x2, &x3)) in chunks {
        a0 = simd.mul_add_f32s(w0, x0, a0);
        a1 = simd.mul_add_f32s(w0, x1, a1);
        a2 = simd.mul_add_f32s(w0, x2, a2);
        a3 = simd.mul_add_f32s(w0, x3, a3);
        b0 = simd.mul_add_f32s(w1, x0, b0);
        b1 = simd.mul_add_f32s(w1, x1, b1);
        b2 = simd.mul_add_f32s(w1, x2, b2);
        b3 = simd.mul_add_f32s(w1, x3, b3);
    }
    [
        finish(simd, a0, w0_rest, x0_rest),
        finish(simd, a1, w0_rest, x1_rest),
        finish(simd, a2, w0_rest, x2_rest),
        finish(simd, a3, w0_rest, x3_rest),
        finish(simd, b0, w1_rest, x0_rest),
        finish(simd, b1, w1_rest, x1_rest),
        finish(simd, b2, w1_rest, x2_rest),
        finish(simd, b3, w1_rest, x3_rest),
    ]
}
