//! Steps until the end: evaluation, checkpoints, observers, and a way to stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::evaluate::EvaluationConfig;
use super::observer::{Observer, RunInfo};
use super::trainer::Trainer;
use crate::policy::{PolicyModel, ValueModel};
use crate::prompt::Problem;
use crate::{Error, Result};

/// How far a run goes and what happens on the way.
#[derive(Clone, Debug, Default)]
pub struct RunConfig {
    /// Steps in all, those before a resume included.
    pub steps: u64,
    /// Shown by observers.
    pub title: String,
    /// Examination on the way, if any.
    pub evaluation: Option<RunEvaluation>,
    /// Checkpoints on the way and at the end, if any.
    pub checkpoints: Option<RunCheckpoints>,
}

/// Examination every so many steps, and after the last.
#[derive(Clone, Debug)]
pub struct RunEvaluation {
    /// Problems that are never trained on.
    pub problems: Vec<Problem>,
    /// Steps between two examinations; at least 1.
    pub every: u64,
    /// How the policy is examined.
    pub config: EvaluationConfig,
}

/// Checkpoints every so many steps, and after the last.
#[derive(Clone, Debug)]
pub struct RunCheckpoints {
    /// The folder that holds them.
    pub folder: PathBuf,
    /// Steps between two; at least 1.
    pub every: u64,
    /// How many are kept; at least 1.
    pub keep: usize,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done.
    Finished,
    /// The stop flag was raised; a checkpoint of the last whole step is there, if there are checkpoints.
    Stopped,
}

impl RunConfig {
    fn validate(&self) -> Result<()> {
        if let Some(evaluation) = &self.evaluation
            && evaluation.every == 0
        {
            return Err(Error::config("evaluation.every", 0, "at least 1 step"));
        }
        if let Some(checkpoints) = &self.checkpoints
            && checkpoints.every == 0
        {
            return Err(Error::config("checkpoints.every", 0, "at least 1 step"));
        }
        Ok(())
    }
}

impl<M: PolicyModel, V: ValueModel> Trainer<M, V> {
    /// Steps until `config.steps` are done, or until `stop` is raised, which is looked at after each step.
    ///
    /// The record of a step that was followed by an examination carries `eval/accuracy`, `eval/mean_length`
    /// and, if sampled, `eval/pass@1` and `eval/pass@k`.
    ///
    /// # Errors
    /// As [`step`](Self::step); also if an observer or a checkpoint fails. Observers are told the end even then.
    pub fn run(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
        config.validate()?;
        observer.on_start(&RunInfo {
            first_step: self.steps_done(),
            last_step: config.steps,
            title: config.title.clone(),
        })?;
        let result = self.steps(config, observer, stop);
        let ended = observer.on_end();
        let end = result?;
        ended?;
        Ok(end)
    }

    fn steps(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
        let mut saved = None;
        while self.steps_done() < config.steps {
            if stop.load(Ordering::Relaxed) {
                self.save_if_new(config, &mut saved)?;
                return Ok(RunEnd::Stopped);
            }
            let mut record = self.step()?;
            let last = record.step == config.steps;
            if let Some(evaluation) = &config.evaluation
                && (last || record.step.is_multiple_of(evaluation.every))
            {
                let started = Instant::now();
                let found = self.evaluate(&evaluation.problems, &evaluation.config)?;
                let mut put = |name: &str, value: f64| {
                    record.metrics.insert(format!("eval/{name}"), value);
                };
                put("accuracy", found.accuracy);
                put("mean_length", found.mean_length);
                if let Some(pass_at_1) = found.pass_at_1 {
                    put("pass@1", pass_at_1);
                }
                for (k, value) in found.pass_at_k {
                    put(&format!("pass@{k}"), value);
                }
                let seconds = started.elapsed().as_secs_f64();
                record.metrics.insert("time/eval".into(), seconds);
            }
            // The record comes first: a run that is killed in between resumes from the checkpoint before
            // and drops the records after it, so none is lost and none comes twice.
            observer.on_step(&record)?;
            if let Some(checkpoints) = &config.checkpoints
                && record.step.is_multiple_of(checkpoints.every)
            {
                self.save_if_new(config, &mut saved)?;
            }
        }
        self.save_if_new(config, &mut saved)?;
        Ok(RunEnd::Finished)
    }

    /// Saves a checkpoint unless the step that was `saved` last is the current one.
    fn save_if_new(&self, config: &RunConfig, saved: &mut Option<u64>) -> Result<()> {
        if let Some(checkpoints) = &config.checkpoints
            && *saved != Some(self.steps_done())
        {
            self.save_checkpoint(&checkpoints.folder, checkpoints.keep)?;
            *saved = Some(self.steps_done());
        }
        Ok(())
    }
}
