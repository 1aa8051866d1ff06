//! Takes a program and what it may use; gives how it ended and what it wrote, and lets it do nothing else.
//!
//! The head of [`code`](super) says what is guaranteed and what is not.

mod config;
#[cfg(target_os = "linux")]
mod folder;
#[cfg(target_os = "linux")]
mod landlock;
#[cfg(target_os = "linux")]
mod launch;
#[cfg(target_os = "linux")]
mod linux;
mod measure;
#[cfg(not(target_os = "linux"))]
mod other;
#[cfg(target_os = "linux")]
mod plan;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod running;
#[cfg(target_os = "linux")]
mod seccomp;
#[cfg(target_os = "linux")]
mod step;
#[cfg(target_os = "linux")]
mod users;
#[cfg(target_os = "linux")]
mod view;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use config::SandboxConfig;
pub use measure::{InForce, Measure, Need, SandboxReport};

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use other as system;

use crate::Result;
use crate::reward::RewardError;
pub(super) use system::{Patience, Started, Wire, pipes};

/// What a program wrote, by descriptor.
pub(super) type Written = Vec<(i32, Vec<u8>)>;

/// Runs programs that nobody trusts.
///
/// What holds them is tried out when it is made. It is cheap to clone, and may be used from many threads at once.
///
/// ```no_run
/// use rlvr::reward::code::{Command, Ended, Sandbox, SandboxConfig};
///
/// let sandbox = Sandbox::new(SandboxConfig { wall_seconds: 2.0, ..SandboxConfig::default() })?;
/// println!("{}", sandbox.report());
///
/// let folder = sandbox.folder().unwrap();
/// folder.write("greet.sh", b"read name; echo hello $name; cat /etc/passwd").unwrap();
/// let command = Command::new("/bin/sh").argument(folder.path("greet.sh")).input("world\n");
/// let ran = folder.run(&command).unwrap();
/// assert_eq!(ran.output, b"hello world\n");
/// assert_eq!(ran.ended, Ended::Exit(1)); // there is no such file
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<system::Confined>,
    report: Arc<SandboxReport>,
}

impl Sandbox {
    /// Tries every measure that is asked for, each by itself and all together, in processes that end at once.
    ///
    /// # Errors
    /// - [`Error::Config`](crate::Error::Config) if a limit makes no sense, or a [required](Need::Required) measure cannot be
    ///   had: the message has the kernel's reason for each. On systems other than Linux that is always so.
    /// - [`Error::Io`](crate::Error::Io) if no folder can be made for the runs.
    pub fn new(config: SandboxConfig) -> Result<Self> {
        config.check()?;
        let (inner, report) = system::Confined::new(config)?;
        Ok(Self {
            inner: Arc::new(inner),
            report: Arc::new(report),
        })
    }

    /// Which measures are in force, and why the others are not.
    pub fn report(&self) -> &SandboxReport {
        &self.report
    }

    /// The limits.
    pub fn config(&self) -> &SandboxConfig {
        self.inner.config()
    }

    /// A fresh folder for a program and its runs, gone when it is dropped.
    ///
    /// Started by root, it takes one of 128 users; with all of them taken this waits.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn folder(&self) -> Result<Folder, RewardError> {
        self.inner.folder().map(|inner| Folder { inner })
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox")
            .field("config", self.config())
            .field("report", &self.report)
            .finish_non_exhaustive()
    }
}

/// A program's files, and the place where it runs.
pub struct Folder {
    inner: system::Place,
}

impl Folder {
    /// Writes one of the program's files, which it may read and not change.
    ///
    /// # Errors
    /// If the name is not a plain file name, or the disk refuses.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), RewardError> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !plain {
            return Err(format!("{name:?} is not a file name").into());
        }
        self.inner.write(name, bytes)
    }

    /// Where the program finds one of its files.
    pub fn path(&self, name: &str) -> String {
        self.inner.path(name)
    }

    /// Runs a command until it ends, or is ended at one of the limits. Nothing that it has started is left.
    ///
    /// # Errors
    /// If it could not be run. That it fails, or reaches a limit, is no error.
    pub fn run(&self, command: &Command) -> Result<Ran, RewardError> {
        self.inner.run(command)
    }

    /// Starts a command with chosen descriptors.
    pub(super) fn start(
        &self,
        command: &Command,
        wires: Vec<(i32, Wire)>,
    ) -> Result<Started, RewardError> {
        self.inner.start(command, wires)
    }
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder")
            .field("path", &self.path(""))
            .finish_non_exhaustive()
    }
}

/// What to run.
///
/// The environment is not the caller's. It is `PATH`, `HOME` and `TMPDIR` (a folder that the program may write, which is also
/// its working folder), `LANG=C.UTF-8`, one thread for numeric libraries, and what is added here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) input: Vec<u8>,
    pub(super) may_write_files: bool,
    pub(super) cpu_factor: u64,
}

impl Command {
    /// A program by its absolute path.
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            input: Vec::new(),
            may_write_files: false,
            cpu_factor: 1,
        }
    }

    /// One more argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// One more variable of the environment.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// What it reads on its standard input. Default: nothing.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Lets it write beside its files, as a compiler must. What it leaves there is not held by `folder_bytes`.
    #[must_use]
    pub fn may_write_files(mut self) -> Self {
        self.may_write_files = true;
        self
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// By itself, with this status.
    Exit(i32),
    /// By this signal: its own fault (SIGSEGV, 11), or the limit of CPU time (SIGKILL, 9, or without a pid namespace SIGXCPU, 24).
    ///
    /// In a pid namespace the program is the first process, to which the kernel delivers only signals that it has a handler
    /// for, or cannot go on with.
    Signal(i32),
    /// It was killed when its time by the clock was over.
    WallLimit,
    /// It was killed because it wrote too much.
    OutputLimit,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// How it ended.
    pub ended: Ended,
    /// What it wrote on its standard output.
    pub output: Vec<u8>,
    /// What it wrote on its standard error, up to the limit.
    pub errors: Vec<u8>,
    /// How long it took, by the clock.
    pub wall: Duration,
}
