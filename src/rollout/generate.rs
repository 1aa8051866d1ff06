//! Batched generation with the cache.

use std::sync::Arc;

use burn::tensor::Tensor;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::sampling::{SamplingConfig, sample_token};
use crate::fused::linear;
use crate::host;
use crate::policy::{PolicyCache, PolicyModel, TokenBatch, is_small};
use crate::prompt::Tokenizer;
use crate::random;
use crate::types::{FinishReason, Problem, Rollout, RolloutGroup, VersionSpan};
use crate::{Error, Result};

/// How completions are generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// The distribution that tokens are drawn from.
    pub sampling: SamplingConfig,
    /// The most tokens in a completion, its stop token included. Default 64.
    pub max_new_tokens: usize,
    /// A completion ends with the first of these. Default: none, so that only `max_new_tokens` ends one; a trainer takes the
    /// tokenizer's then.
    pub stop_tokens: Vec<u32>,
    /// The most completions that are generated at the same time, though a request is never split; changes speed and
    /// memory, no result.
    /// Default 512.
    pub max_rows: usize,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            sampling: SamplingConfig::default(),
            max_new_tokens: 64,
            stop_tokens: Vec::new(),
            max_rows: 512,
        }
    }
}

impl GenerationConfig {
    /// Sampling at temperature 1, up to `max_new_tokens` or the first of `stop_tokens`.
    pub fn new(max_new_tokens: usize, stop_tokens: Vec<u32>) -> Self {
        Self {
            max_new_tokens,
            stop_tokens,
            ..Self::default()
        }
    }

    /// The same with another distribution.
    pub fn with_sampling(self, sampling: SamplingConfig) -> Self {
        Self { sampling, ..self }
    }

    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        self.sampling.validate()?;
        if self.max_new_tokens == 0 {
            return Err(Error::config("generation.max_new_tokens", 0, "at least 1"));
        }
        if self.max_rows == 0 {
            return Err(Error::config("generation.max_rows", 0, "at least 1"));
        }
        Ok(())
    }

    /// Returns an error if a stop token is outside of the model's vocabulary, so that it would never be sampled.
    pub(crate) fn check_stop_tokens(&self, vocabulary: usize) -> Result<()> {
        let mut ids = self.stop_tokens.iter().enumerate();
        match ids.find(|&(_, &id)| id as usize >= vocabulary) {
            Some((index, id)) => Err(Error::config(
                format!("generation.stop_tokens[{index}]"),
                id,
                format!("a token below the model's vocabulary of {vocabulary}"),
            )),
            None => Ok(()),
        }
    }
}

/// A prompt to be answered `samples` times.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// The prompt's tokens; at least one.
    pub prompt: Vec<u32>,
    /// How many completions.
    pub samples: usize,
    /// Where the randomness comes from: sample `i` draws from the generator at `[address.., i]`, so it
    /// comes out the same whatever is generated beside it.
    pub address: Vec<u64>,
}

impl GenerationRequest {
    /// `samples` completions of `prompt`, with randomness from `address`.
    pub fn new(prompt: Vec<u32>, samples: usize, address: impl Into<Vec<u64>>) -> Self {
        Self {
            prompt,
            samples,
            address: address.into(),
        }
    }
}

/// The tokens of one completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// As sampled, the stop token included.
    pub tokens: Vec<u32>,
    /// Log-prob of each under the distribution it was drawn from.
    pub log_probs: Vec<f32>,
    /// Sum over the tokens of the policy's entropy, in nats; `None` if the engine does not tell.
    pub entropy: Option<f64>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Which version of the policy sampled which tokens, in order; empty if one version sampled all of them.
    pub versions: Vec<VersionSpan>,
}

impl Completion {
    /// A completion of one version of the policy, of unknown entropy.
    pub fn new(tokens: Vec<u32>, log_probs: Vec<f32>, finish: FinishReason) -> Self {
        Self {
            tokens,
            log_probs,
            entropy: None,
            finish,
            versions: Vec::new(),
        }
    }
}

/// A token that was just drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenEvent {
    /// Which of the requests it answers.
    pub request: usize,
    /// Which of the request's samples it belongs to.
    pub sample: usize,
    /// Its id.
    pub token: u32,
    /// Its log-prob under the distribution it was drawn from.
    pub log_prob: f32,
    /// Why the completion ends with it, if it does.
    pub finish: Option<FinishReason>,
}

/// Answers every request; the result has one vector per request, with its samples in order.
///
/// Each prompt is read once, its cache is repeated for its samples, and a row that has finished leaves the
/// batch at once: the number of row-tokens computed after the prompts is the number of tokens that
/// were continued from, no more. Give a model without gradients ([`burn::module::Module::valid`]).
///
/// # Errors
/// If the configuration is invalid, a stop token is not in the model's vocabulary, a prompt is empty, a prompt with its completion
/// would not fit the model's positions, or the model's logits are broken.
pub fn generate<M: PolicyModel>(
    model: &M,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
) -> Result<Vec<Vec<Completion>>> {
    check(model, requests, config)?;
    let rows = match is_small(model) {
        true => config.max_rows.min(SMALL_ROWS),
        false => return generate_in_turn(model, requests, config, |_| true),
    };
    // One thread each; which requests stand together does not depend on the number of threads.
    let parts: Vec<(M, &[GenerationRequest])> = parts(requests, rows)
        .map(|part| (model.clone(), part))
        .collect();
    let answers: Vec<_> = parts
        .into_par_iter()
        .map(|(model, part)| generate_together(&model, part, config, &mut |_| true))
        .collect::<Result<_>>()?;
    Ok(answers.into_iter().flatten().collect())
}

/// Completions of a small model that one thread generates at a time.
const SMALL_ROWS: usize = 32;

/// Requests in parts of at most `rows` completions, but at least one request.
fn parts(
    requests: &[GenerationRequest],
    rows: usize,
) -> impl Iterator<Item = &[GenerationRequest]> {
    let mut rest = requests;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fitting = rest.iter().take_while(|request| {
            sum += request.samples;
            sum <= rows
        });
        let (part, later) = rest.split_at(fitting.count().max(1).min(rest.len()));
        rest = later;
        (!part.is_empty()).then_some(part)
    })
}

/// As [`generate`], and tells `observe` of every token as it is drawn, a round of all unfinished rows after the other.
///
/// `false` from `observe` ends generation after that token. What was drawn so far is the result: unfinished completions are cut
/// off as by the length limit, and requests that were not begun have none.
///
/// # Errors
/// As [`generate`].
pub fn generate_streaming<M: PolicyModel>(
    model: &M,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
    observe: impl FnMut(&TokenEvent) -> bool,
) -> Result<Vec<Vec<Completion>>> {
    check(model, requests, config)?;
    generate_in_turn(model, requests, config, observe)
}

/// Rejects what cannot be generated.
fn check<M: PolicyModel>(
    model: &M,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
) -> Result<()> {
    config.validate()?;
    config.check_stop_tokens(model.vocab_size())?;
    for (index, request) in requests.iter().enumerate() {
        let needed = request.prompt.len().saturating_add(config.max_new_tokens);
        if request.prompt.is_empty() {
            let what = format!("prompt {index}");
            return Err(Error::shape(what, "0 tokens", "at least 1 token"));
        }
        let unknown = |id: &&u32| **id as usize >= model.vocab_size();
        if let Some(&id) = request.prompt.iter().find(unknown) {
            return Err(Error::UnknownToken {
                id,
                vocabulary: model.vocab_size(),
            });
        }
        // The last token of a completion is never read again.
        if needed - 1 > model.max_positions() {
            let (tokens, positions) = (request.prompt.len(), model.max_positions());
            if tokens > positions {
                return Err(Error::shape(
                    format!("prompt {index}"),
                    format!("{tokens} tokens"),
                    format!("at most {positions}, the model's positions (max_position_embeddings)"),
                ));
            }
            return Err(Error::config(
                "generation.max_new_tokens",
                config.max_new_tokens,
                format!(
                    "at most {}: prompt {index} has {tokens} tokens and the model {positions} positions \
                     (max_position_embeddings)",
                    positions + 1 - tokens,
                ),
            ));
        }
    }
    Ok(())
}

/// As many requests together as `max_rows` allows, one part after the other.
fn generate_in_turn<M: PolicyModel>(
    model: &M,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
    mut observe: impl FnMut(&TokenEvent) -> bool,
) -> Result<Vec<Vec<Completion>>> {
    let mut answers = Vec::with_capacity(requests.len());
    let mut going = true;
    for part in parts(requests, config.max_rows) {
        if !going {
            answers.extend(part.iter().map(|_| Vec::new()));
            continue;
        }
        let done = answers.len();
        let mut tell = |event: &TokenEvent| {
            going = going
                && observe(&TokenEvent {
                    request: done + event.request,
                    ..*event
                });
            going
        };
        answers.extend(generate_together(model, part, config, &mut tell)?);
    }
    Ok(answers)
}

/// One completion in the making.
struct Row {
    request: usize,
    sample: usize,
    rng: ChaCha8Rng,
    completion: Completion,
    done: bool,
}

impl Row {
    /// Draws the next token from `logits`.
    fn extend(
        &mut self,
        logits: &[f32],
        config: &GenerationConfig,
        weights: &mut Vec<f64>,
    ) -> Result<()> {
        // 53 bits: every multiple of 2^-53 in [0, 1), the same on every platform.
        let uniform = (self.rng.next_u64() >> 11) as f64 * (-53f64).exp2();
        let drawn = sample_token(logits, &config.sampling, uniform, weights)?;
        let completion = &mut self.completion;
        completion.tokens.push(drawn.token);
        completion.log_probs.push(drawn.log_prob as f32);
        completion.entropy = Some(completion.entropy.unwrap_or(0.0) + drawn.entropy);
        if config.stop_tokens.contains(&drawn.token) {
            completion.finish = FinishReason::Stop;
            self.done = true;
        } else if completion.tokens.len() == config.max_new_tokens {
            self.done = true;
        }
        Ok(())
    }

    /// The newest token.
    fn event(&self) -> Option<TokenEvent> {
        let completion = &self.completion;
        Some(TokenEvent {
            request: self.request,
            sample: self.sample,
            token: *completion.tokens.last()?,
            log_prob: *completion.log_probs.last()?,
            finish: self.done.then_some(completion.finish),
        })
    }
}

fn generate_together<M: PolicyModel>(
    model: &M,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
    observe: &mut dyn FnMut(&TokenEvent) -> bool,
) -> Result<Vec<Vec<Completion>>> {
    let device = model.device();
    let unembedding = model.unembedding();
    let vocabulary = model.vocab_size();
    let logits =
        |hidden: Tensor<2>| host::floats(linear(hidden, unembedding.clone(), None), "logits");

    let mut rows: Vec<Row> = Vec::new();
    for (request, asked) in requests.iter().enumerate() {
        for sample in 0..asked.samples {
            let mut address = asked.address.clone();
            address.push(sample as u64);
            rows.push(Row {
                request,
                sample,
                rng: random::generator(&address),
                completion: Completion {
                    entropy: Some(0.0),
                    ..Completion::new(Vec::new(), Vec::new(), FinishReason::Length)
                },
                done: false,
            });
        }
    }

    let prompts: Vec<&[u32]> = requests.iter().map(|r| r.prompt.as_slice()).collect();
    let batch = TokenBatch::from_rows(&prompts, &device)?;
    let mut cache = model.empty_cache(prompts.len());
    let mut model = model.clone(); // once, not for every token
    host::on_pool(&device, &mut model, |model| {
        let hidden = model.forward(&batch, &mut cache)?;
        let [count, width, size] = hidden.dims();
        let ends: Vec<usize> = (0..count)
            .map(|row| row * width + batch.lengths[row] - 1)
            .collect();
        let last = hidden
            .reshape([count * width, size])
            .select(0, host::indices(&ends, &device));
        let first = logits(last)?;
        rows.par_iter_mut()
            .try_for_each_init(Vec::new, |weights, row| {
                let start = row.request * vocabulary;
                row.extend(&first[start..start + vocabulary], config, weights)
            })
    })?;
    let mut going = rows
        .iter()
        .filter_map(Row::event)
        .all(|event| observe(&event));

    // Which row of the cache each row that goes on continues from.
    let mut active: Vec<usize> = (0..rows.len()).filter(|&i| !rows[i].done).collect();
    let mut sources: Vec<usize> = active.iter().map(|&i| rows[i].request).collect();
    while going && !active.is_empty() {
        let unchanged = sources.len() == cache.rows()
            && sources.iter().enumerate().all(|(at, &source)| at == source);
        if !unchanged {
            cache.select_rows(&sources);
        }
        let newest: Vec<[u32; 1]> = active
            .iter()
            .filter_map(|&i| rows[i].completion.tokens.last().map(|&token| [token]))
            .collect();
        let batch = TokenBatch::from_rows(&newest, &device)?;
        // They are those of `active`, in its order.
        let mut unfinished: Vec<&mut Row> = rows.iter_mut().filter(|row| !row.done).collect();
        host::on_pool(&device, &mut model, |model| {
            let hidden = model.forward(&batch, &mut cache)?;
            let next = logits(hidden.squeeze_dim(1))?;
            unfinished
                .par_iter_mut()
                .zip(next.par_chunks_exact(vocabulary))
                .try_for_each_init(Vec::new, |weights, (row, logits)| {
                    row.extend(logits, config, weights)
                })
        })?;
        going = unfinished
            .iter()
            .filter_map(|row| row.event())
            .all(|event| observe(&event));
        sources = (0..active.len())
            .filter(|&at| !rows[active[at]].done)
            .collect();
        active.retain(|&i| !rows[i].done);
    }

    let mut answers: Vec<Vec<Completion>> = requests.iter().map(|_| Vec::new()).collect();
    for row in rows {
        answers[row.request].push(row.completion);
    }
    Ok(answers)
}

/// The completions of one problem as a group of rollouts, not yet scored.
///
/// `policy_version` is the version of those that do not say.
///
/// # Errors
/// If the tokenizer cannot decode a completion.
pub fn sample_group(
    problem: impl Into<Arc<Problem>>,
    prompt_tokens: Vec<u32>,
    completions: Vec<Completion>,
    tokenizer: &dyn Tokenizer,
    policy_version: u64,
) -> Result<RolloutGroup> {
    let stop = tokenizer.stop_tokens();
    let rollouts = completions
        .into_iter()
        .enumerate()
        .map(|(sample, completion)| {
            let spoken = match completion.tokens.split_last() {
                Some((last, before)) if stop.contains(last) => before,
                _ => &completion.tokens,
            };
            let text = tokenizer.decode(spoken)?;
            let oldest = completion.versions.iter().map(|span| span.version).min();
            Ok(Rollout {
                entropy: completion.entropy,
                finish: completion.finish,
                policy_version: oldest.unwrap_or(policy_version),
                versions: match completion.versions.len() {
                    1 => Vec::new(),
                    _ => completion.versions,
                },
                sample,
                ..Rollout::new(completion.tokens, completion.log_probs, text)
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RolloutGroup::new(problem, prompt_tokens, rollouts))
}
