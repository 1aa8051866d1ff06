//! The input of a reward: a completion with its problem.

use std::sync::Arc;

use serde_json::Value;

use super::RewardError;
use crate::types::{Problem, Rollout};

/// One completion together with its problem. Cloning it copies two pointers.
///
/// The methods return what most rewards read. Everything else is in the two fields, such as the
/// sampled token ids (`input.rollout.tokens`), the reason why the completion ended
/// (`input.rollout.finish`) and all metadata (`input.problem.metadata`). `input.rollout.rewards`
/// holds the records of an earlier scoring, if there was one. To read the scores of other rewards,
/// implement a [`GroupReward`](super::GroupReward).
#[derive(Clone, Debug, PartialEq)]
pub struct RewardInput {
    /// The problem that the completion answers.
    pub problem: Arc<Problem>,
    /// The sampled completion.
    pub rollout: Arc<Rollout>,
}

impl RewardInput {
    /// Creates an input from texts, for calling a reward by hand or in a test.
    ///
    /// The completion has one token per character, whose id is the code point, and then a stop
    /// token with the id 0. The log-probs are 0.
    ///
    /// ```
    /// use rlvr::reward::RewardInput;
    ///
    /// let input = RewardInput::new("3 5=8:", "3+5", "5+3").with_metadata("target", 8);
    /// assert_eq!(input.completion(), "5+3");
    /// assert_eq!(input.length(), 4);
    /// assert_eq!(input.metadata("target")?, 8);
    /// # Ok::<(), rlvr::reward::RewardError>(())
    /// ```
    pub fn new(
        prompt: impl Into<String>,
        answer: impl Into<String>,
        completion: impl Into<String>,
    ) -> Self {
        let text = completion.into();
        let tokens: Vec<u32> = text.chars().map(u32::from).chain([0]).collect();
        let log_probs = vec![0.0; tokens.len()];
        Self {
            problem: Arc::new(Problem::new(prompt, answer)),
            rollout: Arc::new(Rollout::new(tokens, log_probs, text)),
        }
    }

    /// Sets `metadata[key] = value` in the problem.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let problem = Arc::make_mut(&mut self.problem);
        problem.metadata.insert(key.into(), value.into());
        self
    }

    /// Replaces the tokens of the completion, including the stop token. The text stays the same.
    ///
    /// ```
    /// use rlvr::reward::RewardInput;
    ///
    /// let input = RewardInput::new("2+2=", "4", "4").with_tokens(vec![17, 1]);
    /// assert_eq!(input.length(), 2);
    /// assert_eq!(input.rollout.tokens, [17, 1]);
    /// ```
    #[must_use]
    pub fn with_tokens(mut self, tokens: Vec<u32>) -> Self {
        let rollout = Arc::make_mut(&mut self.rollout);
        rollout.mask.clear();
        rollout.log_probs = vec![0.0; tokens.len()];
        rollout.tokens = tokens;
        self
    }

    /// Returns the prompt.
    pub fn prompt(&self) -> &str {
        &self.problem.prompt
    }

    /// Returns the reference answer. Each reward decides what counts as equal to it.
    pub fn answer(&self) -> &str {
        &self.problem.answer
    }

    /// Returns the text of the completion, without the stop token.
    pub fn completion(&self) -> &str {
        &self.rollout.text
    }

    /// Returns the number of tokens that the policy sampled, including the stop token.
    pub fn length(&self) -> usize {
        self.rollout.trained_tokens()
    }

    /// Returns `metadata[key]` of the problem.
    ///
    /// # Errors
    /// Returns an error if the problem has no such metadata. The message lists the keys that exist.
    ///
    /// ```
    /// use rlvr::reward::RewardInput;
    ///
    /// let input = RewardInput::new("", "", "").with_metadata("tests", "..");
    /// let error = input.metadata("target").unwrap_err().to_string();
    /// assert_eq!(error, "no metadata `target`; the problem has `tests`");
    /// ```
    pub fn metadata(&self, key: &str) -> Result<&Value, RewardError> {
        let metadata = &self.problem.metadata;
        metadata.get(key).ok_or_else(|| {
            let known: Vec<String> = metadata.keys().map(|key| format!("`{key}`")).collect();
            let known = match known.is_empty() {
                true => "none".to_string(),
                false => known.join(", "),
            };
            format!("no metadata `{key}`; the problem has {known}").into()
        })
    }
}
