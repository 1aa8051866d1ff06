//! What a new process does before it is the program, as data: made beforehand, so that doing it takes no memory.

use std::ffi::{CStr, CString, c_int, c_ulong};
use std::io;
use std::os::fd::RawFd;

use seccompiler::sock_filter;

/// Descriptors that the launcher works with are moved up to here, so that none is in the way of the program's own.
pub(super) const SAFE_FD: RawFd = 64;
/// The program's descriptors stay below this.
pub(super) const MAX_FD: RawFd = 16;

/// One thing that the new process does to itself.
#[derive(Debug)]
pub(super) enum Step {
    /// Writes a file, such as a user map.
    Write(CString, Vec<u8>),
    Mkdir(CString),
    /// Makes an empty file.
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
        /// Whether the program may do without it.
        optional: bool,
    },
    /// Makes everything mounted at and below a path read-only and deaf to setuid bits.
    ReadOnly(CString),
    Chdir(CString),
    /// The working folder becomes the root, and the old root goes away.
    PivotHere,
    Limit {
        resource: c_int,
        soft: u64,
        hard: u64,
    },
    /// Another user, irrevocably and without groups.
    Become {
        uid: u32,
        gid: u32,
    },
    DropCapabilities,
    NoNewPrivileges,
    /// Dies when the thread that started it dies; the descriptor is a pidfd of this process, to see if that has happened.
    DieWithParent(RawFd),
    LandlockAllow {
        ruleset: RawFd,
        path: CString,
        access: u64,
        optional: bool,
    },
    LandlockRestrict(RawFd),
    /// Closes every descriptor that the program is not given.
    CloseOthers,
    Seccomp(Vec<sock_filter>),
    /// Kills every process that this one may signal.
    KillAll,
    /// Fails unless these checks hold; see [`Check`].
    Check(Check),
}

/// What a probe looks at, from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The process is not root and cannot become it.
    NotRoot,
    /// This file cannot be opened.
    Unreadable(&'static CStr),
    /// No socket of the internet can be made.
    NoInternetSocket,
    /// It is the first process of its namespace.
    FirstProcess,
}

/// What the new process does after its steps.
pub(super) enum Then {
    Exec {
        path: CString,
        arguments: Vec<CString>,
        environment: Vec<CString>,
    },
    /// Ends with status 0.
    Exit,
}

/// Everything that a new process will do.
pub(super) struct Plan {
    /// `CLONE_NEW*`.
    pub namespaces: c_int,
    pub steps: Vec<Step>,
    pub then: Then,
}

/// Why a process was not started.
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
