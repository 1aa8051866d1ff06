//! A cache as one tensor per layer.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Tensor, s};

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
}

/// `[B, H, S, Dh]`.
#[derive(Clone, Debug)]
pub(super) struct Layer {
    pub keys: Tensor<4>,
    pub values: Tensor<4>,
}

impl Columns {
    pub fn new(layers: usize, rows: usize) -> Self {
        Self {
            layers: vec![None; layers],
            valid: Arc::new(vec![Vec::new(); rows]),
            columns: 0,
            columns_before: 0,
        }
    }

    /// Makes room for `width` columns, of which the first `new[b]` of row `b` are tokens.
    pub fn begin(&mut self, new: &[usize], width: usize) -> AttentionMask {
        for (valid, &new) in Arc::make_mut(&mut self.valid).iter_mut().zip(new) {
            valid.extend((0..width).map(|column| column < new));
        }
        self.columns_before = self.columns;
        self.columns += width;
        AttentionMask::new(self.valid.clone(), width)
    }

    /// Appends new keys and values `[B, H, T, Dh]` and returns all of them, `[B, H, S, Dh]`.
    pub fn append(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let old = self.columns_before;
        let new = self.columns;
        let grown = match self.layers[layer].take() {
            None => Layer { keys, values },
            Some(Layer { keys: k, values: v }) if keys.is_autodiff() || k.is_autodiff() => Layer {
                keys: Tensor::cat(vec![k.slice(s![.., .., ..old, ..]), keys], 2),
                values: Tensor::cat(vec![v.slice(s![.., .., ..old, ..]), values], 2),
            },
            Some(Layer { keys: k, values: v }) => Layer {
                keys: place(k, keys, old, new),
                values: place(v, values, old, new),
            },
        };
        let all = (
            grown.keys.clone().slice(s![.., .., ..new, ..]),
            grown.values.clone().slice(s![.., .., ..new, ..]),
        );
        self.layers[layer] = Some(grown);
        all
    }

    pub fn select(&mut self, rows: &[usize]) {
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

/// Writes `new` into columns `from..to` of `held`, doubling its capacity if it is too small.
fn place(held: Tensor<4>, new: Tensor<4>, from: usize, to: usize) -> Tensor<4> {
    let [rows, heads, capacity, size] = held.dims();
    let held = if to <= capacity {
        held
    } else {
        let wanted = (2 * capacity).max(to).next_multiple_of(16);
        let shape = [rows, heads, wanted - capacity, size];
        let spare = Tensor::zeros(shape, (&held.device(), held.dtype()));
        Tensor::cat(vec![held, spare], 2)
    };
    held.slice_assign(s![.., .., from..to, ..], new)
}
