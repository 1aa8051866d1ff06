//! What a reward may look at.

use serde_json::{Map, Value};

use crate::rollout::FinishReason;

/// One completion with what it was asked and what is known to be right.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardInput {
    /// The text the policy was given.
    pub prompt: String,
    /// The reference answer of the problem; the reward decides what counts as equal to it.
    pub answer: String,
    /// The text the policy wrote, without the stop token.
    pub completion: String,
    /// The length of the completion in tokens, as sampled: the stop token counts.
    pub tokens: usize,
    /// The tokens themselves, as sampled; empty where only the text is known. A [`RewardSet`](super::RewardSet) that scores
    /// rollouts fills them in.
    pub token_ids: Vec<u32>,
    /// Why the completion ended.
    pub finish: FinishReason,
    /// Anything else the problem carries, by name.
    pub metadata: Map<String, Value>,
}

impl RewardInput {
    /// A completion that stopped by itself, to try a reward by hand: one token per character and one to stop, no metadata.
    ///
    /// ```
    /// use rlvr::reward::RewardInput;
    ///
    /// let input = RewardInput::new("3 5=8:", "3+5", "5+3").with_metadata("target", 8);
    /// assert_eq!(input.tokens, 4);
    /// assert_eq!(input.metadata["target"], 8);
    /// ```
    pub fn new(
        prompt: impl Into<String>,
        answer: impl Into<String>,
        completion: impl Into<String>,
    ) -> Self {
        let completion = completion.into();
        Self {
            prompt: prompt.into(),
            answer: answer.into(),
            tokens: completion.chars().count() + 1,
            completion,
            token_ids: Vec::new(),
            finish: FinishReason::Stop,
            metadata: Map::new(),
        }
    }

    /// The same input with `metadata[key] = value`.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// The same input with these tokens, and their number as its length.
    ///
    /// ```
    /// use rlvr::reward::RewardInput;
    ///
    /// let input = RewardInput::new("2+2=", "4", "4").with_tokens(vec![17, 1]);
    /// assert_eq!((input.tokens, input.token_ids), (2, vec![17, 1]));
    /// ```
    #[must_use]
    pub fn with_tokens(mut self, ids: Vec<u32>) -> Self {
        self.tokens = ids.len();
        self.token_ids = ids;
        self
    }
}
