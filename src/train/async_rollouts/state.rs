//! The checkpointed state of asynchronous rollouts.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::AsyncRollouts;
use super::flights::{Flight, Ready};
use crate::policy::PolicyModel;
use crate::types::RolloutGroup;
use crate::{Error, Result};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Finished groups.
    ready: Vec<Ready>,
    /// Problems in flight in the order of submission; their groups are empty.
    in_flight: Vec<Ready>,
    loaded: VecDeque<u64>,
    asked: u64,
    dropped_in_a_row: usize,
}

impl<M: PolicyModel> AsyncRollouts<M> {
    pub(super) fn saved(&self) -> Result<Value> {
        let flights = self.flights.all().into_iter().map(|(_, flight)| flight);
        let mut in_flight: Vec<Flight> = flights.chain(self.again.iter().cloned()).collect();
        in_flight.sort_by_key(|flight| flight.order);
        let unanswered = |flight: Flight| Ready {
            order: flight.order,
            attempts: flight.attempts,
            address: flight.question.address,
            samples: flight.question.samples,
            group: RolloutGroup::new(flight.question.problem, flight.question.prompt, Vec::new()),
            observed: false,
        };
        let saved = Saved {
            ready: self.ready.iter().cloned().collect(),
            in_flight: in_flight.into_iter().map(unanswered).collect(),
            loaded: self.loaded.clone(),
            asked: self.asked,
            dropped_in_a_row: self.dropped_in_a_row,
        };
        serde_json::to_value(saved)
            .map_err(|reason| Error::config("rollout source", reason, "a serializable state"))
    }

    pub(super) fn restore_saved(&mut self, state: &Value) -> Result<()> {
        let saved: Saved = serde_json::from_value(state.clone()).map_err(|reason| {
            Error::config(
                "rollout source",
                reason,
                "the state of asynchronous rollouts",
            )
        })?;
        for (ticket, _) in self.flights.all() {
            self.engine.cancel(ticket);
            self.flights.remove(ticket);
        }
        self.ready = saved.ready.into();
        self.again = saved
            .in_flight
            .into_iter()
            .map(Ready::into_flight)
            .collect();
        self.taken.clear();
        self.loaded = saved.loaded;
        self.asked = saved.asked;
        self.dropped_in_a_row = saved.dropped_in_a_row;
        Ok(())
    }
}
