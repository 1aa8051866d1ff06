//! Settings that change during a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::TrainerConfig;
use super::piecewise::Piecewise;
use crate::loss::PolicyObjective;
use crate::{Error, Result};

/// Schedules for settings of a [`TrainerConfig`], as functions of the step. A schedule overrides
/// the fixed setting.
///
/// A schedule is a function of the number of steps done before, so a resumed run needs no extra
/// state. A step may make several updates: if a paper counts updates (DeepSeek-R1 makes 16 on each
/// batch of rollouts), divide its numbers by [`TrainerConfig::updates_per_step`]. The values of
/// each step are among its metrics, as `schedule/temperature`, `schedule/reward_weights/<name>` and
/// so on.
///
/// With [`AsyncRollouts`](super::AsyncRollouts) the temperature, the length limit and the reward
/// weights of a rollout are those of the step that submitted it, while the step that trains on it
/// computes log-probs at its own temperature. The sampler correction, which rollouts of older
/// policies need anyway, accounts for the difference.
///
/// ```
/// use rlvr::train::{Piecewise, StepSchedules, TrainerConfig};
///
/// // DeepSeek-R1's last stage: temperature 0.7, and reward models for the last 400 of
/// // 1,700 steps.
/// let config = TrainerConfig {
///     schedules: StepSchedules {
///         temperature: Some(Piecewise::linear([(0, 0.7)])),
///         reward_weights: [(
///             "helpful".to_string(),
///             Piecewise::steps([(0, 0.0), (1300, 1.0)]),
///         )]
///         .into(),
///         ..StepSchedules::default()
///     },
///     ..TrainerConfig::default()
/// };
/// assert_eq!(config.at_step(0).generation.sampling.temperature, 0.7);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepSchedules {
    /// The sampler's temperature, above 0, at which log-probs are computed too. Does not apply to
    /// evaluation.
    pub temperature: Option<Piecewise>,
    /// The length limit in tokens, rounded to the nearest integer; from 1 to
    /// [`GenerationConfig::max_new_tokens`](crate::rollout::GenerationConfig::max_new_tokens),
    /// which still applies to evaluation and to the checks of prompts, memory and cost.
    pub max_new_tokens: Option<Piecewise>,
    /// The coefficient of the KL penalty in the objective or in the reward; at least 0.
    pub kl_coef: Option<Piecewise>,
    /// The parameter `low` of a surrogate with a clip range.
    pub clip_low: Option<Piecewise>,
    /// The parameter `high` of a surrogate with a clip range.
    pub clip_high: Option<Piecewise>,
    /// Weights in the total, by the name of the reward. While its weight is 0, a reward is not run,
    /// unless a gate or another reward reads its score.
    pub reward_weights: BTreeMap<String, Piecewise>,
}

impl StepSchedules {
    /// Returns every schedule with the name of its setting.
    fn all(&self) -> impl Iterator<Item = (String, &Piecewise)> {
        let fixed = [
            ("temperature", &self.temperature),
            ("max_new_tokens", &self.max_new_tokens),
            ("kl_coef", &self.kl_coef),
            ("clip_low", &self.clip_low),
            ("clip_high", &self.clip_high),
        ];
        let fixed = fixed
            .into_iter()
            .filter_map(|(name, schedule)| Some((name.to_string(), schedule.as_ref()?)));
        let weights = self.reward_weights.iter();
        fixed.chain(weights.map(|(name, schedule)| (format!("reward_weights/{name}"), schedule)))
    }

    /// Returns the values in `step` by the names of their metrics.
    pub(super) fn metrics(&self, step: u64) -> impl Iterator<Item = (String, f64)> {
        self.all().map(move |(name, schedule)| {
            let value = match name.as_str() {
                "max_new_tokens" => schedule.at(step).round(),
                _ => schedule.at(step),
            };
            (format!("schedule/{name}"), value)
        })
    }

    /// Returns the scheduled reward weights in `step`.
    pub(super) fn reward_weights(&self, step: u64) -> BTreeMap<String, f64> {
        let weights = self.reward_weights.iter();
        weights
            .map(|(name, schedule)| (name.clone(), schedule.at(step)))
            .collect()
    }

    /// Overwrites the settings of `config` by their values in `step`.
    fn apply(&self, step: u64, config: &mut TrainerConfig) {
        if let Some(temperature) = &self.temperature {
            config.generation.sampling.temperature = temperature.at(step);
        }
        if let Some(cap) = &self.max_new_tokens {
            config.generation.max_new_tokens = cap.at(step).round() as usize;
        }
        if let Some(coef) = &self.kl_coef {
            let in_loss = config.objective.kl.as_mut();
            let in_reward = config.kl_in_reward.as_mut().map(|kl| &mut kl.penalty);
            for kl in in_loss.into_iter().chain(in_reward) {
                kl.coef = coef.at(step);
            }
        }
        let bound = |schedule: &Option<Piecewise>| schedule.as_ref().map(|bound| bound.at(step));
        let (low, high) = (bound(&self.clip_low), bound(&self.clip_high));
        set_clip_range(&mut config.objective, low, high);
    }

    /// Rejects schedules with an invalid value, or whose setting has no effect.
    pub(super) fn validate(&self, config: &TrainerConfig) -> Result<()> {
        if let Some(temperature) = &self.temperature {
            let expected = "a finite number above 0";
            temperature.validate("schedules.temperature", expected, |value| value > 0.0)?;
        }
        if let Some(cap) = &self.max_new_tokens {
            let most = config.generation.max_new_tokens;
            let expected = format!("1 to generation.max_new_tokens = {most}");
            let allowed = |value: f64| (1.0..=most as f64).contains(&value.round());
            cap.validate("schedules.max_new_tokens", &expected, allowed)?;
        }
        if let Some(coef) = &self.kl_coef {
            let expected = "a finite number of at least 0";
            coef.validate("schedules.kl_coef", expected, |value| value >= 0.0)?;
            check_kl(config)?;
        }
        for (field, bound, is_low) in [
            ("schedules.clip_low", &self.clip_low, true),
            ("schedules.clip_high", &self.clip_high, false),
        ] {
            let Some(bound) = bound else { continue };
            bound.validate(field, "a finite number", |_| true)?;
            for value in bound.values() {
                let mut objective = config.objective.clone();
                let low = is_low.then_some(value);
                if !set_clip_range(&mut objective, low, low.xor(Some(value))) {
                    let expected = "none: the surrogate has no `low` and `high`";
                    return Err(Error::config(field, "given", expected));
                }
                objective.validate().map_err(|error| error.within(field))?;
            }
        }
        for (name, weight) in &self.reward_weights {
            let field = format!("schedules.reward_weights.{name}");
            weight.validate(&field, "a finite weight", |_| true)?;
            let filter = config.dynamic_sampling.as_ref();
            let filters = filter.is_some_and(|one| one.reward.as_ref() == Some(name));
            if filters && weight.values().any(|value| value == 0.0) {
                let expected = "weights other than 0: dynamic_sampling filters by this reward, which is not run with weight 0";
                return Err(Error::config(field, 0, expected));
            }
        }
        Ok(())
    }

    /// Rejects weights of rewards that are not in the set.
    pub(super) fn check_rewards(&self, names: &[&str]) -> Result<()> {
        let mut scheduled = self.reward_weights.keys();
        match scheduled.find(|name| !names.contains(&name.as_str())) {
            Some(name) => Err(Error::config(
                "schedules.reward_weights",
                format!("{name:?}"),
                format!("one of {names:?}"),
            )),
            None => Ok(()),
        }
    }
}

/// Sets the given bounds of the surrogate's clip range. Returns whether it has one.
fn set_clip_range(objective: &mut PolicyObjective, low: Option<f64>, high: Option<f64>) -> bool {
    let Some(range) = objective.surrogate.clip_range() else {
        return false;
    };
    *range.0 = low.unwrap_or(*range.0);
    *range.1 = high.unwrap_or(*range.1);
    true
}

/// Rejects a schedule of the KL coefficient unless there is exactly one, which is not adaptive.
fn check_kl(config: &TrainerConfig) -> Result<()> {
    let expected = match (&config.objective.kl, &config.kl_in_reward) {
        (None, None) => "none without a KL penalty",
        (Some(_), Some(_)) => "only one KL penalty, in the objective or in the reward",
        (Some(_), None) if config.adaptive_kl.is_some() => {
            "none with adaptive_kl, which adapts the coefficient"
        }
        (None, Some(kl)) if kl.adaptive.is_some() => {
            "none with kl_in_reward.adaptive, which adapts the coefficient"
        }
        _ => return Ok(()),
    };
    Err(Error::config("schedules.kl_coef", "given", expected))
}

impl TrainerConfig {
    /// Returns the settings in step `step`, counted from 0, with the schedules applied.
    pub fn at_step(&self, step: u64) -> Self {
        let mut config = self.clone();
        self.schedules.apply(step, &mut config);
        config
    }
}
