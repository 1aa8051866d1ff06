//! One HTML file that explains a run: an observer that keeps it up to date, and the function that makes it.

mod page;
mod run;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use page::render_report;
pub use run::ReportedRun;

use super::{Observer, RunInfo, StepRecord};
use crate::Result;
use crate::folder::replace_file;

/// Writes a run as one self-contained HTML file: curves, findings, configuration, sample rollouts (see [`render_report`]).
///
/// The file is written at every step with an evaluation (`eval/accuracy`) and at the end, each time beside and then renamed.
///
/// Rollouts are those that a [`RolloutFiles`](super::RolloutFiles) has kept, which stands before this observer:
///
/// ```no_run
/// use rlvr::train::observer::{KeepRollouts, Observer, Report, RolloutFiles, read_metrics};
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
    /// A report at `path` under `title`; an empty title leaves it to [`RunInfo::title`]. Nothing is written yet.
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

    /// Begins the curves with `records`, in the order of steps. When the run starts, those of steps that it will do again are
    /// dropped.
    #[must_use]
    pub fn with_history(mut self, records: Vec<StepRecord>) -> Self {
        self.run.records = records;
        self
    }

    /// Shows these settings: any JSON, by the path of each value in it.
    #[must_use]
    pub fn with_configuration(mut self, configuration: Value) -> Self {
        self.run.configuration = configuration;
        self
    }

    /// Shows the rollouts that are kept in `folder`, of at most 12 steps.
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
        // They can be large, and are read again.
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
    /// If the file is due and cannot be written, or the rollouts cannot be read.
    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.run.records.push(record.clone());
        match record.get("eval/accuracy") {
            Some(_) => self.write(),
            None => Ok(()),
        }
    }

    /// # Errors
    /// As [`on_step`](Self::on_step).
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
    fn the_file_is_written_at_evaluations_and_at_the_end() {
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
