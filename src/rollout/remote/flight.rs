//! The worker threads: each requests one sample at a time from an engine, and handles failures.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::config::{Protocol, RemoteConfig};
use super::control::Control;
use super::http::{Client, FAILURES, Kind, Trouble, wait_after};
use super::job::Job;
use super::protocol::{self, Finish, Order, Part};
use super::state::{Flight, State, Status};
use super::weights::{Labels, Target};
use crate::rollout::{Completion, InFlight};
use crate::types::VersionSpan;

/// The state that all threads of [`RemoteEngines`](super::RemoteEngines) share.
#[derive(Debug)]
pub(super) struct Shared {
    pub config: RemoteConfig,
    pub labels: Labels,
    state: Mutex<State>,
    /// Signals that there may be work.
    pub wake: Condvar,
    /// Signals that a request to an engine has ended.
    pub ended: Condvar,
    /// Held while weights are loaded.
    pub loading: Mutex<()>,
}

/// The data that a thread needs to request a sample.
struct Assignment {
    engine: usize,
    slot: usize,
    job: Job,
    client: Client,
    control: Control,
    protocol: Protocol,
    /// The weights of the engine at the time of the request.
    target: Arc<Target>,
    model: String,
    reports: bool,
    labels: bool,
}

impl Shared {
    pub(super) fn new(config: RemoteConfig, labels: Labels, state: State) -> Self {
        Self {
            config,
            labels,
            state: Mutex::new(state),
            wake: Condvar::new(),
            ended: Condvar::new(),
            loading: Mutex::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait<'a>(
        condition: &Condvar,
        state: MutexGuard<'a, State>,
        limit: Duration,
    ) -> MutexGuard<'a, State> {
        let waited = condition.wait_timeout(state, limit);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Requests samples from `engine` until shutdown.
    pub(super) fn work(&self, engine: usize, slot: usize) {
        while let Some(assignment) = self.assign(engine, slot) {
            let asked = self.ask(&assignment);
            let sick = asked
                .1
                .as_ref()
                .and_then(|trouble| self.health(&assignment, trouble));
            if let Some((job, due)) = self.settle(assignment, asked, sick) {
                self.retry_at(job, due);
            }
        }
    }

    /// Waits for a job; `None` at shutdown.
    fn assign(&self, engine: usize, slot: usize) -> Option<Assignment> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(job) = state.next(engine, self.config.in_flight)
                && let at = &mut state.engines[engine]
                && let Some(target) = at.target.clone()
            {
                at.slots[slot].flight = Some(Flight {
                    ticket: job.ticket,
                    version: target.version,
                    cut: false,
                    discard: false,
                });
                let model = match target.adapter {
                    true => target.label.clone(),
                    false => at.served.model.clone(),
                };
                return Some(Assignment {
                    engine,
                    slot,
                    job,
                    client: at.slots[slot].client.clone(),
                    control: at.control.clone(),
                    protocol: at.address.protocol,
                    model,
                    reports: at.findings.reports && !target.adapter,
                    labels: at.labels && !target.adapter,
                    target,
                });
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Requests the rest of a sample.
    fn ask(&self, assignment: &Assignment) -> (Part, Option<Trouble>) {
        let (job, target) = (&assignment.job, &assignment.target);
        let config = &job.asked.config;
        let mut tokens = job.asked.prompt.clone();
        tokens.extend(&job.tokens);
        let order = Order {
            model: &assignment.model,
            adapter: target.adapter,
            salt: &target.label,
            tokens: &tokens,
            max_tokens: config.max_new_tokens - job.tokens.len(),
            sampling: &config.sampling,
            stop: &config.stop_tokens,
            seed: job.seed(),
            stream: self.config.stream,
            vocabulary: target.fingerprint.vocabulary,
        };
        let limit = self.config.request_timeout;
        let (part, trouble) = protocol::ask(&assignment.client, assignment.protocol, &order, limit);
        if trouble.is_some() {
            return (part, trouble);
        }
        match self.check_label(assignment, &part) {
            Ok(()) => (part, None),
            Err(trouble) => (Part::default(), Some(trouble)),
        }
    }

    /// Returns an error if the engine supports labels and its weights are not from this run: it
    /// restarted, or another client loaded weights.
    fn check_label(&self, assignment: &Assignment, part: &Part) -> Result<(), Trouble> {
        if !assignment.labels {
            return Ok(());
        }
        let found = match (&part.spans, &part.label) {
            (Some(spans), _) if assignment.reports => {
                let foreign = spans
                    .iter()
                    .find(|(label, _)| self.labels.version(label).is_none());
                foreign.map(|(label, _)| label.clone())
            }
            (_, Some(label)) => self.labels.version(label).is_none().then(|| label.clone()),
            // A label lives as long as the process: if it is present after the answer, it was
            // present before.
            _ => match assignment.control.label() {
                Ok(Some(label)) if self.labels.version(&label).is_some() => None,
                Ok(label) => Some(label.unwrap_or_else(|| "none".into())),
                Err(trouble) => return Err(trouble),
            },
        };
        match found {
            None => Ok(()),
            Some(label) => Err(stale(&label, &assignment.target.label)),
        }
    }

    /// Checks the engine's health after a failure that suggests that it died. Returns the reason if
    /// it is unhealthy.
    fn health(&self, assignment: &Assignment, trouble: &Trouble) -> Option<Trouble> {
        let doubtful = trouble.is_of_transport() || trouble.kind == Kind::Failing;
        let slot =
            |state: &State| match &state.engines[assignment.engine].slots[assignment.slot].flight {
                Some(flight) => flight.cut,
                None => true,
            };
        let cut = slot(&self.lock());
        match doubtful && !cut {
            true => assignment.control.health().err(),
            false => None,
        }
    }

    /// Handles an answer. Returns a job that is to be retried, and when.
    fn settle(
        &self,
        assignment: Assignment,
        (part, trouble): (Part, Option<Trouble>),
        sick: Option<Trouble>,
    ) -> Option<(Job, Instant)> {
        let (index, mut job) = (assignment.engine, assignment.job);
        let mut state = self.lock();
        while state.engines[index].status == Status::Verifying && !state.stopping {
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let engine = &mut state.engines[index];
        let slot = &mut engine.slots[assignment.slot];
        let flight = slot.flight.take();
        let (cut, discard) = flight.map_or((true, true), |flight| (flight.cut, flight.discard));
        if cut {
            slot.client = self.config.client(&engine.address.url);
        }
        self.ended.notify_all();
        if state.stopping || !state.groups.contains_key(&job.ticket) {
            return None;
        }
        if discard {
            state.place(job, true);
            self.wake.notify_all();
            return None;
        }
        let now_has = state.engines[index]
            .target
            .as_ref()
            .map(|target| target.version);
        let reloaded = now_has != Some(assignment.target.version)
            || state.engines[index].status != Status::Ready;
        let finish = part.finish;
        let spans = part.spans.filter(|_| assignment.reports);
        // In a broken stream, the boundary between old and new weights is unknown.
        if trouble.is_none() || assignment.target.adapter || spans.is_some() || !reloaded {
            let versions = match spans {
                Some(spans) => self.versions(&spans),
                None => vec![VersionSpan {
                    version: assignment.target.version,
                    tokens: part.tokens.len(),
                }],
            };
            job.extend(part.tokens, part.log_probs, versions);
        }
        if let Some(finish) = job.complete(finish) {
            let (ticket, sample) = (job.ticket, job.sample);
            let completion = Completion {
                versions: std::mem::take(&mut job.versions),
                ..Completion::new(job.tokens, job.log_probs, finish)
            };
            state.finish(ticket, sample, Ok(completion));
            return None;
        }
        if self.config.in_flight == InFlight::Redo && reloaded {
            job.begin_again();
        }
        let retried = match trouble {
            Some(trouble) if !cut => self.handle(
                &mut state,
                index,
                job,
                assignment.target.adapter,
                trouble,
                sick,
            ),
            None if finish == Some(Finish::Aborted) && !reloaded && !cut => {
                let reason = "the request was aborted by another client";
                let remedy = "no other client may pause the engine or abort its requests";
                let trouble = Trouble::new(Kind::Busy(None), reason, remedy);
                self.handle(&mut state, index, job, false, trouble, None)
            }
            _ => {
                state.place(job, true);
                None
            }
        };
        self.wake.notify_all();
        retried
    }

    /// Handles a failed job: retries it, moves it or fails it.
    fn handle(
        &self,
        state: &mut State,
        index: usize,
        mut job: Job,
        adapter: bool,
        mut trouble: Trouble,
        sick: Option<Trouble>,
    ) -> Option<(Job, Instant)> {
        let since = *job.failing.get_or_insert_with(Instant::now);
        let expired = since.elapsed() >= self.config.retry_for;
        job.tries += 1;
        if trouble.kind == Kind::Refused && adapter && job.wrongs == 0 {
            // The engine may have restarted without the adapter.
            trouble.kind = Kind::Stale;
            job.wrongs += 1;
        }
        if let Some(sick) = sick {
            if state.engines[index].status == Status::Ready {
                let sick = Trouble {
                    reason: format!("{}; {}", trouble.reason, sick.reason),
                    ..sick
                };
                state.take_out(index, &sick, true, false);
            }
            state.counters.retries += 1;
            // This request may be the one that crashes engines.
            match expired {
                true => state.fail(&job, index, &trouble),
                false => state.place(job, true),
            }
            return None;
        }
        match trouble.kind {
            Kind::Refused => {
                state.fail(&job, index, &trouble);
                return None;
            }
            Kind::Wrong | Kind::Stale => {
                if trouble.kind == Kind::Wrong {
                    state.counters.wrong_answers += 1;
                    job.wrongs += 1;
                }
                if state.engines[index].status == Status::Ready {
                    state.take_out(index, &trouble, true, true);
                }
                match job.wrongs >= 2 || expired {
                    true => state.fail(&job, index, &trouble),
                    false => state.place(job, true),
                }
                return None;
            }
            Kind::TimedOut => {
                state.counters.timeouts += 1;
                job.timeouts += 1;
                match state.least_loaded(Some(index)) {
                    Some(other) if job.timeouts < 2 => state.engines[other].queue.push_front(job),
                    _ => state.fail(&job, index, &trouble),
                }
                return None;
            }
            Kind::Failing if job.tries >= FAILURES => {
                state.fail(&job, index, &trouble);
                return None;
            }
            Kind::Failing | Kind::Away | Kind::Broken | Kind::Busy(_) => {}
        }
        if expired {
            state.fail(&job, index, &trouble);
            return None;
        }
        state.counters.retries += 1;
        let wait = wait_after(trouble.kind, job.tries);
        // One more attempt when the time is up.
        let left = self.config.retry_for.saturating_sub(since.elapsed());
        Some((job, Instant::now() + wait.min(left)))
    }

    /// Waits until `due`, unless the job is cancelled, and queues it again.
    fn retry_at(&self, job: Job, due: Instant) {
        let mut state = self.lock();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if state.stopping || !state.groups.contains_key(&job.ticket) {
                return;
            }
            if left.is_zero() {
                break;
            }
            state = Self::wait(&self.wake, state, left);
        }
        state.place(job, true);
        self.wake.notify_all();
    }

    /// Converts spans of labels, all from this run, to spans of versions.
    fn versions(&self, spans: &[(String, usize)]) -> Vec<VersionSpan> {
        let version = |(label, tokens): &(String, usize)| {
            Some(VersionSpan {
                version: self.labels.version(label)?,
                tokens: *tokens,
            })
        };
        spans.iter().filter_map(version).collect()
    }
}

/// The failure of an engine whose weights have another label.
pub(super) fn stale(found: &str, expected: &str) -> Trouble {
    let reason = format!(
        "its weights have the label {found:?}, expected {expected:?}: it restarted, or another client loaded weights"
    );
    Trouble::new(Kind::Stale, reason, "use an engine in one run only")
}
