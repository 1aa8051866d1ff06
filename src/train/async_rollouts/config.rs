//! The settings of asynchronous rollouts.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The settings of [`AsyncRollouts`](super::AsyncRollouts).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsyncConfig {
    /// The largest number of weight updates between the policy that sampled a rollout and the
    /// policy that is trained on it. With 0, generation and training alternate. Default 1.
    pub max_staleness: u64,
    /// Consume groups in the order in which their problems were drawn. Each step then waits for its
    /// slowest completion. With an engine that finishes running completions with the old weights
    /// ([`InFlight::Finish`](crate::rollout::InFlight::Finish)), a run does not depend on timing.
    /// Default false: groups are consumed as they arrive, so short completions come first.
    pub ordered: bool,
    /// The number of times a problem is submitted before it is dropped, if its group is too old or
    /// cannot be generated. Default 3.
    pub max_attempts: u32,
    /// The run ends with an error after more than this many consecutive groups were too old or
    /// could not be generated. Default 256.
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
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
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
