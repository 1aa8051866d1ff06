//! Steps until the end: evaluation, checkpoints, observers, and a way to stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::checkpoint::describe;
use super::evaluate::EvaluationConfig;
use super::learners::LearnerGroup;
use super::observer::{Observer, RunInfo, StepRecord};
use super::trainer::Trainer;
use super::usage::{add_missing, step_usage};
use crate::plan::{Ledger, LedgerConfig};
use crate::policy::{PolicyModel, ValueModel};
use crate::rollout::check_prompts;
use crate::types::Problem;
use crate::{Error, Result};

/// How far a run goes and what happens on the way.
#[derive(Clone, Debug, Default)]
pub struct RunConfig {
    /// Steps in all, those before a resume included.
    #[doc(alias("max_steps", "total_training_steps"))]
    pub steps: u64,
    /// Shown by observers.
    pub title: String,
    /// Evaluation on the way, if any.
    pub evaluation: Option<RunEvaluation>,
    /// Checkpoints on the way and at the end, if any.
    pub checkpoints: Option<RunCheckpoints>,
    /// Peak and price of the devices, and the budget. The cost so far and its forecast are among the metrics of every step (see
    /// [`StepUsage`](crate::plan::StepUsage) and [`Forecast`](crate::plan::Forecast)); a run ends as on a stop signal before the step that
    /// would exceed the budget. Default: no peak, no price, no budget.
    pub ledger: LedgerConfig,
}

/// Evaluation every so many steps, and after the last.
#[doc(alias("eval_strategy", "eval_steps", "test_freq"))]
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
#[doc(alias(
    "save_steps",
    "save_total_limit",
    "save_freq",
    "max_actor_ckpt_to_keep"
))]
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
    /// The stop flag was raised, or the budget is spent; a checkpoint of the last whole step is there, if there are checkpoints.
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
    /// and, if sampled, `eval/pass@1` and `eval/pass@k`; and the same as `eval/domains/<domain>/accuracy` for each domain of the problems.
    ///
    /// Of several learners the first one calls the observer and writes the checkpoints; the others' observers are not used. All of them
    /// stop after the same step if one of them is to stop.
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
        let locked = match &config.checkpoints {
            Some(checkpoints) if self.learners().is_first() => self.lock_folder(checkpoints),
            _ => Ok(()),
        };
        self.learners().agree("start of the run", locked)?;
        let mut nobody: Vec<Box<dyn Observer>> = Vec::new();
        let result = match self.learners().is_first() {
            true => self.observed(config, observer, stop),
            false => self.observed(config, &mut nobody, stop),
        };
        self.run_folder.unlock();
        result
    }

    fn observed(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        stop: &AtomicBool,
    ) -> Result<RunEnd> {
        let started = observer.on_start(&RunInfo {
            first_step: self.steps_done(),
            last_step: config.steps,
            title: config.title.clone(),
            predicted_memory: self.predicted_bytes(),
        });
        self.learners().agree("start of the observers", started)?;
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

    pub(super) fn learners(&self) -> &LearnerGroup {
        &self.learner.learners
    }

    fn lock_folder(&mut self, checkpoints: &RunCheckpoints) -> Result<()> {
        self.run_folder.lock(&checkpoints.folder, describe)
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
        let mut ledger = self.ledger(&config.ledger)?;
        let predicted_memory = self.predicted_bytes();
        while self.steps_done() < config.steps {
            let mut raised = stop.load(Ordering::Relaxed);
            if let Some(reason) = ledger.exceeded() {
                tracing::warn!(step = self.steps_done(), %reason, "the budget is spent");
                raised = true;
            }
            if self.learners().any("stop of the run", raised)? {
                return Ok(RunEnd::Stopped);
            }
            let mut record = self.step()?;
            let last = record.step == config.steps;
            let mut usage = step_usage(&record, &self.last_rollouts, &self.learner.passes());
            usage.predicted_memory = predicted_memory;
            add_missing(&mut record, ledger.record(&usage)?);
            if let Some(forecast) = ledger.forecast(config.steps - record.step) {
                add_missing(&mut record, forecast.metrics());
            }
            let mut evaluated = Ok(());
            if let Some(evaluation) = &config.evaluation
                && (last || record.step.is_multiple_of(evaluation.every))
            {
                evaluated = self.evaluate_into(&mut record, evaluation);
                ledger.record_other(record.get("time/eval").unwrap_or(0.0))?;
            }
            self.ledger = ledger.state().clone();
            observer.on_rollouts(record.step, &self.last_rollouts)?;
            // The record comes first: a run that is killed in between resumes from the checkpoint before
            // and drops the records after it, so none is lost and none comes twice.
            let observed = observer.on_step(&record);
            self.learners().agree("record of the step", observed)?;
            evaluated?;
            if let Some(checkpoints) = &config.checkpoints
                && record.step.is_multiple_of(checkpoints.every)
            {
                self.save_if_new(config, observer, saved)?;
            }
        }
        Ok(RunEnd::Finished)
    }

    fn predicted_bytes(&self) -> Option<u64> {
        self.predicted_memory().map(|memory| memory.total() as u64)
    }

    /// The ledger of the run so far.
    fn ledger(&self, config: &LedgerConfig) -> Result<Ledger> {
        let cap = self.config().generation.max_new_tokens as u64;
        let config = LedgerConfig {
            length_cap: config.length_cap.or(Some(cap)),
            ..config.clone()
        };
        Ledger::resume(config, self.learner.flops(), self.ledger.clone())
    }

    /// Evaluates the policy and adds what was found to the record.
    fn evaluate_into(&self, record: &mut StepRecord, evaluation: &RunEvaluation) -> Result<()> {
        let started = Instant::now();
        let found = self.evaluate(&evaluation.problems, &evaluation.config)?;
        for (name, value) in found.metrics() {
            record.metrics.insert(format!("eval/{name}"), value);
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
            && *saved != Some(self.steps_done())
        {
            // A checkpoint must not survive a power loss that its records do not.
            let synced = observer.sync();
            self.learners().agree("records of the steps", synced)?;
            self.save_checkpoint(&checkpoints.folder, checkpoints.keep)?;
            *saved = Some(self.steps_done());
        }
        Ok(())
    }
}
