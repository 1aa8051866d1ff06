//! The trainer of supervised fine-tuning.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::SftConfig;
use super::data::DemonstrationSet;
use super::supervise::Shown;
use crate::Result;
use crate::policy::{PolicyModel, require_gradients};
use crate::prompt::Tokenizer;
use crate::train::Optimizer;
use crate::train::checkpoint_folder::RunFolder;
use crate::train::observer::StepRecord;

/// Supervised fine-tuning with observers, checkpoints and resumption.
///
/// A [`step`](Self::step) is one update on the next demonstrations, whose order depends on the seed
/// and changes in each epoch. [`run`](Self::run) adds a held-out loss, checkpoints, observers and a
/// stop flag. A run that is killed and resumed from its last checkpoint ends with the same weights
/// as an uninterrupted one, bit for bit on the CPU. The loss is that of
/// [`supervise`](super::supervise()), over the tokens of responses and of the assistant's replies
/// in conversations.
///
/// ```
/// use rlvr::prelude::*;
/// use rlvr::train::{Demonstration, SftConfig, SftTrainer};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let device = burn::tensor::Device::flex().autodiff();
/// let tokenizer = CharTokenizer::new("ab", &[])?;
/// let policy = CausalConfig {
///     hidden_size: 8,
///     intermediate_size: 8,
///     ..CausalConfig::new(tokenizer.vocab_size())
/// }
/// .init(0, &device)?;
/// let shown = vec![Demonstration::new("a", "b"), Demonstration::new("ab", "a")];
/// let config = SftConfig {
///     epochs: Some(3),
///     batch_size: 2,
///     ..SftConfig::default()
/// };
/// let mut sft = SftTrainer::new(policy, tokenizer, shown, config)?;
/// while sft.steps_done() < sft.steps() {
///     let record = sft.step()?;
///     assert!(record.get("loss").is_some());
/// }
/// assert_eq!(sft.steps_done(), 3);
/// let policy = sft.into_policy();
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
#[doc(alias = "SFTTrainer")]
pub struct SftTrainer<M: PolicyModel> {
    pub(super) config: SftConfig,
    pub(super) policy: M,
    pub(super) optimizer: Optimizer,
    tokenizer: Arc<dyn Tokenizer>,
    data: Box<dyn DemonstrationSet>,
    /// The demonstrations that are not skipped.
    pub(super) kept: Vec<usize>,
    pub(super) progress: Progress,
    pub(super) run_folder: RunFolder,
    /// The cached fingerprint of the demonstrations.
    fingerprint: OnceLock<u64>,
    /// The cached description of the policy's architecture and frozen weights.
    description: OnceLock<Value>,
}

/// The progress of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Steps done.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
}

impl<M: PolicyModel> SftTrainer<M> {
    /// Creates a trainer of `policy`, which must be on an autodiff device, on `demonstrations`.
    /// Every demonstration is encoded once, on all threads, to check that it fits.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, no parameter of the policy requires gradients,
    /// there are no demonstrations, the tokenizer has more tokens than the policy, or a
    /// demonstration cannot be read or tokenised, has an empty prompt or is too long for the
    /// policy.
    pub fn new(
        policy: M,
        tokenizer: impl Tokenizer + 'static,
        demonstrations: impl DemonstrationSet + 'static,
        config: SftConfig,
    ) -> Result<Self> {
        config.validate()?;
        require_gradients(&policy, "policy")?;
        let mut trainer = Self {
            optimizer: Optimizer::new(config.optimizer)?,
            config,
            policy,
            tokenizer: Arc::new(tokenizer),
            data: Box::new(demonstrations),
            kept: Vec::new(),
            progress: Progress::default(),
            run_folder: RunFolder::default(),
            fingerprint: OnceLock::new(),
            description: OnceLock::new(),
        };
        trainer.kept = trainer.shown().check(&trainer.policy)?;
        Ok(trainer)
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            config: &self.config,
            tokenizer: self.tokenizer.as_ref(),
            data: self.data.as_ref(),
        }
    }

    /// Returns the settings.
    pub fn config(&self) -> &SftConfig {
        &self.config
    }

    /// Returns the current policy.
    pub fn policy(&self) -> &M {
        &self.policy
    }

    /// Consumes the trainer and returns the policy.
    pub fn into_policy(self) -> M {
        self.policy
    }

    /// Returns the number of demonstrations, without those skipped for their length.
    pub fn demonstrations(&self) -> usize {
        self.kept.len()
    }

    /// Returns the total number of steps.
    pub fn steps(&self) -> u64 {
        self.config.steps_of(self.kept.len())
    }

    /// Returns the number of steps done, including those before a resume.
    pub fn steps_done(&self) -> u64 {
        self.progress.steps
    }

    /// Makes one update and returns its metrics:
    ///
    /// | name | what | unit |
    /// |---|---|---|
    /// | `loss` | mean negative log-likelihood of a trained token, before the update | nats |
    /// | `grad_norm`, `learning_rate` | of the update | |
    /// | `epoch` | passes over the demonstrations so far | |
    /// | `num_tokens` | trained tokens so far | tokens |
    /// | `completions/mean_length` | trained tokens per demonstration | tokens |
    /// | `time/step`, `tokens_per_second` | duration of the step; trained tokens per second | s, 1/s |
    ///
    /// # Errors
    /// Returns an error if a demonstration cannot be read, the gradient is not finite, or all
    /// epochs are done. The policy is then unchanged.
    pub fn step(&mut self) -> Result<StepRecord> {
        let started = Instant::now();
        let shown = Shown {
            config: &self.config,
            tokenizer: self.tokenizer.as_ref(),
            data: self.data.as_ref(),
        };
        let step = self.progress.steps;
        let made = shown.update(&self.kept, step, &mut self.policy, &mut self.optimizer)?;
        self.progress.steps += 1;
        self.progress.tokens += made.tokens as u64;
        let (start, count) = self.config.batch(step, self.kept.len());
        let seen = start as f64 + count as f64;
        let seconds = started.elapsed().as_secs_f64();
        let (tokens, update) = (made.tokens as f64, made.report.update);
        let metrics = [
            ("loss", made.report.loss),
            ("grad_norm", update.grad_norm),
            ("learning_rate", update.learning_rate),
            ("epoch", seen / self.kept.len() as f64),
            ("num_tokens", self.progress.tokens as f64),
            (
                "completions/mean_length",
                tokens / made.demonstrations as f64,
            ),
            ("time/step", seconds),
            ("tokens_per_second", tokens / seconds.max(1e-9)),
        ];
        Ok(StepRecord {
            step: made.report.step,
            metrics: BTreeMap::from(metrics.map(|(name, value)| (name.to_string(), value))),
        })
    }

    /// Returns the mean negative log-likelihood of a trained token of `demonstrations`, in nats,
    /// under the current policy.
    ///
    /// # Errors
    /// Returns an error if a demonstration does not fit, as for [`new`](Self::new).
    pub fn held_out_loss(&self, demonstrations: &dyn DemonstrationSet) -> Result<f64> {
        let shown = self.held_out(demonstrations);
        let kept = shown.check(&self.policy)?;
        shown.loss(&kept, &self.policy)
    }

    pub(super) fn held_out<'a>(&'a self, data: &'a dyn DemonstrationSet) -> Shown<'a> {
        Shown {
            data,
            ..self.shown()
        }
    }

    pub(super) fn fingerprint(&self) -> Result<u64> {
        if let Some(&known) = self.fingerprint.get() {
            return Ok(known);
        }
        let fingerprint = self.data.fingerprint()?;
        Ok(*self.fingerprint.get_or_init(|| fingerprint))
    }

    pub(super) fn description(&self) -> Result<&Value> {
        if let Some(known) = self.description.get() {
            return Ok(known);
        }
        let description = self.policy.describe()?;
        Ok(self.description.get_or_init(|| description))
    }
}
