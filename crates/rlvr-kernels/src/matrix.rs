//! Matrix products.

use std::mem::MaybeUninit;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::few_rows;

/// A borrowed matrix: element `(i, j)` is at `data[i * strides[0] + j * strides[1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Creates a row-major matrix.
    ///
    /// # Panics
    /// Panics if the length of `data` is not `rows * columns`.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(
            data.len(),
            rows * columns,
            "length of a matrix of {rows} x {columns}"
        );
        Self {
            data,
            shape: [rows, columns],
            strides: [columns, 1],
        }
    }

    /// Creates a matrix with any strides, in elements. `data` begins with its first element.
    ///
    /// # Panics
    /// Panics if the last element is not within `data`.
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

    /// Returns the transpose, without a copy.
    #[must_use]
    pub fn transposed(self) -> Self {
        let ([rows, columns], [row, column]) = (self.shape, self.strides);
        Self {
            data: self.data,
            shape: [columns, rows],
            strides: [column, row],
        }
    }

    /// Returns the rows `range`.
    ///
    /// # Panics
    /// Panics if `range` is out of bounds.
    #[must_use]
    pub(crate) fn rows(self, range: std::ops::Range<usize>) -> Self {
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

    /// Returns row `row` as a slice.
    ///
    /// # Panics
    /// Panics if there is no such row, or its elements are not contiguous.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert!(
            row < self.shape[0] && self.strides[1] == 1,
            "row {row} of {:?}",
            self.shape
        );
        &self.data[row * self.strides[0]..][..self.shape[1]]
    }

    /// Returns the numbers of rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The number in row `row` and column `column`.
    pub(crate) fn at(&self, row: usize, column: usize) -> f32 {
        self.data[row * self.strides[0] + column * self.strides[1]]
    }

    /// All numbers, if they are stored row after row without gaps.
    pub(crate) fn in_order(&self) -> Option<&'a [f32]> {
        let [rows, columns] = self.shape;
        (self.strides == [columns, 1]).then(|| &self.data[..rows * columns])
    }

    /// All numbers row after row.
    pub(crate) fn to_vec(self) -> Vec<f32> {
        let [rows, columns] = self.shape;
        let row = |row| (0..columns).map(move |column| self.at(row, column));
        (0..rows).flat_map(row).collect()
    }
}

/// Products of at least this many multiplications use several threads.
const PARALLEL: usize = 1 << 21;

/// Products of at most this many rows do not repack the other matrix; see [`few_rows`].
const FEW_ROWS: usize = 16;
/// A row-major matrix with shorter rows than this is left to the general product.
const LONG_ROW: usize = 1024;

/// With more rows than this, repacking the other matrix costs little.
const MANY_ROWS: usize = 512;

/// Copies of fewer floats than this use one thread.
const SERIAL: usize = 1 << 14;

/// The parallelism for a product of `work` multiplications.
fn threads(work: usize) -> Parallelism {
    match work >= PARALLEL && rayon::current_num_threads() > 1 {
        true => Parallelism::Rayon(0),
        false => Parallelism::None,
    }
}

/// Returns the product `A B`, row-major.
///
/// # Panics
/// Panics if the number of columns of `A` is not the number of rows of `B`.
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
            // SAFETY: the destination has m x n elements and is not read.
            unsafe { overwrite(to.as_mut_ptr().cast(), a, b) };
        }
    }
    // SAFETY: the product has written every element.
    unsafe { out.set_len(m * n) };
    out
}

/// Computes `to = A B` for a column-major `B` with long columns. The general product would repack
/// all of `B`; `B^T A^T` repacks only `A`, and its result is smaller than `B`.
fn transposed_product(to: &mut [MaybeUninit<f32>], a: Matrix<'_>, b: Matrix<'_>) {
    let (m, n) = (a.shape[0], b.shape[1]);
    let mut turned: Vec<f32> = Vec::with_capacity(n * m);
    // SAFETY: the capacity is n x m elements, which the product writes and does not read.
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

/// Computes `to = A B`, row-major.
///
/// # Safety
/// `to` must be valid for writes of the whole product, and no other thread may access it.
unsafe fn overwrite(to: *mut f32, a: Matrix<'_>, b: Matrix<'_>) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    // SAFETY: guaranteed by the caller; the destination is not read.
    unsafe { multiply(to, [n, 1], false, a, b, 1.0, threads(m * n * k)) };
}

/// Computes `to += A B` for a row-major `to`.
///
/// # Panics
/// Panics if the shapes do not match.
pub(crate) fn add_product(to: &mut [f32], a: Matrix<'_>, b: Matrix<'_>) {
    let ([m, k], [_, n]) = (a.shape, b.shape);
    assert_eq!(to.len(), m * n, "length of a sum of {m} x {n}");
    // SAFETY: the destination has m x n elements, all of them initialised.
    unsafe { multiply(to.as_mut_ptr(), [n, 1], true, a, b, 1.0, threads(m * n * k)) };
}

/// Computes `to += factor A B` if `read` is true, and `to = factor A B` otherwise.
///
/// # Safety
/// Every element of the destination with these strides must be valid for writes and accessed by
/// this thread alone. If `read`, it must be initialised.
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
    // SAFETY: both sources are within their slices; the caller guarantees the destination.
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
