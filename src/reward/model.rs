//! Rewards from a reward model.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::setters::with_name;
use super::{Reward, RewardError, RewardInput};
use crate::policy::{TokenBatch, ValueModel};
use crate::prompt::Tokenizer;
use crate::types::FinishReason;
use crate::{Error, Result, host};

/// How many completions one forward pass reads.
const BATCH: usize = 16;

/// The text that the model reads for a completion.
type Template = dyn Fn(&RewardInput) -> String + Send + Sync;

/// The score of a reward model: its value after the last token of prompt and completion.
///
/// ```text
/// reward = V(x_1 .. x_T),   x = tokens of prompt + completion, and the stop token if the completion stopped
/// ```
///
/// The model is any [`ValueModel`], such as a [`ValueHead`](crate::policy::ValueHead) that was trained on preferences, with
/// its own tokenizer, which need not be the policy's. Completions are read in batches of 16, padded to the longest; the score
/// of a completion does not depend on the others beyond float rounding. No gradient is recorded, and one forward pass runs at
/// a time.
///
/// A reward model is unreliable on texts unlike its training data, and a policy that is trained on it learns to exploit that.
/// Compare it with a verifiable reward, give it a small weight, or put it behind a gate.
///
/// ```
/// use std::sync::Arc;
/// use rlvr::policy::ValueHead;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
/// use rlvr::reward::{ModelReward, Reward, RewardInput};
///
/// # #[cfg(feature = "flex")]
/// # fn main() -> rlvr::Result<()> {
/// let tokenizer = CharTokenizer::new("0123456789+=", &[])?;
/// let config = CausalConfig {
///     hidden_size: 16,
///     intermediate_size: 24,
///     ..CausalConfig::new(tokenizer.vocab_size())
/// };
/// let model = ValueHead::new(config.init(0, &burn::tensor::Device::flex())?);
///
/// let judge = ModelReward::new(model, Arc::new(tokenizer)).with_max_tokens(64);
/// // An untrained head gives 0.
/// assert_eq!(judge.score(&RewardInput::new("2+2=", "4", "4")).unwrap(), Some(0.0));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// Scoring fails if the tokenizer cannot encode the text, if there is nothing to read, or if it is longer than
/// [`with_max_tokens`](Self::with_max_tokens); each on its own rollout. A forward pass that fails, fails for its whole batch.
/// Use a tokenizer that encodes every text: otherwise the policy can write completions that are excluded from training.
pub struct ModelReward<V: ValueModel> {
    name: String,
    model: Mutex<V>,
    tokenizer: Arc<dyn Tokenizer>,
    template: Box<Template>,
    batch: usize,
    max_tokens: Option<usize>,
}

impl<V: ValueModel> ModelReward<V> {
    /// The reward called `model`, which reads the prompt and the completion as they are.
    pub fn new(model: V, tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self {
            name: "model".into(),
            model: Mutex::new(model.valid()),
            tokenizer,
            template: Box::new(|input| [input.prompt(), input.completion()].concat()),
            batch: BATCH,
            max_tokens: None,
        }
    }

    with_name!();

    /// The same reward with another text for the model to read, such as the chat format that it was trained on.
    #[must_use]
    pub fn with_template(
        mut self,
        template: impl Fn(&RewardInput) -> String + Send + Sync + 'static,
    ) -> Self {
        self.template = Box::new(template);
        self
    }

    /// How many completions one forward pass reads, at least 1. Default 16.
    #[must_use]
    pub fn with_batch(mut self, completions: usize) -> Self {
        self.batch = completions;
        self
    }

    /// The most tokens that the model reads, prompt and completion together, at least 1. Default: what the model accepts.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    fn tokens(&self, input: &RewardInput) -> Result<Vec<u32>, RewardError> {
        let mut tokens = self.tokenizer.encode(&(self.template)(input))?;
        if input.rollout.finish == FinishReason::Stop {
            tokens.extend(self.tokenizer.stop_tokens().first());
        }
        let most = self.max_tokens.unwrap_or(usize::MAX);
        match tokens.len() {
            0 => Err("prompt and completion are empty; the model has nothing to read".into()),
            length if length > most => {
                let message = format!("{length} tokens; the model reads at most {most}");
                Err(message.into())
            }
            _ => Ok(tokens),
        }
    }

    /// The value after the last token of each row.
    fn values(&self, rows: &[Vec<u32>]) -> Result<Vec<f64>> {
        // A panic inside of a forward leaves the parameters as they were.
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = TokenBatch::from_rows(rows, &model.device())?;
        let width = batch.width();
        let values = host::floats(model.values(&batch.into())?, "the reward model's values")?;
        let last = |(values, row): (&[f32], &Vec<u32>)| f64::from(values[row.len() - 1]);
        Ok(values.chunks_exact(width).zip(rows).map(last).collect())
    }
}

fn at_least_one(field: &str, value: usize) -> Result<()> {
    match value {
        0 => Err(Error::config(field, 0, "1 or more")),
        _ => Ok(()),
    }
}

impl<V: ValueModel + 'static> Reward for ModelReward<V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, input: &RewardInput) -> Result<Option<f64>, RewardError> {
        Ok(self.values(&[self.tokens(input)?])?.first().copied())
    }

    fn score_batch(&self, inputs: &[&RewardInput]) -> Vec<Result<Option<f64>, RewardError>> {
        let mut tokens: Vec<_> = inputs.iter().map(|input| self.tokens(input)).collect();
        // What cannot be read is not read, and does not keep the others from it.
        let mut rows = Vec::with_capacity(tokens.len());
        rows.extend(tokens.iter_mut().flatten().map(std::mem::take));
        let values = match rows.is_empty() {
            true => Ok(Vec::new()),
            false => self.values(&rows).map_err(|error| error.to_string()),
        };
        let mut place = 0;
        let mut next = || {
            let value = values
                .as_ref()
                .map_err(|message| message.as_str())?
                .get(place);
            place += 1;
            Ok(value.copied())
        };
        tokens
            .into_iter()
            .map(|row| row.and_then(|_| next()))
            .collect()
    }

    fn batch_size(&self) -> usize {
        self.batch
    }

    fn validate(&self) -> Result<()> {
        at_least_one("batch", self.batch)?;
        self.max_tokens
            .map_or(Ok(()), |most| at_least_one("max_tokens", most))
    }
}

impl<V: ValueModel> fmt::Debug for ModelReward<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelReward")
            .field("name", &self.name)
            .field("batch", &self.batch)
            .field("max_tokens", &self.max_tokens)
            .finish_non_exhaustive()
    }
}
