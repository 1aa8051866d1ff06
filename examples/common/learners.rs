//! One learner, or several as the processes of an MPI job.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use rlvr::train::{Alone, Learners, TrainerConfig};
use rlvr::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Who learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Launcher {
    /// One process
    Alone,
    /// The processes of an MPI job
    #[cfg(feature = "mpi")]
    Mpi,
}

/// How the learners are started and divide their work.
#[derive(clap::Args, Clone, Debug)]
pub struct LearnerArgs {
    /// Who learns: one process, or those that mpirun or srun has started (feature `mpi`)
    #[arg(long, value_enum, default_value_t = Launcher::Alone)]
    pub learners: Launcher,
    /// Parts that a step is cut into: a power of two and a multiple of the number of learners; the
    /// result depends on it, and not on the number of learners
    #[arg(long, default_value_t = 1)]
    pub shards: usize,
    /// Divide the optimizer's moments among the learners
    #[arg(long)]
    pub sharded_optimizer: bool,
    /// Seconds that a learner waits for the others before the job is ended: longer than the longest
    /// phase
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    pub learner_timeout: u64,
}

impl LearnerArgs {
    /// The settings of a trainer that divides its steps as was asked.
    pub fn apply(&self, config: TrainerConfig) -> TrainerConfig {
        TrainerConfig {
            shards: self.shards,
            sharded_optimizer: self.sharded_optimizer,
            ..config
        }
    }

    /// Runs `work` as one of the learners.
    pub fn run(&self, work: impl FnOnce(Team) -> Result<()>) -> ExitCode {
        let report = |error: &Error| eprintln!("error: {error}");
        let result = match self.learners {
            Launcher::Alone => work(Team {
                learners: Arc::new(Alone),
                local_rank: 0,
            }),
            #[cfg(feature = "mpi")]
            Launcher::Mpi => {
                let limit = Duration::from_secs(self.learner_timeout);
                let learn = |learner: rlvr::train::Mpi| {
                    work(Team {
                        local_rank: learner.local_rank(),
                        learners: Arc::new(learner),
                    })
                };
                rlvr::train::Mpi::run(limit, learn, report)
            }
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                report(&error);
                ExitCode::FAILURE
            }
        }
    }
}

/// The learners, seen from one of them.
#[derive(Clone)]
pub struct Team {
    pub learners: Arc<dyn Learners>,
    /// The number of the device that this learner takes on its machine.
    pub local_rank: usize,
}

impl Team {
    /// Whether this is the learner that prints and writes.
    pub fn is_first(&self) -> bool {
        self.learners.rank() == 0
    }

    /// What `work` gives on the first learner, told to all of them; so is its error.
    pub fn first<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.learners.size() == 1 {
            return work();
        }
        let mine: Option<std::result::Result<T, String>> = match self.is_first() {
            true => Some(work().map_err(|error| error.to_string())),
            false => None,
        };
        let broken = |reason: serde_json::Error| Error::learner(0, reason);
        let all = self
            .learners
            .gather(serde_json::to_vec(&mine).map_err(broken)?)?;
        let first: Option<std::result::Result<T, String>> =
            serde_json::from_slice(&all[0]).map_err(broken)?;
        let nothing = || Err("it has sent nothing".to_string());
        first
            .unwrap_or_else(nothing)
            .map_err(|reason| Error::learner(0, reason))
    }

    /// Raises `stop` when `file` appears, and removes it: mpirun answers Ctrl-C by ending every
    /// process at once.
    pub fn stop_by_file(&self, file: PathBuf, stop: Arc<AtomicBool>) {
        if self.learners.size() == 1 || !self.is_first() {
            return;
        }
        thread::spawn(move || {
            while !file.exists() {
                thread::sleep(Duration::from_millis(500));
            }
            stop.store(true, Ordering::Relaxed);
            // If it cannot be removed the next run stops as well.
            let _ = std::fs::remove_file(&file);
        });
    }
}
