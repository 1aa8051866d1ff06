//! The limits of a run, and the measures that enforce them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Error, Measure, Need, Result};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// The limits of each run, and the measures of confinement.
///
/// The kernel limits CPU time and memory for each *process*. A whole run can use at most
/// `memory_bytes * processes + folder_bytes` of memory, and `wall_seconds` of CPU time on each of
/// `processes` cores.
///
/// ```
/// use rlvr_sandbox::{Measure, Need, SandboxConfig};
///
/// // Missing fields have their defaults, and unknown ones are errors.
/// let config: SandboxConfig = serde_json::from_str(
///     r#"{"wall_seconds": 4.0, "measures": {"landlock": "if_available"}}"#,
/// )
/// .unwrap();
/// assert_eq!(config.need(Measure::Landlock), Need::IfAvailable);
/// assert_eq!(config.need(Measure::Seccomp), Need::Required);
/// assert!(serde_json::from_str::<SandboxConfig>(r#"{"wall": 4.0}"#).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SandboxConfig {
    /// CPU time of one process in seconds, from 1 to 86,400. A process that uses more is killed.
    /// Default: 10.
    pub cpu_seconds: u64,
    /// Wall-clock time of a run in seconds, above 0 and at most 86,400. A run that takes longer is
    /// killed. Default: 10.
    pub wall_seconds: f64,
    /// Address space of one process in bytes, at least 16 MiB: an upper bound of its memory.
    /// Runtimes that reserve far more than they use (Java, Go, node, CUDA) need a large value.
    /// Default: 1 GiB.
    pub memory_bytes: u64,
    /// Number of concurrent processes and threads, at least 1. Default: 8.
    pub processes: u64,
    /// Number of open files and pipes of one process, from 16 to 65,536. Default: 64.
    pub open_files: u64,
    /// Size of one file in bytes, at least 4 KiB. Default: 16 MiB.
    pub file_bytes: u64,
    /// Total size of all files in bytes, at least 64 KiB. Only [`Measure::MountNamespace`] enforces
    /// it. Default: 64 MiB.
    pub folder_bytes: u64,
    /// Number of files and folders, at least 16. Only [`Measure::MountNamespace`] enforces it.
    /// Default: 1,024.
    pub folder_files: u64,
    /// Size of the standard output, and of the standard error, in bytes, at least 1 KiB. A program
    /// that writes more to its standard output is killed; more on its standard error is dropped.
    /// Default: 4 MiB.
    pub output_bytes: u64,
    /// The folder in which [`Folder`](super::Folder)s are created. Default: the system's folder for
    /// temporary files.
    pub folder: Option<PathBuf>,
    /// Absolute paths that programs may read besides `/usr`, `/bin`, `/sbin` and `/lib*`, such as
    /// those of an interpreter or a compiler. Default: none.
    pub read_only: Vec<PathBuf>,
    /// Whether each measure is required. Default: every measure is [required](Need::Required).
    pub measures: BTreeMap<Measure, Need>,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        Self {
            cpu_seconds: 10,
            wall_seconds: 10.0,
            memory_bytes: 1024 * MIB,
            processes: 8,
            open_files: 64,
            file_bytes: 16 * MIB,
            folder_bytes: 64 * MIB,
            folder_files: 1024,
            output_bytes: 4 * MIB,
            folder: None,
            read_only: Vec::new(),
            measures: BTreeMap::new(),
        }
    }
}

impl SandboxConfig {
    /// Returns whether a measure is required.
    pub fn need(&self, measure: Measure) -> Need {
        self.measures.get(&measure).copied().unwrap_or_default()
    }

    /// Sets whether a measure is required.
    #[must_use]
    pub fn with(mut self, measure: Measure, need: Need) -> Self {
        self.measures.insert(measure, need);
        self
    }

    /// Sets every measure to [`Need::IfAvailable`]: programs run with the confinement that the
    /// machine has.
    ///
    /// Use it for trusted programs. Check the [report](super::Sandbox::report) before you run
    /// others.
    #[must_use]
    pub fn allow_less(mut self) -> Self {
        for measure in Measure::ALL {
            self.measures.insert(measure, Need::IfAvailable);
        }
        self
    }

    /// The wall-clock limit.
    pub(crate) fn wall(&self) -> Duration {
        Duration::from_secs_f64(self.wall_seconds)
    }

    /// Rejects invalid settings.
    pub(super) fn check(&self) -> Result<()> {
        if !(self.wall_seconds > 0.0 && self.wall_seconds <= 86_400.0) {
            let expected = "more than 0 and at most 86,400 (a day)";
            return Err(Error::config("wall_seconds", self.wall_seconds, expected));
        }
        let bounds = [
            ("cpu_seconds", self.cpu_seconds, 1, 86_400),
            ("memory_bytes", self.memory_bytes, 16 * MIB, 1 << 50),
            ("processes", self.processes, 1, 1 << 20),
            ("open_files", self.open_files, 16, 1 << 16),
            ("file_bytes", self.file_bytes, 4 * KIB, 1 << 50),
            ("folder_bytes", self.folder_bytes, 64 * KIB, 1 << 50),
            ("folder_files", self.folder_files, 16, 1 << 32),
            ("output_bytes", self.output_bytes, KIB, 1 << 32),
        ];
        for (field, value, least, most) in bounds {
            if !(least..=most).contains(&value) {
                return Err(Error::config(field, value, format!("{least} to {most}")));
            }
        }
        for (i, path) in self.read_only.iter().enumerate() {
            if !path.is_absolute() || path.parent().is_none() || !path.exists() {
                return Err(Error::config(
                    format!("read_only[{i}]"),
                    path.display(),
                    "an absolute path that exists, not the root",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_an_invalid_setting_names_the_field() {
        let bad = |change: fn(&mut SandboxConfig)| {
            let mut config = SandboxConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(bad(|c| c.wall_seconds = 0.0).starts_with("invalid `wall_seconds`: 0;"));
        assert!(bad(|c| c.wall_seconds = f64::NAN).starts_with("invalid `wall_seconds`: NaN;"));
        assert!(bad(|c| c.wall_seconds = f64::INFINITY).contains("wall_seconds"));
        assert!(bad(|c| c.cpu_seconds = 0).starts_with("invalid `cpu_seconds`: 0; expected 1 to"));
        assert!(bad(|c| c.memory_bytes = 1).contains("`memory_bytes`"));
        assert!(bad(|c| c.processes = 0).contains("`processes`"));
        assert!(bad(|c| c.open_files = 15).contains("`open_files`"));
        assert!(bad(|c| c.folder_files = 0).contains("`folder_files`"));
        assert!(bad(|c| c.read_only = vec!["/".into()]).contains("`read_only[0]`"));
        assert!(bad(|c| c.read_only = vec!["/usr".into(), "x".into()]).contains("`read_only[1]`"));
        SandboxConfig::default().check().unwrap();
    }

    #[test]
    fn a_configuration_is_read_from_json() {
        let written =
            r#"{"cpu_seconds":2,"measures":{"pid_namespace":"off","seccomp":"if_available"}}"#;
        let config: SandboxConfig = serde_json::from_str(written).unwrap();
        assert_eq!(config.cpu_seconds, 2);
        assert_eq!(config.need(Measure::PidNamespace), Need::Off);
        assert_eq!(config.need(Measure::Seccomp), Need::IfAvailable);
        assert_eq!(config.wall_seconds, 10.0);
        let less = SandboxConfig::default().allow_less();
        assert!(
            Measure::ALL
                .iter()
                .all(|m| less.need(*m) == Need::IfAvailable)
        );
    }
}
