//! The settings of a distillation.

use serde::{Deserialize, Serialize};

use crate::loss::Aggregation;
use crate::policy::{Divergence, LogProbConfig};
use crate::rollout::GenerationConfig;
use crate::train::optimizer::OptimizerConfig;
use crate::{Error, Result};

/// The settings of a [`Distiller`](super::Distiller).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillConfig {
    /// The number of updates. Default 250.
    pub steps: u64,
    /// Completions per update. Default 64.
    pub batch_size: usize,
    /// The share of the completions that the student generates, in [0, 1]; the others are
    /// demonstrations. This is `lambda` of GKD, which makes the choice at random for each batch;
    /// here every batch has this share, rounded to whole completions. Default 1.
    pub on_policy: f64,
    /// The divergence that is minimised. Default: the reverse KL over the whole vocabulary.
    pub divergence: Divergence,
    /// The temperature of both distributions in the divergence; not that of the sampler. Default 1.
    pub temperature: f64,
    /// How the divergences of tokens are averaged into the loss. Default: every token has the same
    /// weight.
    pub aggregation: Aggregation,
    /// How the student generates; a truncating sampler is allowed. Default:
    /// [`GenerationConfig::default`] with the tokenizer's stop tokens.
    pub generation: GenerationConfig,
    /// The largest number of completions in one forward pass. Affects speed and memory, and results
    /// only by rounding. Default 64.
    pub micro_batch: usize,
    /// The largest number of tokens, padding included, in one forward pass; a longer completion has
    /// its own. Affects speed and memory, and results only by rounding. Default: only `micro_batch`
    /// limits it.
    pub max_tokens_per_micro_batch: Option<usize>,
    /// The number of tokens whose logits, of student and teacher, are in memory at the same time.
    /// Affects memory, and results only by rounding. Default 1024.
    pub logit_chunk: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The seed of the order of problems and demonstrations, and of sampling. Default 0.
    pub seed: u64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        Self {
            steps: 250,
            batch_size: 64,
            on_policy: 1.0,
            divergence: Divergence::default(),
            temperature: 1.0,
            aggregation: Aggregation::TokenMean,
            generation: GenerationConfig::default(),
            micro_batch: 64,
            max_tokens_per_micro_batch: None,
            logit_chunk: LogProbConfig::default().chunk,
            optimizer: OptimizerConfig::default(),
            seed: 0,
        }
    }
}

impl DistillConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
    pub fn validate(&self) -> Result<()> {
        self.divergence.validate()?;
        self.aggregation.validate()?;
        self.generation.validate()?;
        self.optimizer.validate()?;
        for (field, value) in [
            ("batch_size", self.batch_size),
            ("micro_batch", self.micro_batch),
            ("logit_chunk", self.logit_chunk),
            (
                "max_tokens_per_micro_batch",
                self.max_tokens_per_micro_batch.unwrap_or(1),
            ),
        ] {
            if value == 0 {
                return Err(Error::config(format!("distill.{field}"), 0, "at least 1"));
            }
        }
        if !(0.0..=1.0).contains(&self.on_policy) {
            return Err(Error::config(
                "distill.on_policy",
                self.on_policy,
                "a share in [0, 1]",
            ));
        }
        if self.aggregation == Aggregation::PromptMean {
            return Err(Error::config(
                "distill.aggregation",
                "prompt_mean",
                "another aggregation: each prompt has one completion",
            ));
        }
        self.log_probs()
            .validate()
            .map_err(|error| error.within("distill"))
    }

    /// Returns how both distributions are computed.
    pub fn log_probs(&self) -> LogProbConfig {
        LogProbConfig {
            temperature: self.temperature,
            chunk: self.logit_chunk,
        }
    }

    /// Returns how many completions the student generates in the first `steps` updates.
    pub(super) fn generated(&self, steps: u64) -> u64 {
        (steps as f64 * self.batch_size as f64 * self.on_policy).floor() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_the_configured_share_rounded_to_whole_completions() {
        let config = DistillConfig {
            batch_size: 3,
            on_policy: 0.5,
            ..DistillConfig::default()
        };
        let of_step = |step| config.generated(step + 1) - config.generated(step);
        let steps: Vec<u64> = (0..4).map(of_step).collect();
        assert_eq!(steps, [1, 2, 1, 2]);
        let all = DistillConfig {
            on_policy: 1.0,
            ..config
        };
        assert_eq!(all.generated(7), 21);
    }

    #[test]
    fn invalid_settings_are_rejected() {
        let refused = |change: fn(&mut DistillConfig)| {
            let mut config = DistillConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        for (message, field) in [
            (refused(|c| c.batch_size = 0), "distill.batch_size"),
            (refused(|c| c.on_policy = 1.5), "distill.on_policy"),
            (refused(|c| c.on_policy = f64::NAN), "distill.on_policy"),
            (refused(|c| c.temperature = 0.0), "distill.temperature"),
            (
                refused(|c| c.max_tokens_per_micro_batch = Some(0)),
                "max_tokens_per_micro_batch",
            ),
            (
                refused(|c| c.aggregation = Aggregation::PromptMean),
                "prompt_mean",
            ),
            (
                refused(|c| c.divergence = Divergence::Jsd { beta: 2.0 }),
                "divergence.beta",
            ),
        ] {
            assert!(message.contains(field), "{message}");
        }
        let text = serde_json::to_string(&DistillConfig::default()).unwrap();
        let read: DistillConfig = serde_json::from_str(&text).unwrap();
        assert_eq!(read, DistillConfig::default());
        assert!(serde_json::from_str::<DistillConfig>(r#"{"lambda": 1}"#).is_err());
    }
}
