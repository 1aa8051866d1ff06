//! The data of a run in a report.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::super::{RolloutFiles, StepRecord, read_metrics};
use crate::types::RolloutBuffer;
use crate::{Error, Result};

/// The largest number of steps whose rollouts are shown.
pub(super) const MOST_STEPS: usize = 12;

/// The data of a run for a report.
///
/// [`read`](Self::read) loads it from a folder. Only the records are required:
///
/// ```
/// use rlvr::train::observer::{ReportedRun, StepRecord, render_report};
///
/// let run = ReportedRun {
///     name: "sums".into(),
///     records: (1..=3)
///         .map(|step| StepRecord::new(step).with("reward", 0.5))
///         .collect(),
///     ..ReportedRun::default()
/// };
/// let html = render_report(&[run])?;
/// assert!(html.starts_with("<!doctype html>"));
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReportedRun {
    /// The name of the run.
    pub name: String,
    /// The records, in the order of steps.
    pub records: Vec<StepRecord>,
    /// The settings, as a JSON object; null if unknown.
    pub configuration: Value,
    /// Scored rollouts by their step, in order.
    pub rollouts: Vec<(u64, RolloutBuffer)>,
}

impl ReportedRun {
    /// Reads a run from its folder, or from a metrics file.
    ///
    /// From a folder it reads `metrics.jsonl` and, if they exist, `config.json` (any JSON) and the
    /// files of [`RolloutFiles`] in `rollouts`, of at most 12 steps, evenly spread over the run.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if there is no metrics file or a file cannot be read, and
    /// [`Error::Data`] for a line that is not a record or not a group of rollouts.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = |path: &Path| {
            let name = path.file_stem().unwrap_or(path.as_os_str());
            name.to_string_lossy().into_owned()
        };
        if !path.is_dir() {
            return Ok(Self {
                name: name(path),
                records: read_metrics(path)?,
                ..Self::default()
            });
        }
        let settings = path.join("config.json");
        let configuration = match settings.exists() {
            true => {
                let text = fs::read(&settings).map_err(|e| Error::io(&settings, e))?;
                serde_json::from_slice(&text).map_err(|e| Error::io(&settings, e.into()))?
            }
            false => Value::Null,
        };
        Ok(Self {
            // A path such as `.` has no file name.
            name: name(&fs::canonicalize(path).unwrap_or_else(|_| path.into())),
            records: read_metrics(path.join("metrics.jsonl"))?,
            configuration,
            rollouts: read_rollouts(&path.join("rollouts"))?,
        })
    }
}

/// Reads the rollouts in `folder`, of at most [`MOST_STEPS`] steps.
pub(super) fn read_rollouts(folder: &Path) -> Result<Vec<(u64, RolloutBuffer)>> {
    let files = RolloutFiles::list(folder)?;
    evenly(files.len(), MOST_STEPS)
        .map(|index| {
            let (step, path) = &files[index];
            Ok((*step, RolloutBuffer::read(path)?))
        })
        .collect()
}

/// Returns at most `most` of the indices below `count`, evenly spread, including the first and the
/// last.
pub(super) fn evenly(count: usize, most: usize) -> impl Iterator<Item = usize> {
    let taken = count.min(most);
    let last = taken.saturating_sub(1).max(1);
    (0..taken).map(move |index| index * (count - 1) / last)
}

#[cfg(test)]
mod tests {
    use super::super::super::{KeepRollouts, MetricsFile, Observer};
    use super::*;

    #[test]
    fn indices_are_spread_evenly() {
        let of = |count, most| evenly(count, most).collect::<Vec<_>>();
        assert_eq!(of(0, 3), [0; 0]);
        assert_eq!(of(1, 3), [0]);
        assert_eq!(of(3, 3), [0, 1, 2]);
        assert_eq!(of(10, 4), [0, 3, 6, 9]);
        assert_eq!(of(5, 1), [0]);
    }

    #[test]
    fn a_run_is_read_from_a_folder_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("sums.2");
        let mut metrics = MetricsFile::create(folder.join("metrics.jsonl")).unwrap();
        metrics.on_step(&StepRecord::new(1)).unwrap();
        let alone = ReportedRun::read(folder.join("metrics.jsonl")).unwrap();
        assert_eq!((alone.name.as_str(), alone.records.len()), ("metrics", 1));
        let run = ReportedRun::read(&folder).unwrap();
        assert!(run.configuration.is_null() && run.rollouts.is_empty());

        fs::write(folder.join("config.json"), r#"{"seed":1}"#).unwrap();
        let keep = KeepRollouts { every: 1 };
        let mut files = RolloutFiles::create(folder.join("rollouts"), keep).unwrap();
        (1..=30).for_each(|step| files.on_rollouts(step, &RolloutBuffer::new()).unwrap());
        let run = ReportedRun::read(&folder).unwrap();
        assert_eq!(run.configuration["seed"], 1);
        assert_eq!(run.rollouts.len(), MOST_STEPS);
        assert_eq!((run.rollouts[0].0, run.rollouts[11].0), (1, 30));

        fs::write(folder.join("config.json"), "{").unwrap();
        let error = ReportedRun::read(&folder).unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        assert!(ReportedRun::read(folder.join("none")).is_err());
    }
}
