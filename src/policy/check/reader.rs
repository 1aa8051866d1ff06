//! Rows of tokens, and the hidden states of a policy after reading them.

use burn::tensor::{DType, Device, Tensor};

use crate::policy::{PolicyCache, PolicyModel, PrefixedBatch, TokenBatch};
use crate::{Error, Result};

/// Hidden states, by row, token and component.
pub(super) type States = Vec<Vec<Vec<f64>>>;

/// The model under test and the rows that it reads.
pub(super) struct Check<M: PolicyModel> {
    pub(super) model: M,
    pub(super) device: Device,
    pub(super) rows: Vec<Vec<u32>>,
    pub(super) dtype: DType,
}

/// The relative tolerances of hidden states and gradients.
pub(super) fn tolerance(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::F64 => (1e-9, 1e-6),
        DType::F16 => (2e-2, 2e-1),
        DType::BF16 => (1e-1, 5e-1),
        _ => (1e-4, 1e-3),
    }
}

/// The expected states of a row from a token on, after the index of that token.
pub(super) type Wanted<'a> = (usize, &'a [Vec<f64>]);

pub(super) fn from(row: &[Vec<f64>], token: usize) -> Wanted<'_> {
    (token, &row[token..])
}

/// The error for a violated promise.
pub(super) fn broken(promise: &str, found: String) -> Error {
    Error::Contract {
        promise: promise.to_string(),
        found,
    }
}

impl<M: PolicyModel> Check<M> {
    pub(super) fn new(model: M) -> Result<Self> {
        let (vocabulary, positions) = (model.vocab_size(), model.max_positions());
        if vocabulary < 2 {
            return Err(Error::config("vocab_size", vocabulary, "at least 2 tokens"));
        }
        if positions < 4 {
            let expected = "at least 4, to test the cache";
            return Err(Error::config("max_positions", positions, expected));
        }
        let longest = positions.min(8);
        let token = |row: usize, at: usize| {
            ((vocabulary - 1 + 5 * row + 3 * at + at * at) % vocabulary) as u32
        };
        let lengths = [longest, longest - 1, longest / 2, 1];
        let rows = lengths.iter().enumerate();
        Ok(Self {
            device: model.device(),
            dtype: model.unembedding().dtype(),
            rows: rows
                .map(|(row, &length)| (0..length).map(|at| token(row, at)).collect())
                .collect(),
            model,
        })
    }

    /// The beginnings of the rows, before [`tails`](Self::tails). They are ragged, so that a cache
    /// has padding in the middle.
    pub(super) fn heads(&self) -> Vec<Vec<u32>> {
        let cuts = self.rows.iter().zip([3, 1, 2, 1]);
        cuts.map(|(row, cut)| row[..cut].to_vec()).collect()
    }

    /// The rest of the rows; the last one is empty.
    pub(super) fn tails(&self) -> Vec<Vec<u32>> {
        let heads = self.heads();
        let rows = self.rows.iter().zip(&heads);
        rows.map(|(row, head)| row[head.len()..].to_vec()).collect()
    }

    /// Replaces every token from index `from` on by another.
    pub(super) fn others(&self, row: &[u32], from: usize) -> Vec<u32> {
        let other = |token: u32| (token + 1) % self.model.vocab_size() as u32;
        let tokens = row.iter().enumerate();
        tokens
            .map(|(at, &token)| if at < from { token } else { other(token) })
            .collect()
    }

    /// Returns the hidden states of rows of these lengths, without padding.
    pub(super) fn states(&self, hidden: Tensor<3>, lengths: &[usize]) -> Result<States> {
        let promise = "hidden states are [B, T, D], D as in the unembedding";
        let [rows, width, size] = hidden.dims();
        let depth = self.model.unembedding().dims()[0];
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if rows != lengths.len() || width < longest || size != depth {
            let wanted = [lengths.len(), longest, depth];
            return Err(broken(
                promise,
                format!("they are {:?}, expected {wanted:?}", hidden.dims()),
            ));
        }
        let values = hidden.inner().try_into_vec_as::<f64>();
        let values = values.map_err(|reason| Error::device("hidden states", reason))?;
        let mut states = Vec::new();
        for (row, &length) in lengths.iter().enumerate() {
            let tokens = values[row * width * size..].chunks_exact(size).take(length);
            let tokens: Vec<Vec<f64>> = tokens.map(<[f64]>::to_vec).collect();
            for (token, state) in tokens.iter().enumerate() {
                if let Some(value) = state.iter().find(|value| !value.is_finite()) {
                    let found = format!("row {row}, token {token}: {value}");
                    return Err(broken("hidden states at tokens are finite", found));
                }
            }
            states.push(tokens);
        }
        Ok(states)
    }

    /// Reads `rows` after the tokens in `cache`.
    pub(super) fn read(&self, rows: &[Vec<u32>], cache: &mut M::Cache) -> Result<States> {
        let batch = TokenBatch::from_rows(rows, &self.device)?;
        let read: Vec<usize> = cache.lengths().to_vec();
        let hidden = self.model.forward(&batch, cache)?;
        let counted: Vec<usize> = read
            .iter()
            .zip(&batch.lengths)
            .map(|(a, b)| a + b)
            .collect();
        if cache.lengths() != counted {
            let found = format!(
                "lengths {:?} after reading {:?}, expected {counted:?}",
                cache.lengths(),
                batch.lengths
            );
            return Err(broken("a cache counts the tokens that it has read", found));
        }
        self.states(hidden, &batch.lengths)
    }

    /// Reads each row alone and in one piece.
    pub(super) fn alone(&self) -> Result<States> {
        let read = |row: &Vec<u32>| {
            let states = self.read(std::slice::from_ref(row), &mut self.model.empty_cache(1))?;
            Ok(states.into_iter().next().unwrap_or_default())
        };
        self.rows.iter().map(read).collect()
    }

    /// Returns an error if `found` are not the `wanted` states.
    pub(super) fn same(&self, promise: &str, found: &States, wanted: &[Wanted]) -> Result<()> {
        let all = wanted.iter().flat_map(|(_, states)| *states).flatten();
        let within = tolerance(self.dtype).0 * all.fold(0.0, |most: f64, x| most.max(x.abs()));
        for (row, (found, (start, wanted))) in found.iter().zip(wanted).enumerate() {
            for (token, (found, wanted)) in found.iter().zip(*wanted).enumerate() {
                for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                    if (found - wanted).abs() > within {
                        let place = format!("row {row}, token {}, component {at}", start + token);
                        let values =
                            format!("{found:.6}, but {wanted:.6} if the row is read alone");
                        let found = format!("{place}: {values}; they may differ by {within:.1e}");
                        return Err(broken(promise, found));
                    }
                }
            }
        }
        Ok(())
    }

    /// The rows as continuations of three prompts: one that two rows share, another one, and an
    /// empty one.
    pub(super) fn prompts(&self) -> Result<(PrefixedBatch, Vec<Vec<u32>>)> {
        let prompt = self.rows[0][..2].to_vec();
        let shared = self.others(&self.rows[0], 2);
        let whole = [
            self.rows[0].clone(),
            self.rows[1].clone(),
            shared,
            self.rows[2].clone(),
        ];
        let tails = [&whole[0][2..], &whole[1][1..], &whole[2][2..], &whole[3]];
        let batch = PrefixedBatch {
            prefixes: Some(TokenBatch::from_rows(
                &[prompt, self.rows[1][..1].to_vec(), Vec::new()],
                &self.device,
            )?),
            prefix_of: vec![0, 1, 0, 2],
            rows: TokenBatch::from_rows(&tails, &self.device)?,
        };
        Ok((batch, whole.to_vec()))
    }
}
