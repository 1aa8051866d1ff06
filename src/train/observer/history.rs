//! The records of a run, in memory.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Observer, RunInfo, StepRecord};
use crate::Result;

/// Keeps every record in memory, for tests and for analysis after a run.
///
/// Clones share the records, so a clone can be passed to the run:
///
/// ```
/// use rlvr::train::observer::{History, Observer, StepRecord};
///
/// let history = History::new();
/// let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(history.clone())];
/// observers.on_step(&StepRecord::new(1).with("reward", 0.5))?;
/// assert_eq!(
///     history.records().lock().unwrap()[0].get("reward"),
///     Some(0.5)
/// );
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// When a run is resumed with the same history, the records of repeated steps are dropped.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Arc<Mutex<Vec<StepRecord>>>,
}

impl History {
    /// Creates an empty history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the shared records, in the order of steps. Later steps are added to them.
    pub fn records(&self) -> Arc<Mutex<Vec<StepRecord>>> {
        Arc::clone(&self.records)
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<StepRecord>)) {
        // Only this observer writes, so the records are valid even after a reader panicked.
        change(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Observer for History {
    fn on_start(&mut self, run: &RunInfo) -> Result<()> {
        self.edit(|records| records.retain(|record| record.step <= run.first_step));
        Ok(())
    }

    fn on_step(&mut self, record: &StepRecord) -> Result<()> {
        self.edit(|records| records.push(record.clone()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_repeated_steps_are_dropped() {
        let mut history = History::new();
        for step in 1..=5 {
            history.on_step(&StepRecord::new(step)).unwrap();
        }
        let run = RunInfo {
            first_step: 3,
            last_step: 9,
            ..RunInfo::default()
        };
        history.on_start(&run).unwrap();
        history.on_step(&StepRecord::new(4)).unwrap();
        let records = history.records();
        let steps: Vec<u64> = records.lock().unwrap().iter().map(|r| r.step).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
    }
}
