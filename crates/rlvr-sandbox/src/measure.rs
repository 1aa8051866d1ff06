//! The measures of confinement, whether they are required, and whether they are in force.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A means of confinement that the kernel provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// The program runs as an ordinary user. If root starts it, each run gets its own user, which
    /// owns nothing else: limits on processes do not bind root.
    UnprivilegedUser,
    /// The program sees only its own processes, and the kernel kills all of them when the first one
    /// ends. Without it, the run is a session that seccomp keeps its processes from leaving, and is
    /// killed as a process group.
    PidNamespace,
    /// The program has no network interface, not even the loopback.
    NetworkNamespace,
    /// The program sees only the system's programs and libraries, read-only, its own files, and a
    /// `/tmp` in memory of limited size: no home directory and no `/etc/passwd`.
    MountNamespace,
    /// The program shares no memory, semaphores or message queues with other processes.
    IpcNamespace,
    /// The program may open only the files on a list. Also forbids TCP since Linux 6.7, and signals
    /// to other processes since Linux 6.12.
    Landlock,
    /// Dangerous system calls fail: sockets other than local ones, `ptrace`, mounts, namespaces,
    /// kernel keys, `bpf`, `io_uring`, memory that no limit counts, and every call newer than Linux
    /// 6.7.
    Seccomp,
    /// CPU time, memory, processes, open files and file size are limited.
    ResourceLimits,
}

impl Measure {
    /// All measures.
    pub const ALL: [Self; 8] = [
        Self::UnprivilegedUser,
        Self::PidNamespace,
        Self::NetworkNamespace,
        Self::MountNamespace,
        Self::IpcNamespace,
        Self::Landlock,
        Self::Seccomp,
        Self::ResourceLimits,
    ];

    /// Returns true for a namespace.
    pub fn is_namespace(self) -> bool {
        matches!(
            self,
            Self::PidNamespace | Self::NetworkNamespace | Self::MountNamespace | Self::IpcNamespace
        )
    }

    /// Returns the name in files: `pid_namespace`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::UnprivilegedUser => "unprivileged_user",
            Self::PidNamespace => "pid_namespace",
            Self::NetworkNamespace => "network_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::ResourceLimits => "resource_limits",
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a measure is required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// [`Sandbox::new`](super::Sandbox::new) returns an error if it is not available. The default
    /// of every measure.
    #[default]
    Required,
    /// It is used if it is available. The [report](super::Sandbox::report) says whether it is.
    IfAvailable,
    /// It is not used.
    Off,
}

/// Whether a measure is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasureState {
    /// It is in force; with a description.
    Yes(String),
    /// It is not available; with the reason.
    No(String),
    /// It was turned [off](Need::Off).
    Off,
}

/// The measures of a [`Sandbox`](super::Sandbox) that are in force.
///
/// `Display` writes one line for each measure:
///
/// ```text
/// unprivileged_user   yes: each run has its own user, from 1907340416 on
/// pid_namespace       yes: created by root
/// landlock            NO: Function not implemented (os error 38)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// Every measure with its state, in the order of [`Measure::ALL`].
    pub measures: Vec<(Measure, MeasureState)>,
}

impl SandboxReport {
    /// Returns whether a measure is in force.
    pub fn has(&self, measure: Measure) -> bool {
        let mut found = self.measures.iter();
        found.any(|(other, state)| *other == measure && matches!(state, MeasureState::Yes(_)))
    }

    /// Returns the measures that are not in force: not available, or off.
    pub fn missing(&self) -> Vec<Measure> {
        let mut all = Measure::ALL.to_vec();
        all.retain(|measure| !self.has(*measure));
        all
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (measure, state)) in self.measures.iter().enumerate() {
            let end = if i == 0 { "" } else { "\n" };
            write!(f, "{end}{:<19} ", measure.name())?;
            match state {
                MeasureState::Yes(how) => write!(f, "yes: {how}")?,
                MeasureState::No(why) => write!(f, "NO: {why}")?,
                MeasureState::Off => write!(f, "off")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_serde_and_all_lists_every_measure() {
        for measure in Measure::ALL {
            let written = serde_json::to_string(&measure).unwrap();
            assert_eq!(written, format!("{:?}", measure.name()));
        }
        let mut sorted = Measure::ALL.to_vec();
        sorted.sort();
        assert_eq!(sorted, Measure::ALL);
    }

    #[test]
    fn a_report_lists_the_missing_measures() {
        let report = SandboxReport {
            measures: vec![
                (Measure::Landlock, MeasureState::No("too old".into())),
                (Measure::Seccomp, MeasureState::Yes("3 filters".into())),
                (Measure::IpcNamespace, MeasureState::Off),
            ],
        };
        assert!(report.has(Measure::Seccomp) && !report.has(Measure::Landlock));
        assert_eq!(report.missing().len(), 7);
        let text = report.to_string();
        let expected = "landlock            NO: too old\nseccomp             yes: 3 filters\nipc_namespace       off";
        assert_eq!(text, expected);
    }
}
