//! Products of matrices.

use std::mem::MaybeUninit;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::few_rows;

/// A matrix in a slice: element `(i, j)` stands at `start + i * strides[0] + j * strides[1]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A matrix stored row after row.
    ///
    /// # Panics
    /// If `data` is not `rows * columns` long.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix of {rows} x {columns}");
        Self {
            data,
            shape: [rows, columns],
            strides: [columns, 1],
        }
    }

    /// A matrix with any strides; `data` begins with its first element.
    ///
    /// # Panics
    /// If its last element is not within `data`.
    pub fn strided(data: &'a [f32], shape: [usize; 2], strides: [usize; 2]) -> Self {
        if shape[0] > 0 && shape[1] > 0 {
            let last = (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1];
            assert!(
                last < data.len(),
                "element {last} of {} of a matrix {shape:?}",
                data.len()
            );
        }
        Self {
            data,
            shape,
            strides,
        }
    }

    /// Rows and columns exchanged, without a copy.
    #[must_use]
    pub fn transposed(self) -> Self {
        let ([rows, columns], [row, column]) = (self.shape, self.strides);
        Self {
            data: self.data,
            shape: [columns, rows],
            strides: [column, row],
        }
    }

    /// The rows `range`.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn rows(self, range: std::ops::Range<usize>) -> Self {
        assert!(
            range.end <= self.shape[0],
            "rows {range:?} of {}",
            self.shape[0]
        );
        let start = (range.start * self.strides[0]).min(self.data.len());
        Self {
            data: &self.data[start..],
            shape: [range.len(), self.shape[1]],
            strides: self.strides,
        }
    }

    /// The numbers of row `row`, whose neighbours stand side by side.
    ///
    /// # Panics
    /// If there is no such row, or its numbers are apart.
    pub fn row(&self, row: usize) -> &'a [f32] {
        assert!(
            row < self.shape[0] && self.strides[1] == 1,
            "row {row} of {:?}",
            self.shape
        );
        &self.data[row * self.strides[0]..][..self.shape[1]]
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }
}

/// Products of at least so many multiplications are worth several threads.
const PARALLEL: usize = 1 << 21;

/// A product of at most so many rows is not worth copying the other matrix for,
const FEW_ROWS: usize = 16;
/// unless its rows are shorter than this and stand where they are wanted.
const LONG_ROW: usize = 1024;

/// With more rows than this, putting the other matrix into another order costs little.
const MANY_ROWS: usize = 512;

/// Floats below which one thread copies all.
const SERIAL: usize = 1 << 14;

/// The threads for a product of so many multiplications.
fn threads(work: usize) -> Parallelism {
    match work >= PARALLEL && rayon::current_num_threads() > 1 {
        true => Parallelism::Rayon(0),
        false => Parallelism::None,
    }
}

/// `A B`, row after row.
///
/// # Panics
/// If the columns of `A` are not the rows of `B`.
pub fn product(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
    let ([m, k], [rows, n]) = (a.shape, b.shape);
    assert_eq!(k, rows, "a product of {m} x {k} and {rows} x {n}");
    let mut out: Vec<f32> = Vec::with_capacity(m * n);
    let to = &mut out.spare_capacity_mut()[..m * n];
    match (m <= FEW_ROWS && a.strides == [k, 1], b.strides) {
        (true, [row, 1]) if row == n && n >= LONG_ROW => {
            few_rows::by_rows(to, &a.data[..m * k], b.data, [m, k, n])
        }
        (true, [1, column]) if column == k => {
            few_rows::by_columns(to, &a.data[..m * k], b.data, [m, k, n])
        }
        _ if k == 0 => to.fill(MaybeUninit::new(0.0)),
        (_, [1, _]) if n > 0 && k >= 2 * n && m <= MANY_ROWS => transposed_product(to, a, b),
        _ => {
            // SAFETY: the destination has m x n elements; nothing is read from it.
            unsafe { overwrite(to.as_mut_ptr().cast(), a, b) };
        }
    }
    // SAFETY: the product has written all of it.
    unsafe { out.set_len(m * n) };
    out
}

/// `to = A B` for a `B` that lies transposed, with long columns: the general product would put all of `B` into another order. `B^T A^T` needs to
/// do that with `A` only, and its result is smaller than `B`.
fn transposed_product(to: &mut [MaybeUninit<f32>], a: Matrix<'_>, b: Matrix<'_>) {
    let (m, n) = (a.shape[0], b.shape[1]);
    let mut turned: Vec<f32> = Vec::with_capacity(n * m);
    // SAFETY: there is room for n x m elements, which the product writes; nothing is read from there.
    unsafe {
        overwrite(turned.as_mut_ptr(), b.transposed(), a.transposed());
        turned.set_len(n * m);
    }
    let (turned, work) = (&turned, m * n);
    let fill = |(row, to): (usize, &mut [MaybeUninit<f32>])| {
        for (column, to) in to.iter_mut().enumerate() {
            to.write(turned[column * m + row]);
        }
    };
    match work < SERIAL {
        true => to.chunks_exact_mut(n).enumerate().for_each(fill),
        false => to.par_chunks_exact_mut(n).enumerate().for_each(fill),
    }
}

/// `to = A B`, row after row.
///
/// # Safety
/// There must be room for all of it, which no other thread uses.
unsafe fn overwrite(to: *mut f32, a: Matrix<'_>, b: Matrix<'_>) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    // SAFETY: promised by the caller; nothing is read from the destination.
    unsafe { multiply(to, [n, 1], false, a, b, 1.0, threads(m * n * k)) };
}

/// `to += A B` on one row-major matrix.
///
/// # Panics
/// If the shapes do not fit.
pub fn add_product(to: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    assert_eq!(to.len(), m * n, "a sum of {m} x {n}");
    // SAFETY: the destination has m x n elements, all of them initialised.
    unsafe { multiply(to.as_mut_ptr(), [n, 1], true, a, b, 1.0, threads(m * n * k)) };
}

/// `to = read * to + factor A B`, where `read` says whether what stands at the destination is added.
///
/// # Safety
/// Every element of the destination with these strides must be valid for writes by this thread alone and, if `read`, initialised.
pub(crate) unsafe fn multiply(
    to: *mut f32,
    strides: [usize; 2],
    read: bool,
    a: Matrix<'_>,
    b: Matrix<'_>,
    factor: f32,
    parallelism: Parallelism,
) {
    let ([m, k], [rows, n]) = (a.shape, b.shape);
    assert_eq!(k, rows, "a product of {m} x {k} and {rows} x {n}");
    // SAFETY: both sources lie within their slices, and the destination is the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to,
            strides[1] as isize,
            strides[0] as isize,
            read,
            a.data.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.data.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            1.0,
            factor,
            false,
            false,
            false,
            parallelism,
        );
    }
}
