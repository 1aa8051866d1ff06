//! Coefficients that move by themselves; part of the state that a checkpoint keeps.

use serde::{Deserialize, Serialize};

use super::config::{AdaptiveTarget, TrainerConfig};
use crate::loss::{AdaptiveEntropy, AdaptiveKl, PolicyObjective};

/// Every coefficient that a controller may have moved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Controllers {
    /// The coefficient of the KL in the reward, where there is one.
    pub kl_in_reward: Option<f64>,
    /// The coefficient of the KL in the loss, where it is adaptive.
    pub kl_in_loss: Option<f64>,
    /// The entropy bonus, where it is adaptive.
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

    /// Goes back to what `saved` has moved. What is a setting - a fixed coefficient, a target - stays as configured.
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

    /// The objective with the coefficients as they are now.
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

    /// Moves the KL coefficients after a step of `rollouts` rollouts in which the mean KL was `kl`.
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
