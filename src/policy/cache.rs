//! What a policy remembers of the tokens it has read.

use std::sync::Arc;

use burn::tensor::{Tensor, s};

use super::tokens::TokenBatch;
use crate::fused::AttentionMask;
use crate::host;
use crate::{Error, Result};

/// The memory of a policy: one row per sequence.
pub trait PolicyCache: Clone + Send {
    /// The number of sequences.
    fn rows(&self) -> usize;

    /// How many tokens each sequence has read.
    fn lengths(&self) -> &[usize];

    /// Keeps the given rows, in the given order; an index may come several times (a prompt read once
    /// and repeated for its group) or not at all (a finished row). Differentiable.
    ///
    /// # Panics
    /// If an index is not below [`rows`](Self::rows).
    fn select_rows(&mut self, rows: &[usize]);
}

/// Keys and values of every attention layer, with each row's own length and a key mask, so that
/// ragged prompts need no left padding.
///
/// Keys and values are `[B, H, S, Dh]`. While gradients are recorded they grow by concatenation (an
/// ordinary differentiable operation); otherwise they grow in place inside spare capacity.
#[derive(Clone, Debug)]
pub struct KvCache {
    layers: Vec<Option<Layer>>,
    /// Tokens read per row; the position of the next one.
    lengths: Vec<usize>,
    /// `[B, S]`: whether a column of a row is a token, rather than padding.
    valid: Arc<Vec<Vec<bool>>>,
    /// Columns in use, padding included.
    columns: usize,
    /// Columns that were in use before the current forward pass.
    columns_before: usize,
}

#[derive(Clone, Debug)]
struct Layer {
    keys: Tensor<4>,
    values: Tensor<4>,
}

impl KvCache {
    /// An empty cache of `rows` sequences for `layers` attention layers.
    pub fn new(layers: usize, rows: usize) -> Self {
        Self {
            layers: vec![None; layers],
            lengths: vec![0; rows],
            valid: Arc::new(vec![Vec::new(); rows]),
            columns: 0,
            columns_before: 0,
        }
    }

    /// Makes room for `tokens` and returns the position of each row's first new token and the mask
    /// for this pass. Called once per forward pass, before any [`append`](Self::append).
    ///
    /// # Errors
    /// If the rows do not match, or a row would hold more than `max_positions` tokens.
    pub fn begin(
        &mut self,
        tokens: &TokenBatch,
        max_positions: usize,
    ) -> Result<(Vec<usize>, AttentionMask)> {
        let width = tokens.width();
        if tokens.rows() != self.lengths.len() {
            return Err(Error::shape(
                "token rows",
                tokens.rows(),
                format!("{}, as many as the cache has rows", self.lengths.len()),
            ));
        }
        for (row, (&read, &new)) in self.lengths.iter().zip(&tokens.lengths).enumerate() {
            if read + new > max_positions {
                return Err(Error::shape(
                    format!("tokens in row {row}"),
                    read + new,
                    format!("at most max_position_embeddings = {max_positions}"),
                ));
            }
        }
        let starts = self.lengths.clone();
        for ((length, valid), &new) in self
            .lengths
            .iter_mut()
            .zip(Arc::make_mut(&mut self.valid))
            .zip(&tokens.lengths)
        {
            *length += new;
            valid.extend((0..width).map(|column| column < new));
        }
        self.columns_before = self.columns;
        self.columns += width;
        Ok((starts, AttentionMask::new(self.valid.clone(), width)))
    }

    /// Adds the new keys and values `[B, H, T, Dh]` of `layer` and returns all of them
    /// `[B, H, S, Dh]`, old and new.
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
}

/// Writes `new` into columns `from..to` of `held`, after doubling its capacity if it is full.
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

impl PolicyCache for KvCache {
    fn rows(&self) -> usize {
        self.lengths.len()
    }

    fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn select_rows(&mut self, rows: &[usize]) {
        self.lengths = rows.iter().map(|&row| self.lengths[row]).collect();
        self.valid = Arc::new(rows.iter().map(|&row| self.valid[row].clone()).collect());
        for layer in self.layers.iter_mut().flatten() {
            let index = host::indices(rows, &layer.keys.device());
            layer.keys.inplace(|keys| keys.select(0, index.clone()));
            layer.values.inplace(|values| values.select(0, index));
        }
    }
}
