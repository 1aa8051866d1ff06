//! What a policy remembers of the tokens it has read.

mod columns;
mod rows;

use burn::tensor::Tensor;

use super::tokens::TokenBatch;
use crate::fused::{AttentionMask, attention};
use crate::{Error, Result};
use columns::Columns;
use rows::Rows;

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

    /// Adds the given rows of `other`, a cache of the same model, behind its own; an index may come several times. For generation, where
    /// sequences join those that are running: a cache may then keep its rows in a way that gradients do not flow through.
    ///
    /// # Panics
    /// If an index is not below the rows of `other`.
    fn append_rows(&mut self, other: &Self, rows: &[usize]);
}

/// Keys and values of every attention layer; rows have their own lengths, so ragged prompts need no left padding.
///
/// They are tensors `[B, H, S, Dh]` with a mask of what is padding. While gradients are recorded they grow by concatenation (an
/// ordinary differentiable operation); otherwise they grow in place inside spare capacity.
///
/// On the `flex` device in f32, off the gradient tape, a cache that was given rows by [`append_rows`](PolicyCache::append_rows) keeps each row
/// by itself: rows come and go without a copy of the others, and rows that begin with the same row of another cache share its keys
/// and values.
#[derive(Clone, Debug)]
pub struct KvCache {
    /// Tokens read per row; the position of the next one.
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
    /// An empty cache of `rows` sequences for `layers` attention layers.
    pub fn new(layers: usize, rows: usize) -> Self {
        Self {
            lengths: vec![0; rows],
            held: Held::Columns(Columns::new(layers, rows)),
        }
    }

    /// Makes room for `tokens` and returns the position of each row's first new token and the mask
    /// for this pass. Called once per forward pass, before any [`attend`](Self::attend).
    ///
    /// # Errors
    /// If the rows do not match, or a row would hold more than `max_positions` tokens.
    pub fn begin(
        &mut self,
        tokens: &TokenBatch,
        max_positions: usize,
    ) -> Result<(Vec<usize>, AttentionMask)> {
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
        let mask = match &mut self.held {
            Held::Columns(columns) => columns.begin(&tokens.lengths, tokens.width()),
            Held::Rows(rows) => rows.begin(&tokens.lengths, tokens.width()),
        };
        let starts = self.lengths.clone();
        for (length, &new) in self.lengths.iter_mut().zip(&tokens.lengths) {
            *length += new;
        }
        Ok((starts, mask))
    }

    /// Adds the new keys and values `[B, T, Hkv, Dh]` of `layer`, and returns the [`attention`] `[B, T, Hq, Dh]` of the queries
    /// `[B, T, Hq, Dh]` to all of them, old and new, that `mask` shows: the mask of [`begin`](Self::begin), or that mask
    /// [`windowed`](AttentionMask::windowed).
    pub fn attend(
        &mut self,
        layer: usize,
        queries: Tensor<4>,
        keys: Tensor<4>,
        values: Tensor<4>,
        mask: &AttentionMask,
    ) -> Tensor<4> {
        let columns = match &mut self.held {
            Held::Columns(columns) => columns,
            Held::Rows(rows) => {
                let context = rows.attend(layer, &queries, &keys, &values, mask.window());
                if let Some(context) = context {
                    return context;
                }
                // Of a model on another device, or on the tape.
                self.held = Held::Columns(rows.to_columns());
                return self.attend(layer, queries, keys, values, mask);
            }
        };
        let (keys, values) = columns.append(layer, keys.swap_dims(1, 2), values.swap_dims(1, 2));
        attention(queries, keys, values, mask)
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
