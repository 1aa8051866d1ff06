//! The system calls that a program may not make.
//!
//! The filters have a list of forbidden calls rather than of allowed ones: interpreters and
//! compilers differ in the calls they need, and the other measures do not depend on the filters.
//! Calls that are newer than the list, and those of other calling conventions (x32, other
//! architectures), fail with ENOSYS.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

/// The first call that the list does not cover: `statmount`, of Linux 6.8. From 424 on, the numbers
/// are the same on all architectures.
const FIRST_UNKNOWN: u32 = 457;
/// On x86-64, the bit of calls by the x32 convention.
const X32_BIT: u32 = 0x4000_0000;

/// Calls that fail with EPERM.
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
        // mounts and file handles
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

/// Calls that fail with ENOSYS, so that programs fall back to another way.
fn absent() -> Vec<c_long> {
    vec![
        // Its flags are behind a pointer, which a filter cannot follow. The C library falls back to
        // `clone`.
        libc::SYS_clone3,
        // Operates on files and sockets without passing this filter.
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        // Memory that no limit on a process counts.
        libc::SYS_memfd_create,
        447, // memfd_secret
        libc::SYS_shmget,
        // System V semaphores and messages: kernel memory that no limit counts, and that outlives
        // the run without an IPC namespace. (POSIX message queues have a limit, which is 0 here.)
        libc::SYS_semget,
        libc::SYS_msgget,
    ]
}

/// Calls that change file attributes, which Landlock does not check: forbidden without a mount
/// namespace if the user is the caller.
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

/// Calls that change other processes or leave the process group of the run: forbidden without a pid
/// namespace.
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

/// Calls that send signals: forbidden if nothing else stops them.
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

/// The protection that other measures do not provide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// There is no pid namespace: other processes are visible, and the run is killed as a process
    /// group, which its processes must not leave.
    pub keep_processes: bool,
    /// Nothing else stops signals to other processes of the same user.
    pub keep_signals: bool,
    /// Nothing else protects the attributes of files outside.
    pub keep_attributes: bool,
    /// Sockets of other processes in the file system are visible.
    pub keep_sockets: bool,
}

/// Returns the filters, to be installed in this order. The kernel runs all of them, and the
/// strictest result counts.
///
/// The error says why filters are not available on this machine.
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
        // Only for the process itself.
        let another = condition(0, SeccompCmpOp::Ne, 0)?;
        forbidden.insert(libc::SYS_prlimit64, vec![another]);
    }
    // Local sockets only, and without a mount namespace, in which sockets of others are not
    // visible, only pairs.
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
    // Input to the terminal of the calling process: TIOCSTI, TIOCLINUX.
    let typing = [0x5412, 0x541c].map(|call| condition(1, SeccompCmpOp::Eq, call));
    let typing = typing.into_iter().collect::<Result<_, _>>()?;
    forbidden.insert(libc::SYS_ioctl, typing);

    Ok(vec![
        unknown_calls(),
        compile(always(absent()).collect(), libc::ENOSYS)?,
        compile(forbidden, libc::EPERM)?,
    ])
}

/// The filter that returns ENOSYS for calls newer than the list and for those of the x32
/// convention.
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
        // The number of the call is the first word of `struct seccomp_data`.
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
    fn no_call_is_on_both_lists() {
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
