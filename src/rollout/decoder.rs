//! Step-by-step generation with continuous batching.

mod draw;
mod kept;
mod replace;
mod row;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use burn::tensor::Device;

use super::generate::{Completion, GenerationConfig, GenerationRequest, TokenEvent, check_request};
use crate::host;
use crate::policy::{PolicyCache, PolicyModel, TokenBatch, WeightFormat};
use crate::{Error, Result};
pub(super) use draw::TOKENS_PER_READ;
use draw::draw_first;
use kept::Beginning;
pub(super) use kept::Kept;
use row::{Group, Request, Row, notify};

/// A step-by-step generator with continuous batching, as in Orca.
///
/// Each [`step`](Self::step) adds one token to every running completion. A completion that ends
/// frees its row at once, and waiting requests take the place. A prompt is read once for all
/// samples of its request. A completion does not depend on what runs at the same time, up to the
/// rounding of log-probs.
///
/// Requests start in the order in which they were submitted. A waiting request starts when nothing
/// is running, or when two limits hold with it included: the number of running completions is at
/// most its [`max_rows`](GenerationConfig::max_rows), and the reserved cache tokens are at most its
/// [`max_cache_tokens`](GenerationConfig::max_cache_tokens). A request reserves its prompt once,
/// and its maximum completion length less one for each sample that has not ended.
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
    /// How the model's weights are stored.
    format: WeightFormat,
    waiting: VecDeque<Request>,
    /// Requests with a running completion, by id.
    running: BTreeMap<u64, Group>,
    /// Running completions, in the order of the rows of the cache.
    rows: Vec<Row>,
    cache: M::Cache,
    /// Cached sequences that later requests may continue; `None` if sequences are not kept.
    kept: Option<Kept<M::Cache>>,
}

/// A request id, and the request's completions in the order of the samples.
pub(super) type Finished = (u64, Vec<Completion>);

impl<M: PolicyModel> Decoder<M> {
    /// Creates an idle decoder. Completions record `version` as the policy version. Pass a model
    /// without gradients ([`burn::module::Module::valid`]).
    pub fn new(model: M, version: u64) -> Self {
        Self {
            device: model.device(),
            format: WeightFormat::Trained,
            cache: model.empty_cache(0),
            model,
            version,
            waiting: VecDeque::new(),
            running: BTreeMap::new(),
            rows: Vec::new(),
            kept: None,
        }
    }

    /// Adds a request to the queue. `id` identifies it in the results of [`step`](Self::step).
    ///
    /// # Errors
    /// Returns an error if the configuration or the request is invalid, as in
    /// [`generate`](super::generate), if another request has the same id, or if requests with other
    /// [`weights`](GenerationConfig::weights) are running.
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
            let expected = "a unique id";
            return Err(Error::config("id", id, expected));
        }
        if config.weights != self.format {
            if !self.is_idle() {
                let expected = format!("{}, as of the requests before it", self.format.name());
                let given = config.weights.name();
                return Err(Error::config("generation.weights", given, expected));
            }
            self.model = self.model.clone().with_weight_format(config.weights)?;
            self.format = config.weights;
            self.kept = self.kept.take().map(|_| Kept::default());
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

    /// Adds one token to every running completion, starts waiting requests that fit and samples the
    /// first token of each of their completions. Returns the ids of the requests whose completions
    /// have all ended, with their completions in order.
    ///
    /// [`Completion::versions`] records which version of the policy sampled which tokens.
    ///
    /// # Errors
    /// Returns an error if the forward pass fails or the logits are not finite. All requests are
    /// then dropped.
    pub fn step(&mut self) -> Result<Vec<(u64, Vec<Completion>)>> {
        self.round(1, &mut |_| true)
    }

    /// [`step`](Self::step) with a callback: `observe` is called with every token until it returns
    /// `false`; no request starts then. On an accelerator, up to `tokens` tokens are added before
    /// they are read.
    pub(super) fn round(
        &mut self,
        tokens: usize,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<Vec<Finished>> {
        let mut finished = Vec::new();
        let mut work = || -> Result<()> {
            if self.decode(tokens, &mut finished, observe)? {
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

    /// Cancels a request, if it has not ended.
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

    /// The number of running completions.
    pub fn running(&self) -> usize {
        self.rows.len()
    }

    /// The number of requests that have not started.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The policy version that samples the next tokens.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The number of cache tokens that the running requests reserve: each prompt once, and the
    /// maximum completion length less one for each running completion.
    pub fn reserved_tokens(&self) -> usize {
        let prompts = self
            .running
            .values()
            .map(|group| group.request.asked.prompt.len());
        let completions = self.rows.iter().map(|row| row.config.max_new_tokens - 1);
        prompts.sum::<usize>() + completions.sum::<usize>()
    }

    /// Ends all running completions, as at the length limit, and drops waiting requests.
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

    /// Extends every row, by up to `tokens` tokens on an accelerator. Returns whether `observe` asked
    /// to continue.
    fn decode(
        &mut self,
        tokens: usize,
        finished: &mut Vec<Finished>,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<bool> {
        if self.rows.is_empty() {
            return Ok(true);
        }
        let going = self.extend_rows(tokens, observe)?;
        finished.extend(self.keep_rows(|row| !row.done));
        Ok(going)
    }

    /// Starts waiting requests that fit.
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

    /// Reads the prompts of requests and samples the first tokens.
    fn begin(
        &mut self,
        mut beginning: Beginning<M::Cache>,
        finished: &mut Vec<Finished>,
        observe: &mut dyn FnMut(&TokenEvent) -> bool,
    ) -> Result<()> {
        // The rows, and the index of each row's prompt.
        let (mut rows, mut sources): (Vec<Row>, Vec<usize>) = Default::default();
        for (index, request) in beginning.requests.iter().enumerate() {
            let samples = request.asked.samples;
            sources.extend(vec![index; samples]);
            rows.extend((0..samples).map(|sample| request.row(sample)));
        }
        let batch = TokenBatch::from_rows(&beginning.prompts(), &self.device)?;
        let read = &mut beginning.cache;
        let (device, new) = (&self.device, &mut rows);
        let drawn = host::on_pool(device, &mut self.model, |model| {
            let hidden = model.forward(&batch, read)?;
            let [count, width, size] = hidden.dims();
            let ends: Vec<usize> = (0..count)
                .map(|row| row * width + batch.lengths[row] - 1)
                .collect();
            let last = hidden
                .reshape([count * width, size])
                .select(0, host::indices(&ends, device));
            draw_first(model.logits(last), new, &sources, device)
        })?;
        for (row, drawn) in rows.iter_mut().zip(drawn) {
            row.push(drawn, self.version);
        }
        notify(&rows, observe);
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

    /// Takes the requests that may start now from the queue.
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

    /// Retains the rows for which `keep` returns true, also in the cache. Returns the requests that
    /// ended with the other rows.
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

    /// Keeps the cached sequences of the rows that ended: all but `staying`.
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

    /// Records a completion that has ended. Returns all completions of its request if it was the
    /// last.
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
