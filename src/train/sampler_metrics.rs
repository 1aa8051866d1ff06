//! Whether generation and training agree, and what a correction makes of it.

use super::experience::Experience;
use crate::loss::{
    ImportanceWeights, Numerator, PolicyObjective, SamplerRows, WeightAction, WeightLevel,
    sampling_difference,
};
use crate::rollout::RolloutBuffer;

/// TRL's names under `sampling/`, verl's under `rollout_corr/`. Nothing where the policy's own log-probs of the rollouts were not computed.
pub(super) fn sampler_metrics<S>(
    objective: &PolicyObjective<S>,
    experience: &Experience,
) -> Vec<(String, f64)> {
    let correction = objective.sampler_correction.as_ref();
    let bypass = correction.is_some_and(|one| one.numerator == Numerator::Current);
    let Some(policy) = experience.old_log_probs.as_ref().filter(|_| !bypass) else {
        return Vec::new();
    };
    let rows = sampler_rows(&experience.rollouts, policy.as_rows());
    // Without weights in the objective the plain ones are measured: their range and their effective sample size tell whether some
    // are needed.
    let mut measured = correction.cloned().unwrap_or_default();
    let plain = ImportanceWeights::new(WeightLevel::Token, WeightAction::Truncate);
    let weights = *measured.weights.get_or_insert(plain);
    let mismatch = measured.diagnostics(&rows);
    let mismatch = mismatch
        .into_iter()
        .map(|(name, value)| (format!("rollout_corr/{name}"), value));
    let sampling = sampling_difference(&rows, Some(&weights));
    let sampling = sampling
        .into_iter()
        .map(|(name, value)| (format!("sampling/{name}"), value));
    mismatch.chain(sampling).collect()
}

/// What a correction compares: every token of `rollouts`, under `policy` and as it was sampled.
pub(super) fn sampler_rows(rollouts: &RolloutBuffer, policy: &[Vec<f64>]) -> SamplerRows {
    SamplerRows {
        mask: policy.iter().map(|row| vec![true; row.len()]).collect(),
        sampler: rollouts.log_probs().into(),
        policy: policy.to_vec(),
    }
}
