//! Metrics of the mismatch between sampler and policy.

use super::experience::Experience;
use crate::Result;
use crate::loss::{
    ImportanceWeights, Numerator, PolicyObjective, RolloutLogProbs, WeightAction, WeightLevel,
};

/// Computes TRL's metrics under `sampling/` and verl's under `rollout_corr/`; none if the policy's
/// log-probs of the rollouts were not computed.
pub(super) fn sampler_metrics(
    objective: &PolicyObjective,
    experience: &Experience,
) -> Result<Vec<(String, f64)>> {
    let correction = objective.sampler_correction.as_ref();
    let bypass = correction.is_some_and(|one| one.numerator == Numerator::Current);
    let Some(policy) = experience.old_log_probs.as_ref().filter(|_| !bypass) else {
        return Ok(Vec::new());
    };
    let log_probs = RolloutLogProbs::new(policy, &experience.sampler_log_probs)?;
    // Without importance weights in the objective, plain ones are measured: their range and
    // effective sample size show whether a correction is needed.
    let mut measured = correction.cloned().unwrap_or_default();
    let plain = ImportanceWeights::new(WeightLevel::Token, WeightAction::Truncate);
    let weights = *measured.weights.get_or_insert(plain);
    let mismatch = measured.diagnostics(log_probs);
    let mismatch = mismatch
        .into_iter()
        .map(|(name, value)| (format!("rollout_corr/{name}"), value));
    let sampling = log_probs.sampling_difference(Some(&weights));
    let sampling = sampling
        .into_iter()
        .map(|(name, value)| (format!("sampling/{name}"), value));
    Ok(mismatch.chain(sampling).collect())
}
