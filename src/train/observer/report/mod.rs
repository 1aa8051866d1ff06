//! HTML reports: the observer that writes one during a run, and the function that renders it.

mod page;
mod run;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use page::render_report;
pub use run::ReportedRun;

use super::{Observer, RunInfo, StepRecord};
use crate::Result;
use crate::folder::replace_file;

/// Writes a self-contained HTML report of a run: curves, findings, configuration, sample rollouts
/// (see [`render_report`]).
///
/// The file is replaced atomically at every step with an evaluation (`eval/accuracy`) and at the
/// end.
///
/// Rollouts are read from the files of a [`RolloutFiles`](super::RolloutFiles), which must precede
/// this observer:
///
/// ```no_run
/// use rlvr::train::observer::{
///     KeepRollouts, Observer, Report, RolloutFiles, read_metrics,
/// };
///
/// let kept = RolloutFiles::create("run/rollouts", KeepRollouts { every: 20 })?;
/// let report = Report::new("run/report.html", "Sums of two numbers")
///     .with_history(read_metrics("run/metrics.jsonl")?)
///     .with_rollouts("run/rollouts");
/// let observers: Vec<Box<dyn Observer>> = vec![Box::new(kept), Box::new(report)];
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Report {
    path: PathBuf,
    run: ReportedRun,
    rollouts: Option<PathBuf>,
}

impl Report {
    /// Creates a report at `path`, without writing it yet. If `title` is empty, [`RunInfo::title`]
    /// is used.
    pub fn new(path: impl AsRef<Path>, title: impl Into<String>) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            run: ReportedRun {
                name: title.into(),
                ..ReportedRun::default()
            },
            rollouts: None,
        }
    }

    /// Starts the curves with the `records` of a resumed run, in the order of steps. Records of
    /// steps that the run repeats are dropped at its start.
    #[must_use]
    pub fn with_history(mut self, records: Vec<StepRecord>) -> Self {
        self.run.records = records;
        self
    }

    /// Sets the configuration that is shown: any JSON, displayed by the path of each value.
    #[must_use]
    pub fn with_configuration(mut self, configuration: Value) -> Self {
        self.run.configuration = configuration;
        self
    }

    /// Shows the rollouts in `folder`, of at most 12 steps.
    #[must_use]
    pub fn with_rollouts(mut self, folder: impl AsRef<Path>) -> Self {
        self.rollouts = Some(folder.as_ref().to_path_buf());
        self
    }

    fn write(&mut self) -> Result<()> {
        if let Some(folder) = &self.rollouts {
            self.run.rollouts = run::read_rollouts(folder)?;
        }
        let html = render_report(std::slice::from_ref(&self.run))?;
        // Rollouts can be large, and are read again for the next write.
        self.run.rollouts.clear();
        replace_file(&self.path, html.as_bytes())
    }
}

impl Observer for Report {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let records = &mut self.run.records;
        records.retain(|record| record.step <= run.first_step);
        if self.run.name.is_empty() {
            self.run.name.clone_from(&run.title);
        }
        Ok(())
    }

    /// # Errors
    /// Returns an error if the file is due and cannot be written, or the rollouts cannot be read.
    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.run.records.push(record.clone());
        match record.get("eval/accuracy") {
            Some(_) => self.write(),
            None => Ok(()),
        }
    }

    /// # Errors
    /// Returns the errors of [`on_step`](Self::on_step).
    fn on_end(&mut self) -> Result<()> {
        self.write()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeepRollouts, RolloutFiles};
    use super::*;
    use crate::types::{Problem, Rollout, RolloutBuffer, RolloutGroup};
    use std::fs;

    #[test]
    fn the_report_is_written_at_evaluations_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/report.html");
        let kept = folder.path().join("run/rollouts");
        let mut files = RolloutFiles::create(&kept, KeepRollouts { every: 2 }).unwrap();
        let record = |step: u64| StepRecord::new(step).with("reward", step as f64);
        let mut report = Report::new(&path, "")
            .with_history((0..=9).map(record).collect())
            .with_configuration(serde_json::json!({ "seed": 17 }))
            .with_rollouts(&kept);
        let run = RunInfo {
            first_step: 2,
            last_step: 5,
            title: "Sums".into(),
            ..RunInfo::default()
        };
        report.on_start(&run).unwrap();
        report.on_step(&record(3)).unwrap();
        assert!(!path.exists());
        let group = |text| {
            let rollouts = vec![Rollout::new(vec![1], vec![0.0], text)];
            RolloutGroup::new(Problem::new("a", "b"), vec![1], rollouts)
        };
        let rollouts = |text| RolloutBuffer {
            groups: vec![group(text)],
        };
        files
            .on_rollouts(4, &rollouts("a completion of step 4"))
            .unwrap();
        report
            .on_step(&record(4).with("eval/accuracy", 0.5))
            .unwrap();
        let written = fs::read_to_string(&path).unwrap();
        for text in [
            "\"name\":\"Sums\"",
            "a completion of step 4",
            "[\"seed\",\"17\"]",
            "\"steps\":[0,1,2,3,4]",
        ] {
            assert!(written.contains(text), "{text}");
        }
        report.on_step(&record(5)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), written);
        report.on_end().unwrap();
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .contains("\"steps\":[0,1,2,3,4,5]")
        );
    }
}
