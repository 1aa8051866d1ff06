//! Groups in flight, and finished groups.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::reward::RewardSet;
use crate::rollout::{GenerationConfig, RolloutRequest};
use crate::types::{Rollout, RolloutGroup};

/// A problem that was submitted to the engine.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// Its position among all submitted problems.
    pub order: u64,
    pub question: RolloutRequest,
    /// The version of the weights it was submitted to.
    pub version: u64,
    /// The number of earlier attempts.
    pub attempts: u32,
}

/// The settings with which a problem is generated and scored: those of the step that submitted it.
#[derive(Debug)]
pub(super) struct Asked {
    pub generation: GenerationConfig,
    pub rewards: RewardSet,
}

/// A finished group that has not been trained on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ready {
    pub order: u64,
    pub attempts: u32,
    pub address: Vec<u64>,
    pub samples: usize,
    pub group: RolloutGroup,
    /// Whether the problem source has observed it.
    pub observed: bool,
}

impl Ready {
    /// The oldest policy version that sampled one of its tokens.
    pub fn oldest_version(&self) -> u64 {
        let versions = self.group.rollouts.iter().map(Rollout::oldest_version);
        versions.min().unwrap_or(0)
    }

    /// The same problem, to be submitted again.
    pub fn into_flight(self) -> Flight {
        Flight {
            order: self.order,
            question: RolloutRequest {
                problem: self.group.problem,
                prompt: self.group.prompt_tokens,
                samples: self.samples,
                address: self.address,
            },
            version: 0,
            attempts: self.attempts,
        }
    }
}

/// A problem in flight and its settings.
type AskedFlight = (Flight, Arc<Asked>);

/// The problems in flight by the engine's ticket; shared with the scoring thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<BTreeMap<u64, AskedFlight>>>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, AskedFlight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `flight` under the ticket that `submit` returns. The lock is held meanwhile, so an
    /// answer that arrives before this function returns finds its entry.
    ///
    /// # Errors
    /// Returns the error of `submit`.
    pub fn add(
        &self,
        flight: &Flight,
        asked: &Arc<Asked>,
        submit: impl FnOnce() -> Result<u64>,
    ) -> Result<()> {
        let mut flights = self.lock();
        flights.insert(submit()?, (flight.clone(), asked.clone()));
        Ok(())
    }

    pub fn get(&self, ticket: u64) -> Option<AskedFlight> {
        self.lock().get(&ticket).cloned()
    }

    pub fn remove(&self, ticket: u64) -> Option<Flight> {
        self.lock().remove(&ticket).map(|(flight, _)| flight)
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Marks all of them as submitted to `version`.
    pub fn begin_again(&self, version: u64) {
        for (flight, _) in self.lock().values_mut() {
            flight.version = version;
        }
    }

    /// The position of the one that was submitted first.
    pub fn first_order(&self) -> Option<u64> {
        self.lock().values().map(|(flight, _)| flight.order).min()
    }

    /// The tickets of the problems that `wanted` selects, in the order of submission.
    pub fn tickets(&self, wanted: impl Fn(&Flight) -> bool) -> Vec<u64> {
        let flights = self.lock();
        let found = flights.iter().filter(|(_, (flight, _))| wanted(flight));
        found.map(|(&ticket, _)| ticket).collect()
    }

    /// All of them, in the order of their positions.
    pub fn all(&self) -> Vec<(u64, Flight)> {
        let flights = self.lock();
        let mut all: Vec<_> = flights
            .iter()
            .map(|(&t, (flight, _))| (t, flight.clone()))
            .collect();
        all.sort_by_key(|(_, flight)| flight.order);
        all
    }
}
