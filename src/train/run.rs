//! Steps until the end: evaluation, checkpoints, observers, and a way to stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::evaluate::EvaluationConfig;
use super::observer::{Observer, RunInfo, StepRecord};
use super::trainer::Trainer;
use crate::folder::RunLock;
use crate::policy::{PolicyModel, ValueModel};
use crate::rollout::check_prompts;
use crate::types::Problem;
use crate::{Error, Result};

/// How far a run goes and what happens on the way.
#[derive(Clone, Debug, Default)]
pub struct RunConfig {
    /// Steps in all, those before a resume included.
    pub steps: u64,
    /// Shown by observers.
    pub title: String,
    /// Evaluation on the way, if any.
    pub evaluation: Option<RunEvaluation>,
    /// Checkpoints on the way and at the end, if any.
    pub checkpoints: Option<RunCheckpoints>,
}

/// Evaluation every so many steps, and after the last.
#[derive(Clone, Debug)]
pub struct RunEvaluation {
    /// Problems that are never trained on.
    pub problems: Vec<Problem>,
    /// Steps between two evaluations; at least 1.
    pub every: u64,
    /// How the policy is evaluated.
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
    /// The record of a step that was followed by an evaluation carries `eval/accuracy`, `eval/mean_length`
    /// and, if sampled, `eval/pass@1` and `eval/pass@k`.
    ///
    /// The folder of the checkpoints belongs to this run: another process cannot train there at the same time, and a trainer that
    /// was not loaded from it does not touch what is in it.
    ///
    /// # Errors
    /// As [`step`](Self::step); also if an evaluation, an observer or a checkpoint fails, or the folder of the checkpoints is in
    /// use or holds another run. The steps done before the error are saved, if there are checkpoints, and observers are told the
    /// end. The prompts of the evaluation are checked before the first step.
    pub fn run(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
        config.validate()?;
        if let Some(evaluation) = &config.evaluation {
            self.check_evaluation(evaluation)?;
        }
        if let Some(checkpoints) = &config.checkpoints
            && self.is_first_learner()
        {
            let lock = RunLock::acquire(&checkpoints.folder)?;
            self.check_folder(&checkpoints.folder)?;
            self.lock = Some(lock);
        }
        let result = self.observed(config, observer, stop);
        self.lock = None;
        result
    }

    fn observed(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
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

    /// Steps until `steps` are done, with nothing beside them: [`run`](Self::run) without observers, evaluation and checkpoints.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn train(&mut self, steps: u64) -> Result<()> {
        while self.steps_done() < steps {
            self.step()?;
        }
        Ok(())
    }

    fn is_first_learner(&self) -> bool {
        self.learner.learners.rank() == 0
    }

    fn check_evaluation(&self, evaluation: &RunEvaluation) -> Result<()> {
        if self.collector.agent_loop.is_some() {
            return Ok(());
        }
        let config = self.config();
        let checked = check_prompts(
            &evaluation.problems,
            self.collector.tokenizer(),
            self.policy().vocab_size(),
            self.policy().max_positions(),
            config.generation.max_new_tokens,
        );
        checked.map(|_| ())
    }

    fn steps(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
        let mut saved = None;
        let result = self.until_the_end(config, observer, stop, &mut saved);
        match result {
            Ok(end) => {
                self.save_if_new(config, observer, &mut saved)?;
                Ok(end)
            }
            Err(error) => {
                // An error within the updates of a step leaves a policy of no step: the checkpoint before it is the last whole one.
                if self.is_whole() && self.steps_done() > 0 {
                    // The first error is the one to report.
                    let _ = self.save_if_new(config, observer, &mut saved);
                }
                Err(error)
            }
        }
    }

    fn until_the_end(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
        saved: &mut Option<u64>,
    ) -> Result<RunEnd> {
        while self.steps_done() < config.steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(RunEnd::Stopped);
            }
            let mut record = self.step()?;
            let last = record.step == config.steps;
            let mut evaluated = Ok(());
            if let Some(evaluation) = &config.evaluation
                && (last || record.step.is_multiple_of(evaluation.every))
            {
                evaluated = self.evaluate_into(&mut record, evaluation);
            }
            observer.on_rollouts(record.step, &self.last_rollouts)?;
            // The record comes first: a run that is killed in between resumes from the checkpoint before
            // and drops the records after it, so none is lost and none comes twice.
            observer.on_step(&record)?;
            evaluated?;
            if let Some(checkpoints) = &config.checkpoints
                && record.step.is_multiple_of(checkpoints.every)
            {
                self.save_if_new(config, observer, saved)?;
            }
        }
        Ok(RunEnd::Finished)
    }

    /// Evaluates the policy and adds what was found to the record.
    fn evaluate_into(&self, record: &mut StepRecord, evaluation: &RunEvaluation) -> Result<()> {
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
        Ok(())
    }

    /// Saves a checkpoint unless the step that was `saved` last is the current one.
    fn save_if_new(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        saved: &mut Option<u64>,
    ) -> Result<()> {
        if let Some(checkpoints) = &config.checkpoints
            && self.is_first_learner()
            && *saved != Some(self.steps_done())
        {
            // A checkpoint must not survive a power loss that its records do not.
            observer.sync()?;
            self.save_checkpoint(&checkpoints.folder, checkpoints.keep)?;
            *saved = Some(self.steps_done());
        }
        Ok(())
    }
}
