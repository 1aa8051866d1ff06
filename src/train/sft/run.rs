//! The training loop: held-out loss, checkpoints, observers, and a stop flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::describe;
use super::data::DemonstrationSet;
use super::trainer::SftTrainer;
use crate::policy::PolicyModel;
use crate::train::observer::{Observer, RunInfo, StepRecord};
use crate::train::{RunCheckpoints, RunEnd};
use crate::{Error, Result};

/// The settings of [`SftTrainer::run`]. The number of steps is part of
/// [`SftConfig`](super::SftConfig).
#[derive(Default)]
pub struct SftRunConfig {
    /// The title that observers show.
    pub title: String,
    /// The measurement of a held-out loss. Default: none.
    pub held_out: Option<HeldOut>,
    /// Checkpoints during the run and at its end. Default: none.
    pub checkpoints: Option<RunCheckpoints>,
}

/// Periodic measurement of the loss on held-out demonstrations, also after the last step.
pub struct HeldOut {
    /// The held-out demonstrations.
    pub demonstrations: Box<dyn DemonstrationSet>,
    /// Steps between two measurements; at least 1.
    pub every: u64,
}

impl HeldOut {
    /// Measures the loss on `demonstrations` every `every` steps.
    pub fn new(demonstrations: impl DemonstrationSet + 'static, every: u64) -> Self {
        Self {
            demonstrations: Box::new(demonstrations),
            every,
        }
    }
}

/// The state of a run.
struct Watch<'a> {
    config: &'a SftRunConfig,
    observer: &'a mut dyn Observer,
    /// The held-out demonstrations that are not skipped.
    held_out: Vec<usize>,
    /// The step of the last checkpoint.
    saved: Option<u64>,
}

impl<M: PolicyModel> SftTrainer<M> {
    /// Trains until all steps are done or `stop` is set, which is checked before each step.
    ///
    /// The record of a step with a held-out measurement contains `eval/loss`, in nats per token,
    /// and `time/eval`, in seconds.
    ///
    /// The folder of the checkpoints belongs to this run: it is locked against other processes, and
    /// a folder with checkpoints that this job was not loaded from is an error.
    ///
    /// # Errors
    /// Returns the errors of [`step`](Self::step), and an error if a held-out demonstration does
    /// not fit, an observer or a checkpoint fails, or the folder of the checkpoints is in use or
    /// belongs to another run. After an error in a later step, a checkpoint of the steps done is
    /// still written, and [`Observer::on_end`] is called.
    pub fn run(
        &mut self,
        config: &SftRunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
        let every = [
            (
                "held_out.every",
                config.held_out.as_ref().map(|one| one.every),
            ),
            (
                "checkpoints.every",
                config.checkpoints.as_ref().map(|one| one.every),
            ),
        ];
        if let Some((field, _)) = every.into_iter().find(|(_, every)| *every == Some(0)) {
            return Err(Error::config(field, 0, "at least 1 step"));
        }
        let held_out = match &config.held_out {
            Some(held_out) => {
                let shown = self.held_out(held_out.demonstrations.as_ref());
                shown.check(&self.policy)?
            }
            None => Vec::new(),
        };
        if let Some(checkpoints) = &config.checkpoints {
            self.run_folder.lock(&checkpoints.folder, describe)?;
        }
        let watch = Watch {
            config,
            observer,
            held_out,
            saved: None,
        };
        let result = self.observed(watch, stop);
        self.run_folder.unlock();
        result
    }

    fn observed(&mut self, mut watch: Watch<'_>, stop: &AtomicBool) -> Result<RunEnd> {
        watch.observer.on_start(&RunInfo {
            predicted_memory: None,
            first_step: self.steps_done(),
            last_step: self.steps(),
            title: watch.config.title.clone(),
        })?;
        let result = self.until_the_end(&mut watch, stop);
        let saved = match self.steps_done() {
            0 => Ok(()),
            _ => self.save_if_new(&mut watch),
        };
        let ended = watch.observer.on_end();
        // Report the first error.
        let end = result?;
        saved.and(ended)?;
        Ok(end)
    }

    fn until_the_end(&mut self, watch: &mut Watch<'_>, stop: &AtomicBool) -> Result<RunEnd> {
        while self.steps_done() < self.steps() {
            if stop.load(Ordering::Relaxed) {
                return Ok(RunEnd::Stopped);
            }
            let mut record = self.step()?;
            let measured = self.measure(watch, &mut record);
            // The record is written before the checkpoint: a run that is killed in between resumes
            // from the previous checkpoint and drops later records, so no record is lost or
            // repeated.
            watch.observer.on_step(&record)?;
            measured?;
            if let Some(checkpoints) = &watch.config.checkpoints
                && record.step.is_multiple_of(checkpoints.every)
            {
                self.save_if_new(watch)?;
            }
        }
        Ok(RunEnd::Finished)
    }

    /// Adds the held-out loss to the record, if it is due.
    fn measure(&self, watch: &Watch<'_>, record: &mut StepRecord) -> Result<()> {
        if let Some(held_out) = &watch.config.held_out
            && (record.step == self.steps() || record.step.is_multiple_of(held_out.every))
        {
            let started = Instant::now();
            let shown = self.held_out(held_out.demonstrations.as_ref());
            let loss = shown.loss(&watch.held_out, &self.policy)?;
            let seconds = started.elapsed().as_secs_f64();
            record.metrics.insert("eval/loss".into(), loss);
            record.metrics.insert("time/eval".into(), seconds);
        }
        Ok(())
    }

    /// Saves a checkpoint unless the current step is already saved.
    fn save_if_new(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        if let Some(checkpoints) = &watch.config.checkpoints
            && watch.saved != Some(self.steps_done())
        {
            // After a power loss, the records of a checkpoint must exist too.
            watch.observer.sync()?;
            self.save_checkpoint(&checkpoints.folder, checkpoints.keep)?;
            watch.saved = Some(self.steps_done());
        }
        Ok(())
    }
}
