use std::sync::{Arc, OnceLock};

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, s};

/// Which keys the queries of one forward pass see.
///
/// The queries are the last `T` of `S` columns. A query sees the columns that hold tokens, from the first to its own, or the last
/// few of them if there is a window.
#[derive(Clone, Debug)]
pub struct AttentionMask {
    /// For each row, which columns hold tokens rather than padding.
    tokens: Arc<Vec<Vec<bool>>>,
    queries: usize,
    columns: usize,
    window: Option<usize>,
    /// The same as a tensor, once it was asked for.
    hidden: Arc<OnceLock<Option<Tensor<4, Bool>>>>,
}

impl AttentionMask {
    /// For `queries` queries a row, the last of the columns; `tokens` says for each row and column whether it holds a token.
    ///
    /// # Panics
    /// If there are more queries than columns.
    pub fn new(tokens: impl Into<Arc<Vec<Vec<bool>>>>, queries: usize) -> Self {
        let tokens = tokens.into();
        let columns = tokens.first().map_or(queries, Vec::len);
        assert!(queries <= columns, "{queries} queries of {columns} columns");
        Self {
            tokens,
            queries,
            columns,
            window: None,
            hidden: Arc::default(),
        }
    }

    /// The mask of a layer in which a token sees itself and the `window - 1` tokens before it; `None` if no row is longer than the
    /// window, so that this mask holds there as well.
    pub fn windowed(&self, window: usize) -> Option<Self> {
        let long = |row: &Vec<bool>| row.iter().filter(|&&token| token).count() > window;
        self.tokens.iter().any(long).then(|| Self {
            window: Some(window),
            hidden: Arc::default(),
            ..self.clone()
        })
    }

    /// How many tokens a query sees at most, itself included.
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    /// For each row, which columns hold tokens; `None` if a query can see no column that does not.
    pub(crate) fn tokens(&self) -> Option<&Arc<Vec<Vec<bool>>>> {
        // Padding behind a row's last token is seen by padding only.
        let old = self.columns - self.queries;
        let full = self.tokens.iter().all(|row| !row[..old].contains(&false));
        (!full).then_some(&self.tokens)
    }

    /// `[B, 1, T, S]` on `device`, true where a key is hidden from a query; `None` if each query sees every column up to its own.
    pub fn hidden(&self, device: &Device) -> Option<Tensor<4, Bool>> {
        let on_first_use = || match (self.window, self.tokens()) {
            (None, None) => None,
            (window, _) => {
                let hidden = self.either(self.padding(device), self.later(device));
                Some(match window {
                    Some(window) => hidden.bool_or(self.distant(window, device)),
                    None => hidden,
                })
            }
        };
        self.hidden.get_or_init(on_first_use).clone()
    }

    /// `[B, 1, 1, S]`: true at columns that are padding.
    fn padding(&self, device: &Device) -> Tensor<4, Bool> {
        let flags: Vec<bool> = self.tokens.iter().flatten().map(|&token| !token).collect();
        let shape = [self.tokens.len(), 1, 1, self.columns];
        Tensor::from_data(TensorData::new(flags, shape), device)
    }

    /// `[1, 1, T, S]`: true at columns later than the query.
    fn later(&self, device: &Device) -> Tensor<4, Bool> {
        let (width, columns) = (self.queries, self.columns as i64);
        let shape = [1, 1, width, self.columns];
        let keys = Tensor::<1, Int>::arange(0..columns, device).reshape([1, 1, 1, self.columns]);
        let queries = Tensor::<1, Int>::arange(columns - width as i64..columns, device);
        let queries = queries.reshape([1, 1, width, 1]);
        keys.expand(shape).greater(queries.expand(shape))
    }

    /// `[B, 1, T, S]`: true at columns that the query's window does not reach back to.
    fn distant(&self, window: usize, device: &Device) -> Tensor<4, Bool> {
        let (rows, width, columns) = (self.tokens.len(), self.queries, self.columns);
        // How many tokens of the row stand before each column.
        let mut positions = Vec::with_capacity(rows * columns);
        for row in self.tokens.iter() {
            let mut position = 0;
            for &token in row {
                positions.push(position);
                position += i32::from(token);
            }
        }
        let data = TensorData::new(positions, [rows, 1, 1, columns]);
        let keys = Tensor::<4, Int>::from_data(data, device);
        let queries = keys.clone().slice(s![.., .., .., columns - width..]);
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
