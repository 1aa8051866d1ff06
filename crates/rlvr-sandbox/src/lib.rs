//! Runs untrusted programs on Linux, confined by namespaces, Landlock, seccomp and resource limits,
//! without a container.
//!
//! [`Sandbox::new`] tries every [`Measure`] of confinement and returns an error if one that is
//! [required](Need::Required) is not available. [`Sandbox::folder`] creates a [`Folder`] for a
//! program's files, and [`Folder::run`] runs a [`Command`] there and returns how it [ended](Exit)
//! and what it wrote.
//!
//! ```
//! use rlvr_sandbox::{Command, Exit, Sandbox, SandboxConfig};
//!
//! # fn main() -> rlvr_sandbox::Result<()> {
//! # if !cfg!(target_os = "linux") { return Ok(()) }
//! // `allow_less` uses the measures that this machine has. Without it, a missing one is
//! // an error.
//! let config = SandboxConfig {
//!     wall_seconds: 30.0,
//!     ..SandboxConfig::default().allow_less()
//! };
//! let sandbox = Sandbox::new(config)?;
//! println!("{}", sandbox.report());
//!
//! let folder = sandbox.folder()?;
//! folder.write("greet.sh", b"read name; echo hello $name; exit 3")?;
//! let command = Command::new("/bin/sh")
//!     .argument(folder.path("greet.sh"))
//!     .input("world\n");
//! let output = folder.run(&command)?;
//! assert_eq!(output.stdout, b"hello world\n");
//! assert_eq!(output.exit, Exit::Status(3));
//! # Ok(())
//! # }
//! ```
//!
//! # Threat model
//!
//! The program may try to read files and processes outside of the sandbox, to exhaust the machine,
//! or to reach the network. Exploits of the kernel are out of scope: all confinement is the
//! kernel's.
//!
//! # Guarantees
//!
//! With every [measure](Measure) in force, a program and all of its child processes
//! - see only the system's programs and libraries (`/usr`, `/bin`, `/sbin`, `/lib*`), the paths in
//!   [`SandboxConfig::read_only`] and the program's files, all of them read-only, their own
//!   processes in `/proc`, five harmless devices, and an empty `/tmp` in memory;
//! - write only to that `/tmp`, up to a total size and a number of files, and everything there is
//!   removed with the run;
//! - have no network, no sockets but their own local ones, and no shared memory or message queue of
//!   other processes;
//! - run as an ordinary user without capabilities and cannot become another one; if root starts
//!   them, the user belongs to this run only;
//! - cannot signal, trace or see a process outside;
//! - are limited in CPU time, memory, open files and file size for each process, and in the number
//!   of processes, wall-clock time and output for the whole run;
//! - are killed when the run ends, and when the calling thread or process ends, for whatever
//!   reason.
//!
//! # Limitations
//!
//! - Memory and CPU time are limited for each process: a run may use `processes` times
//!   `memory_bytes`, and as many cores. Control groups, which would limit the whole run, are not
//!   used because they are rarely available without a service manager.
//! - Files under `/usr` that every user may read are readable. Keep no secrets there.
//! - The kernel is shared, and with it caches and the clock, from which a program can infer that
//!   others run.
//! - If the calling process is killed (SIGKILL), its folders, named `rlvr-...`, are not removed.
//!   Nothing runs in them.
//!
//! # Missing measures
//!
//! A measure that is [off](Need::Off), or [not available and not required](Need::IfAvailable),
//! leaves these gaps:
//!
//! | without | |
//! |---|---|
//! | `pid_namespace` | The run is killed as a process group, which seccomp keeps its processes from leaving; root also kills every process of the run's user. Without seccomp, a process that leaves the group survives if an ordinary user started it. |
//! | `mount_namespace` | Landlock protects the files and seccomp their attributes, such as modification times. The total size and number of files are not limited, and there is no `/proc`. |
//! | `network_namespace` | Seccomp allows local sockets only, and without a mount namespace only unnamed ones. Without seccomp, Landlock forbids TCP since Linux 6.7. |
//! | any namespace, for an ordinary user | The limit on processes counts all processes of the user. |
//! | `landlock` | The mount namespace protects the files. Without both, the program may read and write what the user may. |
//! | `seccomp` | The namespaces remain, but more system calls, and so more of the kernel's bugs, are reachable. |
//! | `unprivileged_user` | Root without capabilities still owns root's files and is not bound by the limit on processes. |
//!
//! Containers often forbid namespaces: Docker's default profile does, even for root. Landlock
//! (since Linux 5.13) and seccomp usually work there. On systems other than Linux, [`Sandbox::new`]
//! returns an error.

#![warn(missing_docs)]
// `launch.rs`, which starts the processes, allows it.
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

/// The bytes that a program wrote to each [captured](Stdio::Capture) descriptor.
pub type Captured = Vec<(i32, Vec<u8>)>;

/// Runs untrusted programs.
///
/// A sandbox is cheap to clone and can be used by several threads at once. See the [crate
/// documentation](crate) for an example.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<system::Confined>,
    report: Arc<SandboxReport>,
}

impl Sandbox {
    /// Creates a sandbox after trying every measure that is not [off](Need::Off), alone and
    /// together with the others, in short-lived processes.
    ///
    /// # Errors
    /// - [`Error::Config`] if a limit is invalid, or a [required](Need::Required) measure is not
    ///   available; the message gives the kernel's reason for each. On systems other than Linux
    ///   this is always the case.
    /// - [`Error::Io`] if no folder can be created in [`SandboxConfig::folder`].
    pub fn new(config: SandboxConfig) -> Result<Self> {
        config.check()?;
        let (inner, report) = system::Confined::new(config)?;
        Ok(Self {
            inner: Arc::new(inner),
            report: Arc::new(report),
        })
    }

    /// Returns which measures are in force, and why the others are not.
    pub fn report(&self) -> &SandboxReport {
        &self.report
    }

    /// Returns the limits and measures.
    pub fn config(&self) -> &SandboxConfig {
        self.inner.config()
    }

    /// Creates a folder for the files and runs of a program. It is removed when the [`Folder`] is
    /// dropped.
    ///
    /// If this process is root, a folder takes one of 128 user IDs, and this call blocks while all
    /// of them are in use.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be created, and [`Error::Start`] if root has no user IDs
    /// to run programs as.
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

/// The files of a program, and the place where it runs.
///
/// ```
/// use rlvr_sandbox::{Command, Sandbox, SandboxConfig};
///
/// # fn main() -> rlvr_sandbox::Result<()> {
/// # if !cfg!(target_os = "linux") { return Ok(()) }
/// let sandbox = Sandbox::new(SandboxConfig::default().allow_less())?;
/// let folder = sandbox.folder()?;
/// folder.write("numbers", b"3\n1\n2\n")?;
/// let sort = Command::new("/usr/bin/sort").argument(folder.path("numbers"));
/// assert_eq!(folder.run(&sort)?.stdout, b"1\n2\n3\n");
/// # Ok(())
/// # }
/// ```
pub struct Folder {
    inner: system::Place,
}

impl Folder {
    /// Writes a file that the program can read but not change.
    ///
    /// # Errors
    /// [`Error::FileName`] if `name` is not a plain file name, and [`Error::Io`] if the file cannot
    /// be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0']);
        if !plain {
            return Err(Error::FileName(name.into()));
        }
        self.inner.write(name, bytes)
    }

    /// Returns the absolute path under which the program sees the file `name`.
    pub fn path(&self, name: &str) -> String {
        self.inner.path(name)
    }

    /// Runs a command until it ends or exceeds a limit, and kills every process that it has
    /// started.
    ///
    /// # Errors
    /// [`Error::Start`], [`Error::Io`] or [`Error::Wait`] if the command could not be run. A
    /// command that fails or exceeds a limit is not an error: see [`Output::exit`].
    pub fn run(&self, command: &Command) -> Result<Output> {
        self.inner.run(command)
    }

    /// Starts a command with its file descriptors, numbered 0 to 15, connected as in `stdio`. All
    /// others are closed.
    ///
    /// The command's [`input`](Command::input) and [`SandboxConfig::wall_seconds`] are not used:
    /// pass a [`Stdio::Input`] here and a [`Timeout`] to [`Child::wait`].
    ///
    /// # Errors
    /// [`Error::Start`] or [`Error::Io`] if the command could not be started.
    pub fn spawn(&self, command: &Command, stdio: Vec<(i32, Stdio)>) -> Result<Child> {
        self.inner
            .spawn(command, stdio)
            .map(|inner| Child { inner })
    }
}

/// A running program. Dropping it kills the program and every process that it has started.
pub struct Child {
    inner: system::Started,
}

impl Child {
    /// Waits until the program ends or `timeout` expires, and returns how it ended and what it
    /// wrote.
    ///
    /// # Errors
    /// [`Error::Wait`] if the operating system fails to wait for the program.
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

/// A program with its arguments, environment and input.
///
/// The caller's environment is not inherited. The program gets `PATH`, `HOME` and `TMPDIR` (its
/// working directory, which it may write to), `LANG=C.UTF-8`, `OMP_NUM_THREADS=1` and its like for
/// numerical libraries, and the variables added here.
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
    /// Creates a command that runs the program at an absolute path.
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

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the standard input of [`Folder::run`]. Default: empty.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Multiplies the limit on CPU time, for example for a program that runs several tests.
    /// Default: 1.
    #[must_use]
    pub fn cpu_factor(mut self, factor: u64) -> Self {
        self.cpu_factor = factor;
        self
    }

    /// Allows the program to write to the folder of its files, as a compiler needs to.
    /// [`SandboxConfig::folder_bytes`] does not limit these files.
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
    /// It exited with this status.
    Status(i32),
    /// A signal ended it: a crash (such as SIGSEGV, 11), or the limit on CPU time (SIGKILL, 9;
    /// without a pid namespace SIGXCPU, 24).
    ///
    /// In a pid namespace the program is the first process, which the kernel sends only signals
    /// that it handles and those of fatal errors.
    Signal(i32),
    /// It was killed at the wall-clock limit.
    WallLimit,
    /// It was killed because it exceeded the output limit.
    OutputLimit,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// The bytes written to standard output, up to [`SandboxConfig::output_bytes`].
    pub stdout: Vec<u8>,
    /// The bytes written to standard error, up to [`SandboxConfig::output_bytes`].
    pub stderr: Vec<u8>,
    /// The wall-clock time from start to end.
    pub wall: Duration,
}
