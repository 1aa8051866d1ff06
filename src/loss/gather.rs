//! Statistics of a whole optimizer step that the losses of its micro-batches need.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

use super::aggregation::PROMPT_MEAN;
use super::correction::WeightSum;
use super::input::missing;
use super::surrogate::{StepToken, SurrogateLoss};
use super::{
    Denominators, LossInput, Numerator, PolicyObjective, RolloutLogProbs, SamplerCorrection,
    StepCounts, StepStatistics,
};
use crate::Result;
use crate::host;
use crate::types::PerToken;

impl PolicyObjective {
    /// Computes the statistics of a whole optimizer step that [`loss`](Self::loss) needs, from all
    /// of its micro-batches. No gradient is needed: log-probs and entropies may be detached.
    ///
    /// Tokens, completions and prompts are counted after rejection; a completion or prompt without
    /// tokens is not counted, as in verl. To count it, as TRL does, set the [`Denominators`]
    /// explicitly.
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
    /// Returns an error if the objective is invalid, shapes differ, or a required input is missing.
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
        let mut prompt_tokens = self.compares_prompts().then(BTreeMap::<usize, usize>::new);
        for input in micro_batches {
            input.check_shapes()?;
            let width = input.mask.dims()[1];
            let columns = Columns::of(&input.mask)?;
            let mut places = columns.places();
            if let Some(correction) = correction {
                let [policy, sampler] = compared(correction, input, &columns)?;
                let log_probs = RolloutLogProbs::new(&policy, &sampler)?;
                if let Some(config) = normalized {
                    weights.add(WeightSum::of(&config, log_probs));
                }
                let kept = correction.kept(log_probs);
                let kept: Vec<bool> = kept.values().map(|kept| kept != 0.0).collect();
                let mut kept = kept.into_iter();
                places.retain(|_| kept.next().unwrap_or(false));
            }
            for row in places.chunk_by(|a, b| a / width == b / width) {
                counts.tokens += row.len();
                counts.sequences += 1;
                if let Some(totals) = &mut prompt_tokens {
                    let Some(prompts) = &input.prompts else {
                        return Err(missing("prompts", PROMPT_MEAN));
                    };
                    *totals.entry(prompts[row[0] / width]).or_default() += row.len();
                }
            }
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
        let mut denominators = Denominators::from(counts);
        if let Some(totals) = &prompt_tokens {
            denominators.prompts = totals.len() as f64;
        }
        let mut statistics = StepStatistics {
            prompt_tokens,
            ..StepStatistics::new(denominators)
        };
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

/// The columns of the trained tokens in each row of a `[B, T]` batch.
pub(super) struct Columns {
    rows: Vec<Vec<usize>>,
    width: usize,
}

impl Columns {
    /// Returns the columns where `mask` is not 0.
    pub(super) fn of(mask: &Tensor<2>) -> Result<Self> {
        let width = mask.dims()[1];
        let flat = host::floats(mask.clone().inner(), "mask")?;
        let row = |row: &[f32]| (0..width).filter(|&t| row[t] != 0.0).collect();
        let rows = flat.chunks(width.max(1)).map(row).collect();
        Ok(Self { rows, width })
    }

    /// Returns the tokens as indices into the flattened batch.
    fn places(&self) -> Vec<usize> {
        let rows = self.rows.iter().enumerate();
        rows.flat_map(|(b, row)| row.iter().map(move |t| b * self.width + t))
            .collect()
    }

    /// Reads the values of a `[B, T]` tensor at the tokens.
    fn read(&self, tensor: &Tensor<2>, what: &str) -> Result<PerToken> {
        let flat = host::floats(tensor.clone().inner(), what)?;
        let row = |(b, row): (usize, &Vec<usize>)| {
            let values = row.iter().map(|t| f64::from(flat[b * self.width + t]));
            values.collect()
        };
        Ok(self.rows.iter().enumerate().map(row).collect())
    }

    /// Returns `values` as a `[B, T]` tensor on the device of `like`, 0 where there is no token.
    pub(super) fn write(&self, values: &PerToken, like: &Tensor<2>) -> Tensor<2> {
        let mut flat = vec![0f32; self.rows.len() * self.width];
        for (place, value) in self.places().into_iter().zip(values.values()) {
            flat[place] = value as f32;
        }
        Tensor::from_data(TensorData::new(flat, like.dims()), &like.device())
    }
}

/// Returns the log-probs that `correction` compares: those of its numerator and those of the
/// sampler.
pub(super) fn compared(
    correction: &SamplerCorrection,
    input: &LossInput,
    columns: &Columns,
) -> Result<[PerToken; 2]> {
    let Some(sampler) = &input.sampler_log_probs else {
        return Err(missing("sampler_log_probs", "a sampler correction"));
    };
    let policy = match (correction.numerator, &input.old_log_probs) {
        (Numerator::Old, Some(old)) => old,
        _ => &input.log_probs,
    };
    Ok([
        columns.read(policy, "log-probs")?,
        columns.read(sampler, "sampler log-probs")?,
    ])
}
