//! Requests and running completions of a [`Decoder`](super::Decoder).

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::rollout::sampling::{Sampled, sample_token};
use crate::rollout::{Completion, GenerationConfig, GenerationRequest, TokenEvent};
use crate::types::{FinishReason, VersionSpan};
use crate::{Result, random};

/// A request, waiting or running.
#[derive(Debug)]
pub(super) struct Request {
    pub id: u64,
    pub asked: GenerationRequest,
    pub config: Arc<GenerationConfig>,
}

impl Request {
    /// The number of cache tokens that the request reserves.
    pub fn cache_tokens(&self) -> usize {
        let continued = self
            .asked
            .samples
            .saturating_mul(self.config.max_new_tokens - 1);
        self.asked.prompt.len().saturating_add(continued)
    }

    /// Creates the row of a sample, before its first token.
    pub fn row(&self, sample: usize) -> Row {
        let mut address = self.asked.address.clone();
        address.push(sample as u64);
        Row {
            id: self.id,
            sample,
            rng: random::generator(&address),
            completion: Completion {
                entropy: Some(0.0),
                ..Completion::new(Vec::new(), Vec::new(), FinishReason::Length)
            },
            done: false,
            config: self.config.clone(),
        }
    }
}

/// A running request.
#[derive(Debug)]
pub(super) struct Group {
    pub request: Request,
    /// The completions that have ended, by sample.
    pub ended: BTreeMap<usize, Completion>,
}

/// A running completion.
#[derive(Debug)]
pub(super) struct Row {
    pub id: u64,
    pub sample: usize,
    pub rng: ChaCha8Rng,
    pub completion: Completion,
    pub done: bool,
    pub config: Arc<GenerationConfig>,
}

impl Row {
    /// Draws the next token from `logits`; see [`sample_token`].
    pub fn draw(&mut self, logits: &[f32], weights: &mut Vec<f64>) -> Result<Sampled> {
        let uniform = self.uniform();
        sample_token(logits, &self.config.sampling, uniform, weights)
    }

    /// Returns the next uniform number in [0, 1): a multiple of 2^-53, the same on every platform.
    pub fn uniform(&mut self) -> f64 {
        (self.rng.next_u64() >> 11) as f64 * (-53f64).exp2()
    }

    /// Appends a token that was drawn by `version` of the policy.
    pub fn push(&mut self, drawn: Sampled, version: u64) {
        let completion = &mut self.completion;
        completion.tokens.push(drawn.token);
        completion.log_probs.push(drawn.log_prob as f32);
        completion.entropy = Some(completion.entropy.unwrap_or(0.0) + drawn.entropy);
        match completion.versions.last_mut() {
            Some(span) if span.version == version => span.tokens += 1,
            _ => completion.versions.push(VersionSpan { version, tokens: 1 }),
        }
        if self.config.stop_tokens.contains(&drawn.token) {
            completion.finish = FinishReason::Stop;
            self.done = true;
        } else if completion.tokens.len() == self.config.max_new_tokens {
            self.done = true;
        }
    }

    /// The event of the newest token.
    pub fn event(&self) -> Option<TokenEvent> {
        let completion = &self.completion;
        Some(TokenEvent {
            request: self.id as usize,
            sample: self.sample,
            token: *completion.tokens.last()?,
            log_prob: *completion.log_probs.last()?,
            finish: self.done.then_some(completion.finish),
        })
    }

    /// The tokens of the completion that are in the cache: all but the newest.
    pub fn read(&self) -> &[u32] {
        let tokens = &self.completion.tokens;
        &tokens[..tokens.len().saturating_sub(1)]
    }
}

/// Calls `observe` with the newest tokens. Returns whether it asked to continue.
pub(super) fn notify<'a>(
    rows: impl IntoIterator<Item = &'a Row>,
    observe: &mut dyn FnMut(&TokenEvent) -> bool,
) -> bool {
    rows.into_iter()
        .filter_map(Row::event)
        .all(|event| observe(&event))
}
