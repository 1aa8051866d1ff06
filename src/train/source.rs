//! Where the rollouts of a step come from.

use serde_json::Value;

use super::collector::{Collected, Collector, PolicyState};
use crate::policy::PolicyModel;
use crate::{Error, Result};

/// Supplies the rollouts of each step of a run.
///
/// The default samples them from the current policy. Another source may mix in rollouts of earlier steps (a replay buffer), or
/// return rollouts that were generated while the learner was working ([`AsyncRollouts`](super::AsyncRollouts)). Rollouts of an older policy want an
/// objective that accounts for it: old log-probs are computed from the current policy, and a
/// [`SamplerCorrection`](crate::loss::SamplerCorrection) weighs them by the sampler's.
///
/// ```
/// use rlvr::policy::PolicyModel;
/// use rlvr::train::{Collected, Collector, PolicyState, RolloutSource};
///
/// /// Learns from each batch twice.
/// #[derive(Default)]
/// struct Twice(Option<Collected>);
///
/// impl<M: PolicyModel> RolloutSource<M> for Twice {
///     fn next(
///         &mut self,
///         collector: &mut Collector<M>,
///         state: PolicyState<'_, M>,
///     ) -> rlvr::Result<Collected> {
///         match self.0.take() {
///             Some(again) => Ok(again),
///             None => Ok(self.0.insert(collector.collect(state)?).clone()),
///         }
///     }
/// }
/// ```
pub trait RolloutSource<M: PolicyModel>: Send {
    /// The rollouts of the next step.
    ///
    /// # Errors
    /// If there are none.
    fn next(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected>;

    /// Checks this source against the trainer that it is given to, before the first step. Default: it goes with all.
    ///
    /// # Errors
    /// If it does not go with the settings or with a part.
    fn check(&self, collector: &Collector<M>) -> Result<()> {
        let _ = collector;
        Ok(())
    }

    /// Undoes [`next`](Self::next) for a step that was not made; `problems` is the state of the problem source before it. Default:
    /// the problem source goes back to it. A source that keeps what it has asked for takes back the rollouts that it supplied.
    ///
    /// # Errors
    /// If the problem source cannot go back.
    fn undo(&mut self, collector: &mut Collector<M>, problems: &Value) -> Result<()> {
        collector.restore_problems(problems)
    }

    /// What a checkpoint has to hold of this source. Default: nothing.
    fn state(&self) -> Result<Value> {
        Ok(Value::Null)
    }

    /// Goes back to a state that [`state`](Self::state) gave.
    ///
    /// # Errors
    /// If `state` is not one of this source. Default: an error unless it is null.
    fn restore(&mut self, state: &Value) -> Result<()> {
        match state {
            Value::Null => Ok(()),
            other => Err(Error::config("rollout source", other, "no state")),
        }
    }
}

/// Rollouts of the current policy: the default source.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnPolicy;

impl<M: PolicyModel> RolloutSource<M> for OnPolicy {
    fn next(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected> {
        collector.collect(state)
    }
}
