//! How far rollouts may run ahead.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The settings of [`AsyncRollouts`](super::AsyncRollouts).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsyncConfig {
    /// The most weight updates between the policy that sampled a rollout and the policy that learns from it. 0 generates and
    /// learns in turn. Default 1.
    pub max_staleness: u64,
    /// Consume groups in the order in which their problems were drawn. Each step then waits for its slowest completion. With an
    /// engine that finishes what is in flight with the old weights ([`InFlight::Finish`](crate::rollout::InFlight::Finish)),
    /// a run does not depend on timing. Default false: groups are consumed as they arrive, so short completions come first.
    pub ordered: bool,
    /// How often a problem is asked before it is given up, because its group was too old or could not be generated. Default 3.
    pub max_attempts: u32,
    /// The run ends with an error after so many groups in a row that were too old or could not be generated. Default 256.
    pub max_dropped: usize,
}

impl Default for AsyncConfig {
    fn default() -> Self {
        Self {
            max_staleness: 1,
            ordered: false,
            max_attempts: 3,
            max_dropped: 256,
        }
    }
}

impl AsyncConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, its value and what would be right.
    pub fn validate(&self) -> Result<()> {
        if self.max_staleness > 1000 {
            let expected = "at most 1000 weight updates";
            return Err(Error::config(
                "async.max_staleness",
                self.max_staleness,
                expected,
            ));
        }
        if self.max_attempts == 0 {
            return Err(Error::config("async.max_attempts", 0, "at least 1"));
        }
        Ok(())
    }
}
