//! Adaptive coefficients, which are part of a checkpoint.

use serde::{Deserialize, Serialize};

use super::config::{AdaptiveTarget, TrainerConfig};
use crate::loss::{AdaptiveEntropy, AdaptiveKl, PolicyObjective};

/// The current values of the coefficients that a controller may change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Controllers {
    /// The coefficient of the KL in the reward, if there is one.
    pub kl_in_reward: Option<f64>,
    /// The coefficient of the KL in the loss, if it is adaptive.
    pub kl_in_loss: Option<f64>,
    /// The entropy bonus, if it is adaptive.
    pub entropy: Option<AdaptiveEntropy>,
}

impl Controllers {
    pub(super) fn new(config: &TrainerConfig) -> Self {
        Self {
            kl_in_reward: config.kl_in_reward.map(|kl| kl.penalty.coef),
            kl_in_loss: config
                .adaptive_kl
                .and(config.objective.kl)
                .map(|kl| kl.coef),
            entropy: config.adaptive_entropy,
        }
    }

    /// Restores the adaptive coefficients from `saved`. Settings, such as fixed coefficients and
    /// targets, stay as configured.
    pub(super) fn restore(&mut self, saved: &Self, config: &TrainerConfig) {
        if let (Some(coef), Some(moved)) = (&mut self.kl_in_reward, saved.kl_in_reward)
            && config.kl_in_reward.is_some_and(|kl| kl.adaptive.is_some())
        {
            *coef = moved;
        }
        if let (Some(coef), Some(moved)) = (&mut self.kl_in_loss, saved.kl_in_loss) {
            *coef = moved;
        }
        if let (Some(entropy), Some(moved)) = (&mut self.entropy, &saved.entropy) {
            entropy.coef = moved.coef.min(entropy.max);
            entropy.last = moved.last;
        }
    }

    /// Returns the objective with the current coefficients.
    pub(super) fn apply(&self, objective: &PolicyObjective) -> PolicyObjective {
        let mut objective = objective.clone();
        if let (Some(kl), Some(coef)) = (&mut objective.kl, self.kl_in_loss) {
            kl.coef = coef;
        }
        if let Some(entropy) = &self.entropy {
            objective.entropy_coef = entropy.bonus();
        }
        objective
    }

    /// Updates the KL coefficients after a step of `rollouts` rollouts with mean KL `kl`.
    pub(super) fn after_step(&mut self, config: &TrainerConfig, kl: f64, rollouts: usize) {
        let in_reward = config.kl_in_reward.and_then(|kl| kl.adaptive);
        for (coef, adaptive) in [
            (&mut self.kl_in_reward, in_reward),
            (&mut self.kl_in_loss, config.adaptive_kl),
        ] {
            if let (Some(coef), Some(AdaptiveTarget { target, horizon })) = (coef, adaptive) {
                let mut controller = AdaptiveKl {
                    coef: *coef,
                    target,
                    horizon,
                };
                controller.update(kl, rollouts);
                *coef = controller.coef;
            }
        }
    }
}
