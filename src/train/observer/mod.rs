//! Observers of a training run, which receive a [`StepRecord`] after each step.
//!
//! Pass one observer, or a `Vec<Box<dyn Observer>>`, to [`Trainer::run`](super::Trainer::run):
//!
//! | observer | output | feature |
//! |---|---|---|
//! | [`MetricsFile`] | one JSON object per step, appended to a file | |
//! | [`History`] | the records, in memory | |
//! | `ProgressBar` | a progress bar on the terminal | `progress` |
//! | `Chart` | an SVG file: reward, held-out accuracy, length | `chart` |
//! | [`Report`] | an HTML file: curves, findings, configuration, sample rollouts | |
//! | [`Transcript`] | completions with their rewards, as text | |
//! | [`RolloutFiles`] | the rollouts of every n-th step, as files | |
//! | `EventFile` | TensorBoard's event files | `tensorboard` |
//! | [`Watchdog`](super::diagnosis::Watchdog) | findings about the run, for the observers that it wraps | |
//!
//! The metrics, and their names in TRL and verl, are listed at [`StepRecord`]. A custom observer
//! needs one method:
//!
//! ```
//! use rlvr::Result;
//! use rlvr::train::observer::{Observer, StepRecord};
//!
//! /// The best held-out accuracy so far.
//! #[derive(Default)]
//! struct Best(f64);
//!
//! impl Observer for Best {
//!     fn on_step(&mut self, record: &StepRecord) -> Result<()> {
//!         // Most steps have no evaluation, so the metric may be missing.
//!         if let Some(accuracy) = record.get("eval/accuracy") {
//!             self.0 = self.0.max(accuracy);
//!         }
//!         // `record.metrics["eval/accuracy"]` would panic at the first step without one.
//!         Ok(())
//!     }
//! }
//!
//! let mut best = Best::default();
//! best.on_step(&StepRecord::new(10).with("eval/accuracy", 0.75))?;
//! best.on_step(&StepRecord::new(11).with("reward", 1.25))?;
//! assert_eq!(best.0, 0.75);
//! # Ok::<(), rlvr::Error>(())
//! ```

#[cfg(feature = "chart")]
mod chart;
mod history;
mod jsonl;
#[cfg(feature = "progress")]
mod progress;
mod record;
mod report;
mod rollout_files;
#[cfg(feature = "tensorboard")]
mod tensorboard;
mod transcript;

#[cfg(feature = "chart")]
pub use chart::{Chart, draw_chart};
pub use history::History;
pub use jsonl::{MetricsFile, read_metrics};
#[cfg(feature = "progress")]
pub use progress::ProgressBar;
pub use record::{RunInfo, StepRecord};
pub use report::{Report, ReportedRun, render_report};
pub use rollout_files::{KeepRollouts, RolloutFiles};
#[cfg(feature = "tensorboard")]
pub use tensorboard::EventFile;
pub use transcript::Transcript;

use super::diagnosis::Finding;
use crate::Result;
use crate::types::RolloutBuffer;

/// Receives the events of a training run.
///
/// # Contract
/// - The trainer calls [`on_start`](Self::on_start) once, then [`on_step`](Self::on_step) once
///   after every optimizer step with steps strictly increasing from [`RunInfo::first_step`]` + 1`,
///   then [`on_end`](Self::on_end) once, also if the run stops early, but not if the process is
///   killed. Data that must survive a kill should be written in `on_step`.
/// - A resumed run repeats the steps after its last checkpoint. An observer should drop its data of
///   steps after [`RunInfo::first_step`] in `on_start`.
/// - The metrics of a record differ from step to step. A missing metric was not measured; a metric
///   may also be NaN or infinite. Neither should be an error of the observer.
/// - An error ends the run. Return one if the run is worthless without this observer's output (a
///   metrics file on a full disk), and ignore it otherwise (a closed terminal).
/// - Calls come from the training thread and block the run. Do slow work in another thread.
/// - An observer does not affect the run: it uses none of the run's randomness, so results are the
///   same without it.
#[doc(alias("TrainerCallback", "report_to", "MetricsRenderer"))]
pub trait Observer: Send {
    /// Called when the run starts or resumes.
    ///
    /// # Errors
    /// Returns an error if the run should not start.
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let _ = run;
        Ok(())
    }

    /// Called after each step.
    ///
    /// # Errors
    /// Returns an error if the run should end.
    fn on_step(&mut self, record: &StepRecord) -> Result<()>;

    /// Called once per step with the scored rollouts of `step`, before [`on_step`](Self::on_step).
    ///
    /// # Errors
    /// Returns an error if the run should end.
    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        let _ = (step, rollouts);
        Ok(())
    }

    /// Called by a [`Watchdog`](super::diagnosis::Watchdog) when a finding appears or becomes more
    /// severe, after `on_rollouts` and before [`on_step`](Self::on_step).
    ///
    /// # Errors
    /// Returns an error if the run should end.
    fn on_finding(&mut self, finding: &Finding) -> Result<()> {
        let _ = finding;
        Ok(())
    }

    /// Syncs the recorded data to disk. Called before each checkpoint, so that after a power loss
    /// the records of a checkpoint exist too.
    ///
    /// # Errors
    /// Returns an error if the data cannot be written.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    /// Called when the run is over, whether it finished, was stopped, or failed.
    ///
    /// # Errors
    /// Returns an error if the final output cannot be written.
    fn on_end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Calls all observers in order, even if one fails, and returns the first error.
impl Observer for Vec<Box<dyn Observer>> {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        each(self, |observer| observer.on_start(run))
    }

    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        each(self, |observer| observer.on_step(record))
    }

    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        each(self, |observer| observer.on_rollouts(step, rollouts))
    }

    fn on_finding(&mut self, finding: &Finding) -> Result<()> {
        each(self, |observer| observer.on_finding(finding))
    }

    fn sync(&mut self) -> Result<()> {
        each(self, |observer| observer.sync())
    }

    fn on_end(&mut self) -> Result<()> {
        each(self, |observer| observer.on_end())
    }
}

fn each(
    observers: &mut [Box<dyn Observer>],
    mut call: impl FnMut(&mut dyn Observer) -> Result<()>,
) -> Result<()> {
    let mut first = Ok(());
    for observer in observers {
        let result = call(observer.as_mut());
        if first.is_ok() {
            first = result;
        }
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    struct Broken(&'static str);

    impl Observer for Broken {
        fn on_step(&mut self, _: &StepRecord) -> Result<()> {
            Err(Error::config(self.0, 1, "2"))
        }
    }

    #[test]
    fn all_observers_are_called_and_the_first_error_is_returned() {
        let history = History::new();
        let mut all: Vec<Box<dyn Observer>> = vec![
            Box::new(Broken("first")),
            Box::new(history.clone()),
            Box::new(Broken("second")),
        ];
        all.on_start(&RunInfo::default()).unwrap();
        let record = StepRecord::new(1).with("reward", 0.5);
        let error = all.on_step(&record).unwrap_err().to_string();
        assert_eq!(error, "invalid `first`: 1; expected 2");
        all.on_end().unwrap();
        assert_eq!(*history.records().lock().unwrap(), [record]);
    }
}
