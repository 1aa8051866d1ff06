//! Sequences that may go on: what was read for a completion that has ended, for a prompt that begins with it.

use super::Decoder;
use super::row::{Request, Row};
use crate::policy::{PolicyCache, PolicyModel};
use crate::types::FinishReason;

/// Sequences with their keys and values, the oldest first.
#[derive(Clone, Debug)]
pub(in crate::rollout) struct Kept<C> {
    sequences: Vec<Sequence<C>>,
    /// The most tokens, those of running requests included.
    pub limit: Option<usize>,
}

#[derive(Clone, Debug)]
struct Sequence<C> {
    /// The tokens that were read.
    tokens: Vec<u32>,
    /// A row that holds them.
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
    /// Takes the sequence that holds most of `prompt`, and not all of it.
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

    /// Takes the sequences that `prompts` begin with.
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

    /// Drops the oldest until there is room for `running` tokens beside them.
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

/// Requests that begin together.
pub(super) struct Beginning<C> {
    pub requests: Vec<Request>,
    /// What was read of each prompt before.
    pub cache: C,
}

impl<C: PolicyCache> Beginning<C> {
    /// What is still to be read of each prompt.
    pub fn prompts(&self) -> Vec<&[u32]> {
        let requests = self.requests.iter().zip(self.cache.lengths());
        requests
            .map(|(request, &read)| &request.asked.prompt[read..])
            .collect()
    }
}

impl<M: PolicyModel> Decoder<M> {
    /// The same, which keeps sequences that end with a stop token, and begins prompts where one of them ends.
    pub(in crate::rollout) fn keeping(mut self, kept: Kept<M::Cache>) -> Self {
        self.kept = Some(kept);
        self
    }

    /// The sequences that are kept.
    pub(in crate::rollout) fn into_kept(self) -> Kept<M::Cache> {
        self.kept.unwrap_or_default()
    }

    /// Requests whose prompts are new, and requests whose prompts were read in part.
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

    /// Drops sequences until there is room for what is running and `more` tokens.
    pub(super) fn make_room(&mut self, more: usize) {
        let running = self.reserved_tokens().saturating_add(more);
        if let Some(kept) = &mut self.kept {
            kept.make_room(running);
        }
    }

    /// Keeps row `index` of `cache`, which is that of `row`, if the completion ended with a stop token.
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
