//! The settings of supervised fine-tuning.

use serde::{Deserialize, Serialize};

use crate::policy::LogProbConfig;
use crate::train::OptimizerConfig;
use crate::{Error, Result};

/// The settings of an [`SftTrainer`](super::SftTrainer) and of [`supervise`](super::supervise()).
///
/// ```
/// use rlvr::train::{Decay, OptimizerConfig, Schedule, SftConfig};
///
/// // DeepSeek-R1's supervised stages: cosine decay from 5e-5 to 5e-6, batches of 128,
/// // 2 epochs.
/// let config = SftConfig { epochs: Some(2), batch_size: 128, ..SftConfig::default() };
/// let decay = Decay::Cosine { updates: config.steps_of(800_000), floor: 0.1 };
/// let optimizer = OptimizerConfig::new(Schedule::constant(5e-5).with_decay(decay));
/// let config = SftConfig { optimizer, ..config };
/// assert_eq!(config.steps_of(800_000), 12_500);
/// ```
#[doc(alias = "SFTConfig")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// The number of updates, unless `epochs` is set. Default 250.
    pub steps: u64,
    /// The number of passes over the demonstrations, in place of `steps`; the last update may have
    /// fewer demonstrations. Default: `steps` is used.
    pub epochs: Option<u64>,
    /// Demonstrations per update. Default 64.
    pub batch_size: usize,
    /// The largest number of demonstrations, of similar lengths, in one forward pass. Affects speed
    /// and memory, and results only by rounding. Default 64.
    pub micro_batch: usize,
    /// The largest number of tokens, padding included, in one forward pass; a longer demonstration
    /// has its own. Affects speed and memory, and results only by rounding. Default: only
    /// `micro_batch` limits it.
    pub max_tokens_per_micro_batch: Option<usize>,
    /// Skips demonstrations with more tokens, prompt included. Default: none is skipped, and a
    /// demonstration that is too long for the policy is an error.
    pub skip_longer_than: Option<usize>,
    /// The number of tokens whose logits are in memory at the same time, see
    /// [`LogProbConfig::chunk`]. Affects memory, and results only by rounding. Default 1024.
    pub logit_chunk: usize,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// The seed of the order of the demonstrations. Default 0.
    pub seed: u64,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            steps: 250,
            epochs: None,
            batch_size: 64,
            micro_batch: 64,
            max_tokens_per_micro_batch: None,
            skip_longer_than: None,
            logit_chunk: LogProbConfig::default().chunk,
            optimizer: OptimizerConfig::default(),
            seed: 0,
        }
    }
}

impl SftConfig {
    /// Rejects invalid settings.
    ///
    /// # Errors
    /// Returns [`Error::Config`], which names the field, its value and what is expected.
    pub fn validate(&self) -> Result<()> {
        self.optimizer.validate()?;
        let budget = self.max_tokens_per_micro_batch;
        for (field, value) in [
            ("sft.batch_size", self.batch_size),
            ("sft.micro_batch", self.micro_batch),
            ("sft.max_tokens_per_micro_batch", budget.unwrap_or(1)),
            ("sft.skip_longer_than", self.skip_longer_than.unwrap_or(1)),
            ("sft.logit_chunk", self.logit_chunk),
            ("sft.epochs", self.epochs.unwrap_or(1) as usize),
        ] {
            if value == 0 {
                return Err(Error::config(field, value, "at least 1"));
            }
        }
        Ok(())
    }

    /// Returns the number of updates with this number of demonstrations: `steps`, or
    /// `ceil(epochs * demonstrations / batch_size)`.
    pub fn steps_of(&self, demonstrations: usize) -> u64 {
        match self.epochs {
            Some(epochs) => {
                let shown = epochs.saturating_mul(demonstrations as u64);
                shown.div_ceil(self.batch_size.max(1) as u64)
            }
            None => self.steps,
        }
    }

    /// Returns the demonstrations of step `step`, counted from 0: the first position in the endless
    /// order, and their number.
    pub(super) fn batch(&self, step: u64, demonstrations: usize) -> (u64, usize) {
        let start = step.saturating_mul(self.batch_size as u64);
        let left = match self.epochs {
            Some(epochs) => {
                let all = epochs.saturating_mul(demonstrations as u64);
                all.saturating_sub(start).try_into().unwrap_or(usize::MAX)
            }
            None => usize::MAX,
        };
        (start, left.min(self.batch_size))
    }

    pub(super) fn log_probs(&self) -> LogProbConfig {
        LogProbConfig {
            chunk: self.logit_chunk,
            ..LogProbConfig::default()
        }
    }
}
