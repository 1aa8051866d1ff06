//! The shared state: requests, queued jobs, and engines in and out of rotation.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::config::EngineAddress;
use super::control::{Control, Served};
use super::http::{Client, Trouble};
use super::job::{Asked, Job};
use super::probe::Findings;
use super::weights::Target;
use crate::rollout::{Answer, Completion, InFlight};
use crate::{Error, Result};

/// An unanswered request.
#[derive(Debug)]
pub(super) struct Group {
    asked: Arc<Asked>,
    answers: Sender<Answer>,
    completions: Vec<Option<Result<Completion>>>,
    /// The engine of its samples, which stay together so that the prompt is read once.
    engine: Option<usize>,
}

/// The status of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It accepts requests.
    Ready,
    /// It is loading weights and gets no new requests.
    Loading,
    /// It has loaded weights and may generate, but the weights are not yet verified: answers wait
    /// for the result.
    Verifying,
    /// It is out of rotation.
    Out,
}

/// A request to an engine.
#[derive(Debug)]
pub(super) struct Flight {
    pub ticket: u64,
    /// The version of the engine's weights at the time of the request.
    pub version: u64,
    /// The connection was closed on purpose.
    pub cut: bool,
    /// The answer must be discarded.
    pub discard: bool,
}

/// The connection of one thread.
#[derive(Debug)]
pub(super) struct Slot {
    pub client: Client,
    pub flight: Option<Flight>,
}

impl Slot {
    /// Closes the connection, if a request is in flight.
    fn cut(&mut self, discard: bool) {
        if let Some(flight) = &mut self.flight {
            flight.cut = true;
            flight.discard |= discard;
            self.client.shut_down();
        }
    }
}

/// One engine.
#[derive(Debug)]
pub(super) struct Engine {
    pub address: EngineAddress,
    pub control: Control,
    pub served: Served,
    pub status: Status,
    /// Why it is out of rotation.
    pub reason: String,
    /// Its weights, if known.
    pub target: Option<Arc<Target>>,
    /// Whether it was checked since it was last out of rotation.
    pub checked: bool,
    pub findings: Findings,
    /// Whether it supports labels of weights.
    pub labels: bool,
    pub queue: VecDeque<Job>,
    pub slots: Vec<Slot>,
    /// Its loaded adapters, by version.
    pub adapters: BTreeMap<u64, String>,
}

impl Engine {
    /// Whether it gets requests, now or once its weights are loaded.
    pub(super) fn in_rotation(&self) -> bool {
        self.status != Status::Out
    }

    pub(super) fn active(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.flight.is_some())
            .count()
    }

    /// Whether a request in flight uses a version.
    pub(super) fn uses(&self, version: u64) -> bool {
        let mut flights = self.slots.iter().filter_map(|slot| slot.flight.as_ref());
        flights.any(|flight| flight.version == version)
    }

    /// Closes the connections of all requests in flight.
    pub(super) fn cut_all(&mut self, discard: bool) {
        self.slots.iter_mut().for_each(|slot| slot.cut(discard));
    }
}

/// Counters since they were last reported.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub completions: u64,
    pub tokens: u64,
    pub retries: u64,
    pub timeouts: u64,
    pub wrong_answers: u64,
    pub outages: u64,
    pub load_seconds: f64,
}

/// The state that all threads share.
#[derive(Debug)]
pub(super) struct State {
    pub stopping: bool,
    pub engines: Vec<Engine>,
    pub groups: BTreeMap<u64, Group>,
    next_ticket: u64,
    /// Jobs without an engine.
    pub unassigned: VecDeque<Job>,
    /// The weights that engines should have.
    pub current: Option<Arc<Target>>,
    /// The time since which no engine is in rotation.
    pub none_since: Option<Instant>,
    /// Why no request can be answered any more.
    pub dead: Option<Trouble>,
    pub counters: Counters,
}

impl State {
    pub(super) fn new(engines: Vec<Engine>) -> Self {
        Self {
            stopping: false,
            engines,
            groups: BTreeMap::new(),
            next_ticket: 0,
            unassigned: VecDeque::new(),
            current: None,
            none_since: None,
            dead: None,
            counters: Counters::default(),
        }
    }

    /// Adds a request and returns its ticket.
    pub(super) fn submit(&mut self, asked: Asked, samples: usize, answers: &Sender<Answer>) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        if samples == 0 {
            let completions = Vec::new();
            let _ = answers.send(Answer {
                ticket,
                completions,
            });
            return ticket;
        }
        let asked = Arc::new(asked);
        let group = Group {
            asked: asked.clone(),
            answers: answers.clone(),
            completions: (0..samples).map(|_| None).collect(),
            engine: None,
        };
        self.groups.insert(ticket, group);
        for sample in 0..samples {
            self.place(Job::new(ticket, sample, &asked), false);
        }
        ticket
    }

    /// Cancels a request.
    pub(super) fn cancel(&mut self, ticket: u64) {
        self.groups.remove(&ticket);
        self.unassigned.retain(|job| job.ticket != ticket);
        for engine in &mut self.engines {
            engine.queue.retain(|job| job.ticket != ticket);
            for slot in &mut engine.slots {
                if slot
                    .flight
                    .as_ref()
                    .is_some_and(|flight| flight.ticket == ticket)
                {
                    slot.cut(true);
                }
            }
        }
    }

    /// The engine in rotation with the fewest jobs.
    pub(super) fn least_loaded(&self, except: Option<usize>) -> Option<usize> {
        let engines = self.engines.iter().enumerate();
        let usable =
            engines.filter(|(index, engine)| Some(*index) != except && engine.in_rotation());
        let load = |engine: &Engine| engine.queue.len() + engine.active();
        usable
            .min_by_key(|(_, engine)| load(engine))
            .map(|(index, _)| index)
    }

    /// Queues a job at its group's engine, at the front if it was started.
    pub(super) fn place(&mut self, job: Job, begun: bool) {
        let Some(group) = self.groups.get(&job.ticket) else {
            return;
        };
        let known = group
            .engine
            .filter(|&index| self.engines[index].in_rotation());
        let Some(index) = known.or_else(|| self.least_loaded(None)) else {
            self.unassigned.push_back(job);
            return;
        };
        if let Some(group) = self.groups.get_mut(&job.ticket) {
            group.engine = Some(index);
        }
        let queue = &mut self.engines[index].queue;
        match begun {
            true => queue.push_front(job),
            false => queue.push_back(job),
        }
    }

    /// Distributes jobs without an engine to engines in rotation.
    pub(super) fn adopt(&mut self) {
        for job in std::mem::take(&mut self.unassigned) {
            self.place(job, false);
        }
    }

    /// Takes an engine out of rotation and moves its jobs to others.
    pub(super) fn take_out(&mut self, index: usize, trouble: &Trouble, cut: bool, discard: bool) {
        let engine = &mut self.engines[index];
        engine.reason = format!("{}; {}", trouble.reason, trouble.remedy);
        tracing::warn!(engine = %engine.address, reason = engine.reason, "an engine was taken out of rotation");
        engine.status = Status::Out;
        self.counters.outages += u64::from(std::mem::take(&mut engine.checked));
        if cut {
            engine.cut_all(discard);
        }
        let jobs = std::mem::take(&mut engine.queue);
        if !self.engines.iter().any(Engine::in_rotation) {
            self.none_since.get_or_insert_with(Instant::now);
        }
        for job in jobs {
            self.place(job, false);
        }
    }

    /// Completes a sample, and answers its request if it was the last.
    pub(super) fn finish(&mut self, ticket: u64, sample: usize, result: Result<Completion>) {
        let Some(group) = self.groups.get_mut(&ticket) else {
            return;
        };
        if let Ok(completion) = &result {
            self.counters.completions += 1;
            self.counters.tokens += completion.tokens.len() as u64;
        }
        group.completions[sample] = Some(result);
        if group.completions.iter().all(Option::is_some)
            && let Some(group) = self.groups.remove(&ticket)
        {
            let completions = group.completions.into_iter().flatten().collect();
            // The receiver may be gone.
            let _ = group.answers.send(Answer {
                ticket,
                completions,
            });
        }
    }

    /// Fails a sample with the failure of an engine.
    pub(super) fn fail(&mut self, job: &Job, engine: usize, trouble: &Trouble) {
        let error = Error::Engine {
            engine: self.engines[engine].address.to_string(),
            request: job.asked.name(job.sample),
            reason: trouble.reason.clone(),
            remedy: trouble.remedy.clone(),
        };
        self.finish(job.ticket, job.sample, Err(error));
    }

    /// Answers every request with a failure.
    pub(super) fn fail_all(&mut self, trouble: &Trouble) {
        self.unassigned.clear();
        self.engines.iter_mut().for_each(|engine| {
            engine.queue.clear();
            engine.cut_all(true);
        });
        let engines = self.addresses();
        for (ticket, group) in std::mem::take(&mut self.groups) {
            let asked = group.asked;
            let entry = |(sample, found): (usize, Option<Result<Completion>>)| {
                found.unwrap_or_else(|| {
                    Err(Error::Engine {
                        engine: engines.clone(),
                        request: asked.name(sample),
                        reason: trouble.reason.clone(),
                        remedy: trouble.remedy.clone(),
                    })
                })
            };
            let completions = group
                .completions
                .into_iter()
                .enumerate()
                .map(entry)
                .collect();
            let _ = group.answers.send(Answer {
                ticket,
                completions,
            });
        }
    }

    /// The addresses of all engines, for errors.
    pub(super) fn addresses(&self) -> String {
        let each: Vec<String> = self
            .engines
            .iter()
            .map(|engine| engine.address.to_string())
            .collect();
        each.join(", ")
    }

    /// The reason of each engine that is out of rotation.
    pub(super) fn reasons(&self) -> String {
        let out = self.engines.iter().filter(|engine| !engine.in_rotation());
        let each: Vec<String> = out
            .map(|engine| format!("{}: {}", engine.address, engine.reason))
            .collect();
        each.join("; ")
    }

    /// Takes the next job of an engine, if the engine is ready.
    pub(super) fn next(&mut self, index: usize, in_flight: InFlight) -> Option<Job> {
        let engine = &mut self.engines[index];
        if engine.status != Status::Ready {
            return None;
        }
        let mut job = engine.queue.pop_front()?;
        let version = engine.target.as_ref().map(|target| target.version);
        let begun_with = job.versions.last().map(|span| span.version);
        if in_flight == InFlight::Redo && begun_with.is_some() && begun_with != version {
            job.begin_again();
        }
        Some(job)
    }
}
