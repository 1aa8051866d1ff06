//! Cached sequences of ended completions, for prompts that continue them.

use super::Decoder;
use super::row::{Request, Row};
use crate::policy::{PolicyCache, PolicyModel};
use crate::types::FinishReason;

/// Sequences with their keys and values, oldest first.
#[derive(Clone, Debug)]
pub(in crate::rollout) struct Kept<C> {
    sequences: Vec<Sequence<C>>,
    /// The maximum number of tokens, including those of running requests.
    pub limit: Option<usize>,
}

#[derive(Clone, Debug)]
struct Sequence<C> {
    /// The tokens that were read.
    tokens: Vec<u32>,
    /// A cache of one row that holds them.
    cache: C,
}

impl<C> Default for Kept<C> {
    fn default() -> Self {
        Self {
            sequences: Vec::new(),
            limit: None,
        }
    }
}

impl<C> Kept<C> {
    /// Takes the longest sequence that is a proper prefix of `prompt`.
    fn take(&mut self, prompt: &[u32]) -> Option<Sequence<C>> {
        let begins =
            |one: &Sequence<C>| one.tokens.len() < prompt.len() && prompt.starts_with(&one.tokens);
        let (index, _) = self
            .sequences
            .iter()
            .enumerate()
            .filter(|(_, one)| begins(one))
            .max_by_key(|(_, one)| one.tokens.len())?;
        Some(self.sequences.remove(index))
    }

    /// Takes the sequences that are prefixes of `prompts`.
    pub fn split_off<'a>(&mut self, prompts: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let own = prompts.into_iter().filter_map(|prompt| self.take(prompt));
        Self {
            sequences: own.collect(),
            limit: self.limit,
        }
    }

    /// Adds the sequences of `other`.
    pub fn extend(&mut self, other: Self) {
        self.sequences.extend(other.sequences);
    }

    fn tokens(&self) -> usize {
        self.sequences.iter().map(|one| one.tokens.len()).sum()
    }

    /// Drops the oldest sequences until the rest and `running` tokens are within the limit.
    fn make_room(&mut self, running: usize) {
        let Some(limit) = self.limit else { return };
        let mut tokens = self.tokens();
        let mut oldest = self.sequences.iter();
        let mut count = 0;
        while running.saturating_add(tokens) > limit
            && let Some(one) = oldest.next()
        {
            tokens -= one.tokens.len();
            count += 1;
        }
        self.sequences.drain(..count);
    }
}

/// Requests that start together.
pub(super) struct Beginning<C> {
    pub requests: Vec<Request>,
    /// The cache of the prefix of each prompt that was already read.
    pub cache: C,
}

impl<C: PolicyCache> Beginning<C> {
    /// The part of each prompt that is still to be read.
    pub fn prompts(&self) -> Vec<&[u32]> {
        let requests = self.requests.iter().zip(self.cache.lengths());
        requests
            .map(|(request, &read)| &request.asked.prompt[read..])
            .collect()
    }
}

impl<M: PolicyModel> Decoder<M> {
    /// Makes the decoder keep sequences that end with a stop token, and start prompts from them.
    pub(in crate::rollout) fn keeping(mut self, kept: Kept<M::Cache>) -> Self {
        self.kept = Some(kept);
        self
    }

    /// Returns the kept sequences.
    pub(in crate::rollout) fn into_kept(self) -> Kept<M::Cache> {
        self.kept.unwrap_or_default()
    }

    /// Splits requests into those with new prompts and those whose prompts continue a kept
    /// sequence.
    pub(super) fn beginnings(&mut self, requests: Vec<Request>) -> Vec<Beginning<M::Cache>> {
        let reserved = requests.iter().map(Request::cache_tokens).sum::<usize>();
        let (mut fresh, mut continued) = (Vec::new(), Vec::new());
        let mut read = self.model.empty_cache(0);
        for request in requests {
            let kept = self.kept.as_mut();
            match kept.and_then(|kept| kept.take(&request.asked.prompt)) {
                Some(kept) => {
                    read.append_rows(&kept.cache, &[0]);
                    continued.push(request);
                }
                None => fresh.push(request),
            }
        }
        self.make_room(reserved);
        let nothing = self.model.empty_cache(fresh.len());
        [(fresh, nothing), (continued, read)]
            .into_iter()
            .filter(|(requests, _)| !requests.is_empty())
            .map(|(requests, cache)| Beginning { requests, cache })
            .collect()
    }

    /// Drops sequences until the rest, the running requests and `more` tokens are within the limit.
    pub(super) fn make_room(&mut self, more: usize) {
        let running = self.reserved_tokens().saturating_add(more);
        if let Some(kept) = &mut self.kept {
            kept.make_room(running);
        }
    }

    /// Keeps row `index` of `cache`, which belongs to `row`, if the completion ended with a stop
    /// token.
    pub(super) fn keep(&mut self, row: &Row, cache: &M::Cache, index: usize) {
        let (Some(kept), Some(group)) = (&mut self.kept, self.running.get(&row.id)) else {
            return;
        };
        if row.done && row.completion.finish == FinishReason::Stop {
            let mut own = self.model.empty_cache(0);
            own.append_rows(cache, &[index]);
            kept.sequences.push(Sequence {
                tokens: [group.request.asked.prompt.as_slice(), row.read()].concat(),
                cache: own,
            });
        }
    }
}
