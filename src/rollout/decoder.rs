//! Generation token by token, with requests that come and go.

mod kept;
mod replace;
mod row;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::generate::{Completion, GenerationConfig, GenerationRequest, TokenEvent, check_request};
use crate::host;
use crate::policy::{PolicyCache, PolicyModel, TokenBatch};
use crate::{Error, Result};
use kept::Beginning;
pub(super) use kept::Kept;
use row::{Group, Request, Row, logits, tell};

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
    /// Sequences that later requests may continue; `None` if none is kept.
    kept: Option<Kept<M::Cache>>,
}

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
            kept: None,
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
            self.make_room(0);
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

    /// Begins requests that there is room for.
    fn admit(
        &mut self,
        finished: &mut Vec<Finished>,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<()> {
        let (asking, empty): (Vec<Request>, Vec<Request>) = self
            .next_requests()
            .into_iter()
            .partition(|request| request.asked.samples > 0);
        finished.extend(empty.into_iter().map(|request| (request.id, Vec::new())));
        for beginning in self.beginnings(asking) {
            self.begin(beginning, finished, observe)?;
        }
        Ok(())
    }

    /// Reads the prompts of requests and draws the first tokens.
    fn begin(
        &mut self,
        mut beginning: Beginning<M::Cache>,
        finished: &mut Vec<Finished>,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<()> {
        // The rows, and which prompt each begins with.
        let (mut rows, mut sources): (Vec<Row>, Vec<usize>) = Default::default();
        for (index, request) in beginning.requests.iter().enumerate() {
            let samples = request.asked.samples;
            sources.extend(vec![index; samples]);
            rows.extend((0..samples).map(|sample| request.row(sample)));
        }
        let batch = TokenBatch::from_rows(&beginning.prompts(), &self.device)?;
        let read = &mut beginning.cache;
        let (vocabulary, version) = (self.model.vocab_size(), self.version);
        let (device, unembedding) = (&self.device, self.unembedding.clone());
        host::on_pool(device, &mut self.model, |model| {
            let hidden = model.forward(&batch, read)?;
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
        for request in beginning.requests {
            let (id, ended) = (request.id, BTreeMap::new());
            self.running.insert(id, Group { request, ended });
        }
        let mut unfinished = Vec::with_capacity(rows.len());
        for (row, source) in rows.into_iter().zip(sources) {
            match row.done {
                true => {
                    self.keep(&row, &beginning.cache, source);
                    finished.extend(self.settle(row));
                }
                false => {
                    unfinished.push(source);
                    self.rows.push(row);
                }
            }
        }
        if !unfinished.is_empty() {
            self.cache.append_rows(&beginning.cache, &unfinished);
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
        if kept.len() == self.rows.len() {
            return Vec::new();
        }
        self.keep_ended(&kept);
        match kept.len() {
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

    /// Keeps the sequences of rows that have ended: all but `staying`.
    fn keep_ended(&mut self, staying: &[usize]) {
        if self.kept.is_none() {
            return;
        }
        let rows = std::mem::take(&mut self.rows);
        let cache = std::mem::replace(&mut self.cache, self.model.empty_cache(0));
        for (index, row) in rows.iter().enumerate() {
            if staying.binary_search(&index).is_err() {
                self.keep(row, &cache, index);
            }
        }
        (self.rows, self.cache) = (rows, cache);
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
}
