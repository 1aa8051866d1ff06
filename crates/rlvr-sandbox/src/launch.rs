//! Starts a process that takes a list of prepared steps and then executes the program. The only
//! module with unsafe code.
//!
//! # Safety
//!
//! The new process shares the memory of this one until it executes the program, as with
//! `posix_spawn`: copying the page tables of a process with gigabytes takes longer than most
//! programs run. The calling thread is suspended until then (`CLONE_VFORK`); the other threads
//! continue. Therefore the new process
//!
//! - has its own stack, and makes only system calls: no allocation, lock, panic or destructor;
//! - writes only to its stack and to the `errno` of the suspended thread;
//! - reads only strings, filters and descriptors that were prepared before and are borrowed until
//!   it is done;
//! - starts with all signals blocked and resets their handlers first, so that no handler of this
//!   process runs in it;
//! - has copies of descriptors, working directory, signal handlers, limits and credentials.
//!
//! If a step fails, the process writes its number and the error number to a pipe and ends with
//! `_exit`.
//!
//! Changing the user marks the shared memory as not dumpable (no core dumps, no debuggers), which
//! is undone afterwards.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_long, c_uint, c_ulong, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

use super::step::{Check, LaunchError, MAX_FD, Plan, SAFE_FD, Step, Then};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, WaitOptions, dumpable_behavior, pidfd_open,
    set_dumpable_behavior, waitpid,
};

/// The numbers of the Landlock system calls, the same on every architecture.
const LANDLOCK_CREATE_RULESET: c_long = 444;
const LANDLOCK_ADD_RULE: c_long = 445;
const LANDLOCK_RESTRICT_SELF: c_long = 446;
/// The same on every architecture, and missing in `libc` on some targets.
const MOUNT_SETATTR: c_long = 442;

/// A process that executes the program. The holder must kill and reap it.
pub(super) struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// The numbers of steps outside of the plan.
const AT_DESCRIPTORS: u32 = u32::MAX;
const AT_EXEC: u32 = u32::MAX - 1;

/// Starts a process and waits until it executes the program.
///
/// `given` are the program's descriptors: (its number in the program, the descriptor here). The
/// numbers must be below [`MAX_FD`], the descriptors at [`SAFE_FD`] or above.
pub(super) fn launch(plan: &Plan, given: &[(RawFd, BorrowedFd<'_>)]) -> Result<Child, LaunchError> {
    let pipe = |what: &str, error| LaunchError::new(what.to_string(), error);
    let (report, low) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| pipe("a pipe", error))?;
    let reporter = rustix::io::fcntl_dupfd_cloexec(&low, SAFE_FD)
        .map_err(|error| pipe("a descriptor", error))?;
    // The end of the report is the end of its last writer, which must not be this process.
    drop(low);
    let wiring: Vec<(RawFd, RawFd)> = given
        .iter()
        .map(|(target, source)| (*target, source.as_raw_fd()))
        .collect();
    if wiring
        .iter()
        .any(|(target, source)| *target >= MAX_FD || *source < SAFE_FD)
    {
        return Err(LaunchError::new(
            "its descriptors",
            io::ErrorKind::InvalidInput,
        ));
    }
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([null()])
            .collect()
    };
    let (argv, envp) = match &plan.then {
        Then::Exec {
            arguments,
            environment,
            ..
        } => (pointers(arguments), pointers(environment)),
        Then::Exit => (Vec::new(), Vec::new()),
    };

    let dumpable = dumpable();
    let start = Start {
        plan,
        wiring: &wiring,
        argv: &argv,
        envp: &envp,
        reporter: reporter.as_raw_fd(),
    };
    // SAFETY: `start` and what it refers to outlive the use of this memory by the new process.
    let pid = unsafe { clone(&start) };
    let failure = io::Error::last_os_error();
    restore_dumpable(dumpable);
    if pid < 0 {
        return Err(LaunchError::new("a new process", failure));
    }
    drop(reporter);
    let pid = Pid::from_raw(pid)
        .ok_or_else(|| LaunchError::new("a new process", io::ErrorKind::Other))?;
    let mut code = [0; 8];
    let mut read = 0;
    while read < code.len() {
        match rustix::io::read(&report, &mut code[read..]) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
    }
    // Until `waitpid`, the process ID is not reused, even if the process has ended.
    let failed = if read == code.len() {
        let step = u32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
        let errno = i32::from_ne_bytes([code[4], code[5], code[6], code[7]]);
        Some(LaunchError::new(
            name(plan, step),
            io::Error::from_raw_os_error(errno),
        ))
    } else {
        None
    };
    let pidfd = match failed {
        None => pidfd_open(pid, PidfdFlags::empty())
            .and_then(|pidfd| rustix::io::fcntl_dupfd_cloexec(pidfd, SAFE_FD))
            .map_err(|error| LaunchError::new("a pidfd", error)),
        Some(error) => Err(error),
    };
    pidfd.map(|pidfd| Child { pid, pidfd }).inspect_err(|_| {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        while let Err(rustix::io::Errno::INTR) = waitpid(Some(pid), WaitOptions::empty()) {}
    })
}

/// The name of a step, for an error message.
fn name(plan: &Plan, step: u32) -> String {
    match step {
        AT_DESCRIPTORS => "its descriptors".into(),
        AT_EXEC => match &plan.then {
            Then::Exec { path, .. } => format!("execute {}", path.to_string_lossy()),
            Then::Exit => "exit".into(),
        },
        step => match plan.steps.get(step as usize) {
            Some(Step::Seccomp(_)) => "Seccomp".into(),
            Some(step) => format!("{step:?}"),
            None => format!("step {step}"),
        },
    }
}

/// Returns the Landlock version of this kernel. The error says why there is none.
pub(super) fn landlock_abi() -> io::Result<i32> {
    // SAFETY: without attributes and with the flag LANDLOCK_CREATE_RULESET_VERSION the call only
    // returns a number.
    let abi = unsafe {
        libc::syscall(
            LANDLOCK_CREATE_RULESET,
            null::<c_void>(),
            0usize,
            1 as c_uint,
        )
    };
    if abi < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(abi as i32)
}

/// The argument of a new process.
struct Start<'a> {
    plan: &'a Plan,
    wiring: &'a [(RawFd, RawFd)],
    argv: &'a [*const c_char],
    envp: &'a [*const c_char],
    reporter: RawFd,
}

/// The stack of the new process in bytes: enough for the functions of this file, unoptimized.
const STACK: usize = 256 << 10;

/// Starts a process in the plan's namespaces, and returns its ID when it executes the program or
/// has ended. Negative on failure.
///
/// # Safety
/// See the module documentation.
unsafe fn clone(start: &Start<'_>) -> c_int {
    // `u128` has the alignment of a stack.
    let mut stack = vec![0u128; STACK / size_of::<u128>()];
    let flags = start.plan.namespaces | libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let argument: *const Start<'_> = start;
    // SAFETY: the stack lives until the call returns, and its upper end, where it starts, is
    // aligned; the argument is what `begin` expects. The masks are local variables.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let top = stack.as_mut_ptr().add(stack.len());
        let pid = libc::clone(begin, top.cast(), flags, argument.cast_mut().cast());
        let errno = *libc::__errno_location();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, null_mut());
        *libc::__errno_location() = errno;
        pid
    }
}

/// The first function of the new process.
extern "C" fn begin(argument: *mut c_void) -> c_int {
    // SAFETY: `clone` passes a `Start` that outlives this process's use of it.
    unsafe {
        let start = &*argument.cast::<Start<'_>>();
        become_program(
            start.plan,
            start.wiring,
            start.argv,
            start.envp,
            start.reporter,
        )
    }
}

/// Returns whether this process was dumpable when it started the first process.
fn dumpable() -> DumpableBehavior {
    static FOUND: OnceLock<DumpableBehavior> = OnceLock::new();
    *FOUND.get_or_init(|| dumpable_behavior().unwrap_or(DumpableBehavior::NotDumpable))
}

fn restore_dumpable(dumpable: DumpableBehavior) {
    if dumpable_behavior().is_ok_and(|now| now != dumpable) {
        // Fails only for a value that cannot be set, which the process did not have before.
        let _ = set_dumpable_behavior(dumpable);
    }
}

/// Takes the steps and executes the program, in the new process.
///
/// # Safety
/// Must be called in a process that `clone` started, with null-terminated lists of valid pointers.
unsafe fn become_program(
    plan: &Plan,
    wiring: &[(RawFd, RawFd)],
    argv: &[*const c_char],
    envp: &[*const c_char],
    reporter: RawFd,
) -> ! {
    // SAFETY: only system calls, on numbers and on memory that the parent prepared; see each
    // function.
    unsafe {
        reset_signals();
        libc::setsid();
        libc::umask(0o077);
        for (target, source) in wiring {
            if libc::dup2(*source, *target) < 0 {
                give_up(reporter, AT_DESCRIPTORS);
            }
        }
        for (number, step) in plan.steps.iter().enumerate() {
            if !take(step, wiring, reporter) {
                give_up(reporter, number as u32);
            }
        }
        match &plan.then {
            Then::Exec { path, .. } => {
                libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr());
                give_up(reporter, AT_EXEC)
            }
            Then::Exit => libc::_exit(0),
        }
    }
}

/// Writes the step and `errno` to the parent, and ends the process.
///
/// # Safety
/// As [`become_program`].
unsafe fn give_up(reporter: RawFd, step: u32) -> ! {
    // SAFETY: `errno` belongs to this thread, the buffer is on the stack, and `_exit` runs no code
    // of the parent.
    unsafe {
        let errno = *libc::__errno_location();
        let (step, errno) = (step.to_ne_bytes(), errno.to_ne_bytes());
        let code = [
            step[0], step[1], step[2], step[3], errno[0], errno[1], errno[2], errno[3],
        ];
        libc::write(reporter, code.as_ptr().cast(), code.len());
        libc::_exit(1)
    }
}

/// Resets every signal to its default action (Rust programs ignore SIGPIPE) and unblocks it.
///
/// # Safety
/// As [`become_program`].
unsafe fn reset_signals() {
    // SAFETY: an all-zero `sigaction` is the default action with an empty mask; the sets are on the
    // stack.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        for signal in 1..=64 {
            // Fails for SIGKILL, SIGSTOP and the signals of the C library, which need no reset.
            libc::sigaction(signal, &default, null_mut());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, null_mut());
    }
}

/// Takes one step. On failure returns false, with the reason in `errno`.
///
/// # Safety
/// As [`become_program`].
unsafe fn take(step: &Step, wiring: &[(RawFd, RawFd)], reporter: RawFd) -> bool {
    let text = |text: &Option<CString>| text.as_ref().map_or(null(), |text| text.as_ptr());
    // SAFETY: system calls whose pointers are to strings and vectors of the parent, which keeps
    // them alive, or to the stack.
    unsafe {
        match step {
            Step::Write(path, bytes) => {
                let file = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
                let wrote = file >= 0 && libc::write(file, bytes.as_ptr().cast(), bytes.len()) >= 0;
                // Not closed on failure, to keep `errno`: the process ends.
                wrote && libc::close(file) == 0
            }
            // `chmod`, because the umask is for the program and every user must be able to pass.
            Step::Mkdir(path) => {
                let made = libc::mkdir(path.as_ptr(), 0o755) == 0;
                (made && libc::chmod(path.as_ptr(), 0o755) == 0)
                    || (!made && *libc::__errno_location() == libc::EEXIST)
            }
            Step::Touch(path) => {
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_CLOEXEC;
                let file = libc::open(path.as_ptr(), flags, 0o644 as c_uint);
                file >= 0 && libc::close(file) == 0
            }
            Step::Symlink { target, link } => {
                libc::symlink(target.as_ptr(), link.as_ptr()) == 0
                    || *libc::__errno_location() == libc::EEXIST
            }
            Step::Mount {
                source,
                target,
                kind,
                flags,
                data,
                optional,
            } => {
                let data = text(data).cast();
                let (source, kind) = (text(source), text(kind));
                libc::mount(source, target.as_ptr(), kind, *flags, data) == 0 || *optional
            }
            Step::ReadOnly(path) => {
                // struct mount_attr: set, clear, propagation, user namespace. MOUNT_ATTR_RDONLY |
                // MOUNT_ATTR_NOSUID.
                let attributes: [u64; 4] = [1 | 2, 0, 0, 0];
                libc::syscall(
                    MOUNT_SETATTR,
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    libc::AT_RECURSIVE as c_uint,
                    attributes.as_ptr(),
                    size_of_val(&attributes),
                ) == 0
            }
            Step::Chdir(path) => libc::chdir(path.as_ptr()) == 0,
            Step::PivotHere => {
                // Mounts the old root on top of the new one, then unmounts it.
                let here = c".".as_ptr();
                libc::syscall(libc::SYS_pivot_root, here, here) == 0
                    && libc::umount2(here, libc::MNT_DETACH) == 0
                    && libc::chdir(c"/".as_ptr()) == 0
            }
            Step::Limit {
                resource,
                soft,
                hard,
            } => {
                let mut limit: libc::rlimit = std::mem::zeroed();
                // Raw calls, because the type of `resource` differs between C libraries.
                let no_new: *const libc::rlimit = null();
                let kind = *resource;
                if libc::syscall(libc::SYS_prlimit64, 0, kind, no_new, &mut limit) != 0 {
                    return false;
                }
                limit.rlim_max = limit.rlim_max.min(*hard);
                limit.rlim_cur = limit.rlim_max.min(*soft);
                let no_old: *mut libc::rlimit = null_mut();
                libc::syscall(libc::SYS_prlimit64, 0, kind, &limit, no_old) == 0
            }
            // Raw calls, because those of the C library signal all threads of the parent.
            Step::Become { uid, gid } => {
                let (uid, gid) = (*uid, *gid);
                libc::syscall(libc::SYS_setgroups, 0usize, null::<c_void>()) == 0
                    && libc::syscall(libc::SYS_setresgid, gid, gid, gid) == 0
                    && libc::syscall(libc::SYS_setresuid, uid, uid, uid) == 0
            }
            Step::DropCapabilities => {
                for capability in 0..64 {
                    // Fails without CAP_SETPCAP and above the last capability, where there is
                    // nothing to drop.
                    libc::prctl(libc::PR_CAPBSET_DROP, capability as c_ulong, 0, 0, 0);
                }
                // _LINUX_CAPABILITY_VERSION_3, this process; effective, permitted and inheritable,
                // in two halves.
                let header: [u32; 2] = [0x2008_0522, 0];
                let none = [0u32; 6];
                libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) == 0
            }
            Step::NoNewPrivileges => libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
            Step::DieWithParent(parent) => {
                let signal = libc::SIGKILL as c_ulong;
                if libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) != 0 {
                    return false;
                }
                let mut end = libc::pollfd {
                    fd: *parent,
                    events: libc::POLLIN,
                    revents: 0,
                };
                // A pidfd is readable after its process has ended, perhaps before the call above.
                libc::poll(&mut end, 1, 0) == 0
            }
            Step::LandlockAllow {
                ruleset,
                path,
                access,
                optional,
            } => {
                let file = libc::open(path.as_ptr(), libc::O_PATH | libc::O_CLOEXEC);
                if file < 0 {
                    return *optional;
                }
                // struct landlock_path_beneath_attr, packed: u64 access, i32 descriptor.
                let (access, number) = (access.to_ne_bytes(), file.to_ne_bytes());
                let mut rule = [0u8; 12];
                let mut at = 0;
                while at < 12 {
                    rule[at] = if at < 8 { access[at] } else { number[at - 8] };
                    at += 1;
                }
                let rule = rule.as_ptr();
                libc::syscall(LANDLOCK_ADD_RULE, *ruleset, 1 as c_uint, rule, 0 as c_uint) == 0
                    && libc::close(file) == 0
            }
            Step::LandlockRestrict(ruleset) => {
                libc::syscall(LANDLOCK_RESTRICT_SELF, *ruleset, 0 as c_uint) == 0
            }
            Step::CloseOthers => close_others(wiring, reporter),
            Step::Seccomp(filter) => {
                let program = libc::sock_fprog {
                    len: filter.len() as u16,
                    // The same structure in `libc`.
                    filter: filter.as_ptr().cast_mut().cast(),
                };
                let filter = libc::SECCOMP_MODE_FILTER as c_ulong;
                libc::prctl(libc::PR_SET_SECCOMP, filter, &program, 0, 0) == 0
            }
            Step::KillAll => {
                libc::kill(-1, libc::SIGKILL) == 0 || *libc::__errno_location() == libc::ESRCH
            }
            Step::Check(check) => holds(*check),
        }
    }
}

/// Closes every descriptor but the program's and the report, which is closed on execution.
///
/// # Safety
/// As [`become_program`].
unsafe fn close_others(wiring: &[(RawFd, RawFd)], reporter: RawFd) -> bool {
    // SAFETY: the descriptors are copies of this process; closing them does not affect the parent.
    unsafe {
        for number in 0..SAFE_FD {
            if !wiring.iter().any(|(target, _)| *target == number) {
                libc::close(number);
            }
        }
        let close = |from: c_uint, to: c_uint| -> bool {
            from > to || libc::syscall(libc::SYS_close_range, from, to, 0 as c_uint) == 0
        };
        let report = reporter as c_uint;
        if close(SAFE_FD as c_uint, report - 1) && close(report + 1, c_uint::MAX) {
            return true;
        }
        // Before Linux 5.9: one by one.
        let mut limit: libc::rlimit = std::mem::zeroed();
        let no_new: *const libc::rlimit = null();
        libc::syscall(libc::SYS_prlimit64, 0, 7, no_new, &mut limit);
        let most = limit.rlim_cur.min(1 << 20) as RawFd;
        for number in SAFE_FD..most {
            if number != reporter {
                libc::close(number);
            }
        }
        true
    }
}

/// Returns whether a check holds, with EPERM in `errno` if not.
///
/// # Safety
/// As [`become_program`].
unsafe fn holds(check: Check) -> bool {
    // SAFETY: system calls on numbers and static text.
    unsafe {
        let good = match check {
            Check::NotRoot => libc::geteuid() != 0 && libc::syscall(libc::SYS_setuid, 0) != 0,
            Check::Unreadable(path) => {
                libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) < 0
            }
            Check::NoInternetSocket => {
                libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) < 0
                    && libc::socket(libc::AF_INET6, libc::SOCK_STREAM, 0) < 0
            }
            Check::FirstProcess => libc::getpid() == 1,
        };
        if !good {
            *libc::__errno_location() = libc::EPERM;
        }
        good
    }
}

/// Returns a pidfd of this process, numbered [`SAFE_FD`] or above.
pub(super) fn own_pidfd() -> io::Result<OwnedFd> {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    Ok(rustix::io::fcntl_dupfd_cloexec(own.as_fd(), SAFE_FD)?)
}
