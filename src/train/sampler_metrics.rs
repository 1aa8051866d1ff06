//! Whether generation and training agree, and what a correction makes of it.

use super::experience::{Experience, sampler_log_probs};
use crate::loss::{
    ImportanceWeights, Numerator, PolicyObjective, SamplerRows, WeightAction, WeightLevel,
    sampler_mismatch, sampling_difference,
};

/// TRL's names under `sampling/`, verl's under `rollout_corr/`. Nothing where the policy's own log-probs of the rollouts were not computed.
pub(super) fn sampler_metrics<S>(
    objective: &PolicyObjective<S>,
    experience: &Experience,
) -> Vec<(String, f64)> {
    let correction = objective.sampler_correction.as_ref();
    let bypass = correction.is_some_and(|one| one.numerator == Numerator::Current);
    let Some(policy) = experience.old_log_probs.clone().filter(|_| !bypass) else {
        return Vec::new();
    };
    let rows = SamplerRows {
        mask: policy.iter().map(|row| vec![true; row.len()]).collect(),
        sampler: sampler_log_probs(&experience.rollouts),
        policy,
    };
    // Without weights in the objective the plain ones are measured: their range is what tells whether some are needed.
    let plain = ImportanceWeights::new(WeightLevel::Token, WeightAction::Truncate);
    let weights = correction.and_then(|one| one.weights).unwrap_or(plain);
    let mismatch = match correction {
        Some(correction) => correction.diagnostics(&rows),
        None => sampler_mismatch(&rows),
    };
    let mismatch = mismatch
        .into_iter()
        .map(|(name, value)| (format!("rollout_corr/{name}"), value));
    let sampling = sampling_difference(&rows, Some(&weights));
    let sampling = sampling
        .into_iter()
        .map(|(name, value)| (format!("sampling/{name}"), value));
    mismatch.chain(sampling).collect()
}
