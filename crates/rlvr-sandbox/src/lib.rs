//! Runs untrusted programs, confined by the kernel's means and without a container: namespaces, Landlock, seccomp, resource limits.
//!
//! A [`Sandbox`] tries every [measure](Measure) of confinement when it is made, and returns an error if one that is
//! [required](Need::Required) is not available. A [`Folder`] holds a program's files; it runs [`Command`]s and tells how they
//! [ended](Exit) and what they wrote.
//!
//! ```
//! use rlvr_sandbox::{Command, Exit, Sandbox, SandboxConfig};
//!
//! # fn main() -> rlvr_sandbox::Result<()> {
//! # if !cfg!(target_os = "linux") { return Ok(()) }
//! // Whatever confinement this machine has. Without `allow_less`, anything missing is an error.
//! let config = SandboxConfig { wall_seconds: 2.0, ..SandboxConfig::default().allow_less() };
//! let sandbox = Sandbox::new(config)?;
//! println!("{}", sandbox.report());
//!
//! let folder = sandbox.folder()?;
//! folder.write("greet.sh", b"read name; echo hello $name; exit 3")?;
//! let command = Command::new("/bin/sh").argument(folder.path("greet.sh")).input("world\n");
//! let output = folder.run(&command)?;
//! assert_eq!(output.stdout, b"hello world\n");
//! assert_eq!(output.exit, Exit::Status(3));
//! # Ok(())
//! # }
//! ```
//!
//! # Threat model
//!
//! The program may try to read what it should not, to use up the machine, or to reach something outside. It is not assumed to
//! exploit a flaw of the kernel: all confinement here is the kernel's.
//!
//! # What is guaranteed
//!
//! With every [measure](Measure) in force, a program and whatever it starts
//! - sees only the system's programs and libraries (`/usr`, `/bin`, `/sbin`, `/lib*`), what `read_only` adds, its own files - all
//!   of that read-only - its own processes in `/proc`, five harmless devices, and an empty `/tmp` in memory;
//! - writes only to that `/tmp`, up to a size and a number of files, and all of it is gone with the run;
//! - has no network, no sockets but local ones of its own, no memory or queue shared with others;
//! - is an ordinary user without capabilities, and cannot become another; started by root, a user that nobody else is;
//! - cannot signal, trace, or see a process outside;
//! - is held to CPU time, memory, open files and the size of a file by process, to processes, to the clock and to the size
//!   of its output as a whole;
//! - is dead, to the last child, when the run has ended, and when the calling thread or process has, however that happens.
//!
//! What is **not**:
//! - Memory and CPU time are counted by process: a run may use `processes` times `memory_bytes`, and as many cores. Control
//!   groups, which count a run as a whole, are not used: they are seldom to be had without a service manager.
//! - What is readable under `/usr` for everybody is readable. Keep no secrets there.
//! - The kernel is shared. So are its caches and its clock, by which programs can tell that others run.
//! - A process that is killed (SIGKILL) leaves its folders, named `rlvr-...` and without anything running in them.
//!
//! # What is missing where
//!
//! [`Sandbox::new`] tries every measure, and refuses to go on with less than is asked for. Measures that are left out or
//! [allowed to be missing](Need::IfAvailable) leave these gaps, and the others fill what they can:
//!
//! | without | |
//! |---|---|
//! | `pid_namespace` | seccomp keeps the run's processes in one group, which is killed; root also kills everything of the run's user. An ordinary user without seccomp cannot kill what leaves the group. |
//! | `mount_namespace` | landlock holds the files; their total size and number are not limited, there is no `/proc`, attributes such as the date of a file are seccomp's to protect |
//! | `network_namespace` | seccomp allows local sockets only, and without a view none that has a name; without both, landlock refuses TCP since Linux 6.7 |
//! | any namespace, as an ordinary user | the limit on processes counts all processes of the user |
//! | `landlock` | the view of the mount namespace holds the files; without both, what the user may read and write |
//! | `seccomp` | the namespaces hold; more of the kernel can be called, and so more of its flaws |
//! | `unprivileged_user` | root with no capabilities still owns root's files, and no limit on processes holds it |
//!
//! Containers often forbid namespaces: Docker's default profile does, for root as well. Landlock (Linux 5.13) and seccomp
//! usually work there. Programs run only on Linux; elsewhere [`Sandbox::new`] is an error.

#![warn(missing_docs)]
// Allowed in one file, which starts confined processes: `launch.rs`.
#![deny(unsafe_code)]
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

mod config;
mod error;
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
mod stdio;
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
pub use error::{Error, Result};
pub use measure::{Measure, MeasureState, Need, SandboxReport};
pub use stdio::{PipeEnd, Stdio, Timeout, pipe};

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use other as system;

/// What a program wrote on each descriptor that was [captured](Stdio::Capture).
pub type Captured = Vec<(i32, Vec<u8>)>;

/// Runs untrusted programs. It is cheap to clone, and may be used from many threads at once.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<system::Confined>,
    report: Arc<SandboxReport>,
}

impl Sandbox {
    /// Tries every measure that is asked for, each by itself and all together, in processes that end at once.
    ///
    /// # Errors
    /// - [`Error::Config`] if a limit makes no sense, or a [required](Need::Required) measure cannot be
    ///   had: the message has the kernel's reason for each. On systems other than Linux that is always so.
    /// - [`Error::Io`] if no folder can be made for the runs.
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
    pub fn folder(&self) -> Result<Folder> {
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
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !plain {
            return Err(Error::FileName(name.into()));
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
    pub fn run(&self, command: &Command) -> Result<Output> {
        self.inner.run(command)
    }

    /// Starts a command with chosen descriptors, each by its number below 16.
    ///
    /// # Errors
    /// If it could not be started.
    pub fn spawn(&self, command: &Command, stdio: Vec<(i32, Stdio)>) -> Result<Child> {
        self.inner
            .spawn(command, stdio)
            .map(|inner| Child { inner })
    }
}

/// A running program. Dropping it kills the program and everything that it has started.
pub struct Child {
    inner: system::Started,
}

impl Child {
    /// Waits until the program ends or its time is over: how it ended, and what it wrote.
    ///
    /// # Errors
    /// If the system refuses to wait for it.
    pub fn wait(self, timeout: Timeout) -> Result<(Exit, Captured)> {
        self.inner.wait(timeout)
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").finish_non_exhaustive()
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
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) input: Vec<u8>,
    pub(crate) may_write_files: bool,
    pub(crate) cpu_factor: u64,
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

    /// Multiplies the limit on CPU time, such as for a program that runs several tests. Default: 1.
    #[must_use]
    pub fn cpu_factor(mut self, factor: u64) -> Self {
        self.cpu_factor = factor;
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
pub enum Exit {
    /// By itself, with this status.
    Status(i32),
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

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// What it wrote on its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote on its standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// How long it took, by the clock.
    pub wall: Duration,
}
