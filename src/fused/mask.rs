use std::ops::Range;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, s};

/// The attention mask of one forward pass, from [`KvCache::begin`](crate::policy::KvCache::begin).
///
/// The queries are the last `T` of the columns in use. A query sees the columns up to its own that
/// hold tokens, or the last few of them if there is a sliding window.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    /// For each row and column in use, whether it holds a token rather than padding.
    tokens: Arc<Vec<Vec<bool>>>,
    queries: usize,
    /// The number of columns in use.
    used: usize,
    /// The number of columns, `S`: those in use, then spare ones, which no query sees.
    columns: usize,
    window: Option<usize>,
    /// The mask as a tensor, computed on first use.
    hidden: Arc<OnceLock<Option<Tensor<4, Bool>>>>,
}

impl AttentionMask {
    /// Creates the mask for `queries` queries per row, in the last columns. `tokens` `[B, S]` is
    /// true at columns that hold tokens.
    ///
    /// # Panics
    /// Panics if there are more queries than columns.
    pub(crate) fn new(tokens: impl Into<Arc<Vec<Vec<bool>>>>, queries: usize) -> Self {
        let tokens = tokens.into();
        let columns = tokens.first().map_or(queries, Vec::len);
        assert!(
            queries <= columns,
            "more queries ({queries}) than columns ({columns})"
        );
        Self {
            tokens,
            queries,
            used: columns,
            columns,
            window: None,
            hidden: Arc::default(),
        }
    }

    /// Returns the mask with spare columns at the end, `columns` in all. `hidden` is the tensor that
    /// [`hidden`](Self::hidden) would compute.
    pub(crate) fn with_spare(self, columns: usize, hidden: Tensor<4, Bool>) -> Self {
        Self {
            columns,
            hidden: Arc::new(OnceLock::from(Some(hidden))),
            ..self
        }
    }

    /// Returns the mask of a layer with a sliding window, in which a token sees itself and the
    /// `window - 1` tokens before it; `None` if no row is longer than the window, so that this mask
    /// applies there as well.
    pub fn windowed(&self, window: usize) -> Option<Self> {
        let long = |row: &Vec<bool>| row.iter().filter(|&&token| token).count() > window;
        self.tokens.iter().any(long).then(|| Self {
            window: Some(window),
            hidden: Arc::default(),
            ..self.clone()
        })
    }

    /// Returns the mask of a block of these queries, and the number of columns that they may see.
    pub(crate) fn block(&self, queries: Range<usize>) -> (Self, usize) {
        let used = self.used - self.queries + queries.end;
        let tokens: Vec<Vec<bool>> = self.tokens.iter().map(|row| row[..used].to_vec()).collect();
        let block = Self {
            window: self.window,
            ..Self::new(tokens, queries.len())
        };
        (block, used)
    }

    /// The length of the sliding window in tokens, the query's own included.
    pub(crate) fn window(&self) -> Option<usize> {
        self.window
    }

    /// Returns for each column in use whether it holds a token; `None` if every query sees all
    /// columns up to its own, and those are all there are.
    pub(crate) fn tokens(&self) -> Option<&Arc<Vec<Vec<bool>>>> {
        // Padding after the last token of a row is seen only by padding.
        let old = self.used - self.queries;
        let full =
            self.columns == self.used && self.tokens.iter().all(|row| !row[..old].contains(&false));
        (!full).then_some(&self.tokens)
    }

    /// Returns `[B, 1, T, S]` on `device`, true where a key is hidden from a query; `None` if there
    /// is one query or as many as columns, and each sees every column up to its own.
    pub(crate) fn hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        // Kernels do not agree on which keys the first of fewer queries than keys sees.
        let plain = self.queries == 1 || self.queries == self.columns;
        let compute = || match (self.window, self.tokens()) {
            (None, None) if plain => None,
            (window, _) => {
                let hidden = self.either(self.padding(device), self.later(device));
                Some(match window {
                    Some(window) => hidden.bool_or(self.distant(window, device)),
                    None => hidden,
                })
            }
        };
        self.hidden.get_or_init(compute).clone()
    }

    /// `[B, 1, 1, S]`: true at columns that are padding.
    fn padding(&self, device: &Device) -> Tensor<4, Bool> {
        let spare = self.columns - self.used;
        let row = |row: &Vec<bool>| {
            let used = row.iter().map(|&token| !token);
            used.chain(std::iter::repeat_n(true, spare))
                .collect::<Vec<_>>()
        };
        let flags: Vec<bool> = self.tokens.iter().flat_map(row).collect();
        let shape = [self.tokens.len(), 1, 1, self.columns];
        Tensor::from_data(TensorData::new(flags, shape), device)
    }

    /// `[1, 1, T, S]`: true at columns later than the query.
    fn later(&self, device: &Device) -> Tensor<4, Bool> {
        let (width, used, columns) = (self.queries, self.used as i64, self.columns as i64);
        let shape = [1, 1, width, self.columns];
        let keys = Tensor::<1, Int>::arange(0..columns, device).reshape([1, 1, 1, self.columns]);
        let queries = Tensor::<1, Int>::arange(used - width as i64..used, device);
        let queries = queries.reshape([1, 1, width, 1]);
        keys.expand(shape).greater(queries.expand(shape))
    }

    /// `[B, 1, T, S]`: true at columns before the query's window.
    fn distant(&self, window: usize, device: &Device) -> Tensor<4, Bool> {
        let (rows, width, columns) = (self.tokens.len(), self.queries, self.columns);
        // The number of tokens before each column of the row.
        let mut positions = Vec::with_capacity(rows * columns);
        for row in self.tokens.iter() {
            let mut position = 0;
            for &token in row {
                positions.push(position);
                position += i32::from(token);
            }
            positions.extend(std::iter::repeat_n(position, columns - self.used));
        }
        let data = TensorData::new(positions, [rows, 1, 1, columns]);
        let keys = Tensor::<4, Int>::from_data(data, device);
        let queries = keys
            .clone()
            .slice(s![.., .., .., self.used - width..self.used]);
        let shape = [rows, 1, width, columns];
        let queries = queries.reshape([rows, 1, width, 1]).expand(shape);
        (queries - window as i32).greater_equal(keys.expand(shape))
    }

    /// `[B, 1, T, S]`: true where `a` or `b` is.
    fn either(&self, a: Tensor<4, Bool>, b: Tensor<4, Bool>) -> Tensor<4, Bool> {
        let shape = [self.tokens.len(), 1, self.queries, self.columns];
        a.expand(shape).bool_or(b.expand(shape))
    }
}

#[cfg(feature = "flex")]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{KvCache, TokenBatch};

    /// The mask `[B, T, S]` by its definition, true where a key is hidden.
    fn expected(cuts: &[[usize; 3]], widths: &[usize], window: usize) -> Vec<bool> {
        let mut hidden = Vec::new();
        let last = widths.len() - 1;
        let before: usize = widths[..last].iter().sum();
        for row in cuts {
            // Whether each column is a token, and its position in the row.
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
    fn masks_match_their_definition() {
        let device = Device::flex();
        // Tokens of each row in three passes, of widths 3, 2 and 4.
        let (cuts, widths) = ([[3, 1, 4], [1, 2, 2], [2, 2, 1], [1, 0, 3]], [3, 2, 4]);
        let mut cache = KvCache::new(0, cuts.len());
        let mut mask = None;
        for (pass, &width) in widths.iter().enumerate() {
            let tokens = TokenBatch {
                ids: Tensor::zeros([cuts.len(), width], &device),
                lengths: cuts.iter().map(|row| row[pass]).collect(),
            };
            mask = Some(cache.begin(&tokens, 100).unwrap().1);
        }
        let flat = |mask: &AttentionMask| {
            let hidden = mask.hidden(&device).unwrap();
            assert_eq!(hidden.dims(), [4, 1, 4, 9]);
            hidden.into_data().iter::<bool>().collect::<Vec<_>>()
        };
        let mask = mask.unwrap();
        assert_eq!(flat(&mask), expected(&cuts, &widths, 100));
        for window in 1..7 {
            let windowed = mask.windowed(window).unwrap();
            assert_eq!(
                flat(&windowed),
                expected(&cuts, &widths, window),
                "{window}"
            );
        }
        assert!(mask.windowed(8).is_none());
    }
}
