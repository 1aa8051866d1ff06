//! Engines that generate in the background.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use super::engine::RolloutEngine;
use super::generate::{Completion, GenerationConfig, GenerationRequest};
use crate::Result;
use crate::policy::PolicyModel;

/// The handling of requests in flight when new weights are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// Requests continue with the new weights. Each completion records which version sampled which
    /// tokens.
    Continue {
        /// Whether the keys and values of the tokens so far are recomputed with the new weights. If
        /// not, later tokens are sampled from a mixture of both versions, which no forward pass of
        /// either reproduces.
        recompute: bool,
    },
    /// Requests finish with the old weights; loading waits for them.
    Finish,
    /// Requests start over with the new weights and the same random draws; the tokens so far are
    /// dropped.
    Redo,
}

impl Default for InFlight {
    /// Requests continue, with recomputed keys and values.
    fn default() -> Self {
        Self::Continue { recompute: true }
    }
}

/// The completions of one request.
#[derive(Debug)]
pub struct Answer {
    /// The number that [`AsyncEngine::submit`] returned for the request.
    pub ticket: u64,
    /// One entry per sample, in order: the completion, or the error after the engine's own retries.
    pub completions: Vec<Result<Completion>>,
}

/// A generator that works in the background: an inference server or a thread of this process.
///
/// [`generate_with`] submits requests and waits for all answers.
/// [`LocalWorker`](super::LocalWorker) is an implementation with an example.
///
/// # Contract
/// - **Every request is answered exactly once**, with one entry per sample. If the engine fails,
///   the entries are errors. Only a [cancelled](Self::cancel) request has no answer.
/// - A completion satisfies the contract of [`RolloutEngine`](super::RolloutEngine).
/// - [`Completion::versions`] records which version sampled which tokens.
pub trait AsyncEngine<M: PolicyModel>: Send {
    /// Makes `policy` the model of all requests that are submitted afterwards. Returns when the
    /// weights are loaded.
    ///
    /// Requests in flight are handled as [`in_flight`](Self::in_flight) says; none is lost.
    ///
    /// # Errors
    /// Returns an error if the weights cannot be loaded. The engine then has no version and accepts
    /// no requests until a later load succeeds.
    fn load(&mut self, policy: &M, version: u64) -> Result<()>;

    /// How [`load`](Self::load) handles requests in flight.
    fn in_flight(&self) -> InFlight {
        InFlight::default()
    }

    /// The version that was last loaded, if any.
    fn version(&self) -> Option<u64>;

    /// Starts a request and returns immediately, with a number that is unique among the requests of
    /// this engine. The answer is sent to `answers`.
    ///
    /// # Errors
    /// Returns an error if no version is loaded or the request is invalid. No answer is sent then.
    fn submit(
        &mut self,
        request: GenerationRequest,
        config: &GenerationConfig,
        answers: &Sender<Answer>,
    ) -> Result<u64>;

    /// Cancels a request. Ignore its answer if one was already sent.
    fn cancel(&mut self, ticket: u64);

    /// Checks that the engine can still answer requests.
    ///
    /// # Errors
    /// Returns an error with the reason if it cannot.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns metrics measured since the last call, by name, such as the share of idle time.
    /// Default: none.
    fn metrics(&mut self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
}

/// How often [`AsyncEngine::check`] is called while no answer arrives.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Generates the completions of every request with an [`AsyncEngine`]: loads `policy` unless its
/// version is loaded, submits all requests and waits for the answers.
///
/// # Errors
/// Returns the first error if the weights cannot be loaded or a completion cannot be generated.
/// Requests in flight are then cancelled.
pub fn generate_with<M: PolicyModel>(
    engine: &mut dyn AsyncEngine<M>,
    policy: &M,
    version: u64,
    requests: &[GenerationRequest],
    config: &GenerationConfig,
) -> Result<Vec<Vec<Completion>>> {
    if engine.version() != Some(version) {
        engine.load(policy, version)?;
    }
    let (sender, receiver) = mpsc::channel();
    let mut waiting: BTreeMap<u64, usize> = BTreeMap::new();
    let mut answers: Vec<Vec<Completion>> = requests.iter().map(|_| Vec::new()).collect();
    let mut work = || -> Result<()> {
        for (index, request) in requests.iter().enumerate() {
            waiting.insert(engine.submit(request.clone(), config, &sender)?, index);
        }
        while !waiting.is_empty() {
            match receiver.recv_timeout(CHECK_INTERVAL) {
                Ok(answer) => {
                    if let Some(index) = waiting.remove(&answer.ticket) {
                        answers[index] = answer.completions.into_iter().collect::<Result<_>>()?;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    engine.check()?
                }
            }
        }
        Ok(())
    };
    let result = work();
    for &ticket in waiting.keys() {
        engine.cancel(ticket);
    }
    result.map(|()| answers)
}

/// An [`AsyncEngine`] as a [`RolloutEngine`], which waits for the answers ([`generate_with`]).
pub(crate) struct Waiting<'a, M>(pub &'a mut dyn AsyncEngine<M>);

impl<M: PolicyModel> RolloutEngine<M> for Waiting<'_, M> {
    fn generate(
        &mut self,
        policy: &M,
        version: u64,
        requests: &[GenerationRequest],
        config: &GenerationConfig,
    ) -> Result<Vec<Vec<Completion>>> {
        generate_with(self.0, policy, version, requests, config)
    }
}
