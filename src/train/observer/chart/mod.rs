//! SVG charts: the observer that writes one during a run, and the function that draws it.

mod panel;
mod picture;
mod series;

use std::path::{Path, PathBuf};

pub use picture::draw_chart;

use super::{Observer, RunInfo, StepRecord};
use crate::Result;
use crate::folder::replace_file;

/// The default interval between two versions of the file, in steps.
const EVERY: u64 = 10;

/// Draws reward, held-out accuracy and completion length over the steps as an SVG file (see
/// [`draw_chart`]).
///
/// The file is replaced atomically every 10 steps (see [`Chart::every`]) and at the end.
///
/// For a resumed run, pass the earlier records:
///
/// ```no_run
/// use rlvr::train::observer::{Chart, read_metrics};
///
/// let chart = Chart::new("run/chart.svg", "Sums of two numbers")
///     .with_history(read_metrics("run/metrics.jsonl")?);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Chart {
    path: PathBuf,
    title: String,
    every: u64,
    records: Vec<StepRecord>,
}

impl Chart {
    /// Creates a chart at `path`, without writing it yet. If `title` is empty, [`RunInfo::title`]
    /// is used.
    pub fn new(path: impl AsRef<Path>, title: impl Into<String>) -> Self {
        Self {
            path: path.as_ref().to_path_buf(),
            title: title.into(),
            every: EVERY,
            records: Vec::new(),
        }
    }

    /// Writes the file at every step that is a multiple of `steps`; with 0 only at the end.
    #[must_use]
    pub fn every(mut self, steps: u64) -> Self {
        self.every = steps;
        self
    }

    /// Starts the curves with the `records` of a resumed run, in the order of steps. Records of
    /// steps that the run repeats are dropped at its start.
    #[must_use]
    pub fn with_history(mut self, records: Vec<StepRecord>) -> Self {
        self.records = records;
        self
    }

    fn write(&self) -> Result<()> {
        let svg = draw_chart(&self.records, &self.title)?;
        replace_file(&self.path, svg.as_bytes())
    }
}

impl Observer for Chart {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.records.retain(|record| record.step <= run.first_step);
        if self.title.is_empty() {
            self.title.clone_from(&run.title);
        }
        Ok(())
    }

    /// # Errors
    /// Returns [`Error::Io`](crate::Error::Io) if the file is due and cannot be written.
    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.records.push(record.clone());
        if record.step > 0 && record.step.is_multiple_of(self.every) {
            self.write()?;
        }
        Ok(())
    }

    /// # Errors
    /// Returns [`Error::Io`](crate::Error::Io) if the file cannot be written.
    fn on_end(&mut self) -> Result<()> {
        self.write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_chart_is_written_at_the_interval_and_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pictures/chart.svg");
        let record = |step: u64| StepRecord::new(step).with("reward", step as f64);
        // The resumed run repeats the steps from 3 on.
        let mut chart = Chart::new(&path, "")
            .every(4)
            .with_history((1..=9).map(record).collect());
        let run = RunInfo {
            first_step: 2,
            last_step: 5,
            title: "Sums & more".into(),
            ..RunInfo::default()
        };
        chart.on_start(&run).unwrap();
        chart.on_step(&record(3)).unwrap();
        assert!(!path.exists());
        chart.on_step(&record(4)).unwrap();
        let records: Vec<StepRecord> = (1..=4).map(record).collect();
        let svg = draw_chart(&records, "Sums & more").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), svg);
        chart.on_step(&record(5)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), svg);
        chart.on_end().unwrap();
        assert_ne!(fs::read_to_string(&path).unwrap(), svg);
        assert_eq!(
            fs::read_dir(folder.path().join("pictures"))
                .unwrap()
                .count(),
            1
        );
    }
}
