//! Who scores the tokens of rollouts besides the policy.

use crate::Result;
use crate::policy::{LogProbConfig, PolicyModel};
use crate::types::{PerToken, RolloutBuffer};

use super::experience::log_probs;
use super::learners::LearnerGroup;

/// How a [`Scorer`] is to compute log-probs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoringConfig {
    /// The temperature and the vocabulary chunk; the temperature is that of the sampler.
    pub log_probs: LogProbConfig,
    /// The most rollouts that are forwarded together.
    pub micro_batch: usize,
    /// The most tokens, padding included, that are forwarded together.
    pub max_tokens: Option<usize>,
}

/// Gives every trained token of a batch a log-prob: a reference policy, or a teacher for distillation.
///
/// Given to [`TrainerBuilder::reference`](super::TrainerBuilder::reference) it takes the place of the trainer's own reference
/// policy: the KL terms pull towards it, and advantage estimators that ask for it
/// ([`AdvantageEstimator::needs_ref_log_probs`](crate::advantage::AdvantageEstimator::needs_ref_log_probs)) compare with it. Given to
/// [`TrainerBuilder::teacher`](super::TrainerBuilder::teacher) it is what these estimators compare with, and the reference stays what it is. It
/// may be another model with the same vocabulary ([`ModelScorer`]), a server, or a file.
pub trait Scorer: Send {
    /// `ln pi(y_t)` in nats for each trained token of each rollout, without a gradient.
    ///
    /// # Errors
    /// If the rollouts cannot be scored.
    fn log_probs(&self, rollouts: &RolloutBuffer, config: &ScoringConfig) -> Result<PerToken>;

    /// What a checkpoint says about this scorer; a trainer with a scorer of another name does not load it.
    fn name(&self) -> String;
}

/// A frozen model as a [`Scorer`].
#[derive(Clone, Debug)]
pub struct ModelScorer<M> {
    name: String,
    model: M,
}

impl<M: PolicyModel> ModelScorer<M> {
    /// Scores with `model`, called `name` in checkpoints. It must have the policy's vocabulary.
    pub fn new(name: impl Into<String>, model: &M) -> Self {
        Self {
            name: name.into(),
            model: model.valid(),
        }
    }
}

impl<M: PolicyModel> Scorer for ModelScorer<M> {
    fn log_probs(&self, rollouts: &RolloutBuffer, config: &ScoringConfig) -> Result<PerToken> {
        // The trainer gives each learner its own rollouts.
        log_probs(&LearnerGroup::one(), &self.model, rollouts, config)
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}
