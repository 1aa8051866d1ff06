//! Environments that another program runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::contract::{Environment, EnvironmentError, Episode, Opening, Reply, Step};
use super::exchange::{Exchange, Unsolicited};
use super::program::{Launcher, Program};
use super::protocol::{self, MessageList, Opened, Request};
use crate::types::Problem;
use crate::{Error, Result};

/// An environment that another program implements, such as a Python script; see the [module
/// documentation](super) for the protocol.
///
/// Episodes are distributed over several processes of the same program, and each process runs many
/// episodes at the same time. A process that writes anything other than answers, or is silent for
/// longer than the [time limit](Program::time_limit) while requests are unanswered, is killed. If a
/// process ends, its episodes fail with an error that includes the end of its standard error, and
/// the next episode starts a new process.
///
/// The [time limit of the agent loop](super::super::AgentLoopConfig::time_limit), 30 s by default,
/// also applies: raise it for programs that take longer to start.
///
/// Dropping the environment closes the processes' input and kills those that have not ended a
/// second later.
pub struct ProcessEnvironment {
    name: String,
    launcher: Arc<Launcher>,
    processes: Mutex<Vec<Option<Arc<Exchange>>>>,
    next_episode: AtomicU64,
}

impl ProcessEnvironment {
    /// Starts the processes, without waiting until they are ready.
    ///
    /// # Errors
    /// Returns an error if `processes` is 0, a setting is invalid, the sandbox is not available, or
    /// the program cannot be started.
    pub fn new(name: impl Into<String>, program: Program, processes: usize) -> Result<Self> {
        if processes == 0 {
            return Err(Error::config(
                "process_environment.processes",
                0,
                "at least 1",
            ));
        }
        let launcher = Arc::new(Launcher::new(program)?);
        let start =
            |_| Exchange::start(&launcher, unsolicited).map(|started| Some(Arc::new(started)));
        let processes = (0..processes).map(start).collect::<Result<_>>()?;
        Ok(Self {
            name: name.into(),
            launcher,
            processes: Mutex::new(processes),
            next_episode: AtomicU64::new(1),
        })
    }

    /// Returns the process with the fewest episodes.
    fn process(&self) -> Result<Arc<Exchange>> {
        let mut processes = self
            .processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for place in processes.iter_mut() {
            // Its episodes also hold it, until they have failed.
            place.take_if(|process| process.is_dead());
        }
        let load = |place: &&mut Option<Arc<Exchange>>| place.as_ref().map_or(0, Arc::strong_count);
        match processes.iter_mut().min_by_key(load) {
            Some(Some(process)) => Ok(process.clone()),
            Some(place) => {
                let process = Arc::new(Exchange::start(&self.launcher, unsolicited)?);
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

/// Every line that is not an answer is an error.
fn unsolicited(_: &str) -> Unsolicited {
    Unsolicited::Wrong("a JSON object on one line with the `id` of an unanswered request")
}

impl Drop for ProcessEnvironment {
    fn drop(&mut self) {
        let processes = self
            .processes
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        // Close all of them before waiting for the first.
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
        // From here on, dropping it closes the episode.
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
        let opening = Opening::new(player).with_messages(MessageList::messages(opened.messages));
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
