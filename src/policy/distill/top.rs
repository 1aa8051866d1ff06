//! The most likely tokens of a teacher, in place of its distribution over the whole vocabulary.

use burn::tensor::{Device, Int, Tensor, TensorData, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::policy::log_probs::{LogProbConfig, check_unembedding, chunks};
use crate::{Error, Result, host};

use super::divergence::{FLOOR, log_distribution};

/// The teacher's most likely tokens at every token of one completion, as an inference server or a
/// file has them.
///
/// `ids[t]` and `log_probs[t]` belong to completion token `t`. The log-probs are normalised over
/// the whole vocabulary, at the temperature of the divergence.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopLogProbs {
    /// The token ids `[T][k]`, distinct at each token.
    pub ids: Vec<Vec<u32>>,
    /// Their log-probs `[T][k]`, in nats.
    pub log_probs: Vec<Vec<f32>>,
}

/// The teacher's most likely tokens of a batch, on the device; see
/// [`DistilledTokens::from_top`](super::DistilledTokens::from_top).
#[derive(Clone, Debug)]
pub struct TopTokens {
    /// `[B, T, k]`, distinct at each token.
    ids: Tensor<3, Int>,
    /// `[B, T, k]`, in f32.
    log_probs: Tensor<3>,
    /// The largest id plus 1.
    vocabulary: usize,
}

impl TopTokens {
    /// Selects the `k` most likely tokens at every token, given the teacher's hidden states
    /// `[B, T, D]` and unembedding `[D, V]`, which are detached.
    ///
    /// The most likely token is first; of equally likely ones, that with the smaller id. If `k` is
    /// larger than the vocabulary, all tokens are selected.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid, `k` is 0, the shapes do not match, or the
    /// log-probs cannot be read from the device: tokens are selected on the host.
    pub fn of(
        hidden: Tensor<3>,
        unembedding: Tensor<2>,
        k: usize,
        config: &LogProbConfig,
    ) -> Result<Self> {
        config.validate()?;
        if k == 0 {
            return Err(Error::config("k", 0, "at least 1 token"));
        }
        let [rows, width, size] = hidden.dims();
        check_unembedding(&unembedding, size)?;
        let vocabulary = unembedding.dims()[1];
        let k = k.min(vocabulary);
        let hidden = hidden.inner().reshape([rows * width, size]);
        let unembedding = unembedding.inner();
        let (mut ids, mut log_probs) = (Vec::new(), Vec::new());
        for (from, to) in chunks(rows * width, config.chunk) {
            let logits = hidden
                .clone()
                .slice(s![from..to, ..])
                .matmul(unembedding.clone());
            let all = log_distribution(logits, config.temperature);
            let chosen = largest(
                host::floats(all.clone(), "the teacher's log-probs")?,
                vocabulary,
                k,
            );
            let flat: Vec<i32> = chosen.iter().flatten().map(|&id| id as i32).collect();
            let chosen =
                Tensor::<2, Int>::from_data(TensorData::new(flat, [to - from, k]), &all.device());
            log_probs.push(all.gather(1, chosen.clone()));
            ids.push(chosen);
        }
        Ok(Self {
            ids: Tensor::cat(ids, 0).reshape([rows, width, k]),
            log_probs: Tensor::cat(log_probs, 0).reshape([rows, width, k]),
            vocabulary,
        })
    }

    /// Creates a batch of several completions, padded on the right to the longest.
    ///
    /// # Errors
    /// Returns an error if a token has another number of ids or log-probs than the first, an id
    /// appears twice at one token, a log-prob is above 0 or NaN, or the probabilities at a token
    /// sum to more than 1.
    pub fn from_rows(rows: &[TopLogProbs], device: &Device) -> Result<Self> {
        let k = rows
            .iter()
            .flat_map(|row| &row.ids)
            .map(Vec::len)
            .next()
            .unwrap_or(0);
        if k == 0 {
            return Err(Error::shape(
                "the teacher's top tokens",
                0,
                "at least 1 at each token",
            ));
        }
        let width = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
        let mut ids = Vec::with_capacity(rows.len() * width * k);
        let mut log_probs = Vec::with_capacity(ids.capacity());
        let mut vocabulary = k;
        for (index, row) in rows.iter().enumerate() {
            check_row(index, row, k)?;
            for (at, (own_ids, own)) in row.ids.iter().zip(&row.log_probs).enumerate() {
                check_token(index, at, own_ids, own)?;
                let largest = own_ids.iter().copied().max().unwrap_or(0) as usize;
                vocabulary = vocabulary.max(largest + 1);
                ids.extend(own_ids.iter().map(|&id| id as i32));
                log_probs.extend_from_slice(own);
            }
            // Padding: distinct ids with probability 0.
            for _ in row.ids.len()..width {
                ids.extend(0..k as i32);
                log_probs.extend(std::iter::repeat_n(FLOOR as f32, k));
            }
        }
        let shape = [rows.len(), width, k];
        Ok(Self {
            ids: Tensor::from_data(TensorData::new(ids, shape), device),
            log_probs: Tensor::from_data(TensorData::new(log_probs, shape), device),
            vocabulary,
        })
    }

    /// Reads the first `tokens` tokens of row `row` from the device, to be written to a file.
    ///
    /// # Errors
    /// Returns an error if there are fewer rows or tokens, or they cannot be read from the device.
    pub fn row(&self, row: usize, tokens: usize) -> Result<TopLogProbs> {
        let [rows, width, k] = self.ids.dims();
        if row >= rows || tokens > width {
            return Err(Error::shape(
                "the teacher's top tokens",
                format!("row {row}, {tokens} tokens"),
                format!("a row below {rows} and at most {width} tokens"),
            ));
        }
        if tokens == 0 {
            return Ok(TopLogProbs::default());
        }
        let ids = self.ids.clone().slice(s![row, 0..tokens, ..]);
        let ids = ids
            .try_into_vec_as::<u32>()
            .map_err(|reason| Error::device("the teacher's top tokens", reason))?;
        let log_probs = self.log_probs.clone().slice(s![row, 0..tokens, ..]);
        let log_probs = host::floats(log_probs, "the teacher's top log-probs")?;
        Ok(TopLogProbs {
            ids: ids.chunks_exact(k).map(<[u32]>::to_vec).collect(),
            log_probs: log_probs.chunks_exact(k).map(<[f32]>::to_vec).collect(),
        })
    }

    /// The shape `[B, T, k]`.
    pub fn dims(&self) -> [usize; 3] {
        self.ids.dims()
    }

    /// Rejects ids outside a vocabulary of `size` tokens.
    pub(super) fn check_vocabulary(&self, size: usize) -> Result<()> {
        match self.vocabulary <= size {
            true => Ok(()),
            false => Err(Error::shape(
                "the teacher's vocabulary",
                format!("token id {}", self.vocabulary - 1),
                format!("ids below the student's vocabulary of {size}"),
            )),
        }
    }

    /// Returns ids and log-probs, `[B * T, k]`.
    pub(super) fn flat(&self) -> (Tensor<2, Int>, Tensor<2>) {
        let [rows, width, k] = self.dims();
        let shape = [rows * width, k];
        (
            self.ids.clone().reshape(shape),
            self.log_probs.clone().reshape(shape),
        )
    }
}

fn check_row(index: usize, row: &TopLogProbs, k: usize) -> Result<()> {
    if row.ids.len() != row.log_probs.len() {
        return Err(Error::shape(
            format!("top log-probs of completion {index}"),
            format!("{} tokens", row.log_probs.len()),
            format!("{}, as there are ids", row.ids.len()),
        ));
    }
    let lengths = row
        .ids
        .iter()
        .map(Vec::len)
        .zip(row.log_probs.iter().map(Vec::len));
    match lengths.enumerate().find(|(_, lengths)| *lengths != (k, k)) {
        None => Ok(()),
        Some((at, (ids, log_probs))) => Err(Error::shape(
            format!("top tokens of completion {index} at token {at}"),
            format!("{ids} ids and {log_probs} log-probs"),
            format!("{k} of each, as at the first token"),
        )),
    }
}

fn check_token(index: usize, at: usize, ids: &[u32], log_probs: &[f32]) -> Result<()> {
    let invalid = |what: &str, value: String, expected: &str| {
        let field = format!("{what} of completion {index} at token {at}");
        Err(Error::config(field, value, expected))
    };
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return invalid("top ids", format!("{} twice", twice[0]), "distinct ids");
    }
    if let Some(bad) = log_probs.iter().find(|x| x.is_nan() || **x > 1e-4) {
        return invalid("top log-probs", bad.to_string(), "0 or less");
    }
    let mass: f64 = log_probs.iter().map(|&x| f64::from(x).exp()).sum();
    match mass <= 1.0 + 1e-3 {
        true => Ok(()),
        false => invalid("top probabilities", format!("a sum of {mass}"), "at most 1"),
    }
}

/// Returns the indices of the `k` largest numbers in each row of `vocabulary` numbers, in
/// descending order of the numbers and ascending order of the indices of equal ones.
fn largest(numbers: Vec<f32>, vocabulary: usize, k: usize) -> Vec<Vec<u32>> {
    let of_row = |row: &[f32]| {
        let order = |a: &u32, b: &u32| {
            let (x, y) = (row[*a as usize], row[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        let mut places: Vec<u32> = (0..vocabulary as u32).collect();
        if k < vocabulary {
            places.select_nth_unstable_by(k, order);
            places.truncate(k);
        }
        places.sort_unstable_by(order);
        places
    };
    numbers.par_chunks_exact(vocabulary).map(of_row).collect()
}

/// Returns the `k`-th largest number in each row of log-probs `[N, V]`, `[N, 1]`.
pub(super) fn threshold(log_probs: Tensor<2>, k: usize) -> Result<Tensor<2>> {
    let [rows, vocabulary] = log_probs.dims();
    let device = log_probs.device();
    let mut numbers = host::floats(log_probs, "the student's log-probs")?;
    let of_row = |row: &mut [f32]| {
        let at = k.min(vocabulary) - 1;
        *row.select_nth_unstable_by(at, |a, b| b.total_cmp(a)).1
    };
    let least: Vec<f32> = numbers
        .par_chunks_exact_mut(vocabulary)
        .map(of_row)
        .collect();
    Ok(Tensor::from_data(
        TensorData::new(least, [rows, 1]),
        &device,
    ))
}
