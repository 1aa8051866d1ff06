//! Takes one [`StepRecord`] per optimizer step from the trainer and gives it to whoever watches: a file, a terminal, a picture.
//!
//! A trainer knows none of its observers. It fills a record, calls [`Observer::on_step`], and what happens to the numbers is
//! the caller's choice:
//!
//! | observer | what it makes | feature |
//! |---|---|---|
//! | [`MetricsFile`] | one JSON object per step, appended to a file | |
//! | [`History`] | the records, in memory | |
//! | `ProgressBar` | one line on the terminal | `progress` |
//! | `Chart` | one SVG: reward, held-out accuracy, length | `chart` |
//! | [`Report`] | one HTML file: curves, findings, configuration, sample rollouts | |
//! | [`RolloutFiles`] | the rollouts of every so many steps, as files | |
//! | `EventFile` | TensorBoard's event files | `tensorboard` |
//! | [`Watchdog`](super::diagnosis::Watchdog) | findings: what is wrong with the run, for the observers that it wraps | |
//!
//! What the metrics are, and what TRL and verl call them, is said at [`StepRecord`]. Your own observer is one method:
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
//!         // Right: most steps have no evaluation, so a metric that is missing is nothing to complain about.
//!         if let Some(accuracy) = record.get("eval/accuracy") {
//!             self.0 = self.0.max(accuracy);
//!         }
//!         // Wrong: `record.metrics["eval/accuracy"]` panics at the first step that was not evaluated.
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

use super::diagnosis::Finding;
use crate::Result;
use crate::types::RolloutBuffer;

/// Somebody who watches a training run.
///
/// # Contract
/// - The trainer calls [`on_start`](Self::on_start) once, then [`on_step`](Self::on_step) once after every optimizer step with
///   steps strictly increasing from [`RunInfo::first_step`]` + 1`, then [`on_end`](Self::on_end) once: also when the run stops
///   early, but not when the process is killed. What must survive that belongs on the disk in `on_step`.
/// - A run that is resumed may repeat steps that an observer has seen before, because the last checkpoint is older than the
///   last step. `on_start` says where it begins: whatever an observer keeps of later steps is not part of this run.
/// - Which metrics a record holds differs from step to step. A metric that is missing was not measured, and a metric that is NaN
///   was measured and is not a number; neither is an error of the observer.
/// - An error ends the run. Return one if the run would be worthless without what this observer does (a metrics file on a full
///   disk); swallow it if not (a terminal that went away).
/// - Calls come from the training thread and the run waits for them. Do slow work elsewhere.
/// - An observer only watches. It draws no random numbers of the run, so a run with and without it is the same run.
#[doc(alias("TrainerCallback", "report_to", "MetricsRenderer"))]
pub trait Observer: Send {
    /// The run begins, or goes on after [`RunInfo::first_step`] steps.
    ///
    /// # Errors
    /// Whatever makes it pointless to start.
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        let _ = run;
        Ok(())
    }

    /// One optimizer step is done.
    ///
    /// # Errors
    /// Whatever makes it pointless to go on.
    fn on_step(&mut self, record: &StepRecord) -> Result<()>;

    /// The scored rollouts that `step` learned from. Called once per step, before [`on_step`](Self::on_step).
    ///
    /// # Errors
    /// Whatever makes it pointless to go on.
    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        let _ = (step, rollouts);
        Ok(())
    }

    /// A finding appeared or became more severe. Only a [`Watchdog`](super::diagnosis::Watchdog) calls this, after `on_rollouts` and before
    /// [`on_step`](Self::on_step) of the step that revealed it.
    ///
    /// # Errors
    /// Whatever makes it pointless to go on.
    fn on_finding(&mut self, finding: &Finding) -> Result<()> {
        let _ = finding;
        Ok(())
    }

    /// Forces what was recorded so far to disk. A run calls it before each checkpoint, so that a checkpoint never outlives its records.
    ///
    /// # Errors
    /// If something cannot be written.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    /// The run is over, whether it reached its last step or was stopped.
    ///
    /// # Errors
    /// Whatever the caller should know about what is left behind.
    fn on_end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// All of them, in order. One that fails does not keep the rest from being called; the first error is returned.
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
    fn all_are_called_and_the_first_error_is_returned() {
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
