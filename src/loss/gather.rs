//! What a step's micro-batches have to know of each other.

use burn::tensor::Tensor;

use super::correction::WeightSum;
use super::input::missing;
use super::surrogate::{StepToken, SurrogateLoss};
use super::{
    Denominators, LossInput, Numerator, PolicyObjective, SamplerCorrection, SamplerRows,
    StepCounts, StepStatistics,
};
use crate::Result;
use crate::host;

impl<S: SurrogateLoss> PolicyObjective<S> {
    /// Gathers what the losses of a step's micro-batches need to know of the whole step, from all of them. No gradient is
    /// needed: log-probs and entropies may come from a forward pass off the tape.
    ///
    /// Tokens and completions are counted after rejection; a completion without a token is not counted, as in verl. To count it, as TRL
    /// does, or to count prompts of several completions, set the [`Denominators`] yourself.
    ///
    /// ```
    /// use burn::tensor::Tensor;
    /// use rlvr::loss::{LossInput, PolicyObjective, TopEntropy};
    ///
    /// # #[cfg(feature = "flex")] {
    /// let device = burn::tensor::Device::flex();
    /// let row = |values: [f32; 4]| Tensor::<2>::from_data([values], &device);
    /// let objective = PolicyObjective {
    ///     top_entropy: Some(TopEntropy { share: 0.5 }),
    ///     ..PolicyObjective::dapo()
    /// };
    /// let part = |entropies| LossInput {
    ///     entropies: Some(row(entropies)),
    ///     ..LossInput::new(row([-1.0; 4]), row([1.0; 4]), row([1.0; 4]))
    /// };
    /// let parts = [part([0.1, 0.9, 0.2, 0.3]), part([0.8, 0.7, 0.6, 0.4])];
    /// let step = objective.statistics(&parts)?;
    /// assert_eq!((step.policy.tokens, step.entropy.tokens), (8.0, 4.0));
    /// let loss: f32 = parts
    ///     .iter()
    ///     .map(|part| Ok(objective.loss(part, &step)?.loss.into_scalar::<f32>()))
    ///     .sum::<rlvr::Result<f32>>()?;
    /// assert!((loss + 4.0 / 8.0).abs() < 1e-6); // four selected tokens, ratio 1, over eight
    /// # }
    /// # Ok::<(), rlvr::Error>(())
    /// ```
    ///
    /// # Errors
    /// If the objective is refused, shapes differ, or an input that is compared is missing.
    pub fn statistics(&self, micro_batches: &[LossInput]) -> Result<StepStatistics> {
        self.validate()?;
        let mut counts = StepCounts {
            tokens: 0,
            sequences: 0,
        };
        let correction = self.sampler_correction.as_ref().filter(|one| one.gathers());
        let normalized = correction.and_then(SamplerCorrection::normalized_weights);
        let mut weights = WeightSum::default();
        let mut entropies = Vec::new();
        let mut tokens = Vec::new();
        for input in micro_batches {
            input.check_shapes()?;
            let width = input.mask.dims()[1];
            let mut mask = mask_rows(&input.mask)?;
            if let Some(correction) = correction {
                let rows = sampler_rows(correction, input)?;
                if let Some(config) = normalized {
                    weights.add(WeightSum::of(&config, &rows));
                }
                correction.reject(&rows, &mut mask);
            }
            let lengths = mask.iter().map(|row| row.iter().filter(|&&m| m).count());
            for length in lengths.filter(|&length| length > 0) {
                counts.tokens += length;
                counts.sequences += 1;
            }
            let places: Vec<usize> = mask
                .iter()
                .flatten()
                .enumerate()
                .filter_map(|(i, &is_token)| is_token.then_some(i))
                .collect();
            if self.top_entropy.is_some() {
                let Some(values) = &input.entropies else {
                    return Err(missing("entropies", "a selection by entropy"));
                };
                let values = host::floats(values.clone().inner(), "entropies")?;
                entropies.extend(places.iter().map(|&i| f64::from(values[i])));
            }
            if self.surrogate.gathers() {
                let log_probs = host::floats(input.log_probs.clone().inner(), "log-probs")?;
                let old = input.old_log_probs.as_ref().unwrap_or(&input.log_probs);
                let old = host::floats(old.clone().inner(), "old log-probs")?;
                let advantages = host::floats(input.advantages.clone().inner(), "advantages")?;
                tokens.extend(places.iter().map(|&i| StepToken {
                    log_prob: f64::from(log_probs[i]),
                    old_log_prob: f64::from(old[i]),
                    advantage: f64::from(advantages[i]),
                    position: i % width,
                }));
            }
        }
        let mut statistics = StepStatistics::from(counts);
        if let Some(selection) = &self.top_entropy {
            let threshold = selection.threshold(&mut entropies);
            let selected = entropies.iter().filter(|&&h| h >= threshold).count();
            statistics.entropy_threshold = Some(threshold);
            statistics.entropy = Denominators {
                tokens: selected as f64,
                ..statistics.entropy
            };
        }
        statistics.weight_mean = normalized.map(|_| weights.mean());
        statistics.surrogate = self
            .surrogate
            .gathers()
            .then(|| self.surrogate.gather(&tokens));
        Ok(statistics)
    }
}

/// The rows of a `[B, T]` tensor on the host.
pub(super) fn padded_to_rows(tensor: &Tensor<2>, what: &str) -> Result<Vec<Vec<f64>>> {
    let width = tensor.dims()[1].max(1);
    let flat = host::floats(tensor.clone().inner(), what)?;
    let rows = flat.chunks(width);
    Ok(rows
        .map(|row| row.iter().map(|&x| f64::from(x)).collect())
        .collect())
}

fn mask_rows(mask: &Tensor<2>) -> Result<Vec<Vec<bool>>> {
    let rows = padded_to_rows(mask, "mask")?;
    Ok(rows
        .into_iter()
        .map(|row| row.into_iter().map(|m| m != 0.0).collect())
        .collect())
}

/// What `correction` compares in a batch.
pub(super) fn sampler_rows(
    correction: &SamplerCorrection,
    input: &LossInput,
) -> Result<SamplerRows> {
    let Some(sampler) = &input.sampler_log_probs else {
        return Err(missing("sampler_log_probs", "a sampler correction"));
    };
    let policy = match (correction.numerator, &input.old_log_probs) {
        (Numerator::Old, Some(old)) => old,
        _ => &input.log_probs,
    };
    Ok(SamplerRows {
        policy: padded_to_rows(policy, "log-probs")?,
        sampler: padded_to_rows(sampler, "sampler log-probs")?,
        mask: mask_rows(&input.mask)?,
    })
}
