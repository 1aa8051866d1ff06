//! New weights while completions are running.

use std::collections::BTreeSet;

use super::row::Row;
use super::{Decoder, Kept};
use crate::policy::{PolicyCache, PolicyModel, TokenBatch};
use crate::rollout::InFlight;
use crate::{Error, Result, host};

/// Tokens of one row times rows that are read at once when a cache is computed again.
const RECOMPUTED_TOGETHER: usize = 4096;

impl<M: PolicyModel> Decoder<M> {
    /// Samples all tokens that follow from another model of the same shape. What becomes of requests that have begun is said by
    /// `in_flight`.
    ///
    /// # Errors
    /// If the model does not have the vocabulary and positions of the one before it, or requests are to be finished before and are not;
    /// nothing is changed then. If its cache could not be computed:
    /// all requests are dropped then.
    pub fn replace_model(&mut self, model: M, version: u64, in_flight: InFlight) -> Result<()> {
        let shape = |model: &M| [model.vocab_size(), model.max_positions()];
        if shape(&model) != shape(&self.model) {
            let [tokens, positions] = shape(&self.model);
            let [other_tokens, other_positions] = shape(&model);
            return Err(Error::shape(
                "the new model",
                format!("a vocabulary of {other_tokens} and {other_positions} positions"),
                format!("a vocabulary of {tokens} and {positions} positions, as before"),
            ));
        }
        if in_flight == InFlight::Finish && !self.is_idle() {
            let expected =
                "another way, or a decoder that has nothing to do: take steps until it is idle";
            return Err(Error::config("in_flight", "finish", expected));
        }
        self.unembedding = model.unembedding();
        self.device = model.device();
        self.model = model;
        self.version = version;
        self.kept = self.kept.take().map(|_| Kept::default());
        match in_flight {
            InFlight::Continue { recompute: false } => Ok(()),
            InFlight::Continue { recompute: true } => {
                let result = self.recompute();
                if result.is_err() {
                    self.clear();
                }
                result
            }
            // What was submitted before has ended: it was checked above.
            InFlight::Finish => Ok(()),
            InFlight::Redo => {
                self.begin_again();
                Ok(())
            }
        }
    }

    /// Requests that have begun wait again, before those that have not.
    fn begin_again(&mut self) {
        let mut known = BTreeSet::new();
        let mut order: Vec<u64> = self.rows.iter().map(|row| row.id).collect();
        order.retain(|&id| known.insert(id));
        for id in order.into_iter().rev() {
            if let Some(group) = self.running.remove(&id) {
                self.waiting.push_front(group.request);
            }
        }
        self.rows.clear();
        self.cache = self.model.empty_cache(0);
    }

    /// Computes keys and values of everything that was read, one request after the other.
    fn recompute(&mut self) -> Result<()> {
        let mut cache = self.model.empty_cache(0);
        for rows in self.rows.chunk_by(|a, b| a.id == b.id) {
            let Some(group) = rows.first().and_then(|row| self.running.get(&row.id)) else {
                continue;
            };
            let prompt = TokenBatch::from_rows(&[&group.request.asked.prompt], &self.device)?;
            let mut read = self.model.empty_cache(1);
            let mut own = self.model.empty_cache(0);
            let longest = rows.iter().map(|row| row.read().len()).max().unwrap_or(0);
            let width = (RECOMPUTED_TOGETHER / rows.len()).max(1);
            let piece = |row: &Row, start: usize| {
                let tokens = row.read();
                tokens[start.min(tokens.len())..(start + width).min(tokens.len())].to_vec()
            };
            let device = &self.device;
            host::on_pool(device, &mut self.model, |model| -> Result<()> {
                model.forward(&prompt, &mut read)?;
                own.append_rows(&read, &vec![0; rows.len()]);
                for start in (0..longest).step_by(width) {
                    let pieces: Vec<Vec<u32>> = rows.iter().map(|row| piece(row, start)).collect();
                    model.forward(&TokenBatch::from_rows(&pieces, device)?, &mut own)?;
                }
                Ok(())
            })?;
            drop(read);
            cache.append_rows(&own, &(0..rows.len()).collect::<Vec<_>>());
        }
        self.cache = cache;
        Ok(())
    }
}
