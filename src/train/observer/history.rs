//! The records of a run, in memory.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Observer, RunInfo, StepRecord};
use crate::Result;

/// Keeps every record, for tests and for whoever looks at a run when it is over.
///
/// A clone shares the records, so one can be given away and the other asked:
///
/// ```
/// use rlvr::train::observer::{History, Observer, StepRecord};
///
/// let history = History::new();
/// let mut observers: Vec<Box<dyn Observer>> = vec![Box::new(history.clone())];
/// observers.on_step(&StepRecord::new(1).with("reward", 0.5))?;
/// assert_eq!(history.records().lock().unwrap()[0].get("reward"), Some(0.5));
/// # Ok::<(), rlvr::Error>(())
/// ```
///
/// When a run is resumed with the same history, records of steps that it will do again are dropped.
#[derive(Clone, Debug, Default)]
pub struct History {
    records: Arc<Mutex<Vec<StepRecord>>>,
}

impl History {
    /// No records yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The records so far, in the order of steps. The handle stays connected: later steps appear in it.
    pub fn records(&self) -> Arc<Mutex<Vec<StepRecord>>> {
        Arc::clone(&self.records)
    }

    fn edit(&self, change: impl FnOnce(&mut Vec<StepRecord>)) {
        // A reader that panicked has left whole records behind: only this observer writes.
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
    fn a_resumed_run_forgets_the_steps_it_does_again() {
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
