//! The steps of a new process before it executes the program, as data: prepared by the parent, so
//! that the new process allocates no memory.

use std::ffi::{CStr, CString, c_int, c_ulong};
use std::io;
use std::os::fd::RawFd;

use seccompiler::sock_filter;

/// The lowest number of the launcher's own descriptors, above those of the program.
pub(super) const SAFE_FD: RawFd = 64;
/// The program's descriptors are below this number.
pub(super) const MAX_FD: RawFd = 16;

/// One step of the new process.
#[derive(Debug)]
pub(super) enum Step {
    /// Writes a file, such as a user map.
    Write(CString, Vec<u8>),
    Mkdir(CString),
    /// Creates an empty file.
    Touch(CString),
    Symlink {
        target: CString,
        link: CString,
    },
    Mount {
        source: Option<CString>,
        target: CString,
        kind: Option<CString>,
        flags: c_ulong,
        data: Option<CString>,
        /// Whether failure is ignored.
        optional: bool,
    },
    /// Makes every mount at and below a path read-only and `nosuid`.
    ReadOnly(CString),
    Chdir(CString),
    /// Makes the working directory the root, and unmounts the old root.
    PivotHere,
    Limit {
        resource: c_int,
        soft: u64,
        hard: u64,
    },
    /// Changes the user irrevocably, and drops all groups.
    Become {
        uid: u32,
        gid: u32,
    },
    DropCapabilities,
    NoNewPrivileges,
    /// Makes the process die with the thread that started it. The descriptor is a pidfd of the
    /// parent process, to check that it is still alive.
    DieWithParent(RawFd),
    LandlockAllow {
        ruleset: RawFd,
        path: CString,
        access: u64,
        optional: bool,
    },
    LandlockRestrict(RawFd),
    /// Closes every descriptor that is not for the program.
    CloseOthers,
    Seccomp(Vec<sock_filter>),
    /// Kills every process that this one can signal.
    KillAll,
    /// Fails unless a check holds.
    Check(Check),
}

/// A check inside of a confined process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The process is not root and cannot become it.
    NotRoot,
    /// This file cannot be opened.
    Unreadable(&'static CStr),
    /// No internet socket can be created.
    NoInternetSocket,
    /// The process is the first one of its namespace.
    FirstProcess,
}

/// The last act of the new process.
pub(super) enum Then {
    Exec {
        path: CString,
        arguments: Vec<CString>,
        environment: Vec<CString>,
    },
    /// Ends with status 0.
    Exit,
}

/// Everything that a new process does.
pub(super) struct Plan {
    /// `CLONE_NEW*`.
    pub namespaces: c_int,
    pub steps: Vec<Step>,
    pub then: Then,
}

/// The reason why a process was not started.
#[derive(Debug)]
pub(super) struct LaunchError {
    pub what: String,
    pub source: io::Error,
}

impl LaunchError {
    pub(super) fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}
