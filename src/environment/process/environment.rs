//! Episodes that a program plays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::contract::{Environment, EnvironmentError, Episode, Opening, Reply, Step};
use super::exchange::{Exchange, Unasked};
use super::program::{Launcher, Program};
use super::protocol::{self, Opened, Request, Said};
use crate::types::Problem;
use crate::{Error, Result};

/// An environment in other programs, such as Python scripts: see the [module](super) for what they read and write.
///
/// Episodes are spread over a few processes of the same program; each process plays many at once. A process that is silent for longer
/// than the [time limit](Program::time_limit) although it was asked something, that ends, or that writes anything but answers is killed.
/// That fails the episodes that it had, with an error that has the end of its standard error; the next episode starts another
/// process.
///
/// The [limit of the agent loop](super::super::AgentLoopConfig::time_limit), 30 s by default, counts as well: raise it for programs that take longer to
/// start.
///
/// When the environment is dropped, the processes' input is closed, and what has not ended a second later is killed.
pub struct ProcessEnvironment {
    name: String,
    launcher: Arc<Launcher>,
    processes: Mutex<Vec<Option<Arc<Exchange>>>>,
    next_episode: AtomicU64,
}

impl ProcessEnvironment {
    /// Starts the processes, without waiting for what they load.
    ///
    /// # Errors
    /// If a setting is invalid, the sandbox cannot be had, or the program cannot be started.
    pub fn new(name: impl Into<String>, program: Program, processes: usize) -> Result<Self> {
        if processes == 0 {
            return Err(Error::config(
                "process_environment.processes",
                0,
                "at least 1",
            ));
        }
        let launcher = Arc::new(Launcher::new(program)?);
        let start = |_| Exchange::start(&launcher, unasked).map(|started| Some(Arc::new(started)));
        let processes = (0..processes).map(start).collect::<Result<_>>()?;
        Ok(Self {
            name: name.into(),
            launcher,
            processes: Mutex::new(processes),
            next_episode: AtomicU64::new(1),
        })
    }

    /// The process with the fewest episodes.
    fn process(&self) -> Result<Arc<Exchange>> {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for place in processes.iter_mut() {
            // Its episodes hold it as well, until they have failed.
            place.take_if(|process| process.is_dead());
        }
        let load = |place: &&mut Option<Arc<Exchange>>| place.as_ref().map_or(0, Arc::strong_count);
        match processes.iter_mut().min_by_key(load) {
            Some(Some(process)) => Ok(process.clone()),
            Some(place) => {
                let process = Arc::new(Exchange::start(&self.launcher, unasked)?);
                *place = Some(process.clone());
                Ok(process)
            }
            None => Err(Error::config(
                "process_environment.processes",
                0,
                "at least 1",
            )),
        }
    }
}

/// A program says nothing but answers.
fn unasked(_: &str) -> Unasked {
    Unasked::Wrong("a JSON object on one line with the `id` of a request that is not yet answered")
}

impl Drop for ProcessEnvironment {
    fn drop(&mut self) {
        let processes = self
            .processes
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // All of them before the first is waited for.
        for process in processes.iter().flatten() {
            if Arc::strong_count(process) == 1 {
                process.close_input();
            }
        }
    }
}

impl Environment for ProcessEnvironment {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(&self, problem: &Problem, seed: u64) -> Result<Opening, EnvironmentError> {
        let process = self.process()?;
        let episode = self.next_episode.fetch_add(1, Ordering::Relaxed);
        // Closed on every path from here on.
        let player = ProcessEpisode { process, episode };
        let line = player.process.request(|id| {
            let open = Request::Open {
                id,
                episode,
                problem,
                seed,
            };
            open.line()
        })?;
        let opened: Opened = protocol::read(&line).map_err(|error| player.fault("open", &error))?;
        let opening = Opening::new(player).with_messages(Said::messages(opened.messages));
        Ok(match opened.tools {
            Some(tools) => opening.with_tools(tools.0),
            None => opening,
        })
    }
}

/// One episode of a process.
struct ProcessEpisode {
    process: Arc<Exchange>,
    episode: u64,
}

impl ProcessEpisode {
    fn fault(&self, request: &str, error: &str) -> EnvironmentError {
        format!("{}: {request}: {error}", self.process.program()).into()
    }
}

impl Episode for ProcessEpisode {
    fn step(&mut self, reply: &Reply<'_>) -> Result<Step, EnvironmentError> {
        let episode = self.episode;
        let line = self
            .process
            .request(|id| Request::step(id, episode, reply).line())?;
        protocol::read_step(&line).map_err(|error| self.fault("step", &error))
    }
}

impl Drop for ProcessEpisode {
    fn drop(&mut self) {
        let close = Request::Close {
            episode: self.episode,
        };
        self.process.send(close.line());
    }
}
