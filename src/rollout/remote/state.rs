//! Who works on what: requests, jobs in queues, engines in and out of rotation.

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

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Group {
    asked: Arc<Asked>,
    answers: Sender<Answer>,
    completions: Vec<Option<Result<Completion>>>,
    /// Its samples stay together, so that the engine reads the prompt once.
    engine: Option<usize>,
}

/// Where an engine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers.
    Ready,
    /// It is loading weights; nothing new is asked of it.
    Loading,
    /// It has loaded weights and may generate, but is not yet known to have the right ones: answers wait for the verdict.
    Verifying,
    /// It is not asked anything.
    Out,
}

/// What a thread is waiting for.
#[derive(Debug)]
pub(super) struct Flight {
    pub ticket: u64,
    /// Of the weights that it was asked of.
    pub version: u64,
    /// The connection was closed on purpose.
    pub cut: bool,
    /// What it gives must not be used.
    pub discard: bool,
}

/// One thread's place.
#[derive(Debug)]
pub(super) struct Slot {
    pub client: Client,
    pub flight: Option<Flight>,
}

impl Slot {
    /// Closes the connection of the flight, if there is one.
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
    pub standing: Standing,
    /// Why it is out.
    pub reason: String,
    /// The weights that it has, if that is certain.
    pub target: Option<Arc<Target>>,
    /// Whether it was examined since it was last out.
    pub examined: bool,
    pub findings: Findings,
    /// Whether it keeps the label of its weights.
    pub labels: bool,
    pub queue: VecDeque<Job>,
    pub slots: Vec<Slot>,
    /// Adapters that it has, by version.
    pub adapters: BTreeMap<u64, String>,
}

impl Engine {
    /// Whether it is asked, or will be as soon as it has its weights.
    pub(super) fn in_rotation(&self) -> bool {
        self.standing != Standing::Out
    }

    pub(super) fn flying(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.flight.is_some())
            .count()
    }

    /// Whether something in flight was asked of a version.
    pub(super) fn uses(&self, version: u64) -> bool {
        let mut flights = self.slots.iter().filter_map(|slot| slot.flight.as_ref());
        flights.any(|flight| flight.version == version)
    }

    /// Closes the connections of all requests in flight.
    pub(super) fn cut_all(&mut self, discard: bool) {
        self.slots.iter_mut().for_each(|slot| slot.cut(discard));
    }
}

/// What happened since it was last told.
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

/// Everything that threads share.
#[derive(Debug)]
pub(super) struct State {
    pub stopping: bool,
    pub engines: Vec<Engine>,
    pub groups: BTreeMap<u64, Group>,
    next_ticket: u64,
    /// Jobs for which there is no engine.
    pub orphans: VecDeque<Job>,
    /// What engines are to have.
    pub current: Option<Arc<Target>>,
    /// Since when no engine is in rotation.
    pub none_since: Option<Instant>,
    /// Why nothing can be answered any more.
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
            orphans: VecDeque::new(),
            current: None,
            none_since: None,
            dead: None,
            counters: Counters::default(),
        }
    }

    /// Takes up a request and gives its ticket.
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

    /// Drops a request.
    pub(super) fn cancel(&mut self, ticket: u64) {
        self.groups.remove(&ticket);
        self.orphans.retain(|job| job.ticket != ticket);
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

    /// The engine in rotation with the least to do.
    pub(super) fn least_loaded(&self, except: Option<usize>) -> Option<usize> {
        let engines = self.engines.iter().enumerate();
        let usable =
            engines.filter(|(index, engine)| Some(*index) != except && engine.in_rotation());
        let load = |engine: &Engine| engine.queue.len() + engine.flying();
        usable
            .min_by_key(|(_, engine)| load(engine))
            .map(|(index, _)| index)
    }

    /// Puts a job into the queue of its group's engine, in front if it was begun.
    pub(super) fn place(&mut self, job: Job, begun: bool) {
        let Some(group) = self.groups.get(&job.ticket) else {
            return;
        };
        let known = group
            .engine
            .filter(|&index| self.engines[index].in_rotation());
        let Some(index) = known.or_else(|| self.least_loaded(None)) else {
            self.orphans.push_back(job);
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

    /// Gives jobs without an engine to those in rotation.
    pub(super) fn adopt(&mut self) {
        for job in std::mem::take(&mut self.orphans) {
            self.place(job, false);
        }
    }

    /// Takes an engine out of rotation, and gives what it had to do to others.
    pub(super) fn take_out(&mut self, index: usize, trouble: &Trouble, cut: bool, discard: bool) {
        let engine = &mut self.engines[index];
        engine.reason = format!("{}; {}", trouble.reason, trouble.remedy);
        tracing::warn!(engine = %engine.address, reason = engine.reason, "an engine is not used");
        engine.standing = Standing::Out;
        self.counters.outages += u64::from(std::mem::take(&mut engine.examined));
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

    /// Ends a sample, and answers its request if it was the last.
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
            // Whoever asked may have gone.
            let _ = group.answers.send(Answer {
                ticket,
                completions,
            });
        }
    }

    /// Ends a sample with what went wrong at an engine.
    pub(super) fn fail(&mut self, job: &Job, engine: usize, trouble: &Trouble) {
        let error = Error::Engine {
            engine: self.engines[engine].address.to_string(),
            request: job.asked.name(job.sample),
            reason: trouble.reason.clone(),
            remedy: trouble.remedy.clone(),
        };
        self.finish(job.ticket, job.sample, Err(error));
    }

    /// Answers every request with what is wrong.
    pub(super) fn fail_all(&mut self, trouble: &Trouble) {
        self.orphans.clear();
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

    /// All engines, for an error.
    pub(super) fn addresses(&self) -> String {
        let each: Vec<String> = self
            .engines
            .iter()
            .map(|engine| engine.address.to_string())
            .collect();
        each.join(", ")
    }

    /// Why each engine that is out is out.
    pub(super) fn reasons(&self) -> String {
        let out = self.engines.iter().filter(|engine| !engine.in_rotation());
        let each: Vec<String> = out
            .map(|engine| format!("{}: {}", engine.address, engine.reason))
            .collect();
        each.join("; ")
    }

    /// The next job for an engine that is ready.
    pub(super) fn next(&mut self, index: usize, in_flight: InFlight) -> Option<Job> {
        let engine = &mut self.engines[index];
        if engine.standing != Standing::Ready {
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
