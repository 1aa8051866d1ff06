//! What a policy remembers of the tokens it has read.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, s};

use super::tokens::TokenBatch;
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
    /// Row-major `[B, S]`: whether a column of a row is a token, rather than padding.
    valid: Vec<Vec<bool>>,
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

/// Which keys the queries of one forward pass may look at.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one per forward pass")] // not without a backend
pub enum AttentionMask {
    /// All of them: one query a row, and no row holds padding.
    Full,
    /// Those that are not later than the query: no row holds padding.
    Causal,
    /// Given by `[B, 1, T, S]`, true where a key is hidden.
    Hidden(Tensor<4, Bool>),
}

impl KvCache {
    /// An empty cache of `rows` sequences for `layers` attention layers.
    pub fn new(layers: usize, rows: usize) -> Self {
        Self {
            layers: vec![None; layers],
            lengths: vec![0; rows],
            valid: vec![Vec::new(); rows],
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
            .zip(&mut self.valid)
            .zip(&tokens.lengths)
        {
            *length += new;
            valid.extend((0..width).map(|column| column < new));
        }
        self.columns_before = self.columns;
        self.columns += width;
        Ok((starts, self.mask(width, &tokens.ids.device())))
    }

    fn mask(&self, width: usize, device: &Device) -> AttentionMask {
        // Padding at the end of the last columns is never looked at by a real query, so only
        // padding with tokens after it has to be hidden explicitly.
        let old = self.columns_before;
        if self.valid.iter().all(|row| row[..old].iter().all(|&v| v)) {
            return if width == 1 {
                AttentionMask::Full
            } else {
                AttentionMask::Causal
            };
        }
        let padding = self.padding(device);
        AttentionMask::Hidden(match width {
            1 => padding,
            _ => self.either(padding, self.later(width, device), width),
        })
    }

    /// The mask of the current pass for layers in which a token sees itself and the `window - 1` tokens before it; `None` if no
    /// row is longer than the window, so that the mask of [`begin`](Self::begin) holds for them as well.
    pub fn windowed_mask(
        &self,
        width: usize,
        window: usize,
        device: &Device,
    ) -> Option<AttentionMask> {
        if self.lengths.iter().all(|&length| length <= window) {
            return None;
        }
        let (rows, columns, old) = (self.valid.len(), self.columns, self.columns_before);
        // How many tokens of the row stand before each column.
        let mut positions = Vec::with_capacity(rows * columns);
        for row in &self.valid {
            let mut position = 0;
            for &token in row {
                positions.push(position);
                position += i32::from(token);
            }
        }
        let data = TensorData::new(positions, [rows, 1, 1, columns]);
        let keys = Tensor::<4, Int>::from_data(data, device);
        let queries = keys.clone().slice(s![.., .., .., old..old + width]);
        let shape = [rows, 1, width, columns];
        let queries = queries.reshape([rows, 1, width, 1]).expand(shape);
        let distant = (queries - window as i32).greater_equal(keys.expand(shape));
        let hidden = self.either(self.padding(device), self.later(width, device), width);
        Some(AttentionMask::Hidden(hidden.bool_or(distant)))
    }

    /// `[B, 1, 1, S]`: true at columns that are padding.
    fn padding(&self, device: &Device) -> Tensor<4, Bool> {
        let flags: Vec<bool> = self.valid.iter().flatten().map(|&token| !token).collect();
        let shape = [self.valid.len(), 1, 1, self.columns];
        Tensor::from_data(TensorData::new(flags, shape), device)
    }

    /// `[1, 1, T, S]`: true at columns later than the query.
    fn later(&self, width: usize, device: &Device) -> Tensor<4, Bool> {
        let (old, columns) = (self.columns_before as i64, self.columns);
        let shape = [1, 1, width, columns];
        let keys = Tensor::<1, Int>::arange(0..columns as i64, device).reshape([1, 1, 1, columns]);
        let queries = Tensor::<1, Int>::arange(old..old + width as i64, device);
        let queries = queries.reshape([1, 1, width, 1]);
        keys.expand(shape).greater(queries.expand(shape))
    }

    /// `[B, 1, T, S]`: true where `a` or `b` is.
    fn either(&self, a: Tensor<4, Bool>, b: Tensor<4, Bool>, width: usize) -> Tensor<4, Bool> {
        let shape = [self.valid.len(), 1, width, self.columns];
        a.expand(shape).bool_or(b.expand(shape))
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
        self.valid = rows.iter().map(|&row| self.valid[row].clone()).collect();
        for layer in self.layers.iter_mut().flatten() {
            let index = host::indices(rows, &layer.keys.device());
            layer.keys.inplace(|keys| keys.select(0, index.clone()));
            layer.values.inplace(|values| values.select(0, index));
        }
    }
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use super::*;

    /// What a query may not see, one comparison after the other: `[B, T, S]`.
    fn expected(cuts: &[[usize; 3]], widths: &[usize], window: usize) -> Vec<bool> {
        let mut hidden = Vec::new();
        let last = widths.len() - 1;
        let before: usize = widths[..last].iter().sum();
        for row in cuts {
            // Which columns are tokens, and the place of each in its row.
            let mut columns = Vec::new();
            for (&length, &width) in row.iter().zip(widths) {
                columns.extend((0..width).map(|column| column < length));
            }
            let place = |at: usize| columns[..at].iter().filter(|&&token| token).count();
            for query in 0..widths[last] {
                let query = before + query;
                hidden.extend((0..columns.len()).map(|key| {
                    let seen = columns[key] && key <= query && place(key) + window > place(query);
                    !seen
                }));
            }
        }
        hidden
    }

    #[test]
    fn masks_are_those_of_the_definition() {
        let device = Device::flex();
        // Tokens of each row in three passes, of widths 3, 2 and 4.
        let (cuts, widths) = ([[3, 1, 4], [1, 2, 2], [2, 2, 1], [1, 0, 3]], [3, 2, 4]);
        let mut cache = KvCache::new(0, cuts.len());
        let mut mask = AttentionMask::Full;
        for (pass, &width) in widths.iter().enumerate() {
            let tokens = TokenBatch {
                ids: Tensor::zeros([cuts.len(), width], &device),
                lengths: cuts.iter().map(|row| row[pass]).collect(),
            };
            mask = cache.begin(&tokens, 100).unwrap().1;
        }
        let flat = |mask: AttentionMask| match mask {
            AttentionMask::Hidden(hidden) => {
                assert_eq!(hidden.dims(), [4, 1, 4, 9]);
                let hidden: Vec<bool> = hidden.into_data().iter::<bool>().collect();
                hidden
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(flat(mask), expected(&cuts, &widths, 100));
        for window in 1..7 {
            let windowed = cache.windowed_mask(4, window, &device).unwrap();
            assert_eq!(flat(windowed), expected(&cuts, &widths, window), "{window}");
        }
        assert!(cache.windowed_mask(4, 8, &device).is_none());
    }
}
