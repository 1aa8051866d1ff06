//! The training loop: evaluation, checkpoints, observers, and a stop flag.

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

/// The settings of [`Trainer::run`](super::Trainer::run).
///
/// ```no_run
/// use std::sync::atomic::AtomicBool;
/// use rlvr::prelude::*;
/// use rlvr::train::{RunEnd, latest_checkpoint};
///
/// # fn run(mut trainer: Trainer<CausalModel>, held_out: Vec<Problem>) -> rlvr::Result<()> {
/// let config = RunConfig {
///     steps: 1000,
///     evaluation: Some(RunEvaluation {
///         problems: held_out,
///         every: 50,
///         config: EvaluationConfig::default(),
///     }),
///     checkpoints: Some(RunCheckpoints {
///         folder: "run/checkpoints".into(),
///         every: 100,
///         keep: 2,
///     }),
///     ..RunConfig::default()
/// };
/// if let Some(checkpoint) = latest_checkpoint("run/checkpoints")? {
///     trainer.load_checkpoint(checkpoint)?;
/// }
/// let mut metrics = MetricsFile::resume("run/metrics.jsonl", trainer.steps_done())?;
/// let stop = AtomicBool::new(false); // set it in a signal handler
/// let end = trainer.run(&config, &mut metrics, &stop)?;
/// assert_eq!(end, RunEnd::Finished);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct RunConfig {
    /// The total number of steps, those before a resume included.
    #[doc(alias("max_steps", "total_training_steps"))]
    pub steps: u64,
    /// The title that observers show.
    pub title: String,
    /// Evaluation during the run. Default: none.
    pub evaluation: Option<RunEvaluation>,
    /// Checkpoints during the run and at its end. Default: none.
    pub checkpoints: Option<RunCheckpoints>,
    /// Peak performance and price of the devices, and the budget. The cost so far and its forecast
    /// are metrics of every step (see [`StepUsage`](crate::plan::StepUsage) and
    /// [`Forecast`](crate::plan::Forecast)). Before a step that would exceed the budget, the run
    /// stops as if the stop flag were set. Default: no peak, no price, no budget.
    pub ledger: LedgerConfig,
}

/// Periodic evaluation, and evaluation after the last step.
#[doc(alias("eval_strategy", "eval_steps", "test_freq"))]
#[derive(Clone, Debug)]
pub struct RunEvaluation {
    /// Held-out problems.
    pub problems: Vec<Problem>,
    /// Steps between two evaluations; at least 1.
    pub every: u64,
    /// How the policy is evaluated.
    pub config: EvaluationConfig,
}

/// Periodic checkpoints, and a checkpoint at the end.
#[doc(alias(
    "save_steps",
    "save_total_limit",
    "save_freq",
    "max_actor_ckpt_to_keep"
))]
#[derive(Clone, Debug)]
pub struct RunCheckpoints {
    /// The folder of the checkpoints.
    pub folder: PathBuf,
    /// Steps between two checkpoints; at least 1.
    pub every: u64,
    /// The number of checkpoints that are kept; at least 1.
    pub keep: usize,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done.
    Finished,
    /// The stop flag was set, or the next step would exceed the budget. If checkpoints are
    /// configured, there is one of the last step.
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
    /// Trains until `config.steps` steps are done or `stop` is set, which is checked before each
    /// step.
    ///
    /// The record of a step with an evaluation contains `eval/accuracy`, `eval/mean_length` and,
    /// with samples, `eval/pass@1` and `eval/pass@k`; also for each domain of the problems, as
    /// `eval/domains/<domain>/accuracy` and so on.
    ///
    /// With several learners, the first one calls the observer and writes the checkpoints; the
    /// others' observers are not used. If the stop flag of one learner is set, all of them stop
    /// after the same step.
    ///
    /// The folder of the checkpoints belongs to this run: it is locked against other processes, and
    /// a folder with checkpoints that this trainer was not loaded from is an error.
    ///
    /// # Errors
    /// Returns the errors of [`step`](Self::step), and an error if an evaluation, an observer or a
    /// checkpoint fails, an evaluation prompt is invalid (checked before the first step), or the
    /// folder of the checkpoints is in use or belongs to another run. After an error in a later
    /// step, a checkpoint of the steps done is still written, and [`Observer::on_end`] is called.
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
        let mut no_observers: Vec<Box<dyn Observer>> = Vec::new();
        let result = match self.learners().is_first() {
            true => self.observed(config, observer, stop),
            false => self.observed(config, &mut no_observers, stop),
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

    /// Trains until `steps` steps are done: [`run`](Self::run) without observers, evaluation and
    /// checkpoints.
    ///
    /// # Errors
    /// Returns the errors of [`step`](Self::step).
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
                // After an error between the updates of a step, the weights belong to no complete
                // step and are not saved.
                if self.is_whole() && self.steps_done() > 0 {
                    // Report the first error.
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
            // The record is written before the checkpoint: a run that is killed in between resumes
            // from the previous checkpoint and drops later records, so no record is lost or
            // repeated.
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

    /// Returns the ledger of the run so far.
    fn ledger(&self, config: &LedgerConfig) -> Result<Ledger> {
        let cap = self.config().generation.max_new_tokens as u64;
        let config = LedgerConfig {
            length_cap: config.length_cap.or(Some(cap)),
            ..config.clone()
        };
        Ledger::resume(config, self.learner.flops(), self.ledger.clone())
    }

    /// Evaluates the policy and adds the results to the record.
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

    /// Saves a checkpoint unless the current step is already `saved`.
    fn save_if_new(
        &mut self,
        config: &RunConfig,
        observer: &mut dyn Observer,
        saved: &mut Option<u64>,
    ) -> Result<()> {
        if let Some(checkpoints) = &config.checkpoints
            && *saved != Some(self.steps_done())
        {
            // After a power loss, the records of a checkpoint must exist too.
            let synced = observer.sync();
            self.learners().agree("records of the steps", synced)?;
            self.save_checkpoint(&checkpoints.folder, checkpoints.keep)?;
            *saved = Some(self.steps_done());
        }
        Ok(())
    }
}
