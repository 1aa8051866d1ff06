//! A cache as one tensor per layer.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, s};

use crate::fused::AttentionMask;
use crate::host;

/// Keys and values of all rows in one tensor per layer. Each pass adds as many columns as its
/// longest row has tokens.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    pub layers: Vec<Option<Layer>>,
    /// `[B, S]`: whether a column of a row holds a token rather than padding.
    pub valid: Arc<Vec<Vec<bool>>>,
    /// Columns in use, padding included.
    pub columns: usize,
    /// Columns that were in use before the current forward pass.
    pub columns_before: usize,
    /// Columns that the current forward pass reads: those in use, and spare ones in decoding on an
    /// accelerator.
    columns_read: usize,
    /// `[B, 1, 1, columns_read]`: true at padding, for the decoding steps that follow.
    padding: Option<Tensor<4, Bool>>,
}

/// In decoding on an accelerator, the number of columns that a pass reads is a multiple of this, so
/// that the same kernels serve many passes.
const BUCKET: usize = 64;

/// `[B, H, S, Dh]`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub keys: Tensor<4>,
    pub values: Tensor<4>,
}

impl Columns {
    pub fn new(layers: usize, rows: usize) -> Self {
        Self::of(vec![None; layers], vec![Vec::new(); rows], 0, 0)
    }

    /// Creates a cache in the middle of a forward pass: `new` columns are those of the pass.
    pub fn of(
        layers: Vec<Option<Layer>>,
        valid: Vec<Vec<bool>>,
        columns: usize,
        new: usize,
    ) -> Self {
        Self {
            layers,
            valid: Arc::new(valid),
            columns,
            columns_before: columns - new,
            columns_read: columns,
            padding: None,
        }
    }

    /// Makes room for `width` columns, of which the first `new[b]` of row `b` are tokens.
    pub fn begin(&mut self, new: &[usize], width: usize, device: &Device) -> AttentionMask {
        let before = self.columns_read;
        for (valid, &new) in Arc::make_mut(&mut self.valid).iter_mut().zip(new) {
            valid.extend((0..width).map(|column| column < new));
        }
        self.columns_before = self.columns;
        self.columns += width;
        self.columns_read = self.columns;
        let mask = AttentionMask::new(self.valid.clone(), width);
        let decoding = width == 1 && !new.contains(&0) && !device.is_autodiff();
        if !decoding || host::is_cpu(device) {
            self.padding = None;
            return mask;
        }
        self.columns_read = self.columns.next_multiple_of(BUCKET);
        if self.columns_read != before {
            self.padding = None;
        }
        mask.with_spare(self.columns_read, self.hidden(device))
    }

    /// Returns `[B, 1, 1, columns_read]`, true at padding and at spare columns. The padding is copied
    /// to the device only if it has changed.
    fn hidden(&mut self, device: &Device) -> Tensor<4, Bool> {
        let shape = [self.valid.len(), 1, 1, self.columns_read];
        let padding = self.padding.get_or_insert_with(|| {
            let mut padding = vec![false; shape[0] * shape[3]];
            for (padding, valid) in padding.chunks_exact_mut(shape[3]).zip(self.valid.iter()) {
                for (padding, valid) in padding.iter_mut().zip(valid) {
                    *padding = !valid;
                }
            }
            Tensor::from_data(TensorData::new(padding, shape), device)
        });
        let columns = Tensor::<1, Int>::arange(0..shape[3] as i64, device).reshape([1, 1, 1, -1]);
        let spare = columns.greater_equal_scalar(self.columns as i64);
        padding.clone().bool_or(spare.expand(shape))
    }

    /// Appends new keys and values `[B, H, T, Dh]` and returns all of them, `[B, H, S, Dh]`.
    pub fn append(&mut self, layer: usize, keys: Tensor<4>, values: Tensor<4>) -> [Tensor<4>; 2] {
        let (old, new, read) = (self.columns_before, self.columns, self.columns_read);
        let grown = match self.layers[layer].take() {
            None => Layer { keys, values },
            Some(Layer { keys: k, values: v }) if keys.is_autodiff() || k.is_autodiff() => Layer {
                keys: Tensor::cat(vec![k.slice(s![.., .., ..old, ..]), keys], 2),
                values: Tensor::cat(vec![v.slice(s![.., .., ..old, ..]), values], 2),
            },
            Some(Layer { keys: k, values: v }) => Layer {
                keys: place(k, keys, old..new, read),
                values: place(v, values, old..new, read),
            },
        };
        let part = |tensor: &Tensor<4>| {
            let held = tensor.dims()[2];
            widened(tensor.clone(), held.max(read)).slice(s![.., .., ..read, ..])
        };
        let all = [part(&grown.keys), part(&grown.values)];
        self.layers[layer] = Some(grown);
        all
    }

    pub fn select(&mut self, rows: &[usize]) {
        self.padding = None;
        self.valid = Arc::new(rows.iter().map(|&row| self.valid[row].clone()).collect());
        for layer in self.layers.iter_mut().flatten() {
            let index = host::indices(rows, &layer.keys.device());
            layer.keys.inplace(|keys| keys.select(0, index.clone()));
            layer.values.inplace(|values| values.select(0, index));
        }
    }

    /// Appends the rows of `other`, with the last columns of both aligned. Leading columns without
    /// a token in any row are dropped.
    pub fn extend(&mut self, other: Self) {
        if other.valid.is_empty() {
            return;
        }
        self.padding = None;
        let first = |row: &Vec<bool>| row.iter().position(|&token| token).unwrap_or(row.len());
        let start = self.valid.iter().map(first).min().unwrap_or(0);
        let (own_columns, added) = (start..self.columns, 0..other.columns);
        let width = own_columns.len().max(added.len());
        let shift = |row: &Vec<bool>, columns: &Range<usize>| {
            let mut shifted = vec![false; width - columns.len()];
            shifted.extend_from_slice(&row[columns.clone()]);
            shifted
        };
        let rows = [self.valid.len(), other.valid.len()];
        let valid = self.valid.iter().map(|row| shift(row, &own_columns));
        let more = other.valid.iter().map(|row| shift(row, &added));
        self.valid = Arc::new(valid.chain(more).collect());
        for (layer, other) in self.layers.iter_mut().zip(other.layers) {
            // Rows without tokens have no tensor.
            let Some(like) = layer.as_ref().or(other.as_ref()).map(|l| l.keys.clone()) else {
                continue;
            };
            let join = |tensor: fn(&Layer) -> &Tensor<4>| {
                let own = layer.as_ref().map(tensor).cloned();
                let other = other.as_ref().map(tensor).cloned();
                let own = at_the_end(own, own_columns.clone(), rows[0], width, &like);
                let other = at_the_end(other, added.clone(), rows[1], width, &like);
                Tensor::cat(vec![own, other], 0)
            };
            let joined = Layer {
                keys: join(|layer| &layer.keys),
                values: join(|layer| &layer.values),
            };
            *layer = Some(joined);
        }
        self.columns = width;
        self.columns_before = width;
    }
}

/// Returns the given columns of `tensor`, padded on the left with zeros to `width`; all zeros if
/// there is no tensor.
fn at_the_end(
    tensor: Option<Tensor<4>>,
    columns: Range<usize>,
    rows: usize,
    width: usize,
    like: &Tensor<4>,
) -> Tensor<4> {
    let [_, heads, _, size] = like.dims();
    let zeros =
        |columns| Tensor::zeros([rows, heads, columns, size], (&like.device(), like.dtype()));
    match tensor {
        None => zeros(width),
        Some(tensor) => {
            let before = width - columns.len();
            let kept = tensor.slice(s![.., .., columns, ..]);
            match before {
                0 => kept,
                _ => Tensor::cat(vec![zeros(before), kept], 2),
            }
        }
    }
}

/// Writes `new` into `columns` of `held`. If its capacity is below `least`, it is at least doubled.
fn place(held: Tensor<4>, new: Tensor<4>, columns: Range<usize>, least: usize) -> Tensor<4> {
    let capacity = held.dims()[2];
    let wanted = match least <= capacity {
        true => capacity,
        false => (2 * capacity).max(least).next_multiple_of(16),
    };
    widened(held, wanted).slice_assign(s![.., .., columns, ..], new)
}

/// Returns `tensor` with zeros after its columns, `columns` in all.
fn widened(tensor: Tensor<4>, columns: usize) -> Tensor<4> {
    let [rows, heads, held, size] = tensor.dims();
    if held == columns {
        return tensor;
    }
    let shape = [rows, heads, columns - held, size];
    let spare = Tensor::zeros(shape, (&tensor.device(), tensor.dtype()));
    Tensor::cat(vec![tensor, spare], 2)
}
