//! Engines that answer while the caller does something else.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use super::engine::RolloutEngine;
use super::generate::{Completion, GenerationConfig, GenerationRequest};
use crate::Result;
use crate::policy::PolicyModel;

/// What becomes of requests in flight when new weights are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlight {
    /// They go on with the new weights. Each completion says which version sampled which tokens.
    Continue {
        /// Whether keys and values of the tokens so far are computed again with the new weights. If not, tokens that follow are
        /// sampled from a mixture of both versions, which no forward pass of either reproduces.
        recompute: bool,
    },
    /// They are finished with the old weights; loading waits for them.
    Finish,
    /// They begin again with the new weights and the same randomness; the tokens so far are dropped.
    Redo,
}

impl Default for InFlight {
    /// They go on, with keys and values computed again.
    fn default() -> Self {
        Self::Continue { recompute: true }
    }
}

/// What an engine gave for one request.
#[derive(Debug)]
pub struct Answer {
    /// What [`AsyncEngine::submit`] returned for the request.
    pub ticket: u64,
    /// One entry for each sample, in order: the completion, or why there is none after the engine's own retries.
    pub completions: Vec<Result<Completion>>,
}

/// Generates completions in the background: an inference server, or a thread of this process.
///
/// [`generate_with`] waits for all answers.
///
/// # Contract
/// - **Every request is answered once**, with one entry per sample, however the engine fails: a request that can no longer be
///   answered is answered with errors. Only a [cancelled](Self::cancel) request has no answer.
/// - A completion satisfies the contract of [`RolloutEngine`](super::RolloutEngine).
/// - A completion says in [`versions`](Completion::versions) which version sampled which of its tokens.
pub trait AsyncEngine<M: PolicyModel>: Send {
    /// Makes `policy` the model of all requests that are submitted from now on. Returns when that is so.
    ///
    /// Requests in flight go on with the new weights or begin again, as the engine is configured; they are not lost.
    ///
    /// # Errors
    /// If the weights cannot be loaded. The engine then has no version until the next success, and answers nothing.
    fn load(&mut self, policy: &M, version: u64) -> Result<()>;

    /// What [`load`](Self::load) does with requests in flight.
    fn in_flight(&self) -> InFlight {
        InFlight::default()
    }

    /// The version that was loaded last, if any.
    fn version(&self) -> Option<u64>;

    /// Begins to answer a request and returns at once, with a number that no other request of this engine has. The answer is sent
    /// to `answers`.
    ///
    /// # Errors
    /// If no version is loaded or the request is invalid. No answer is sent then.
    fn submit(
        &mut self,
        request: GenerationRequest,
        config: &GenerationConfig,
        answers: &Sender<Answer>,
    ) -> Result<u64>;

    /// Ends work on a request. Its answer, if one was already on the way, is to be ignored.
    fn cancel(&mut self, ticket: u64);

    /// Returns an error if the engine can no longer answer anything, with the reason.
    ///
    /// # Errors
    /// See above.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Measured since the last call, by the names of metrics, such as the share of the time that it was idle. Default: nothing.
    fn metrics(&mut self) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }
}

/// How often [`AsyncEngine::check`] is asked while nothing arrives.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Completions of every request by an engine that works in the background: loads `policy` unless its version is loaded, submits
/// everything and waits.
///
/// # Errors
/// If the weights cannot be loaded, or a completion could not be generated: the first error. What is in flight is then cancelled.
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

/// An engine that works in the background as one that is waited for ([`generate_with`]).
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
