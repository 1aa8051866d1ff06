//! Scorers: references and teachers that score the tokens of rollouts.

use crate::Result;
use crate::policy::{LogProbConfig, PolicyModel};
use crate::types::{PerToken, RolloutBuffer};

use super::experience::log_probs;
use super::learners::LearnerGroup;

/// How a [`Scorer`] should compute log-probs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoringConfig {
    /// The temperature and the vocabulary chunk; the temperature is that of the sampler.
    pub log_probs: LogProbConfig,
    /// The largest number of rollouts in one forward pass.
    pub micro_batch: usize,
    /// The largest number of tokens, padding included, in one forward pass.
    pub max_tokens: Option<usize>,
}

/// Computes the log-prob of every trained token of a batch: a reference policy, or a teacher for
/// distillation.
///
/// Passed to [`TrainerBuilder::reference`](super::TrainerBuilder::reference), it replaces the
/// trainer's reference policy, in the KL terms and in the advantage estimators that use one
/// ([`AdvantageEstimator::needs_ref_log_probs`](crate::advantage::AdvantageEstimator::needs_ref_log_probs)).
/// Passed to [`TrainerBuilder::teacher`](super::TrainerBuilder::teacher), it is used by these
/// estimators only. It may be another model with the same vocabulary ([`ModelScorer`]), a server,
/// or a file.
///
/// ```
/// use rlvr::train::{Scorer, ScoringConfig};
/// use rlvr::types::{PerToken, RolloutBuffer};
///
/// /// The uniform distribution over a vocabulary.
/// struct Uniform {
///     vocabulary: usize,
/// }
///
/// impl Scorer for Uniform {
///     fn log_probs(
///         &self,
///         rollouts: &RolloutBuffer,
///         _: &ScoringConfig,
///     ) -> rlvr::Result<PerToken> {
///         let log_prob = -(self.vocabulary as f64).ln();
///         Ok(PerToken::filled(&rollouts.lengths(), log_prob))
///     }
///
///     fn name(&self) -> String {
///         format!("uniform({})", self.vocabulary)
///     }
/// }
/// ```
pub trait Scorer: Send {
    /// Returns `ln pi(y_t)` in nats for each trained token of each rollout, detached.
    ///
    /// # Errors
    /// Returns an error if the rollouts cannot be scored.
    fn log_probs(&self, rollouts: &RolloutBuffer, config: &ScoringConfig) -> Result<PerToken>;

    /// Returns the name in checkpoints. A checkpoint can only be loaded with a scorer of the same
    /// name.
    fn name(&self) -> String;
}

/// A frozen model as a [`Scorer`].
#[derive(Clone, Debug)]
pub struct ModelScorer<M> {
    name: String,
    model: M,
}

impl<M: PolicyModel> ModelScorer<M> {
    /// Creates a scorer from a frozen copy of `model`, which must have the policy's vocabulary.
    /// `name` identifies it in checkpoints.
    pub fn new(name: impl Into<String>, model: &M) -> Self {
        Self {
            name: name.into(),
            model: model.valid(),
        }
    }
}

impl<M: PolicyModel> Scorer for ModelScorer<M> {
    fn log_probs(&self, rollouts: &RolloutBuffer, config: &ScoringConfig) -> Result<PerToken> {
        // The trainer passes each learner its share of the rollouts.
        log_probs(&LearnerGroup::one(), &self.model, rollouts, config)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
