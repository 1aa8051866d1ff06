//! Recipes: complete methods by name, with the objective, advantages and KL in the reward of their
//! paper or framework.

use super::config::{KlInReward, TrainerConfig};
use super::dynamic_sampling::DynamicSampling;
use crate::advantage::{
    Estimator, Gae, Gdpo, Gpg, Group, GroupMean, LeaveOneOut, MaxRl, Opo, OptimalTokenBaseline,
    PassAtK, ReinforcePlusPlus, ReinforcePlusPlusBaseline, Remax,
};
use crate::loss::{KlEstimator, KlPenalty, PolicyObjective, presets};
use crate::{Error, Result};

/// Methods defined by their advantage estimator, with the objective of another method.
const BY_ADVANTAGE: [&str; 7] = [
    "gdpo",
    "max_rl",
    "opo",
    "optimal_token_baseline",
    "pass_at_k",
    "reinforce_plus_plus_baseline",
    "remax",
];

impl TrainerConfig {
    /// Sets the objective, the advantages and the KL in the reward to those of the method `name`.
    ///
    /// | names | objective | advantages | also |
    /// |---|---|---|---|
    /// | every [preset](crate::loss::presets) | of that name | see its table | `dapo`: dynamic sampling; `rloo`: k1 in the reward, 0.05; `reinforce_plus_plus`: the same, 0.01 |
    /// | `reinforce_plus_plus_baseline` | `ppo` | REINFORCE++ over the group mean | - |
    /// | `remax` | `reinforce` | relative to the greedy completion | - |
    /// | `opo` | `reinforce` | relative to the length-weighted group mean | - |
    /// | `gdpo`, `pass_at_k`, `optimal_token_baseline`, `max_rl` | `trl` | of that name | - |
    ///
    /// `dr_grpo` reads its length limit from [`generation`](Self::generation), so set that first.
    /// `ppo` and `verl` need [`TrainerBuilder::critic`](super::TrainerBuilder::critic).
    ///
    /// ```
    /// use rlvr::train::TrainerConfig;
    ///
    /// let config = TrainerConfig::default().with_recipe("rloo")?;
    /// assert_eq!(config.kl_in_reward.unwrap().penalty.coef, 0.05);
    /// assert!(
    ///     TrainerConfig::default()
    ///         .with_recipe("pppo")
    ///         .unwrap_err()
    ///         .to_string()
    ///         .contains("dapo")
    /// );
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error that lists all names if there is no such method.
    pub fn with_recipe(self, name: &str) -> Result<Self> {
        let named = |preset| PolicyObjective::named(preset, self.generation.max_new_tokens);
        let objective = match name {
            "reinforce_plus_plus_baseline" => named("ppo")?,
            "remax" | "opo" => named("reinforce")?,
            name if BY_ADVANTAGE.contains(&name) => named("trl")?,
            name if presets::NAMES.contains(&name) => named(name)?,
            _ => {
                let names: Vec<_> = presets::NAMES.into_iter().chain(BY_ADVANTAGE).collect();
                let expected = format!("one of {}", names.join(", "));
                return Err(Error::config("recipe", format!("{name:?}"), expected));
            }
        };
        let advantage: Estimator = match name {
            "ppo" | "verl" => Gae::default().into(),
            "dr_grpo" | "deepseek_v32" => GroupMean::default().into(),
            "rloo" => LeaveOneOut::default().into(),
            "reinforce_plus_plus" => ReinforcePlusPlus::default().into(),
            "reinforce_plus_plus_baseline" => ReinforcePlusPlusBaseline::default().into(),
            "gpg" => Gpg::default().into(),
            "remax" => Remax::default().into(),
            "opo" => Opo::default().into(),
            "gdpo" => Gdpo::default().into(),
            "pass_at_k" => PassAtK::default().into(),
            "optimal_token_baseline" => OptimalTokenBaseline::default().into(),
            "max_rl" => MaxRl::default().into(),
            _ => Group::default().into(),
        };
        let k1 = |coef| KlInReward {
            penalty: KlPenalty::new(coef, KlEstimator::K1),
            adaptive: None,
        };
        Ok(Self {
            kl_in_reward: match name {
                "rloo" => Some(k1(0.05)),
                "reinforce_plus_plus" => Some(k1(0.01)),
                _ => None,
            },
            dynamic_sampling: (name == "dapo").then(DynamicSampling::default),
            objective,
            advantage,
            ..self
        })
    }

    /// Returns every name that [`with_recipe`](Self::with_recipe) accepts.
    pub fn recipes() -> impl Iterator<Item = &'static str> {
        presets::NAMES.into_iter().chain(BY_ADVANTAGE)
    }
}
