//! Generation token by token, with requests that come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::async_engine::InFlight;
use super::generate::{Completion, GenerationConfig, GenerationRequest, TokenEvent, check_request};
use super::sampling::sample_token;
use crate::fused::linear;
use crate::host;
use crate::policy::{PolicyCache, PolicyModel, TokenBatch};
use crate::random;
use crate::types::{FinishReason, VersionSpan};
use crate::{Error, Result};

/// A generator that answers requests step by step (continuous batching, as in Orca).
///
/// Each [`step`](Self::step) adds one token to every running completion. A completion that ends makes room at once, and the next
/// requests join those that are running; a prompt is read once for all samples of its request. A completion is the same whatever runs
/// beside it, up to the rounding of log-probs.
///
/// Requests begin in the order in which they were submitted. One that is waiting begins when the completions running with it are at most
/// its [`max_rows`](GenerationConfig::max_rows), or nothing is running, and the tokens in the cache can never be more than its
/// [`max_cache_tokens`](GenerationConfig::max_cache_tokens): each request reserves its prompt once, and for each sample that has not ended
/// all tokens but the last that it may have.
///
/// ```
/// use burn::tensor::Device;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::rollout::{Decoder, GenerationConfig, GenerationRequest};
///
/// # fn main() -> rlvr::Result<()> {
/// # #[cfg(feature = "flex")] {
/// let model = CausalConfig::new(16).init(0, &Device::flex())?;
/// let mut decoder = Decoder::new(model, 0);
/// let config = GenerationConfig::new(8, vec![1]);
/// decoder.submit(7, GenerationRequest::new(vec![2, 3], 4, [0]), &config)?;
/// while !decoder.is_idle() {
///     for (id, completions) in decoder.step()? {
///         assert_eq!((id, completions.len()), (7, 4));
///     }
/// }
/// # }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Decoder<M: PolicyModel> {
    model: M,
    version: u64,
    device: Device,
    unembedding: Tensor<2>,
    waiting: VecDeque<Request>,
    /// Requests of which a completion is running, by their ids.
    running: BTreeMap<u64, Group>,
    /// In the order of the rows of the cache.
    rows: Vec<Row>,
    cache: M::Cache,
}

#[derive(Debug)]
struct Request {
    id: u64,
    asked: GenerationRequest,
    config: Arc<GenerationConfig>,
}

impl Request {
    /// Tokens in the cache when all samples are about to get their last one.
    fn cache_tokens(&self) -> usize {
        let continued = self
            .asked
            .samples
            .saturating_mul(self.config.max_new_tokens - 1);
        self.asked.prompt.len().saturating_add(continued)
    }

    /// Sample `sample` before its first token.
    fn row(&self, sample: usize) -> Row {
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

/// A request that has begun.
#[derive(Debug)]
struct Group {
    request: Request,
    /// Those that have ended, by their samples.
    ended: BTreeMap<usize, Completion>,
}

/// One completion in the making.
#[derive(Debug)]
struct Row {
    id: u64,
    sample: usize,
    rng: ChaCha8Rng,
    completion: Completion,
    done: bool,
    config: Arc<GenerationConfig>,
}

impl Row {
    /// Draws the next token from `logits`.
    fn extend(&mut self, logits: &[f32], version: u64, weights: &mut Vec<f64>) -> Result<()> {
        // 53 bits: every multiple of 2^-53 in [0, 1), the same on every platform.
        let uniform = (self.rng.next_u64() >> 11) as f64 * (-53f64).exp2();
        let drawn = sample_token(logits, &self.config.sampling, uniform, weights)?;
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
        Ok(())
    }

    /// The newest token.
    fn event(&self) -> Option<TokenEvent> {
        let completion = &self.completion;
        Some(TokenEvent {
            request: self.id as usize,
            sample: self.sample,
            token: *completion.tokens.last()?,
            log_prob: *completion.log_probs.last()?,
            finish: self.done.then_some(completion.finish),
        })
    }

    /// The tokens of the completion that the cache holds: all but the newest.
    fn read(&self) -> &[u32] {
        let tokens = &self.completion.tokens;
        &tokens[..tokens.len().saturating_sub(1)]
    }
}

/// Tokens of one row times rows that are read at once when a cache is computed again.
const RECOMPUTED_TOGETHER: usize = 4096;

/// A request's id, and its completions in the order of the samples.
pub(super) type Finished = (u64, Vec<Completion>);

impl<M: PolicyModel> Decoder<M> {
    /// A decoder with nothing to do. Completions carry `version` as that of the policy. Give a model without gradients
    /// ([`burn::module::Module::valid`]).
    pub fn new(model: M, version: u64) -> Self {
        Self {
            device: model.device(),
            unembedding: model.unembedding(),
            cache: model.empty_cache(0),
            model,
            version,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    /// Adds a request to those that wait. `id` names it in what [`step`](Self::step) returns.
    ///
    /// # Errors
    /// As [`generate`](super::generate), or if another request has the id.
    pub fn submit(
        &mut self,
        id: u64,
        request: GenerationRequest,
        config: &GenerationConfig,
    ) -> Result<()> {
        config.validate()?;
        config.check_stop_tokens(self.model.vocab_size())?;
        let limits = [self.model.vocab_size(), self.model.max_positions()];
        check_request(id, &request, config, limits)?;
        let taken = self.waiting.iter().any(|waiting| waiting.id == id);
        if taken || self.running.contains_key(&id) {
            let expected = "an id that no other request has";
            return Err(Error::config("id", id, expected));
        }
        self.enqueue(id, request, Arc::new(config.clone()));
        Ok(())
    }

    /// Adds a request that was checked.
    pub(super) fn enqueue(
        &mut self,
        id: u64,
        asked: GenerationRequest,
        config: Arc<GenerationConfig>,
    ) {
        self.waiting.push_back(Request { id, asked, config });
    }

    /// Adds one token to every running completion, begins requests that there is room for (each of their completions has its first
    /// token then), and returns the requests whose completions have all ended, each with its completions in order.
    ///
    /// Every completion says in [`versions`](Completion::versions) which version of the policy sampled which of its tokens.
    ///
    /// # Errors
    /// If the model's logits are broken. All requests are dropped then.
    pub fn step(&mut self) -> Result<Vec<(u64, Vec<Completion>)>> {
        self.round(&mut |_| true)
    }

    /// As [`step`](Self::step), and tells `observe` of every token, until that returns `false`; no request begins then.
    pub(super) fn round(
        &mut self,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<Vec<Finished>> {
        let mut finished = Vec::new();
        let mut work = || -> Result<()> {
            if self.decode(&mut finished, observe)? {
                self.admit(&mut finished, observe)?;
            }
            Ok(())
        };
        let result = work();
        if result.is_err() {
            self.clear();
        }
        result.map(|()| finished)
    }

    /// Ends work on a request, if it has not ended.
    pub fn cancel(&mut self, id: u64) {
        self.waiting.retain(|request| request.id != id);
        if self.running.remove(&id).is_some() {
            self.keep_rows(|row| row.id != id);
        }
    }

    /// Whether no request is waiting or running.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The number of completions that are running.
    pub fn running(&self) -> usize {
        self.rows.len()
    }

    /// The number of requests that have not begun.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The version of the policy that samples the next tokens.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The tokens in the cache when all running completions are about to get the last token that they may have; a prompt counts once.
    pub fn reserved_tokens(&self) -> usize {
        let prompts = self
            .running
            .values()
            .map(|group| group.request.asked.prompt.len());
        let completions = self.rows.iter().map(|row| row.config.max_new_tokens - 1);
        prompts.sum::<usize>() + completions.sum::<usize>()
    }

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

    /// Ends all running completions as they are, as by the length limit, and drops requests that have not begun.
    pub(super) fn stop(&mut self) -> Vec<Finished> {
        let mut finished = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            finished.extend(self.settle(row));
        }
        self.clear();
        finished
    }

    fn clear(&mut self) {
        self.waiting.clear();
        self.running.clear();
        self.rows.clear();
        self.cache = self.model.empty_cache(0);
    }

    /// One token for every row; whether `observe` wants more.
    fn decode(
        &mut self,
        finished: &mut Vec<Finished>,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<bool> {
        if self.rows.is_empty() {
            return Ok(true);
        }
        let newest: Vec<[u32; 1]> = self
            .rows
            .iter()
            .filter_map(|row| row.completion.tokens.last().map(|&token| [token]))
            .collect();
        let batch = TokenBatch::from_rows(&newest, &self.device)?;
        let (cache, rows, version) = (&mut self.cache, &mut self.rows, self.version);
        let vocabulary = self.model.vocab_size();
        let unembedding = self.unembedding.clone();
        host::on_pool(&self.device, &mut self.model, |model| {
            let hidden = model.forward(&batch, cache)?;
            let next = logits(hidden.squeeze_dim(1), unembedding)?;
            rows.par_iter_mut()
                .zip(next.par_chunks_exact(vocabulary))
                .try_for_each_init(Vec::new, |weights, (row, logits)| {
                    row.extend(logits, version, weights)
                })
        })?;
        let going = tell(&self.rows, observe);
        finished.extend(self.keep_rows(|row| !row.done));
        Ok(going)
    }

    /// Reads the prompts of requests that there is room for and draws the first tokens.
    fn admit(
        &mut self,
        finished: &mut Vec<Finished>,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<()> {
        let admitted = self.next_requests();
        let mut prompts: Vec<&[u32]> = Vec::new();
        // The rows, and which prompt each begins with.
        let (mut rows, mut sources): (Vec<Row>, Vec<usize>) = Default::default();
        for request in &admitted {
            match request.asked.samples {
                0 => finished.push((request.id, Vec::new())),
                samples => {
                    sources.extend(vec![prompts.len(); samples]);
                    rows.extend((0..samples).map(|sample| request.row(sample)));
                    prompts.push(&request.asked.prompt);
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        let batch = TokenBatch::from_rows(&prompts, &self.device)?;
        let mut read = self.model.empty_cache(prompts.len());
        let (vocabulary, version) = (self.model.vocab_size(), self.version);
        let (device, unembedding) = (&self.device, self.unembedding.clone());
        host::on_pool(device, &mut self.model, |model| {
            let hidden = model.forward(&batch, &mut read)?;
            let [count, width, size] = hidden.dims();
            let ends: Vec<usize> = (0..count)
                .map(|row| row * width + batch.lengths[row] - 1)
                .collect();
            let last = hidden
                .reshape([count * width, size])
                .select(0, host::indices(&ends, device));
            let first = logits(last, unembedding)?;
            rows.par_iter_mut().zip(&sources).try_for_each_init(
                Vec::new,
                |weights, (row, &source)| {
                    let start = source * vocabulary;
                    row.extend(&first[start..start + vocabulary], version, weights)
                },
            )
        })?;
        tell(&rows, observe);
        for request in admitted {
            if request.asked.samples > 0 {
                let (id, ended) = (request.id, BTreeMap::new());
                self.running.insert(id, Group { request, ended });
            }
        }
        let mut unfinished = Vec::with_capacity(rows.len());
        for (row, source) in rows.into_iter().zip(sources) {
            match row.done {
                true => finished.extend(self.settle(row)),
                false => {
                    unfinished.push(source);
                    self.rows.push(row);
                }
            }
        }
        if !unfinished.is_empty() {
            self.cache.append_rows(&read, &unfinished);
        }
        Ok(())
    }

    /// Takes the requests that may begin now from those that wait.
    fn next_requests(&mut self) -> Vec<Request> {
        let (mut rows, mut tokens) = (self.rows.len(), self.reserved_tokens());
        let mut fits = |request: &Request| {
            let config = &request.config;
            let more_rows = rows.saturating_add(request.asked.samples);
            let more_tokens = tokens.saturating_add(request.cache_tokens());
            let within = |limit: Option<usize>| limit.is_none_or(|limit| more_tokens <= limit);
            let fits =
                rows == 0 || (more_rows <= config.max_rows && within(config.max_cache_tokens));
            if fits && request.asked.samples > 0 {
                (rows, tokens) = (more_rows, more_tokens);
            }
            fits
        };
        let count = self
            .waiting
            .iter()
            .take_while(|request| fits(request))
            .count();
        self.waiting.drain(..count).collect()
    }

    /// Keeps the rows that `keep` says, in the cache as well; returns the requests that ended with the others.
    fn keep_rows(&mut self, keep: impl Fn(&Row) -> bool) -> Vec<Finished> {
        let kept: Vec<usize> = (0..self.rows.len())
            .filter(|&row| keep(&self.rows[row]))
            .collect();
        match kept.len() {
            all if all == self.rows.len() => return Vec::new(),
            0 => self.cache = self.model.empty_cache(0),
            _ => self.cache.select_rows(&kept),
        }
        let (staying, leaving): (Vec<Row>, Vec<Row>) =
            std::mem::take(&mut self.rows).into_iter().partition(keep);
        self.rows = staying;
        leaving
            .into_iter()
            .filter_map(|row| self.settle(row))
            .collect()
    }

    /// Files a completion that has ended; all completions of its request if it was the last of them.
    fn settle(&mut self, row: Row) -> Option<Finished> {
        let group = self.running.get_mut(&row.id)?;
        group.ended.insert(row.sample, row.completion);
        if group.ended.len() < group.request.asked.samples {
            return None;
        }
        let group = self.running.remove(&row.id)?;
        Some((row.id, group.ended.into_values().collect()))
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

/// The logits of hidden states `[N, D]`, row by row.
fn logits(hidden: Tensor<2>, unembedding: Tensor<2>) -> Result<Vec<f32>> {
    host::floats(linear(hidden, unembedding, None), "logits")
}

/// Tells `observe` of the newest tokens; whether it wants more.
fn tell(rows: &[Row], observe: &mut dyn FnMut(&TokenEvent) -> bool) -> bool {
    rows.iter()
        .filter_map(Row::event)
        .all(|event| observe(&event))
}
