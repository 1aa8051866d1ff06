//! Which system calls a program may not make.
//!
//! A list of what is refused rather than of what is allowed: interpreters and compilers differ in what they need, and the
//! other measures do not rest on it. Two things make the list safe against what it does not name: calls that are newer than
//! the list do not exist (ENOSYS), and neither do those of the other calling conventions (x32, and other architectures).

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// The first call that the list below was not written for: `statmount`, of Linux 6.8. From 424 on all architectures count alike.
const FIRST_UNKNOWN: u32 = 457;
/// On x86-64, calls with this bit are of the x32 convention and mean something else.
const X32_BIT: u32 = 0x4000_0000;

/// Answered with EPERM: "you may not".
fn refused() -> Vec<c_long> {
    let mut calls = vec![
        // other processes
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_process_madvise,
        // the kernel
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_syslog,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_vhangup,
        // keys
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        // the view of files
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_fanotify_init,
        // namespaces
        libc::SYS_unshare,
        libc::SYS_setns,
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        libc::SYS_iopl,
        libc::SYS_ioperm,
        libc::SYS_modify_ldt,
        libc::SYS_kexec_file_load,
    ]);
    calls
}

/// Answered with ENOSYS, "there is no such call", so that programs fall back to another way.
fn absent() -> Vec<c_long> {
    vec![
        // Its flags are behind a pointer that a filter cannot follow; the C library falls back to `clone`.
        libc::SYS_clone3,
        // Works on files and sockets past this filter.
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        // Memory that no limit on a process counts.
        libc::SYS_memfd_create,
        447, // memfd_secret
        libc::SYS_shmget,
        // Semaphores and messages of System V: kernel memory that no limit counts, and that outlives the run where there is
        // no IPC namespace. (POSIX message queues have a limit, which is 0 here.)
        libc::SYS_semget,
        libc::SYS_msgget,
    ]
}

/// Where files are not read-only by a view of their own, and the user is the caller: what landlock does not look at.
fn attributes() -> Vec<c_long> {
    let mut calls = vec![
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_setxattr,
        libc::SYS_lsetxattr,
        libc::SYS_fsetxattr,
        libc::SYS_removexattr,
        libc::SYS_lremovexattr,
        libc::SYS_fremovexattr,
        452, // fchmodat2
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
    ]);
    calls
}

/// Where other processes can be named: what changes them, and what leaves the group of processes that is killed.
fn processes() -> Vec<c_long> {
    vec![
        libc::SYS_setsid,
        libc::SYS_setpgid,
        libc::SYS_setpriority,
        libc::SYS_ioprio_set,
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
        448, // process_mrelease
    ]
}

/// Where signals to others are stopped by nothing else.
fn signals() -> Vec<c_long> {
    vec![
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_pidfd_send_signal,
    ]
}

/// What the other measures leave to this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// There is no pid namespace: other processes can be named, and the run is killed as a group that must not be left.
    pub keep_processes: bool,
    /// Signals to others of the same user are stopped by nothing else.
    pub keep_signals: bool,
    /// Attributes of files outside are protected by nothing else.
    pub keep_attributes: bool,
    /// Sockets that others have put into the file system can be named.
    pub keep_sockets: bool,
}

/// The filters, to be installed in this order; all of them are asked, and the strictest answer counts.
///
/// The error says why there can be none on this machine.
pub(super) fn filters(needs: Needs) -> Result<Vec<BpfProgram>, String> {
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|error| format!("{error}"))?;
    let compile = |rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: i32| -> Result<_, String> {
        let answer = SeccompAction::Errno(errno as u32);
        SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)
            .and_then(BpfProgram::try_from)
            .map_err(|error| format!("{error}"))
    };
    let always = |calls: Vec<c_long>| calls.into_iter().map(|call| (call, Vec::new()));

    let mut forbidden: BTreeMap<c_long, Vec<SeccompRule>> = always(refused()).collect();
    if needs.keep_processes {
        forbidden.extend(always(processes()));
    }
    if needs.keep_signals {
        forbidden.extend(always(signals()));
    }
    if needs.keep_attributes {
        forbidden.extend(always(attributes()));
    }
    let condition = |argument, op, value| -> Result<SeccompRule, String> {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, op, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(|error| format!("{error}"))
    };
    if needs.keep_processes {
        // Its own limits only.
        let another = condition(0, SeccompCmpOp::Ne, 0)?;
        forbidden.insert(libc::SYS_prlimit64, vec![another]);
    }
    // Sockets of this machine only; those of others are not in the program's view, or it gets none but pairs.
    let other_socket = vec![condition(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)?];
    let any_socket = Vec::new();
    let sockets = match needs.keep_sockets {
        true => any_socket,
        false => other_socket.clone(),
    };
    forbidden.insert(libc::SYS_socket, sockets);
    forbidden.insert(libc::SYS_socketpair, other_socket);
    // Threads and processes, but no namespaces.
    let namespaces = [
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWCGROUP,
    ];
    let with_namespace = namespaces.map(|flag| {
        let flag = flag as u64;
        condition(0, SeccompCmpOp::MaskedEq(flag), flag)
    });
    let with_namespace = with_namespace.into_iter().collect::<Result<_, _>>()?;
    forbidden.insert(libc::SYS_clone, with_namespace);
    // Typing into the terminal that the judge was started from: TIOCSTI, TIOCLINUX.
    let typing = [0x5412, 0x541c].map(|call| condition(1, SeccompCmpOp::Eq, call));
    let typing = typing.into_iter().collect::<Result<_, _>>()?;
    forbidden.insert(libc::SYS_ioctl, typing);

    Ok(vec![
        unknown_calls(),
        compile(always(absent()).collect(), libc::ENOSYS)?,
        compile(forbidden, libc::EPERM)?,
    ])
}

/// ENOSYS for calls that are newer than the list, and for those of the x32 convention.
fn unknown_calls() -> BpfProgram {
    let line = |code: u32, jt, jf, k| sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let (load, at_least, back) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    vec![
        // The number is the first word of `struct seccomp_data`.
        line(load, 0, 0, 0),
        line(at_least, 0, 1, X32_BIT.min(FIRST_UNKNOWN)),
        line(back, 0, 0, no_such_call),
        line(back, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_compiles_to_three_filters() {
        for more in [false, true] {
            let needs = Needs {
                keep_processes: more,
                keep_signals: more,
                keep_attributes: more,
                keep_sockets: more,
            };
            let filters = filters(needs).unwrap();
            assert_eq!(filters.len(), 3);
            // The kernel takes at most 4,096 instructions.
            assert!(filters.iter().all(|filter| filter.len() < 2000));
        }
    }

    #[test]
    fn no_call_is_answered_twice() {
        let (refused, absent) = (refused(), absent());
        assert!(refused.iter().all(|call| !absent.contains(call)));
        assert!(
            refused
                .iter()
                .chain(&absent)
                .all(|call| (*call as u32) < FIRST_UNKNOWN)
        );
    }
}
