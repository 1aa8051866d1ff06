//! Rollout sources, which supply the rollouts of each step.

use serde_json::Value;

use super::collector::{Collected, Collector, PolicyState};
use crate::policy::PolicyModel;
use crate::{Error, Result};

/// Supplies the rollouts of each step of a run.
///
/// The default samples them from the current policy. Another source may mix in rollouts of earlier
/// steps (a replay buffer), or return rollouts that were generated during the previous update
/// ([`AsyncRollouts`](super::AsyncRollouts)). Rollouts of an older policy need an objective with a
/// [`SamplerCorrection`](crate::loss::SamplerCorrection): old log-probs are computed with the
/// current policy, and the correction weights them by the sampler's log-probs.
///
/// ```
/// use rlvr::policy::PolicyModel;
/// use rlvr::train::{Collected, Collector, PolicyState, RolloutSource};
///
/// /// Trains on each batch twice.
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
    /// Returns the rollouts of the next step.
    ///
    /// # Errors
    /// Returns an error if there are no rollouts.
    fn next(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected>;

    /// Checks that this source works with the trainer's settings and parts, before the first step.
    /// Default: accepts all.
    ///
    /// # Errors
    /// Returns an error if it does not work with a setting or a part.
    fn check(&self, collector: &Collector<M>) -> Result<()> {
        let _ = collector;
        Ok(())
    }

    /// Undoes [`next`](Self::next) after a failed step; `problems` is the state of the problem
    /// source before the step. Default: restores the problem source. A source that buffers rollouts
    /// should put the supplied ones back instead.
    ///
    /// # Errors
    /// Returns an error if the problem source cannot be restored.
    fn undo(&mut self, collector: &mut Collector<M>, problems: &Value) -> Result<()> {
        collector.restore_problems(problems)
    }

    /// Returns the state of this source for a checkpoint. Default: null.
    ///
    /// # Errors
    /// Returns an error if the state cannot be serialized.
    fn state(&self) -> Result<Value> {
        Ok(Value::Null)
    }

    /// Restores a state that [`state`](Self::state) returned. Default: accepts null only.
    ///
    /// # Errors
    /// Returns an error if `state` is not a state of this source.
    fn restore(&mut self, state: &Value) -> Result<()> {
        match state {
            Value::Null => Ok(()),
            other => Err(Error::config("rollout source", other, "no state")),
        }
    }
}

/// The default source: samples from the current policy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnPolicy;

impl<M: PolicyModel> RolloutSource<M> for OnPolicy {
    fn next(
        &mut self,
        collector: &mut Collector<M>,
        state: PolicyState<'_, M>,
    ) -> Result<Collected> {
        collector.collect(state)
    }
}
