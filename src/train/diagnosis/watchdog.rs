//! The observer that diagnoses a run while it trains.

use std::collections::BTreeMap;

use super::{Diagnosis, Finding, Severity, texts};
use crate::Result;
use crate::train::observer::{Observer, RunInfo, StepRecord};
use crate::types::RolloutBuffer;

/// The prefix of findings among the metrics of a step.
const PREFIX: &str = "findings/";

/// Diagnoses the run after every step and reports to the observers that it wraps.
///
/// The wrapped observers get each record with one more metric per current finding,
/// `findings/<name>`: 1 for a warning, 2 for failing. So `metrics.jsonl` records when each problem
/// began and ended. When a finding first appears, or becomes more severe, the watchdog also calls
/// [`Observer::on_finding`]; a progress bar prints it.
///
/// ```
/// use rlvr::train::diagnosis::{Verdict, Watchdog};
/// use rlvr::train::observer::{History, Observer, RunInfo, StepRecord};
///
/// let history = History::new();
/// let mut watchdog = Watchdog::new(history.clone());
/// watchdog.on_start(&RunInfo::default())?;
/// for step in 1..=5 {
///     watchdog
///         .on_step(&StepRecord::new(step).with("completions/clipped_ratio", 0.5))?;
/// }
/// watchdog.on_end()?;
/// assert_eq!(
///     history.records().lock().unwrap()[4].get("findings/truncation"),
///     Some(1.0)
/// );
/// assert_eq!(watchdog.diagnosis().verdict(), Verdict::Warning);
/// # Ok::<(), rlvr::Error>(())
/// ```
#[derive(Debug)]
pub struct Watchdog<O> {
    observers: O,
    records: Vec<StepRecord>,
    /// The findings about the completions of the current step.
    texts: Vec<Finding>,
    diagnosis: Diagnosis,
    /// The findings reported so far, with their highest severity.
    told: BTreeMap<String, Severity>,
}

impl<O: Observer> Watchdog<O> {
    /// Creates a watchdog for `observers`: one, or a `Vec<Box<dyn Observer>>`.
    pub fn new(observers: O) -> Self {
        Self {
            observers,
            records: Vec::new(),
            texts: Vec::new(),
            diagnosis: Diagnosis::default(),
            told: BTreeMap::new(),
        }
    }

    /// Starts with the `records` of a resumed run, in the order of steps. Records of steps that the
    /// run repeats are dropped at its start. Findings recorded in them are not reported again.
    #[must_use]
    pub fn with_history(mut self, records: Vec<StepRecord>) -> Self {
        self.records = records;
        self
    }

    /// Returns the diagnosis after the last step.
    pub fn diagnosis(&self) -> &Diagnosis {
        &self.diagnosis
    }
}

impl<O: Observer> Observer for Watchdog<O> {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.records.retain(|record| record.step <= run.first_step);
        self.told.clear();
        for (name, value) in self.records.iter().flat_map(|record| &record.metrics) {
            if let Some(name) = name.strip_prefix(PREFIX) {
                let severity = Severity::of_metric(*value);
                let told = self.told.entry(name.to_string()).or_insert(severity);
                *told = severity.max(*told);
            }
        }
        self.diagnosis = Diagnosis::of(&self.records);
        self.observers.on_start(run)
    }

    fn on_rollouts(&mut self, step: u64, rollouts: &RolloutBuffer) -> Result<()> {
        self.texts = texts::findings(step, rollouts);
        self.observers.on_rollouts(step, rollouts)
    }

    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.records.push(record.clone());
        self.diagnosis = Diagnosis::of(&self.records);
        self.diagnosis.findings.append(&mut self.texts);
        self.diagnosis.sort();
        let mut record = record.clone();
        let mut result = Ok(());
        for finding in &self.diagnosis.findings {
            let metric = format!("{PREFIX}{}", finding.name);
            record.metrics.insert(metric, finding.severity.as_metric());
            let told = self.told.get(&finding.name);
            if told.is_none_or(|&told| told < finding.severity) {
                self.told.insert(finding.name.clone(), finding.severity);
                result = result.and(self.observers.on_finding(finding));
            }
        }
        // The record is delivered even if an observer failed on a finding.
        let observed = self.observers.on_step(&record);
        result.and(observed)
    }

    fn sync(&mut self) -> Result<()> {
        self.observers.sync()
    }

    fn on_end(&mut self) -> Result<()> {
        self.observers.on_end()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::types::{Problem, Rollout, RolloutGroup};

    /// Remembers its calls.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<String>>>);

    impl Observer for Told {
        fn on_step(&mut self, record: &StepRecord) -> Result<()> {
            let found = record
                .metrics
                .iter()
                .filter(|(name, _)| name.starts_with(PREFIX));
            let mut told = self.0.lock().unwrap();
            told.extend(found.map(|(name, value)| format!("{}: {name} {value}", record.step)));
            Ok(())
        }
        fn on_finding(&mut self, finding: &Finding) -> Result<()> {
            let (name, severity) = (&finding.name, finding.severity);
            self.0.lock().unwrap().push(format!("{name} {severity}"));
            Ok(())
        }
    }

    fn cut_off(step: u64, share: f64) -> StepRecord {
        StepRecord::new(step).with("completions/clipped_ratio", share)
    }

    #[test]
    fn a_finding_is_reported_once_and_again_when_more_severe() {
        let told = Told::default();
        let mut watchdog = Watchdog::new(told.clone());
        watchdog.on_start(&RunInfo::default()).unwrap();
        for step in 1..=7 {
            let share = if step < 6 { 0.5 } else { 1.0 };
            watchdog.on_step(&cut_off(step, share)).unwrap();
        }
        watchdog.on_step(&cut_off(8, 1.0)).unwrap();
        watchdog.on_step(&cut_off(9, 1.0)).unwrap();
        let expected = [
            "truncation warning",
            "5: findings/truncation 1",
            "6: findings/truncation 1",
            "7: findings/truncation 1",
            "truncation failing",
            "8: findings/truncation 2",
            "9: findings/truncation 2",
        ];
        assert_eq!(*told.0.lock().unwrap(), expected);
    }

    #[test]
    fn a_resumed_run_does_not_report_findings_again() {
        let told = Told::default();
        let history = (1..=9).map(|step| {
            let record = cut_off(step, 0.5);
            match step >= 5 {
                true => record.with("findings/truncation", 1.0),
                false => record,
            }
        });
        let mut watchdog = Watchdog::new(told.clone()).with_history(history.collect());
        let run = RunInfo {
            first_step: 7,
            last_step: 9,
            ..RunInfo::default()
        };
        watchdog.on_start(&run).unwrap();
        watchdog.on_step(&cut_off(8, 0.5)).unwrap();
        assert_eq!(*told.0.lock().unwrap(), ["8: findings/truncation 1"]);
        assert_eq!(watchdog.diagnosis().step(), 8);
    }

    #[test]
    fn completions_are_diagnosed_in_their_own_step_only() {
        let told = Told::default();
        let mut watchdog = Watchdog::new(told.clone());
        let text = "over and over, ".repeat(8);
        let rollout = Rollout::new(vec![1], vec![0.0], text);
        let group = RolloutGroup::new(Problem::new("a", ""), vec![1], vec![rollout]);
        let groups = vec![group];
        watchdog.on_rollouts(1, &RolloutBuffer { groups }).unwrap();
        watchdog.on_step(&StepRecord::new(1)).unwrap();
        watchdog.on_rollouts(2, &RolloutBuffer::new()).unwrap();
        watchdog.on_step(&StepRecord::new(2)).unwrap();
        let expected = ["repetition failing", "1: findings/repetition 2"];
        assert_eq!(*told.0.lock().unwrap(), expected);
        assert!(watchdog.diagnosis().findings().is_empty());
    }
}
