//! Rewards from a reward model.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::setters::with_name;
use super::{Reward, RewardError, RewardInput};
use crate::policy::{TokenBatch, ValueModel, values_after_last};
use crate::prompt::Tokenizer;
use crate::types::FinishReason;
use crate::{Error, Result, host};

/// The default number of completions per forward pass.
const BATCH: usize = 16;

/// The input of the reward model for a completion.
enum Form {
    /// A text.
    Text(Box<dyn Fn(&RewardInput) -> String + Send + Sync>),
    /// The prompt as a user turn and the completion as the reply.
    Conversation,
}

/// Returns the tokens that a reward model reads: those of one text, or of a turn and the reply to
/// it, and a stop token if the completion stopped.
pub(crate) fn tokens_to_score(
    tokenizer: &dyn Tokenizer,
    conversation: bool,
    prompt: &str,
    completion: &str,
    stopped: bool,
) -> Result<Vec<u32>> {
    let mut tokens = match conversation {
        true => [
            tokenizer.encode_prompt(prompt)?,
            tokenizer.encode(completion)?,
        ]
        .concat(),
        false => tokenizer.encode(&[prompt, completion].concat())?,
    };
    if stopped {
        tokens.extend(tokenizer.stop_tokens().first());
    }
    Ok(tokens)
}

/// Scores completions with a reward model: the value after the last token of prompt and completion.
///
/// ```text
/// reward = V(x_1 .. x_T)
/// x      = tokens of prompt + completion, and the stop token if the completion stopped
/// ```
///
/// The model is any [`ValueModel`], such as a [`ValueHead`](crate::policy::ValueHead) that was
/// trained on preferences ([`train_reward_model`](crate::train::train_reward_model)). It has its
/// own tokenizer, which may differ from the policy's. Completions are evaluated in batches of 16,
/// padded to the longest; the score of a completion does not depend on the others beyond float
/// rounding. Scores are detached, and one forward pass runs at a time.
///
/// A reward model is unreliable on text unlike its training data, and a policy that is trained on
/// it learns to exploit that. Compare it with a verifiable reward, give it a small weight, or put
/// it behind a gate.
///
/// ```
/// use rlvr::policy::ValueHead;
/// use rlvr::policy::causal::CausalConfig;
/// use rlvr::prompt::{CharTokenizer, Tokenizer};
/// use rlvr::reward::{ModelReward, Reward, RewardInput};
/// use std::sync::Arc;
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
/// assert_eq!(
///     judge.score(&RewardInput::new("2+2=", "4", "4")).unwrap(),
///     Some(0.0)
/// );
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "flex"))]
/// # fn main() {}
/// ```
///
/// # Errors
/// [`score`](Reward::score) returns an error if the tokenizer cannot encode the text, or if the
/// text is empty or longer than [`with_max_tokens`](Self::with_max_tokens); this affects only that
/// rollout. A failed forward pass fails its whole batch. Use a tokenizer that encodes every text:
/// otherwise the policy can write completions that are excluded from training.
pub struct ModelReward<V: ValueModel> {
    name: String,
    model: Mutex<V>,
    tokenizer: Arc<dyn Tokenizer>,
    form: Form,
    batch: usize,
    max_tokens: Option<usize>,
}

impl<V: ValueModel> ModelReward<V> {
    /// Creates the reward `model`. The model reads the prompt followed by the completion.
    pub fn new(model: V, tokenizer: Arc<dyn Tokenizer>) -> Self {
        Self {
            name: "model".into(),
            model: Mutex::new(model.valid()),
            tokenizer,
            form: Form::Text(Box::new(|input| {
                [input.prompt(), input.completion()].concat()
            })),
            batch: BATCH,
            max_tokens: None,
        }
    }

    with_name!();

    /// Sets the text that the model reads, such as the completion alone.
    #[must_use]
    pub fn with_template(
        mut self,
        template: impl Fn(&RewardInput) -> String + Send + Sync + 'static,
    ) -> Self {
        self.form = Form::Text(Box::new(template));
        self
    }

    /// Formats the input as a conversation, for a model that was trained on conversations: the
    /// prompt as a turn of the user ([`Tokenizer::encode_prompt`]) and the completion as the reply.
    #[must_use]
    pub fn with_conversation(mut self) -> Self {
        self.form = Form::Conversation;
        self
    }

    /// Sets the number of completions per forward pass, at least 1. Default: 16.
    #[must_use]
    pub fn with_batch(mut self, completions: usize) -> Self {
        self.batch = completions;
        self
    }

    /// Sets the maximum number of tokens of prompt and completion together, at least 1. Longer
    /// texts are an error. Default: no limit.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    fn tokens(&self, input: &RewardInput) -> Result<Vec<u32>, RewardError> {
        let stopped = input.rollout.finish == FinishReason::Stop;
        let read = |conversation, prompt: &str, completion| {
            tokens_to_score(&self.tokenizer, conversation, prompt, completion, stopped)
        };
        let tokens = match &self.form {
            Form::Text(template) => read(false, &template(input), "")?,
            Form::Conversation => read(true, input.prompt(), input.completion())?,
        };
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

    /// Returns the value after the last token of each row.
    fn values(&self, rows: &[Vec<u32>]) -> Result<Vec<f64>> {
        // A panic in a forward pass leaves the parameters unchanged.
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = TokenBatch::from_rows(rows, &model.device())?;
        let lengths = batch.lengths.clone();
        let scores = values_after_last(model.values(&batch.into())?, &lengths);
        let scores = host::floats(scores, "the reward model's scores")?;
        Ok(scores.into_iter().map(f64::from).collect())
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
        // Completions that cannot be encoded are left out of the batch.
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
