//! A matrix in an order, and in fewer bytes, that suit products with few rows.

use std::mem::MaybeUninit;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use crate::matrix::Matrix;
use crate::parallel::Shared;

/// Columns of a panel.
const PANEL: usize = 32;

/// Rows of a panel that are converted to `f32` at a time: 8 KiB, which stay in the first cache.
const BLOCK: usize = 64;

/// Multiplications below which one thread does all.
const SERIAL: usize = 1 << 17;

/// How the numbers of a [`PackedMatrix`] are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackedFormat {
    /// As they are, 4 bytes each.
    F32,
    /// Rounded to bfloat16 (to nearest, ties to even), 2 bytes each.
    Bf16,
    /// As `scale * q` with `q` from -127 to 127 and one scale for each column, 1 byte each: the
    /// largest magnitude of the column is 127 scales.
    Int8,
}

/// The right-hand side of [`PackedMatrix::left_product`]: a matrix `[k, n]` in panels of 32
/// columns, each row after row.
///
/// Products read it once, in order, whatever the number of rows on the left; decoding a token of a
/// language model for several sequences is limited by that reading.
///
/// ```
/// use rlvr_kernels::{Matrix, PackedFormat, PackedMatrix};
///
/// let weight = [1.0, -2.0, 0.5, 4.0];
/// let packed = PackedMatrix::new(Matrix::new(&weight, 2, 2), PackedFormat::Int8);
/// let y = packed.left_product(Matrix::new(&[1.0, 1.0], 1, 2));
/// assert!((y[0] - 1.5).abs() < 0.01 && (y[1] - 2.0).abs() < 0.04);
/// ```
#[derive(Clone)]
pub struct PackedMatrix {
    shape: [usize; 2],
    panels: Panels,
}

#[derive(Clone)]
enum Panels {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Int8 { numbers: Vec<i8>, scales: Vec<f32> },
}

impl PackedMatrix {
    /// Packs `matrix`, on several threads.
    pub fn new(matrix: Matrix<'_>, format: PackedFormat) -> Self {
        let panels = match format {
            PackedFormat::F32 => Panels::F32(pack(matrix, |_, x| x)),
            PackedFormat::Bf16 => Panels::Bf16(pack(matrix, |_, x| to_bf16(x))),
            PackedFormat::Int8 => {
                let scales = scales(matrix);
                let quantise = |column: usize, x: f32| match scales[column] {
                    0.0 => 0,
                    scale => (x / scale).round() as i8,
                };
                let numbers = pack(matrix, quantise);
                Panels::Int8 { numbers, scales }
            }
        };
        Self {
            shape: matrix.shape(),
            panels,
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// The bytes that the numbers take.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(numbers) => size_of_val(numbers.as_slice()),
            Panels::Bf16(numbers) => size_of_val(numbers.as_slice()),
            Panels::Int8 { numbers, scales } => numbers.len() + size_of_val(scales.as_slice()),
        }
    }

    /// The matrix with the numbers as they are stored, row after row.
    pub fn unpacked(&self) -> Vec<f32> {
        let [k, n] = self.shape;
        let mut out = vec![0f32; k * n];
        for (index, column) in (0..k).flat_map(|row| (0..n).map(move |column| (row, column))) {
            let at = column / PANEL * k * PANEL + index * PANEL + column % PANEL;
            out[index * n + column] = match &self.panels {
                Panels::F32(numbers) => numbers[at],
                Panels::Bf16(numbers) => from_bf16(numbers[at]),
                Panels::Int8 { numbers, scales } => f32::from(numbers[at]) * scales[column],
            };
        }
        out
    }

    /// `x W` of every row of `x`, where `W` is this matrix. Computed in `f32`; a row of the result
    /// does not depend on the other rows.
    ///
    /// # Panics
    /// If the columns of `x` are not the rows of `W`.
    pub fn left_product(&self, x: Matrix<'_>) -> Vec<f32> {
        let ([m, columns], [k, n]) = (x.shape(), self.shape);
        assert_eq!(k, columns, "a product of {m} x {columns} and {k} x {n}");
        let copied;
        let x = match x.in_order() {
            Some(x) => x,
            None => {
                copied = x.to_vec();
                &copied
            }
        };
        let mut out: Vec<f32> = Vec::with_capacity(m * n);
        let to = Shared::of(&mut out.spare_capacity_mut()[..m * n]);
        let one = |panel: usize| {
            let mut sums = vec![0f32; m * PANEL];
            let numbers = panel * k * PANEL..(panel + 1) * k * PANEL;
            pulp::Arch::new().dispatch(AddPanel {
                sums: &mut sums,
                x,
                k,
                panel: match &self.panels {
                    Panels::F32(all) => Panel::F32(&all[numbers]),
                    Panels::Bf16(all) => Panel::Bf16(&all[numbers]),
                    Panels::Int8 { numbers: all, .. } => Panel::Int8(&all[numbers]),
                },
            });
            let start = panel * PANEL;
            let width = PANEL.min(n - start);
            for (row, sums) in sums.chunks_exact_mut(PANEL).enumerate() {
                if let Panels::Int8 { scales, .. } = &self.panels {
                    let scales = &scales[start..start + width];
                    sums.iter_mut().zip(scales).for_each(|(sum, s)| *sum *= s);
                }
                // SAFETY: these columns of this row are written by this panel alone.
                unsafe {
                    std::ptr::copy_nonoverlapping(sums.as_ptr(), to.at(row * n + start), width);
                }
            }
        };
        let panels = n.div_ceil(PANEL);
        match m * k * n < SERIAL {
            true => (0..panels).for_each(one),
            false => {
                let least = (SERIAL / (m * k * PANEL).max(1)).max(1);
                let panels = (0..panels).into_par_iter().with_min_len(least);
                panels.for_each(one);
            }
        }
        // SAFETY: the panels cover all columns of all rows.
        unsafe { out.set_len(m * n) };
        out
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix")
            .field("shape", &self.shape)
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// The numbers of `matrix` in panels; the columns after the last are zero.
fn pack<T: Copy + Default + Send + Sync>(
    matrix: Matrix<'_>,
    convert: impl Fn(usize, f32) -> T + Sync,
) -> Vec<T> {
    let [k, n] = matrix.shape();
    let len = k * n.next_multiple_of(PANEL);
    let mut out: Vec<T> = Vec::with_capacity(len);
    let spare = &mut out.spare_capacity_mut()[..len];
    let fill = |(panel, out): (usize, &mut [MaybeUninit<T>])| {
        let start = panel * PANEL;
        // Few rows at a time: the columns of a transposed matrix are far apart.
        for (block, out) in out.chunks_mut(16 * PANEL).enumerate() {
            for column in 0..PANEL {
                for (row, out) in (16 * block..).zip(out[column..].iter_mut().step_by(PANEL)) {
                    out.write(match start + column < n {
                        true => convert(start + column, matrix.at(row, start + column)),
                        false => T::default(),
                    });
                }
            }
        }
    };
    let panel = (k * PANEL).max(1);
    match len < SERIAL {
        true => spare.chunks_mut(panel).enumerate().for_each(fill),
        false => spare.par_chunks_mut(panel).enumerate().for_each(fill),
    }
    // SAFETY: every element of every panel was written.
    unsafe { out.set_len(len) };
    out
}

/// What 1 stands for in each column: the largest magnitude is 127.
fn scales(matrix: Matrix<'_>) -> Vec<f32> {
    let [k, n] = matrix.shape();
    let largest = |column: usize| {
        let magnitudes = (0..k).map(|row| matrix.at(row, column).abs());
        magnitudes.fold(0f32, f32::max) / 127.0
    };
    (0..n).into_par_iter().map(largest).collect()
}

/// To nearest, ties to even; NaN stays NaN.
fn to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    match x.is_nan() {
        true => (bits >> 16) as u16 | 0x40,
        false => ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16,
    }
}

#[inline(always)]
fn from_bf16(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[derive(Clone, Copy)]
enum Panel<'a> {
    F32(&'a [f32]),
    Bf16(&'a [u16]),
    Int8(&'a [i8]),
}

/// Adds `x W` to `sums`, rows of [`PANEL`], for the columns of one panel, in the order of the rows
/// of `W`.
struct AddPanel<'a> {
    sums: &'a mut [f32],
    x: &'a [f32],
    k: usize,
    panel: Panel<'a>,
}

impl WithSimd for AddPanel<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sums, x, k, panel } = self;
        let mut converted = [0f32; BLOCK * PANEL];
        for from in (0..k).step_by(BLOCK) {
            let rows = BLOCK.min(k - from);
            let range = from * PANEL..(from + rows) * PANEL;
            let w = match panel {
                Panel::F32(numbers) => &numbers[range],
                Panel::Bf16(numbers) => {
                    for (to, &from) in converted.iter_mut().zip(&numbers[range]) {
                        *to = from_bf16(from);
                    }
                    &converted[..rows * PANEL]
                }
                Panel::Int8(numbers) => {
                    for (to, &from) in converted.iter_mut().zip(&numbers[range]) {
                        *to = f32::from(from);
                    }
                    &converted[..rows * PANEL]
                }
            };
            let mut row = 0;
            let mut rest = &mut *sums;
            while !rest.is_empty() {
                let left = rest.len() / PANEL;
                let count = if left >= 6 { 6 } else { left.min(2) };
                let (these, others) = rest.split_at_mut(count * PANEL);
                let x = |r: usize| &x[(row + r) * k + from..][..rows];
                match count {
                    6 => add_rows(simd, these, [x(0), x(1), x(2), x(3), x(4), x(5)], w),
                    2 => add_rows(simd, these, [x(0), x(1)], w),
                    _ => add_rows(simd, these, [x(0)], w),
                }
                row += count;
                rest = others;
            }
        }
    }
}

/// Adds `R` rows of `x` times a block `w` to `sums`. The sums of two vectors of columns stay in
/// registers.
#[inline(always)]
fn add_rows<S: Simd, const R: usize>(simd: S, sums: &mut [f32], x: [&[f32]; R], w: &[f32]) {
    let vectors = const { PANEL / S::F32_LANES };
    let (sums, w) = (S::as_mut_simd_f32s(sums).0, S::as_simd_f32s(w).0);
    let rows = w.len() / vectors;
    assert!(sums.len() == R * vectors && x.iter().all(|x| x.len() == rows));
    for v in (0..vectors).step_by(2) {
        let mut sum = [[simd.splat_f32s(0.0); 2]; R];
        for (sum, all) in sum.iter_mut().zip(sums.chunks_exact(vectors)) {
            *sum = [all[v], all[v + 1]];
        }
        for (i, w) in w.chunks_exact(vectors).enumerate() {
            let (a, b) = (w[v], w[v + 1]);
            for (sum, x) in sum.iter_mut().zip(x) {
                let x = simd.splat_f32s(x[i]);
                *sum = [
                    simd.mul_add_f32s(x, a, sum[0]),
                    simd.mul_add_f32s(x, b, sum[1]),
                ];
            }
        }
        for (sum, all) in sum.iter().zip(sums.chunks_exact_mut(vectors)) {
            [all[v], all[v + 1]] = *sum;
        }
    }
}
