//! Turns limits and measures into the steps of one process.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use libc::c_int;

use super::landlock::Landlock;
use super::launch;
use super::step::{LaunchError, Plan, SAFE_FD, Step, Then};
use super::view::{self, Place, Readable, Size};
use super::{Measure, SandboxConfig, seccomp};

/// How namespaces are created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Namespaces {
    /// By root, directly.
    ByRoot,
    /// By an ordinary user, in a user namespace.
    ByUser,
}

/// The confinement of a process, as found by the probe.
#[derive(Clone, Debug)]
pub(super) struct Confinement {
    pub(super) measures: BTreeSet<Measure>,
    pub(super) namespaces: Namespaces,
    pub(super) landlock: Option<Landlock>,
    pub(super) readable: Readable,
    /// Whether the mount namespace has its own `/proc`.
    pub(super) proc: bool,
}

/// A process to be started.
pub(super) struct Process<'a> {
    pub(super) place: &'a Place,
    /// The user that it runs as, if root starts it.
    pub(super) user: Option<u32>,
    /// Whether it may write to the folder of the program's files.
    pub(super) may_write_files: bool,
    /// The CPU time of this process in seconds.
    pub(super) cpu_seconds: u64,
    pub(super) then: Then,
}

/// A plan, and the descriptors that its steps use.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    _held: Vec<OwnedFd>,
}

impl Prepared {
    pub(super) fn launch(
        &self,
        given: &[(i32, BorrowedFd<'_>)],
    ) -> Result<launch::Child, LaunchError> {
        launch::launch(&self.plan, given)
    }
}

impl Confinement {
    /// Returns whether a measure is in force.
    pub(super) fn has(&self, measure: Measure) -> bool {
        self.measures.contains(&measure)
    }

    /// Returns whether the run must be killed as a process group, because no pid namespace ends
    /// with it.
    pub(super) fn is_group(&self) -> bool {
        !self.has(Measure::PidNamespace)
    }

    /// Returns the steps that put every measure in force, followed by `more`.
    pub(super) fn prepare(
        &self,
        config: &SandboxConfig,
        process: Process<'_>,
        more: Vec<Step>,
    ) -> Result<Prepared, String> {
        let mut held = Vec::new();
        let mut steps = Vec::new();
        let own_view = self.has(Measure::MountNamespace);
        let mut flags = 0;
        for (measure, flag) in [
            (Measure::PidNamespace, libc::CLONE_NEWPID),
            (Measure::NetworkNamespace, libc::CLONE_NEWNET),
            (Measure::MountNamespace, libc::CLONE_NEWNS),
            (Measure::IpcNamespace, libc::CLONE_NEWIPC),
        ] {
            if self.has(measure) {
                flags |= flag;
            }
        }
        if flags != 0 && self.namespaces == Namespaces::ByUser {
            flags |= libc::CLONE_NEWUSER;
            steps.extend(user_map());
        }
        if own_view {
            let size = Size {
                bytes: config.folder_bytes,
                files: config.folder_files,
            };
            let (place, may_write) = (process.place, process.may_write_files);
            steps.extend(view::mounts(
                &self.readable,
                place,
                size,
                self.proc,
                may_write,
            ));
        }
        if let Some(user) = process.user {
            steps.push(Step::Become {
                uid: user,
                gid: user,
            });
        }
        steps.push(Step::DropCapabilities);
        steps.push(Step::NoNewPrivileges);
        // After the change of the user, so that a folder that this user cannot enter is an error.
        steps.push(Step::Chdir(match own_view {
            true => view::text(view::TMP),
            false => view::text(&process.place.scratch),
        }));
        // After the change of the user, which resets it.
        let parent = launch::own_pidfd().map_err(|error| format!("a pidfd: {error}"))?;
        steps.push(Step::DieWithParent(parent.as_raw_fd()));
        held.push(parent);
        if let (true, Some(landlock)) = (self.has(Measure::Landlock), self.landlock) {
            let ruleset = rustix::io::fcntl_dupfd_cloexec(landlock.ruleset()?, SAFE_FD)
                .map_err(|error| error.to_string())?;
            let number = ruleset.as_raw_fd();
            let rules = view::rules(
                &self.readable,
                process.place,
                own_view,
                process.may_write_files,
            );
            steps.extend(rules.into_iter().map(|rule| Step::LandlockAllow {
                ruleset: number,
                access: landlock.bits(rule.right, rule.is_folder),
                path: rule.path,
                optional: rule.optional,
            }));
            steps.push(Step::LandlockRestrict(number));
            held.push(ruleset);
        }
        steps.push(Step::CloseOthers);
        if self.has(Measure::ResourceLimits) {
            steps.extend(limits(config, process.cpu_seconds, self.is_group()));
        }
        if self.has(Measure::Seccomp) {
            let filters = seccomp::filters(seccomp::Needs {
                keep_processes: self.is_group(),
                keep_signals: self.is_group()
                    && process.user.is_none()
                    && !(self.has(Measure::Landlock)
                        && self.landlock.is_some_and(Landlock::restricts_signals)),
                keep_attributes: !own_view && process.user.is_none() && !process.may_write_files,
                keep_sockets: !own_view,
            })?;
            steps.extend(filters.into_iter().map(Step::Seccomp));
        }
        steps.extend(more);
        let plan = Plan {
            namespaces: flags,
            steps,
            then: process.then,
        };
        Ok(Prepared { plan, _held: held })
    }
}

/// The steps that map this user to itself in a new user namespace, and no other user.
fn user_map() -> [Step; 3] {
    let (uid, gid) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let write = |path: &str, text: String| Step::Write(view::text(path), text.into_bytes());
    [
        write("/proc/self/setgroups", "deny".into()),
        write("/proc/self/uid_map", format!("{uid} {uid} 1")),
        write("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ]
}

/// The resource limits of one process.
fn limits(config: &SandboxConfig, cpu_seconds: u64, warns: bool) -> Vec<Step> {
    // SIGXCPU at the soft limit can be caught; SIGKILL at the hard limit, a second later, cannot.
    // Only the latter ends the first process of a pid namespace.
    let last_cpu_second = cpu_seconds + u64::from(warns);
    // The type of the constants differs between C libraries.
    let limits = [
        (libc::RLIMIT_CPU as c_int, cpu_seconds, last_cpu_second),
        (
            libc::RLIMIT_AS as c_int,
            config.memory_bytes,
            config.memory_bytes,
        ),
        (
            libc::RLIMIT_DATA as c_int,
            config.memory_bytes,
            config.memory_bytes,
        ),
        // The soft limit, which a program may raise for deep recursion.
        (libc::RLIMIT_STACK as c_int, 8 << 20, config.memory_bytes),
        (
            libc::RLIMIT_FSIZE as c_int,
            config.file_bytes,
            config.file_bytes,
        ),
        (
            libc::RLIMIT_NOFILE as c_int,
            config.open_files,
            config.open_files,
        ),
        (
            libc::RLIMIT_NPROC as c_int,
            config.processes,
            config.processes,
        ),
        (libc::RLIMIT_CORE as c_int, 0, 0),
        (libc::RLIMIT_MEMLOCK as c_int, 0, 0),
        (libc::RLIMIT_MSGQUEUE as c_int, 0, 0),
        (libc::RLIMIT_SIGPENDING as c_int, 256, 256),
    ];
    let steps = limits.map(|(resource, soft, hard)| Step::Limit {
        resource,
        soft,
        hard,
    });
    steps.into()
}

/// The plan of a process that kills every process of a user, including itself: the rest of a run
/// that root started.
pub(super) fn kill_all_of(user: u32) -> Plan {
    Plan {
        namespaces: 0,
        steps: vec![
            Step::Become {
                uid: user,
                gid: user,
            },
            Step::KillAll,
        ],
        then: Then::Exit,
    }
}

/// Converts a program with its arguments and environment for `execve`.
pub(super) fn exec(
    path: &str,
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<Then, String> {
    let text = |text: &str| CString::new(text).map_err(|_| format!("{text:?} has a NUL character"));
    let mut argv = vec![text(path)?];
    for argument in arguments {
        argv.push(text(argument)?);
    }
    let mut envp = Vec::new();
    for (name, value) in environment {
        envp.push(text(&format!("{name}={value}"))?);
    }
    Ok(Then::Exec {
        path: text(path)?,
        arguments: argv,
        environment: envp,
    })
}
