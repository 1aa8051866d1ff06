//! Caches: the state that a policy keeps of the tokens it has read.

mod columns;
mod rows;

use burn::tensor::Tensor;

use super::tokens::TokenBatch;
use crate::fused::{AttentionMask, attention};
use crate::{Error, Result};
use columns::Columns;
use rows::Rows;

/// The state of a policy after the tokens it has read, one row per sequence.
///
/// ```
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::policy::{PolicyCache, PolicyModel, TokenBatch};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex();
/// let policy = CausalConfig {
///     hidden_size: 16,
///     ..CausalConfig::new(11)
/// }
/// .init(0, &device)?;
/// let mut cache = policy.empty_cache(2);
/// policy.forward(
///     &TokenBatch::from_rows(&[vec![1, 2, 3], vec![4]], &device)?,
///     &mut cache,
/// )?;
/// assert_eq!(cache.lengths(), [3, 1]);
/// cache.select_rows(&[0, 0, 1]); // continue the first prompt twice
/// assert_eq!(cache.lengths(), [3, 3, 1]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
pub trait PolicyCache: Clone + Send {
    /// The number of sequences.
    fn rows(&self) -> usize;

    /// The number of tokens that each sequence has read.
    fn lengths(&self) -> &[usize];

    /// Keeps the given rows, in the given order. An index may appear several times, as when a
    /// prompt is read once and repeated for its group, or not at all, as when a row is finished.
    /// Differentiable.
    ///
    /// # Panics
    /// Panics if an index is not below [`rows`](Self::rows).
    fn select_rows(&mut self, rows: &[usize]);

    /// Appends the given rows of `other`, a cache of the same model. An index may appear several
    /// times. Used in generation, when new sequences join running ones; gradients need not flow
    /// through it.
    ///
    /// # Panics
    /// Panics if an index is not below the number of rows of `other`.
    fn append_rows(&mut self, other: &Self, rows: &[usize]);
}

/// Keys and values of every attention layer. Rows have their own lengths, so that ragged prompts
/// need no left padding.
///
/// Keys and values are tensors `[B, H, S, Dh]` with a padding mask. While gradients are recorded
/// they grow by concatenation, which is differentiable; otherwise they grow in place in spare
/// capacity.
///
/// For f32 on the `flex` device, off the gradient tape, a cache with rows from
/// [`append_rows`](PolicyCache::append_rows) stores each row separately: adding or removing a row
/// copies no other row, and rows that were appended from the same row of another cache share its
/// keys and values.
///
/// A custom transformer calls [`begin`](Self::begin) once per forward pass and
/// [`attend`](Self::attend) once per layer:
///
/// ```
/// use burn::tensor::Tensor;
/// use rlvr::policy::{KvCache, TokenBatch};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex();
/// let tokens = TokenBatch::from_rows(&[vec![1, 2, 3], vec![4]], &device)?;
/// let mut cache = KvCache::new(1, 2); // 1 layer, 2 rows
/// let (starts, mask) = cache.begin(&tokens, 100)?;
/// assert_eq!(starts, [0, 0]); // positions of the first new tokens
/// let queries = Tensor::zeros([2, 3, 4, 8], &device); // [B, T, Hq, Dh]
/// let keys = Tensor::zeros([2, 3, 2, 8], &device); // [B, T, Hkv, Dh]
/// let context = cache.attend(0, queries, keys.clone(), keys, &mask);
/// assert_eq!(context.dims(), [2, 3, 4, 8]);
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug)]
pub struct KvCache {
    /// The number of tokens read per row, and so the position of the next one.
    lengths: Vec<usize>,
    held: Held,
}

#[derive(Clone, Debug)]
enum Held {
    Columns(Columns),
    Rows(Rows),
}

impl Held {
    fn select(&mut self, rows: &[usize]) {
        match self {
            Self::Columns(columns) => columns.select(rows),
            Self::Rows(own) => own.select(rows),
        }
    }

    fn into_columns(self) -> Columns {
        match self {
            Self::Columns(columns) => columns,
            Self::Rows(rows) => rows.to_columns(),
        }
    }
}

impl KvCache {
    /// Creates an empty cache of `rows` sequences for `layers` attention layers.
    pub fn new(layers: usize, rows: usize) -> Self {
        Self {
            lengths: vec![0; rows],
            held: Held::Columns(Columns::new(layers, rows)),
        }
    }

    /// Makes room for `tokens` and returns the position of each row's first new token and the
    /// attention mask of this pass. Called once per forward pass, before any
    /// [`attend`](Self::attend).
    ///
    /// # Errors
    /// Returns an error if the number of rows does not match, or a row would have more than
    /// `max_positions` tokens.
    pub fn begin(
        &mut self,
        tokens: &TokenBatch,
        max_positions: usize,
    ) -> Result<(Vec<usize>, AttentionMask)> {
        if tokens.rows() != self.lengths.len() {
            return Err(Error::shape(
                "token rows",
                tokens.rows(),
                format!("{}, the number of rows of the cache", self.lengths.len()),
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
        let mask = match &mut self.held {
            Held::Columns(columns) => {
                columns.begin(&tokens.lengths, tokens.width(), &tokens.ids.device())
            }
            Held::Rows(rows) => rows.begin(&tokens.lengths, tokens.width()),
        };
        let starts = self.lengths.clone();
        for (length, &new) in self.lengths.iter_mut().zip(&tokens.lengths) {
            *length += new;
        }
        Ok((starts, mask))
    }

    /// Appends the new keys and values `[B, T, Hkv, Dh]` of `layer`, and returns the attention
    /// `softmax(Q K^T / sqrt(Dh)) V` `[B, T, Hq, Dh]` of the queries `[B, T, Hq, Dh]` over all old
    /// and new keys that are visible in `mask`.
    ///
    /// `mask` is that of [`begin`](Self::begin), or the same with a sliding window
    /// ([`AttentionMask::windowed`]). Query head `h` reads key head `h / (Hq / Hkv)` (GQA, arXiv
    /// 2305.13245). The result at padding is unspecified.
    ///
    /// # Panics
    /// Panics if `layer` is out of range or the shapes do not match.
    pub fn attend(
        &mut self,
        layer: usize,
        queries: Tensor<4>,
        keys: Tensor<4>,
        values: Tensor<4>,
        mask: &AttentionMask,
    ) -> Tensor<4> {
        if let Held::Rows(rows) = &mut self.held {
            let context = rows.attend(layer, &queries, &keys, &values, mask.window());
            if let Some(context) = context {
                return context;
            }
        }
        let [keys, values] = self.append(layer, keys, values);
        attention(queries, keys, values, mask)
    }

    /// Appends the new keys and values `[B, T, Hkv, Dh]` of `layer` and returns all of them,
    /// `[B, Hkv, S, Dh]`.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: Tensor<4>,
        values: Tensor<4>,
    ) -> [Tensor<4>; 2] {
        let columns = match &mut self.held {
            Held::Columns(columns) => columns,
            Held::Rows(rows) => {
                // The tensors are on another device or on the gradient tape.
                self.held = Held::Columns(rows.to_columns());
                return self.append(layer, keys, values);
            }
        };
        columns.append(layer, keys.swap_dims(1, 2), values.swap_dims(1, 2))
    }
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
        self.held.select(rows);
    }

    fn append_rows(&mut self, other: &Self, rows: &[usize]) {
        let nothing = self.lengths.is_empty();
        self.lengths
            .extend(rows.iter().map(|&row| other.lengths[row]));
        let separate = match &other.held {
            Held::Columns(columns) => Rows::of(columns, rows).map(Held::Rows),
            Held::Rows(_) => None,
        };
        let added = separate.unwrap_or_else(|| {
            let mut added = other.held.clone();
            added.select(rows);
            added
        });
        if nothing {
            self.held = added;
            return;
        }
        let own = std::mem::replace(&mut self.held, Held::Columns(Columns::new(0, 0)));
        self.held = match (own, added) {
            (Held::Rows(mut own), Held::Rows(added)) => {
                own.extend(added);
                Held::Rows(own)
            }
            (own, added) => {
                let mut own = own.into_columns();
                own.extend(added.into_columns());
                Held::Columns(own)
            }
        };
    }
}
