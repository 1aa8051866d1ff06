//! The metrics of a step, with TRL's names where TRL has the same metric.

use std::collections::BTreeMap;
use std::time::Instant;

use super::domain_metrics::domain_metrics;
use super::episode_metrics::episode_metrics;
use super::experience::Experience;
use super::reward_metrics::reward_metrics;
use super::update::Updates;
use crate::loss::KlEstimator;
use crate::rollout::Rollout;

/// The durations of the phases of a step, in seconds.
pub(super) struct StepTimes {
    started: Instant,
    last: Instant,
    pub prepare: f64,
    pub update: f64,
}

impl StepTimes {
    pub(super) fn start() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last: now,
            prepare: 0.0,
            update: 0.0,
        }
    }

    /// Returns the seconds since the last lap.
    pub(super) fn lap(&mut self) -> f64 {
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        seconds
    }
}

/// Computes the metrics of a step.
pub(super) fn step_metrics(
    experience: &Experience,
    updates: &Updates,
    times: &StepTimes,
    collected: &BTreeMap<String, f64>,
) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            metrics.insert(name.to_string(), value);
        }
    };
    let rollouts: Vec<&Rollout> = experience.rollouts.rollouts().collect();
    let tokens = experience.rollouts.tokens() as f64;

    let rewards: Vec<f64> = rollouts.iter().filter_map(|r| r.reward).collect();
    put("reward", mean(&rewards));
    let statistics = &experience.advantages.statistics;
    put("reward_std", Some(statistics.mean_std));
    put("frac_reward_zero_std", statistics.frac_zero_std());
    put("rewards/unscored", Some(statistics.unscored as f64));
    for (name, value) in reward_metrics(&rollouts)
        .into_iter()
        .chain(episode_metrics(&rollouts))
        .chain(domain_metrics(&experience.rollouts))
    {
        put(&name, Some(value));
    }
    // Tokens with a zero advantage give no gradient and are left out.
    let advantages = experience.advantages.per_token.values();
    let advantages: Vec<f64> = advantages.filter(|&advantage| advantage != 0.0).collect();
    put(
        "advantages/min",
        advantages.iter().copied().reduce(f64::min),
    );
    put(
        "advantages/max",
        advantages.iter().copied().reduce(f64::max),
    );
    let squares: Vec<f64> = advantages
        .iter()
        .map(|advantage| advantage.powi(2))
        .collect();
    put("advantages/rms", mean(&squares).map(f64::sqrt));
    let records = rollouts.iter().flat_map(|r| &r.rewards);
    let failures = records.filter(|record| record.outcome.is_failure()).count();
    put("rewards/failures", Some(failures as f64));

    let lengths: Vec<f64> = rollouts.iter().map(|r| r.trained_tokens() as f64).collect();
    put("completions/mean_length", mean(&lengths));
    put(
        "completions/min_length",
        lengths.iter().copied().reduce(f64::min),
    );
    put(
        "completions/max_length",
        lengths.iter().copied().reduce(f64::max),
    );
    let ended = rollouts.iter().filter(|r| !r.is_truncated());
    let ended: Vec<f64> = ended.map(|r| r.trained_tokens() as f64).collect();
    put("completions/mean_terminated_length", mean(&ended));
    put(
        "completions/clipped_ratio",
        Some(1.0 - ended.len() as f64 / rollouts.len().max(1) as f64),
    );
    let entropies: Option<Vec<f64>> = rollouts.iter().map(|r| r.entropy).collect();
    let entropy = entropies.map(|entropies| entropies.into_iter().sum::<f64>());
    put("entropy", entropy.map(|entropy| entropy / tokens.max(1.0)));

    put("kl", kl_to_reference(experience));
    let update_count = updates.policy.len().max(1) as f64;
    let loss = &updates.metrics;
    for (name, sum) in [
        ("loss", "loss"),
        ("policy_loss", "policy_loss"),
        ("kl_loss", "kl_loss"),
    ] {
        put(name, loss.sum(sum).map(|sum| sum / update_count));
    }
    // Means over trained tokens; a step without a signal has none.
    let (low, high) = (loss.mean("clip_low"), loss.mean("clip_high"));
    put("clip_ratio/low_mean", Some(low.unwrap_or(0.0)));
    put("clip_ratio/high_mean", Some(high.unwrap_or(0.0)));
    put(
        "clip_ratio/region_mean",
        Some(loss.mean("clip").unwrap_or(0.0)),
    );
    put("clip_ratio/low_min", loss.sum("clip_low/min"));
    put("clip_ratio/high_max", loss.sum("clip_high/max"));
    put("clip_ratio/bounded_mean", loss.mean("bounded"));
    put("vespo/phi_mean", loss.mean("phi"));
    put("frac_selected_tokens", loss.mean("selected"));
    put("frac_off_policy_kept", loss.mean("kept"));
    put("policy/approx_kl", loss.mean("approx_kl"));
    put("policy/ratio_mean", loss.mean("ratio"));
    let norms: Vec<f64> = updates
        .policy
        .iter()
        .map(|update| update.grad_norm)
        .collect();
    put("grad_norm", mean(&norms));
    put(
        "learning_rate",
        updates.policy.last().map(|update| update.learning_rate),
    );

    let value = &updates.value_metrics;
    let critic_updates = updates.critic.len().max(1) as f64;
    put(
        "value/loss",
        value.sum("value_loss").map(|sum| sum / critic_updates),
    );
    put("value/clip_ratio", value.mean("value_clip"));
    let norms: Vec<f64> = updates
        .critic
        .iter()
        .map(|update| update.grad_norm)
        .collect();
    put("value/grad_norm", mean(&norms));

    let spent = |name| collected.get(name).copied().unwrap_or(0.0);
    let collecting = spent("time/generate") + spent("time/reward");
    let seconds = collecting + times.started.elapsed().as_secs_f64();
    // Dropped completions were generated too.
    let tokens = tokens + spent("dynamic_sampling/dropped_tokens");
    put("time/prepare", Some(times.prepare));
    put("time/update", Some(times.update));
    put("time/step", Some(seconds));
    put("tokens_per_second", Some(tokens / seconds.max(1e-9)));
    metrics
}

/// Returns the mean over tokens of the k3 estimate of the KL between the sampling policy and the
/// reference.
fn kl_to_reference(experience: &Experience) -> Option<f64> {
    let reference = experience.ref_log_probs.as_ref()?;
    let mut sum = 0.0;
    let sampler = experience.sampler_log_probs.values();
    for (sampler, reference) in sampler.zip(reference.values()) {
        sum += KlEstimator::K3.value(sampler, reference);
    }
    Some(sum / experience.rollouts.tokens().max(1) as f64)
}

/// Returns the mean; `None` for no numbers.
pub(super) fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}
