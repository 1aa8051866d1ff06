//! A judge that runs in this process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::Judge;
use crate::fnv::Fnv;
use crate::policy::PolicyModel;
use crate::prompt::Tokenizer;
use crate::reward::RewardError;
use crate::rollout::{Completion, GenerationConfig, GenerationRequest, generate};
use crate::types::FinishReason;
use crate::{Error, Result};

/// A [`PolicyModel`] as a judge. It answers in batches on its own device.
///
/// The prompt is the question, encoded by [`Tokenizer::encode_prompt`], which makes it a turn of
/// the user if the tokenizer is for conversations. No gradient is recorded, and one batch is
/// generated at a time.
///
/// ```
/// use rlvr::policy::PolicyModel;
/// use rlvr::prompt::Tokenizer;
/// use rlvr::reward::judge::{JudgeReward, PolicyJudge};
/// use rlvr::rollout::GenerationConfig;
/// use std::sync::Arc;
///
/// fn brief<M: PolicyModel + 'static>(
///     model: M,
///     tokenizer: Arc<dyn Tokenizer>,
/// ) -> rlvr::Result<JudgeReward<PolicyJudge<M>>> {
///     let generation = GenerationConfig {
///         max_new_tokens: 512,
///         ..GenerationConfig::default()
///     };
///     let judge = PolicyJudge::new("base model", model, tokenizer, generation)?;
///     Ok(JudgeReward::new(
///         judge,
///         "A good response is right and brief.",
///     ))
/// }
/// ```
///
/// # Errors
/// An answer is an error if the tokenizer cannot encode the question, if generation fails, or if
/// the answer was cut off at [`GenerationConfig::max_new_tokens`].
pub struct PolicyJudge<M: PolicyModel> {
    name: String,
    model: Mutex<M>,
    tokenizer: Arc<dyn Tokenizer>,
    generation: GenerationConfig,
}

impl<M: PolicyModel> PolicyJudge<M> {
    /// Creates a judge called `name` in [`describe`](Judge::describe); use another name for other
    /// weights. If `generation` has no stop tokens, those of the tokenizer end an answer.
    ///
    /// # Errors
    /// Returns [`Error::Config`] if a setting is invalid, or if there is no stop token at all.
    pub fn new(
        name: impl Into<String>,
        model: M,
        tokenizer: Arc<dyn Tokenizer>,
        mut generation: GenerationConfig,
    ) -> Result<Self> {
        if generation.stop_tokens.is_empty() {
            generation.stop_tokens = tokenizer.stop_tokens();
        }
        if generation.stop_tokens.is_empty() {
            let expected = "at least one, to end an answer";
            return Err(Error::config("generation.stop_tokens", "none", expected));
        }
        generation.validate()?;
        Ok(Self {
            name: name.into(),
            model: Mutex::new(model.valid()),
            tokenizer,
            generation,
        })
    }

    /// Generates the answers to encoded questions.
    fn generate(&self, requests: &[GenerationRequest]) -> Result<Vec<Vec<Completion>>> {
        // A panic in a forward pass leaves the parameters unchanged.
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        generate(&*model, requests, &self.generation)
    }

    fn text(&self, completion: &Completion) -> Result<String, RewardError> {
        match completion.finish {
            FinishReason::Stop => Ok(self.tokenizer.decode(&completion.tokens)?),
            _ => {
                let most = self.generation.max_new_tokens;
                Err(format!(
                    "the judge's answer was cut off at {most} tokens; raise max_new_tokens"
                )
                .into())
            }
        }
    }
}

impl<M: PolicyModel + 'static> Judge for PolicyJudge<M> {
    fn describe(&self) -> String {
        let Self {
            name, generation, ..
        } = self;
        let (sampling, most) = (&generation.sampling, generation.max_new_tokens);
        format!("{name}, {sampling:?}, {most}, {:?}", generation.stop_tokens)
    }

    fn answer(&self, question: &str, seed: u64) -> Result<String, RewardError> {
        let mut answers = self.answer_all(&[(question.to_string(), seed)]);
        let none = || Err("the judge gave no answer".into());
        answers.pop().unwrap_or_else(none)
    }

    fn answer_all(&self, questions: &[(String, u64)]) -> Vec<Result<String, RewardError>> {
        let encoded: Vec<Result<GenerationRequest, RewardError>> = questions
            .iter()
            .map(|(question, seed)| {
                let mut hash = Fnv::default();
                hash.text(question);
                let prompt = self.tokenizer.encode_prompt(question)?;
                Ok(GenerationRequest::new(prompt, 1, [*seed, hash.finish()]))
            })
            .collect();
        let requests: Vec<GenerationRequest> = encoded.iter().flatten().cloned().collect();
        let answers = match requests.is_empty() {
            true => Ok(Vec::new()),
            false => self.generate(&requests).map_err(|error| error.to_string()),
        };
        let mut place = 0;
        let mut next = || {
            let answers = answers.as_ref().map_err(|message| message.as_str())?;
            let completion = answers.get(place).and_then(|samples| samples.first());
            place += 1;
            self.text(completion.ok_or("the judge gave no answer")?)
        };
        encoded
            .into_iter()
            .map(|request| request.and_then(|_| next()))
            .collect()
    }
}

impl<M: PolicyModel> fmt::Debug for PolicyJudge<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyJudge")
            .field("name", &self.name)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
