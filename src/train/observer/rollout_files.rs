//! The observer that writes rollouts to files.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Observer, RunInfo};
use crate::folder::{create, remove_half_file, replace_file, step_name, steps};
use crate::train::observer::StepRecord;
use crate::types::RolloutBuffer;
use crate::{Error, Result};

const SUFFIX: &str = ".jsonl";

/// How often rollouts are kept. It can be parsed from the command-line form `every=20`.
///
/// ```
/// use rlvr::train::observer::KeepRollouts;
///
/// let keep: KeepRollouts = "every=20".parse()?;
/// assert_eq!(keep, KeepRollouts { every: 20 });
/// assert!("every=0".parse::<KeepRollouts>().is_err());
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRollouts {
    /// Rollouts are kept every `every` steps, and of the first step; at least 1.
    pub every: u64,
}

impl FromStr for KeepRollouts {
    type Err = Error;

    /// # Errors
    /// Returns [`Error::Config`] unless `text` is `every=` and an integer of at least 1.
    fn from_str(text: &str) -> Result<Self> {
        let every = text.strip_prefix("every=").map(str::parse);
        match every {
            Some(Ok(every)) if every > 0 => Ok(Self { every }),
            _ => Err(Error::config(
                "keep_rollouts",
                text,
                "`every=N` with an integer N of at least 1, such as `every=20`",
            )),
        }
    }
}

impl fmt::Display for KeepRollouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "every={}", self.every)
    }
}

/// Writes the rollouts of the first step and of every n-th step into a folder, one file per step,
/// such as `step-00000020.jsonl`. A line is one group; [`RolloutBuffer::read`] reads the file.
///
/// A resumed run removes the files of the steps that it repeats.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("rollout_files_{}", std::process::id()));
/// use rlvr::rollout::RolloutBuffer;
/// use rlvr::train::observer::{KeepRollouts, Observer, RolloutFiles};
///
/// let mut files = RolloutFiles::create(&folder, KeepRollouts { every: 20 })?;
/// for step in 1..=40 {
///     files.on_rollouts(step, &RolloutBuffer::new())?;
/// }
/// let kept = RolloutFiles::list(&folder)?;
/// let steps: Vec<u64> = kept.into_iter().map(|(step, _)| step).collect();
/// assert_eq!(steps, [1, 20, 40]);
/// # std::fs::remove_dir_all(folder).unwrap();
/// # Ok::<(), rlvr::Error>(())
/// ```
#[doc(alias("log_completions", "rollout_data_dir"))]
#[derive(Clone, Debug)]
pub struct RolloutFiles {
    folder: PathBuf,
    keep: KeepRollouts,
}

impl RolloutFiles {
    /// Creates `folder` and keeps rollouts in it.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if `keep.every` is 0, and [`Error::Io`] if the folder cannot be
    /// created.
    pub fn create(folder: impl AsRef<Path>, keep: KeepRollouts) -> Result<Self> {
        let folder = folder.as_ref();
        if keep.every == 0 {
            return Err(Error::config("keep_rollouts.every", 0, "at least 1 step"));
        }
        create(folder)?;
        let folder = folder.to_path_buf();
        Ok(Self { folder, keep })
    }

    /// Returns the steps and paths of the files in `folder`, in order; empty if the folder does not
    /// exist.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the folder cannot be read.
    pub fn list(folder: impl AsRef<Path>) -> Result<Vec<(u64, PathBuf)>> {
        steps(folder.as_ref(), SUFFIX)
    }

    fn path(&self, step: u64) -> PathBuf {
        self.folder.join(step_name(step, SUFFIX))
    }
}

impl Observer for RolloutFiles {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        for (step, path) in Self::list(&self.folder)? {
            if step > run.first_step {
                fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        Ok(())
    }

    fn on_step(&mut self, _: &StepRecord) -> Result<()> {
        Ok(())
    }

    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        if step != 1 && !step.is_multiple_of(self.keep.every) {
            return Ok(());
        }
        let path = self.path(step);
        let mut bytes = Vec::new();
        for group in &rollouts.groups {
            serde_json::to_writer(&mut bytes, group).map_err(|e| Error::io(&path, e.into()))?;
            bytes.push(b'\n');
        }
        remove_half_file(&path)?;
        replace_file(&path, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Problem, Rollout, RolloutGroup};

    #[test]
    fn the_command_line_form_round_trips() {
        for text in ["every=1", "every=250"] {
            assert_eq!(text.parse::<KeepRollouts>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "20",
            "every=",
            "every=0",
            "every=-1",
            "every=2.5",
            "Every=2",
        ] {
            let error = text.parse::<KeepRollouts>().unwrap_err().to_string();
            assert!(error.contains("`every=N`"), "{error}");
        }
        let none = RolloutFiles::create("nowhere", KeepRollouts { every: 0 });
        assert!(none.is_err() && !Path::new("nowhere").exists());
    }

    #[test]
    fn files_can_be_read_and_a_resumed_run_removes_later_ones() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("rollouts");
        let rollouts = |step: u64| {
            let rollout = Rollout::new(vec![1, 2], vec![f32::NAN, -0.5], format!("of {step}"));
            let problem = Problem::new("a", "b");
            RolloutBuffer {
                groups: vec![RolloutGroup::new(problem, vec![3], vec![rollout])],
            }
        };
        let mut files = RolloutFiles::create(&folder, KeepRollouts { every: 4 }).unwrap();
        files.on_start(&RunInfo::default()).unwrap();
        for step in 1..=9 {
            files.on_rollouts(step, &rollouts(step)).unwrap();
        }
        fs::write(folder.join("notes.txt"), "mine").unwrap();
        let run = RunInfo {
            first_step: 6,
            ..RunInfo::default()
        };
        files.on_start(&run).unwrap();
        let kept = RolloutFiles::list(&folder).unwrap();
        let steps: Vec<u64> = kept.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [1, 4]);
        let read = RolloutBuffer::read(&kept[1].1).unwrap();
        assert_eq!(read.groups[0].rollouts[0].text, "of 4");
        assert!(folder.join("notes.txt").exists());
        assert!(RolloutFiles::list(folder.join("none")).unwrap().is_empty());
    }
}
