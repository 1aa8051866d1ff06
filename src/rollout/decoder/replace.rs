//! Replacement of the weights while completions are running.

use std::collections::BTreeSet;

use super::row::Row;
use super::{Decoder, Kept};
use crate::policy::{PolicyCache, PolicyModel, TokenBatch};
use crate::rollout::InFlight;
use crate::{Error, Result, host};

/// The number of tokens, over all rows, that are read at once when a cache is recomputed.
const RECOMPUTED_TOGETHER: usize = 4096;

impl<M: PolicyModel> Decoder<M> {
    /// Replaces the model by another of the same shape, which samples all later tokens. `in_flight`
    /// selects the handling of requests that have started.
    ///
    /// # Errors
    /// Returns an error, and changes nothing, if the model differs in vocabulary or positions, or
    /// if `in_flight` is [`InFlight::Finish`] and the decoder is not idle. Returns an error, and
    /// drops all requests, if the cache cannot be recomputed.
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
            let expected = "another policy, or an idle decoder: call `step` until it is idle";
            return Err(Error::config("in_flight", "finish", expected));
        }
        let model = model.with_weight_format(self.format)?;
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
            // The decoder is idle: checked above.
            InFlight::Finish => Ok(()),
            InFlight::Redo => {
                self.begin_again();
                Ok(())
            }
        }
    }

    /// Moves requests that have started back to the front of the queue.
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

    /// Recomputes the keys and values of everything that was read, request by request.
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
