//! One sample of a request.

use std::sync::Arc;
use std::time::Instant;

use rand::Rng;

use super::protocol::Finish;
use crate::random;
use crate::rollout::GenerationConfig;
use crate::types::{FinishReason, VersionSpan};

/// A submitted request.
#[derive(Debug)]
pub(super) struct Asked {
    pub prompt: Vec<u32>,
    pub address: Vec<u64>,
    pub config: GenerationConfig,
}

impl Asked {
    /// Describes one of its samples, for errors.
    pub(super) fn name(&self, sample: usize) -> String {
        let (address, tokens) = (&self.address, self.prompt.len());
        format!("sample {sample} of the request at {address:?} (prompt of {tokens} tokens)")
    }
}

/// An unfinished sample, with its tokens so far.
#[derive(Debug)]
pub(super) struct Job {
    pub ticket: u64,
    pub sample: usize,
    pub asked: Arc<Asked>,
    pub tokens: Vec<u32>,
    pub log_probs: Vec<f32>,
    pub versions: Vec<VersionSpan>,
    /// The time of the first failure since the last token.
    pub failing: Option<Instant>,
    /// The number of failures since the last token.
    pub tries: u32,
    pub timeouts: u32,
    /// The number of invalid answers.
    pub wrongs: u32,
}

impl Job {
    pub(super) fn new(ticket: u64, sample: usize, asked: &Arc<Asked>) -> Self {
        Self {
            ticket,
            sample,
            asked: asked.clone(),
            tokens: Vec::new(),
            log_probs: Vec::new(),
            versions: Vec::new(),
            failing: None,
            tries: 0,
            timeouts: 0,
            wrongs: 0,
        }
    }

    /// Drops the tokens so far.
    pub(super) fn begin_again(&mut self) {
        self.tokens.clear();
        self.log_probs.clear();
        self.versions.clear();
    }

    /// Adds tokens with their log-probs and the versions that sampled them.
    pub(super) fn extend(
        &mut self,
        tokens: Vec<u32>,
        log_probs: Vec<f32>,
        versions: Vec<VersionSpan>,
    ) {
        if !tokens.is_empty() {
            (self.failing, self.tries) = (None, 0);
        }
        self.tokens.extend(tokens);
        self.log_probs.extend(log_probs);
        for span in versions {
            match self.versions.last_mut() {
                Some(last) if last.version == span.version => last.tokens += span.tokens,
                _ => self.versions.push(span),
            }
        }
    }

    /// Returns the finish reason if the sample is complete, even if the end of the answer was lost
    /// after its last token.
    pub(super) fn complete(&self, finish: Option<Finish>) -> Option<FinishReason> {
        let config = &self.asked.config;
        let stopped = self
            .tokens
            .last()
            .is_some_and(|last| config.stop_tokens.contains(last));
        match finish {
            _ if stopped => Some(FinishReason::Stop),
            _ if self.tokens.len() >= config.max_new_tokens => Some(FinishReason::Length),
            // The engine's context is full.
            Some(Finish::Length) if !self.tokens.is_empty() => Some(FinishReason::Length),
            _ => None,
        }
    }

    /// The seed of the next request.
    pub(super) fn seed(&self) -> u64 {
        seed(&self.asked.address, self.sample, self.tokens.len())
    }
}

/// The seed of a sample from its token `begun` on: 63 bits, the range that engines accept.
/// Consecutive samples have unrelated seeds, since engines may add small numbers to a seed.
fn seed(address: &[u64], sample: usize, begun: usize) -> u64 {
    let mut words = address.to_vec();
    words.push(sample as u64);
    if begun > 0 {
        words.push(begun as u64);
    }
    random::generator(&words).next_u64() >> 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn seeds_do_not_collide_when_an_engine_adds_small_numbers() {
        let mut seen = HashSet::new();
        for problem in 0..50u64 {
            for sample in 0..8 {
                let own = seed(&[7, problem], sample, 0);
                assert!(own < 1 << 63);
                for added in 0..8 {
                    assert!(seen.insert(own + added), "{problem} {sample} {added}");
                }
            }
        }
        assert_ne!(seed(&[7], 0, 0), seed(&[7], 0, 5));
        assert_eq!(seed(&[7], 0, 5), seed(&[7], 0, 5));
    }
}
