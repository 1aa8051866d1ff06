//! The measures of confinement: what each stops, how much it is asked for, and what came of it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of the kernel's means of confinement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Measure {
    /// The program runs as an ordinary user. Started by root, each run first becomes a user of its own that owns nothing:
    /// limits on processes do not bind root.
    UnprivilegedUser,
    /// The program sees no process but its own, and all of them die with the first one. Without it the run is a session that
    /// seccomp forbids to leave, and that is killed as a whole.
    PidNamespace,
    /// No network interface at all, not even the loopback.
    NetworkNamespace,
    /// The program sees the system's programs and libraries, read-only, its own files, a `/tmp` in memory with a size, and
    /// nothing else: no home folder, no `/etc/passwd`.
    MountNamespace,
    /// No shared memory, semaphores or message queues with others.
    IpcNamespace,
    /// The kernel refuses every file that is not on a list, TCP since Linux 6.7, signals to others since 6.12.
    Landlock,
    /// The kernel refuses dangerous system calls: sockets other than local ones, `ptrace`, mounts, namespaces, kernel keys,
    /// `bpf`, `io_uring`, memory that no limit counts, and every call newer than Linux 6.7.
    Seccomp,
    /// Limits on CPU time, memory, processes, open files and the size of a file.
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

    /// Whether it is a namespace.
    pub fn is_namespace(self) -> bool {
        matches!(
            self,
            Self::PidNamespace | Self::NetworkNamespace | Self::MountNamespace | Self::IpcNamespace
        )
    }

    /// The name as it is written in a file.
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

/// How much a measure is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// A sandbox without it is refused. The default of every measure.
    #[default]
    Required,
    /// Taken if the kernel grants it. The report says whether it did.
    IfAvailable,
    /// Not taken.
    Off,
}

/// What came of a measure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MeasureState {
    /// It was tried and it holds; with what it amounts to here.
    Yes(String),
    /// It was tried and could not be had; with the reason.
    No(String),
    /// It was not asked for.
    Off,
}

/// What a [`Sandbox`](super::Sandbox) found when it tried each measure.
///
/// Its text has one line for each:
///
/// ```text
/// unprivileged_user   yes: each run is another user from 1907340416 on
/// pid_namespace       yes: made by root
/// landlock            NO: Function not implemented (os error 38)
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// Every measure with what came of it, in the order of [`Measure::ALL`].
    pub measures: Vec<(Measure, MeasureState)>,
}

impl SandboxReport {
    /// Whether a measure is in force.
    pub fn has(&self, measure: Measure) -> bool {
        let mut found = self.measures.iter();
        found.any(|(other, state)| *other == measure && matches!(state, MeasureState::Yes(_)))
    }

    /// Whether all of them are.
    pub fn is_complete(&self) -> bool {
        Measure::ALL.iter().all(|measure| self.has(*measure))
    }

    /// Those that are not in force, whether they could not be had or were not asked for.
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
    fn names_are_those_of_the_files_and_all_are_listed() {
        for measure in Measure::ALL {
            let written = serde_json::to_string(&measure).unwrap();
            assert_eq!(written, format!("{:?}", measure.name()));
        }
        let mut sorted = Measure::ALL.to_vec();
        sorted.sort();
        assert_eq!(sorted, Measure::ALL);
    }

    #[test]
    fn a_report_says_what_is_missing() {
        let report = SandboxReport {
            measures: vec![
                (Measure::Landlock, MeasureState::No("too old".into())),
                (Measure::Seccomp, MeasureState::Yes("3 filters".into())),
                (Measure::IpcNamespace, MeasureState::Off),
            ],
        };
        assert!(report.has(Measure::Seccomp) && !report.has(Measure::Landlock));
        assert!(!report.is_complete());
        assert_eq!(report.missing().len(), 7);
        let text = report.to_string();
        let expected = "landlock            NO: too old\nseccomp             yes: 3 filters\nipc_namespace       off";
        assert_eq!(text, expected);
    }
}
