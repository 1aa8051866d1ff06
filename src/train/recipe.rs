//! Whole methods by name: an objective with the advantages, and the KL in the reward, that its paper or framework gives it.

use super::config::{KlInReward, TrainerConfig};
use super::dynamic_sampling::DynamicSampling;
use crate::advantage::{
    Estimator, Gae, Gdpo, Gpg, Group, GroupMean, LeaveOneOut, MaxRl, Opo, OptimalTokenBaseline,
    PassAtK, ReinforcePlusPlus, ReinforcePlusPlusBaseline, Remax,
};
use crate::loss::{KlEstimator, KlPenalty, PolicyObjective, presets};
use crate::{Error, Result};

/// Methods that are a way to compare completions, with an objective that others have too.
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
    /// The same settings with the objective, the advantages and the KL in the reward of the method called `name`.
    ///
    /// | names | objective | advantages | beside them |
    /// |---|---|---|---|
    /// | every [preset](crate::loss::presets) | of that name | as its table says | `dapo`: dynamic sampling; `rloo`: k1 in the reward, 0.05; `reinforce_plus_plus`: the same, 0.01 |
    /// | `reinforce_plus_plus_baseline` | `ppo` | REINFORCE++ over the group mean | - |
    /// | `remax` | `reinforce` | against the greedy completion | - |
    /// | `opo` | `reinforce` | against the length-weighted group mean | - |
    /// | `gdpo`, `pass_at_k`, `optimal_token_baseline`, `max_rl` | `trl` | of that name | - |
    ///
    /// The completion limit of `dr_grpo` is that of [`generation`](Self::generation), so set that first. `ppo` and `verl` need
    /// [`TrainerBuilder::critic`](super::TrainerBuilder::critic).
    ///
    /// ```
    /// use rlvr::train::TrainerConfig;
    ///
    /// let config = TrainerConfig::default().with_recipe("rloo")?;
    /// assert_eq!(config.kl_in_reward.unwrap().penalty.coef, 0.05);
    /// assert!(TrainerConfig::default().with_recipe("pppo").unwrap_err().to_string().contains("dapo"));
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such method; the message lists them.
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

    /// Every name that [`with_recipe`](Self::with_recipe) knows.
    pub fn recipes() -> impl Iterator<Item = &'static str> {
        presets::NAMES.into_iter().chain(BY_ADVANTAGE)
    }
}
